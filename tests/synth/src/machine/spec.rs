//! What a machine looked like: plain data, to be changed freely before it is built.

use crate::machine::Frame;
use crate::{Kernel, PageClass, Record, Regs};

/// A machine in words.
#[derive(Clone, Debug)]
pub struct MachineSpec {
    /// The kernel it ran.
    pub kernel: Kernel,
    /// Host name.
    pub nodename: String,
    /// Kernel command line.
    pub command_line: String,
    /// CPUs, all possible and online.
    pub nr_cpus: u32,
    /// The CPU on which the panic happened; `None` for a machine that was dumped alive.
    pub panic_cpu: Option<u32>,
    /// CPUs that never answered the NMI and so have no note.
    pub silent_cpus: Vec<u32>,
    /// Tasks but for the idle threads, which every CPU has.
    pub tasks: Vec<TaskSpec>,
    /// Modules in the order they were loaded.
    pub modules: Vec<ModuleSpec>,
    /// The kernel log.
    pub log: Vec<Record>,
    /// Bits of the number of records and of the bytes of text that the log has room for.
    pub log_bits: (u32, u32),
    /// RAM that the dump covers, as physical ranges, ends exclusive.
    pub ram: Vec<(u64, u64)>,
    /// The part of RAM that the kernel allocates from.
    pub heap: (u64, u64),
    /// What pages are used for, by physical address; the others are the kernel's own.
    pub pages: Vec<(u64, PageClass)>,
    /// `tainted_mask`.
    pub tainted_mask: u64,
    /// Seconds since boot.
    pub uptime_s: u64,
    /// Seconds since the epoch; also CRASHTIME.
    pub crash_time_s: u64,
    /// Functions that nothing calls, to give the symbol tables some size.
    pub nr_filler_functions: u32,
    /// Further symbols (name, type letter, address).
    pub symbols: Vec<(String, char, u64)>,
}

/// One task.
#[derive(Clone, Debug)]
pub struct TaskSpec {
    /// Thread id.
    pub pid: u32,
    /// Process id, the pid of the first thread.
    pub tgid: u32,
    /// Process id of the parent.
    pub parent: u32,
    /// Name, at most 15 bytes.
    pub comm: String,
    /// User id.
    pub uid: u32,
    /// PF_KTHREAD; no user memory, no user registers.
    pub is_kthread: bool,
    /// `__state` (or `state`).
    pub state: u64,
    /// `exit_state`; 0x20 is a zombie.
    pub exit_state: u64,
    /// The CPU that runs it, if it is running.
    pub running_on: Option<u32>,
    /// The CPU it last ran on.
    pub cpu: u32,
    /// Functions on its stack, innermost first; a module's as `module:function`.
    pub chain: Vec<String>,
    /// User registers, at the top of the stack.
    pub user: Regs,
}

impl TaskSpec {
    /// A process with a stack that ends in the system call entry.
    pub fn user(pid: u32, comm: &str) -> Self {
        Self {
            pid,
            tgid: pid,
            parent: 1,
            comm: comm.to_owned(),
            uid: 0,
            is_kthread: false,
            state: 1,
            exit_state: 0,
            running_on: None,
            cpu: 0,
            chain: Vec::new(),
            user: Regs {
                ip: 0x47_b7a0,
                cs: 0x33,
                flags: 0x202,
                sp: 0x7fff_3f2a_cbc8,
                ss: 0x2b,
                ax: (-38i64) as u64,
                ..Regs::default()
            },
        }
    }

    /// A kernel thread.
    pub fn kthread(pid: u32, comm: &str) -> Self {
        Self { is_kthread: true, parent: 2, user: Regs::default(), ..Self::user(pid, comm) }
    }

    /// The same task as a further thread of process `tgid`.
    pub fn thread_of(mut self, tgid: u32) -> Self {
        self.tgid = tgid;
        self
    }

    /// Child of process `pid`.
    pub fn child_of(mut self, pid: u32) -> Self {
        self.parent = pid;
        self
    }

    /// Run by this user.
    pub fn uid(mut self, uid: u32) -> Self {
        self.uid = uid;
        self
    }

    /// Asleep in these functions, innermost first.
    pub fn asleep(mut self, chain: &[&str]) -> Self {
        self.chain = chain.iter().map(ToString::to_string).collect();
        self
    }

    /// In this state instead of TASK_INTERRUPTIBLE.
    pub fn state(mut self, state: u64) -> Self {
        self.state = state;
        self
    }

    /// On a CPU, in these functions.
    pub fn running_on(mut self, cpu: u32, chain: &[&str]) -> Self {
        self.running_on = Some(cpu);
        self.cpu = cpu;
        self.state = 0;
        self.asleep(chain)
    }

    /// Dead, but not waited for.
    pub fn zombie(mut self) -> Self {
        self.exit_state = 0x20;
        self.state = 0x80;
        self
    }
}

/// One module.
#[derive(Clone, Debug)]
pub struct ModuleSpec {
    /// Name.
    pub name: String,
    /// 0 live, 1 coming, 2 going, 3 unformed.
    pub state: u32,
    /// Taint bits of the module.
    pub taints: u64,
    /// References by others.
    pub users: u32,
    /// Version string, if it has one.
    pub version: Option<String>,
    /// Functions with their frames.
    pub functions: Vec<(String, Frame)>,
}

impl ModuleSpec {
    /// A live module with these functions.
    pub fn new(name: &str, functions: &[(&str, Frame)]) -> Self {
        let functions = functions.iter().map(|&(name, frame)| (name.to_owned(), frame)).collect();
        Self { name: name.to_owned(), state: 0, taints: 0, users: 0, version: None, functions }
    }

    /// The same module with these taint bits (12 is O, 13 is E).
    pub fn taints(mut self, taints: u64) -> Self {
        self.taints = taints;
        self
    }

    /// The same module with a version.
    pub fn version(mut self, version: &str) -> Self {
        self.version = Some(version.to_owned());
        self
    }
}

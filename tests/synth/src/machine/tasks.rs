//! Tasks, their stacks and the lists they hang on.
//!
//! Source: `include/linux/sched.h`, `include/linux/sched/signal.h`, `arch/x86/include/asm/switch_to.h`.

use std::collections::BTreeMap;

use crate::machine::spec::TaskSpec;
use crate::machine::text::{CallState, Text};
use crate::space::{Section, Space};
use crate::{PAGE_SIZE, Regs, flags};

/// Bytes of a kernel stack.
pub(crate) const THREAD_SIZE: u64 = 0x4000;
const STACK_END_MAGIC: u64 = 0x57ac_6e9d;
const PF_KTHREAD: u64 = 0x0020_0000;
const PF_IDLE: u64 = 0x2;
const PT_REGS: u64 = 168;

/// A task that was built.
#[derive(Clone, Debug)]
pub struct Task {
    /// What was asked for.
    pub spec: TaskSpec,
    /// Address of its task_struct.
    pub address: u64,
    /// Lowest address of its stack.
    pub stack: u64,
    /// Registers to start unwinding from: those of the CPU if it is running, of the switch away from it if not.
    pub regs: Regs,
}

/// Builds tasks one after the other, then links them.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    pub all: Vec<Task>,
    /// signal_struct by process id.
    signals: BTreeMap<u32, u64>,
    mms: BTreeMap<u32, u64>,
    creds: BTreeMap<u32, u64>,
}

impl Tasks {
    /// Builds an idle thread; CPU 0's is init_task, which lies in the image with its stack.
    pub fn idle(&mut self, space: &mut Space, text: &Text, cpu: u32, is_running: bool) -> Task {
        let size = space.kernel.types.size("task_struct") as u64;
        let (address, stack) = if cpu == 0 {
            let stack = space.image(Section::Data, THREAD_SIZE, THREAD_SIZE);
            let letter = space.kernel.data_letter;
            space.symbol("init_stack", letter, stack);
            (space.variable("init_task", Section::Data, size), stack)
        } else {
            (space.alloc(size, 64), space.vmalloc(THREAD_SIZE, THREAD_SIZE))
        };
        let outer: &[&str] = if cpu == 0 {
            &["rest_init", "start_kernel", "x86_64_start_reservations", "x86_64_start_kernel"]
        } else {
            &["start_secondary"]
        };
        let inner: &[&str] =
            if is_running { &["default_idle", "default_idle_call"] } else { &["__schedule"] };
        let chain =
            [inner, &["do_idle", "cpu_startup_entry"], outer, &["secondary_startup_64_no_verify"]].concat();
        let mut spec = TaskSpec::kthread(0, &format!("swapper/{cpu}")).asleep(&chain).state(0);
        spec.cpu = cpu;
        spec.parent = 0;
        spec.running_on = is_running.then_some(cpu);
        let signal = space.alloc(space.kernel.types.size("signal_struct") as u64, 64);
        let task = self.build(space, text, spec, address, stack, signal);
        space.set(address, "task_struct.flags", PF_KTHREAD | PF_IDLE);
        let head = space.member(signal, "signal_struct.thread_head");
        let node = space.member(address, "task_struct.thread_node");
        space.link(&[head, node]);
        task
    }

    /// Builds an ordinary task.
    pub fn add(&mut self, space: &mut Space, text: &Text, spec: &TaskSpec) {
        let address = space.alloc(space.kernel.types.size("task_struct") as u64, 64);
        let stack = space.vmalloc(THREAD_SIZE, THREAD_SIZE);
        let size = space.kernel.types.size("signal_struct") as u64;
        let signal = *self.signals.entry(spec.tgid).or_insert_with(|| space.alloc(size, 64));
        let task = self.build(space, text, spec.clone(), address, stack, signal);
        self.all.push(task);
    }

    fn build(
        &mut self,
        space: &mut Space,
        text: &Text,
        spec: TaskSpec,
        address: u64,
        stack: u64,
        signal: u64,
    ) -> Task {
        let state = if space.kernel.types.has("task_struct.__state") { "__state" } else { "state" };
        space.set(address, &format!("task_struct.{state}"), spec.state);
        space.set(address, "task_struct.exit_state", spec.exit_state);
        space.set(address, "task_struct.stack", stack);
        space.set(address, "task_struct.flags", if spec.is_kthread { PF_KTHREAD } else { 0x40_0000 });
        space.set(address, "task_struct.on_cpu", u64::from(spec.running_on.is_some()));
        space.set_if_known(address, "task_struct.cpu", u64::from(spec.cpu));
        space.set_if_known(address, "task_struct.thread_info.cpu", u64::from(spec.cpu));
        space.set(address, "task_struct.prio", 120);
        space.set(address, "task_struct.pid", u64::from(spec.pid));
        space.set(address, "task_struct.tgid", u64::from(spec.tgid));
        space.set(address, "task_struct.signal", signal);
        space.set(address, "task_struct.utime", u64::from(spec.pid) * 1_000_000);
        space.set(address, "task_struct.stime", u64::from(spec.pid) * 2_000_000);
        space.set(address, "task_struct.start_time", 1_000_000_000 + u64::from(spec.pid) * 1_000_000);
        space.set(address, "task_struct.start_boottime", 1_000_000_000 + u64::from(spec.pid) * 1_000_000);
        space.set_bytes(address, "task_struct.comm", spec.comm.as_bytes());
        let cred = self.cred(space, spec.uid);
        space.set(address, "task_struct.cred", cred);
        if !spec.is_kthread && spec.exit_state == 0 {
            let mm = self.mm(space, spec.tgid);
            space.set(address, "task_struct.mm", mm);
            space.set(address, "task_struct.active_mm", mm);
        }
        space.put_u64(stack, STACK_END_MAGIC);
        let regs = self.stack(space, text, &spec, address, stack);
        Task { spec, address, stack, regs }
    }

    /// Writes the stack: user registers on top, the frames of the call chain below them, and for a task that is not
    /// running the frame of the switch.
    fn stack(&self, space: &mut Space, text: &Text, spec: &TaskSpec, address: u64, stack: u64) -> Regs {
        let top = stack + THREAD_SIZE - space.kernel.stack_padding - PT_REGS;
        space.put(top, &spec.user.pt_regs());
        let chain: Vec<&str> = spec.chain.iter().map(String::as_str).collect();
        let CallState { ip, sp, bp } = text.push_chain(space, top, &chain);
        if spec.running_on.is_none() {
            let frame = sp - 56;
            space.set(frame, "inactive_task_frame.bp", bp);
            space.set(frame, "inactive_task_frame.ret_addr", ip);
            space.set(address, "task_struct.thread.sp", frame);
        } else {
            // What was saved at the last switch; stale now.
            space.set(address, "task_struct.thread.sp", stack + 0x1000);
        }
        Regs { ip, sp, bp, cs: 0x10, ss: 0x18, flags: 0x46, ..Regs::default() }
    }

    fn cred(&mut self, space: &mut Space, uid: u32) -> u64 {
        if let Some(&cred) = self.creds.get(&uid) {
            return cred;
        }
        let cred = space.alloc(space.kernel.types.size("cred") as u64, 64);
        for member in ["uid", "gid", "suid", "sgid", "euid", "egid"] {
            space.set(cred, &format!("cred.{member}.val"), u64::from(uid));
        }
        self.creds.insert(uid, cred);
        cred
    }

    /// Returns a process's mm: its own PGD, which shares the kernel half, and one user page of text.
    fn mm(&mut self, space: &mut Space, tgid: u32) -> u64 {
        if let Some(&mm) = self.mms.get(&tgid) {
            return mm;
        }
        let mm = space.alloc(space.kernel.types.size("mm_struct") as u64, 64);
        let pgd = space.alloc(2 * PAGE_SIZE, 2 * PAGE_SIZE);
        let kernel_half = space.memory.read(space.tables.root + PAGE_SIZE / 2, PAGE_SIZE as usize / 2);
        space.put(pgd + PAGE_SIZE / 2, &kernel_half);
        space.set(mm, "mm_struct.pgd", pgd);
        space.set(mm, "mm_struct.start_code", 0x40_0000);
        space.set_if_known(mm, "mm_struct.mm_users", 1);
        self.mms.insert(tgid, mm);
        mm
    }

    /// Links everything: processes into init_task.tasks, threads into their signal_struct, children to parents.
    pub fn link(&self, space: &mut Space, init_task: u64) {
        let leaders: Vec<&Task> = self.all.iter().filter(|task| task.spec.pid == task.spec.tgid).collect();
        let of_process = |pid: u32| {
            leaders.iter().find(|task| task.spec.pid == pid).map_or(init_task, |task| task.address)
        };

        let mut nodes = vec![space.member(init_task, "task_struct.tasks")];
        nodes.extend(leaders.iter().map(|task| space.member(task.address, "task_struct.tasks")));
        space.link(&nodes);

        for (&tgid, &signal) in &self.signals {
            let threads: Vec<&Task> = self.all.iter().filter(|task| task.spec.tgid == tgid).collect();
            let mut nodes = vec![space.member(signal, "signal_struct.thread_head")];
            nodes.extend(threads.iter().map(|task| space.member(task.address, "task_struct.thread_node")));
            space.link(&nodes);
            space.set(signal, "signal_struct.nr_threads", threads.len() as u64);
            if space.kernel.types.has("task_struct.thread_group") {
                let nodes: Vec<u64> = threads
                    .iter()
                    .map(|task| space.member(task.address, "task_struct.thread_group"))
                    .collect();
                space.link(&nodes);
            }
        }
        for task in &self.all {
            let parent = of_process(task.spec.parent);
            space.set(task.address, "task_struct.real_parent", parent);
            space.set(task.address, "task_struct.parent", parent);
            space.set(task.address, "task_struct.group_leader", of_process(task.spec.tgid));
        }
        let parents = leaders.iter().map(|task| (task.spec.pid, task.address)).chain([(0, init_task)]);
        for (pid, address) in parents {
            let mut nodes = vec![space.member(address, "task_struct.children")];
            let children = leaders.iter().filter(|task| task.spec.parent == pid && task.spec.pid != pid);
            nodes.extend(children.map(|task| space.member(task.address, "task_struct.sibling")));
            space.link(&nodes);
        }
        space.set(init_task, "task_struct.real_parent", init_task);
        space.set(init_task, "task_struct.parent", init_task);
        space.set(init_task, "task_struct.group_leader", init_task);
    }

    /// Gives a running process the user page its instruction pointer points into.
    pub fn map_user_text(&self, space: &mut Space, task: &Task) {
        let Some(&mm) = self.mms.get(&task.spec.tgid) else { return };
        let pgd = space.read_u64(space.member(mm, "mm_struct.pgd"));
        let page = task.spec.user.ip & !0xfff;
        let phys = space.alloc(PAGE_SIZE, PAGE_SIZE);
        space.put(phys, &[0x0f, 0x05].repeat(PAGE_SIZE as usize / 2));
        let (pgd, phys) = (space.physical(pgd), space.physical(phys));
        space.map_user(pgd, page, phys, flags::TABLE | flags::USER);
    }
}

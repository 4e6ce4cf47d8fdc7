//! Tasks: who existed, in which state.
//!
//! Process leaders hang on `init_task.tasks`; the threads of each on `signal->thread_head`; the idle
//! tasks on no list, only in the run queues. Lists are read as they were at the crash, perhaps in
//! the middle of a change, so every walk is bounded and remembers where it has been.
//!
//! Source: include/linux/sched.h, include/linux/sched/signal.h.

use std::collections::HashSet;

use kdump_arch_x86::VirtAddr;

use crate::kernel::{Gap, Kernel};
use crate::percpu::Cpus;

/// `PF_KTHREAD`: a kernel thread.
const PF_KTHREAD: u32 = 0x0020_0000;
/// Gaps that are counted, and those that are told.
const GAPS_MAX: usize = 10_000;
const GAPS_SHOWN: usize = 8;
/// PID_MAX_LIMIT on 64 bits.
const TASKS_MAX: usize = 4 << 20;

/// One task.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Task {
    /// Its `struct task_struct`.
    pub addr: VirtAddr,
    /// Thread id.
    pub pid: u32,
    /// Thread group id: the process.
    pub tgid: u32,
    /// Process id of the parent.
    pub ppid: Option<u32>,
    /// Its name.
    pub comm: String,
    /// State as ps(1) shows it; '?' if unknown.
    pub state: char,
    /// The CPU it ran on last.
    pub cpu: Option<u32>,
    /// Whether it was executing at the crash.
    pub is_running: bool,
    /// Whether it is a kernel thread.
    pub is_kernel_thread: bool,
    /// Lowest address of its kernel stack.
    pub stack: Option<VirtAddr>,
    /// Saved stack pointer; stale for a running task.
    pub sp: Option<VirtAddr>,
    /// User id.
    pub uid: Option<u32>,
    /// Nanoseconds since boot at its start.
    pub start_ns: Option<u64>,
}

/// The tasks as they could be read.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tasks {
    /// By thread id; the idle tasks, pid 0, first.
    pub list: Vec<Task>,
    /// What of them is missing, and why.
    pub gaps: Vec<Gap>,
}

impl Tasks {
    /// The task whose `task_struct` is at `addr`.
    #[must_use]
    pub fn at(&self, addr: VirtAddr) -> Option<&Task> {
        self.list.iter().find(|t| t.addr == addr)
    }

    /// Enumerates all tasks.
    ///
    /// # Errors
    /// If not even the first can be found. What is missing later becomes a gap.
    pub fn read(k: &Kernel<'_>, cpus: Option<&Cpus>) -> Result<Self, Gap> {
        let reader = TaskReader::new(k)?;
        let init = k.symbol("init_task")?;
        let mut out = Self::default();
        let mut seen = HashSet::new();
        out.add_idle(&reader, cpus, init, &mut seen);

        let tasks_off = k.offset("task_struct", "tasks")?;
        let leaders = walk_list(
            k,
            init.wrapping_add(tasks_off),
            &|| "the task list".into(),
            &mut { TASKS_MAX },
            &mut out.gaps,
        );
        // Damage may make all leaders share one long thread list: together they get no more.
        let mut left = TASKS_MAX;
        for node in leaders {
            let leader = VirtAddr(node.0.wrapping_sub(tasks_off));
            for thread in reader.threads(leader, &mut left, &mut out.gaps) {
                if out.list.len() < TASKS_MAX && seen.insert(thread.0) {
                    match reader.read(thread) {
                        Ok(task) => out.list.push(task),
                        Err(e) => out.gap(format!("task at {thread}"), &e),
                    }
                }
            }
        }
        out.list.sort_by_key(|t| (t.pid, t.cpu));
        // One broken structure can spoil thousands of tasks; a few examples say as much.
        if let Some(more @ 1..) = out.gaps.len().checked_sub(GAPS_SHOWN) {
            out.gaps.truncate(GAPS_SHOWN);
            out.gaps.push(Gap::Other(format!("and {more} more like these")));
        }
        Ok(out)
    }

    fn add_idle(
        &mut self,
        reader: &TaskReader<'_, '_>,
        cpus: Option<&Cpus>,
        init: VirtAddr,
        seen: &mut HashSet<u64>,
    ) {
        let k = reader.k;
        let idle_of = |offset: u64| -> Result<VirtAddr, Gap> {
            let rq = k.symbol("runqueues")?.wrapping_add(k.offset("rq", "idle")?);
            Ok(k.mem.read_ptr(rq.wrapping_add(offset))?)
        };
        let online = |c: &Cpus, cpu: &u32| c.online.is_empty() || c.online.contains(cpu);
        let mut idle = vec![Ok(init)];
        idle.extend(cpus.into_iter().flat_map(|c| {
            c.possible.iter().filter(|(cpu, _)| online(c, cpu)).map(|&(_, offset)| idle_of(offset))
        }));
        for task in idle {
            match task.and_then(|at| if seen.insert(at.0) { reader.read(at).map(Some) } else { Ok(None) }) {
                Ok(task) => self.list.extend(task),
                Err(e) => self.gap("an idle task".into(), &e),
            }
        }
    }

    fn gap(&mut self, what: String, e: &Gap) {
        note(&mut self.gaps, Gap::Other(format!("{what}: {e}")));
    }
}

/// Offsets of what is read of each task, looked up once.
struct TaskReader<'k, 'd> {
    k: &'k Kernel<'d>,
    pid: u64,
    tgid: u64,
    comm: u64,
    state: Result<u64, Gap>,
    exit_state: Result<u64, Gap>,
    cpu: Result<u64, Gap>,
    on_cpu: Result<u64, Gap>,
    flags: Result<u64, Gap>,
    stack: Result<u64, Gap>,
    sp: Result<u64, Gap>,
    cred_uid: Result<(u64, u64), Gap>,
    start: Result<u64, Gap>,
    real_parent: Result<u64, Gap>,
    threads: Result<(u64, u64, u64), Gap>,
}

impl<'k, 'd> TaskReader<'k, 'd> {
    fn new(k: &'k Kernel<'d>) -> Result<Self, Gap> {
        let task = |m: &str| k.offset("task_struct", m);
        Ok(Self {
            k,
            pid: task("pid")?,
            tgid: task("tgid")?,
            comm: task("comm")?,
            // `state` was a long until 5.13; its low half is what `__state` is since 5.14.
            state: k.offset_any("task_struct", &["__state", "state"]),
            exit_state: task("exit_state"),
            // In task_struct until 5.15; thread_info is embedded at its start.
            cpu: k.offset_any("task_struct", &["thread_info.cpu", "cpu"]),
            on_cpu: task("on_cpu"),
            flags: task("flags"),
            stack: task("stack"),
            sp: task("thread.sp"),
            cred_uid: task("cred").and_then(|c| Ok((c, k.offset("cred", "uid")?))),
            start: k.offset_any("task_struct", &["start_boottime", "real_start_time", "start_time"]),
            real_parent: task("real_parent"),
            threads: (|| {
                Ok((task("signal")?, k.offset("signal_struct", "thread_head")?, task("thread_node")?))
            })(),
        })
    }

    /// The threads of a process, its leader first.
    fn threads(&self, leader: VirtAddr, left: &mut usize, gaps: &mut Vec<Gap>) -> Vec<VirtAddr> {
        let mut out = vec![leader];
        let Ok((signal, head, node)) = &self.threads else { return out };
        // A leader that is being released has no signal_struct any more.
        let Ok(signal) = self.k.mem.read_ptr(leader.wrapping_add(*signal)) else { return out };
        if signal.0 != 0 {
            let whose = || {
                let comm = self.k.mem.read_cstr(leader.wrapping_add(self.comm), 16).unwrap_or_default();
                let pid = self.k.mem.read_u32(leader.wrapping_add(self.pid)).unwrap_or(0);
                format!("the thread list of {comm} ({pid})")
            };
            let nodes = walk_list(self.k, signal.wrapping_add(*head), &whose, left, gaps);
            out.extend(nodes.map(|n| VirtAddr(n.0.wrapping_sub(*node))).filter(|t| *t != leader));
        }
        out
    }

    fn read(&self, addr: VirtAddr) -> Result<Task, Gap> {
        let mem = &self.k.mem;
        let at = |offset: u64| addr.wrapping_add(offset);
        let u32_at = |offset: &Result<u64, Gap>| mem.read_u32(at(*offset.as_ref().ok()?)).ok();
        let u64_at = |offset: &Result<u64, Gap>| mem.read_u64(at(*offset.as_ref().ok()?)).ok();
        // An int once, in 7.3 a byte beside `on_rq`: the low byte says it in both.
        let u8_at = |offset: &Result<u64, Gap>| mem.read_u8(at(*offset.as_ref().ok()?)).ok();
        let flags = u32_at(&self.flags);
        let uid = self
            .cred_uid
            .as_ref()
            .ok()
            .and_then(|(cred, uid)| mem.read_u32(mem.read_ptr(at(*cred)).ok()?.wrapping_add(*uid)).ok());
        Ok(Task {
            addr,
            pid: mem.read_u32(at(self.pid))?,
            tgid: mem.read_u32(at(self.tgid))?,
            ppid: u64_at(&self.real_parent)
                .and_then(|p| mem.read_u32(VirtAddr(p).wrapping_add(self.tgid)).ok()),
            comm: mem.read_cstr(at(self.comm), 16)?,
            state: u32_at(&self.state)
                .map_or('?', |s| state_letter(s, u32_at(&self.exit_state).unwrap_or(0))),
            cpu: u32_at(&self.cpu),
            is_running: u8_at(&self.on_cpu) == Some(1),
            is_kernel_thread: flags.is_some_and(|f| f & PF_KTHREAD != 0),
            stack: u64_at(&self.stack).map(VirtAddr),
            sp: u64_at(&self.sp).map(VirtAddr),
            uid,
            start_ns: u64_at(&self.start),
        })
    }
}

/// Keeps a gap, unless there are very many already.
pub(crate) fn note(gaps: &mut Vec<Gap>, gap: Gap) {
    if gaps.len() < GAPS_MAX {
        gaps.push(gap);
    }
}

/// Walks a `list_head` from its head: the nodes, without the head. Ends at a node seen before, at
/// one that cannot be read, and when nothing is `left` of the nodes that all lists of the kind may have
/// together; what was wrong becomes a gap.
pub(crate) fn walk_list(
    k: &Kernel<'_>,
    head: VirtAddr,
    what: &dyn Fn() -> String,
    left: &mut usize,
    gaps: &mut Vec<Gap>,
) -> impl Iterator<Item = VirtAddr> + use<> {
    let mut out = Vec::new();
    let mut seen = HashSet::new();
    let mut at = head;
    loop {
        let next = match k.mem.read_ptr(at) {
            Ok(next) => next,
            Err(source) => {
                note(
                    gaps,
                    Gap::Read { what: format!("{} breaks off after {} entries", what(), out.len()), source },
                );
                break;
            }
        };
        if next == head {
            break;
        }
        if !seen.insert(next.0) || *left == 0 {
            note(gaps, Gap::Other(format!("{} runs in a circle after {} entries", what(), out.len())));
            break;
        }
        *left -= 1;
        out.push(next);
        at = next;
    }
    out.into_iter()
}

/// The letter of ps(1).
///
/// Source: include/linux/sched.h, `task_state_index`; fs/proc/array.c.
fn state_letter(state: u32, exit_state: u32) -> char {
    const IDLE: u32 = 0x402;
    const RTLOCK_WAIT: u32 = 0x1000;
    const FROZEN: u32 = 0x8000;
    if state & IDLE == IDLE {
        return 'I';
    }
    if state & (RTLOCK_WAIT | FROZEN) != 0 {
        return 'D';
    }
    match (state | exit_state) & 0x7f {
        0 => 'R',
        // The highest bit set: 7 bits, so the logarithm is below 7.
        bits => ['S', 'D', 'T', 't', 'X', 'Z', 'P'][bits.ilog2() as usize],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_those_of_ps() {
        assert_eq!(state_letter(0, 0), 'R');
        assert_eq!(state_letter(1, 0), 'S');
        assert_eq!(state_letter(0x2002, 0), 'D');
        assert_eq!(state_letter(0x402, 0), 'I');
        assert_eq!(state_letter(0, 0x20), 'Z');
        assert_eq!(state_letter(0x80, 0x10), 'X');
        assert_eq!(state_letter(0x8000, 0), 'D');
        assert_eq!(state_letter(0x41, 0), 'P');
    }
}

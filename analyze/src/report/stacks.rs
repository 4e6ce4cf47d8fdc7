//! Stacks: unwound, named, and whose they are.

use super::convert::task_info;
use super::{FrameInfo, Inquiry, StackInfo, TaskStack, hex};
use crate::kernel::{Gap, Kernel};
use crate::modules::Module;
use crate::symbolize::Symbolizer;
use crate::tasks::Task;
use crate::unwind::{ModuleOrc, Stack, Start, Unwinder, thread_size};

impl Inquiry<'_, '_> {
    /// Stacks of the tasks with this thread id: one, except for the idle tasks, which all have 0.
    ///
    /// # Errors
    /// If there is none, or the tasks are unknown.
    pub fn task_stacks(&self, pid: u32) -> Result<Vec<TaskStack>, Gap> {
        let tasks = self.tasks.as_ref().map_err(Clone::clone)?;
        let stacks = Stacks::new(self.k, self.module_list());
        let running = self.cpus_section(&stacks).data.unwrap_or_default();
        let found: Vec<_> = tasks
            .list
            .iter()
            .filter(|t| t.pid == pid)
            .map(|task| {
                let addr = hex(task.addr);
                match running.iter().find(|c| c.task.as_ref().is_some_and(|t| t.addr == addr)) {
                    Some(cpu) => TaskStack::on_cpu(cpu.clone()),
                    None => TaskStack {
                        cpu: None,
                        panicked: false,
                        task: Some(task_info(task)),
                        stack: stacks.sleeping(task),
                        reasons: Vec::new(),
                    },
                }
            })
            .collect();
        if found.is_empty() { Err(Gap::Other(format!("no task has pid {pid}"))) } else { Ok(found) }
    }

    /// Stacks of what the CPUs ran: of the one that panicked, or of all, that one first.
    ///
    /// # Errors
    /// If the CPUs are unknown, or which of them panicked.
    pub fn cpu_stacks(&self, all: bool) -> Result<Vec<TaskStack>, Gap> {
        let section = self.cpus_section(&Stacks::new(self.k, self.module_list()));
        let list = section.data.ok_or_else(|| Gap::Other(section.reasons.join("; ")))?;
        let mut out: Vec<_> = list.into_iter().map(TaskStack::on_cpu).collect();
        out.sort_by_key(|s| (!s.panicked, s.cpu));
        if !all {
            out.retain(|s| s.panicked);
        }
        if out.is_empty() {
            return Err(Gap::Other("which CPU panicked is not recorded; -a shows all".into()));
        }
        Ok(out)
    }
}

/// Unwinding and naming together.
pub(super) struct Stacks<'k, 'd> {
    pub unwinder: Unwinder<'k>,
    symbolizer: Symbolizer<'k, 'd>,
    pub thread_size: u64,
}

impl<'k, 'd> Stacks<'k, 'd> {
    pub fn new(k: &'k Kernel<'d>, modules: &'k [Module]) -> Self {
        let orc: Vec<ModuleOrc> = modules.iter().filter_map(|m| m.orc.clone()).collect();
        Self {
            unwinder: Unwinder::new(k, orc),
            symbolizer: Symbolizer::new(k, modules),
            thread_size: thread_size(k),
        }
    }

    pub fn sleeping(&self, task: &Task) -> Option<StackInfo> {
        let stack = task.stack.map(|s| s.0..s.0.saturating_add(self.thread_size));
        Some(self.info(&self.unwinder.unwind(Start::Sleeping { sp: task.sp? }, stack, None)))
    }

    pub fn info(&self, stack: &Stack) -> StackInfo {
        let frames = stack.frames.iter().map(|f| {
            let name = self.symbolizer.name_frame(f.ip, f.lookup_ip());
            FrameInfo {
                ip: hex(f.ip),
                sp: hex(f.sp),
                trust: f.trust.to_string(),
                offset: name.as_ref().map(|n| n.offset),
                size: name.as_ref().and_then(|n| n.size),
                module: name.as_ref().and_then(|n| n.module.clone()),
                symbol: name.map(|n| n.symbol),
                interrupted: !f.is_return_address,
            }
        });
        StackInfo {
            frames: frames.collect(),
            stop: stack.stop.to_string(),
            clean: stack.stop.is_clean(),
            guessed: stack.nr_guessed,
            overflowed: stack.has_overflowed,
        }
    }
}

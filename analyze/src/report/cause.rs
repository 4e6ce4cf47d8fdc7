//! The cause and the function to blame, from the log and the stack that fits it.

use super::stacks::Stacks;
use super::{Cause, CauseInfo, CpuInfo, Inquiry, StackInfo, TaskInfo};
use crate::cause::{self, Frame, Verdict};
use crate::panic::Panic;
use crate::report::convert::task_info;

impl Inquiry<'_, '_> {
    /// What killed the kernel; `None` if the log does not say.
    pub(super) fn cause(
        &self,
        stacks: &Stacks<'_, '_>,
        panic: &Panic,
        cpus: &[CpuInfo],
    ) -> Option<CauseInfo> {
        let Verdict { cause: kind, evidence } = Cause::decide(panic)?;
        let (task, stack) = match kind {
            Cause::HungTask => self.hung_task(stacks, panic),
            Cause::HardLockup | Cause::SoftLockup => {
                let locked = cause::locked_cpu(&evidence);
                on_cpu(cpus, |cpu| locked.map_or(cpu.panicked, |locked| cpu.cpu == locked))
            }
            _ => on_cpu(cpus, |cpu| cpu.panicked),
        };
        let info = CauseInfo { kind, evidence, function: None, in_interrupt: None, task };
        Some(match stack {
            Some(stack) => info.on(&stack),
            None => info,
        })
    }

    /// The first of the tasks that were reported as hung and still are.
    fn hung_task(&self, stacks: &Stacks<'_, '_>, panic: &Panic) -> (Option<TaskInfo>, Option<StackInfo>) {
        let blocked = |pid| {
            let tasks = self.tasks.as_ref().ok()?;
            tasks.list.iter().find(|task| task.pid == pid && task.state == 'D')
        };
        let task = panic.causes.iter().filter_map(|line| cause::hung_pid(&line.text)).find_map(blocked);
        (task.map(task_info), task.and_then(|task| stacks.sleeping(task)))
    }
}

impl CauseInfo {
    /// Finds the function on the stack.
    fn on(mut self, stack: &StackInfo) -> Self {
        let frames: Vec<_> = stack
            .frames
            .iter()
            .map(|f| Frame { symbol: f.symbol.as_deref(), is_interrupted: f.interrupted })
            .collect();
        if let Some(at) = cause::blame(self.kind, &frames) {
            let in_interrupt = cause::is_in_interrupt(&frames, at);
            if self.kind == Cause::Panic && in_interrupt {
                self.kind = Cause::PanicInInterrupt;
            }
            self.in_interrupt = Some(in_interrupt);
            self.function = stack.frames.get(at).cloned();
        }
        self
    }
}

fn on_cpu(cpus: &[CpuInfo], is_it: impl Fn(&CpuInfo) -> bool) -> (Option<TaskInfo>, Option<StackInfo>) {
    let cpu = cpus.iter().find(|cpu| is_it(cpu));
    (cpu.and_then(|cpu| cpu.task.clone()), cpu.and_then(|cpu| cpu.stack.clone()))
}

//! Unwinding: from saved registers to the functions that were active, with how far to believe each.
//!
//! A ladder of three ways: the kernel's ORC tables, frame pointers, a checked scan of the stack. For
//! each frame the best way that gives a caller wins, and the frame says which it was. What any way
//! finds is held to the same rules: the stack pointer moves outwards, from one stack to the next
//! only where the kernel can have switched, and a return address is in text.
//!
//! Return addresses that tracers replaced (function graph, kretprobes) are put back from their books.
//! One that is not found there appears as the tracer's trampoline; what follows it is found by scan
//! and says so.
//!
//! Key types: [`Unwinder`], [`Start`], [`Stack`]. Names of addresses are not looked up here.

mod frame;
mod ftrace;
mod orc;
mod rungs;
mod stack;
mod step;
mod tables;
mod text;
mod trampoline;
mod walk;

use std::cell::RefCell;
use std::ops::Range;

use kdump_arch_x86::VirtAddr;
use kdump_arch_x86::regs::PtRegs;

use crate::kernel::{Gap, Kernel};

pub use frame::{Frame, Stack, Stop, Trust, Why};
pub use stack::{Kind as StackKind, thread_size};
pub use tables::ModuleOrc;

use stack::{Area, Areas, Kind};
use tables::Tables;
use text::Text;
use trampoline::Tracers;
use walk::Ladder;

/// Where an unwind begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    /// Saved registers: a crash note's, say.
    Regs(PtRegs),
    /// A task that does not run: its saved stack pointer, `thread.sp`.
    Sleeping {
        /// Address of its `struct inactive_task_frame`.
        sp: VirtAddr,
    },
}

/// Unwinds stacks of one dump.
pub struct Unwinder<'k> {
    kernel: &'k Kernel<'k>,
    ladder: Ladder<'k>,
    gaps: RefCell<Vec<Gap>>,
}

impl<'k> Unwinder<'k> {
    /// Reads the ORC tables of the kernel image; a module's are read when first needed. Without
    /// tables the lower rungs are used: [`Unwinder::gaps`] says so if the tables should be there.
    #[must_use]
    pub fn new(kernel: &'k Kernel<'k>, modules: Vec<ModuleOrc>) -> Self {
        let mut gaps = Vec::new();
        let range = |start, end| match (kernel.symbol(start), kernel.symbol(end)) {
            (Ok(start), Ok(end)) => Some(start.0..end.0),
            _ => None,
        };
        let image = range("_stext", "_etext").unwrap_or_else(|| {
            gaps.push(Gap::Symbol("_stext or _etext".into()));
            0..0
        });
        let init = range("_sinittext", "_einittext").unwrap_or(0..0);
        let ranges = modules.iter().map(|m| m.text.clone()).collect();
        let text = Text::new(image, init, ranges, kernel.mem.space().image_size);
        let tables = Tables::from_dump(kernel, modules, &mut gaps).unwrap_or_else(|gap| {
            gaps.push(gap);
            None
        });
        let address = |name| kernel.symbol(name).ok().map(|a| a.0);
        let ladder = Ladder {
            mem: &kernel.mem,
            text,
            tables,
            fork: address("ret_from_fork_asm").or_else(|| address("ret_from_fork")),
            tracers: Tracers::from_dump(kernel),
            function: Box::new(|ip| {
                let (symbol, offset) = kernel.symbols.lookup(VirtAddr(ip))?;
                match symbol.name.strip_suffix(".cold") {
                    Some(hot) => kernel.symbols.address(hot).map(|a| a.0),
                    None => Some(ip.wrapping_sub(offset)),
                }
            }),
        };
        Self { kernel, ladder, gaps: RefCell::new(gaps) }
    }

    /// What could not be had so far and makes unwinding worse.
    #[must_use]
    pub fn gaps(&self) -> Vec<Gap> {
        self.gaps.borrow().clone()
    }

    /// In words, what the first rung works with.
    #[must_use]
    pub fn describe(&self) -> String {
        match &self.ladder.tables {
            Some(t) => format!("ORC {:?}, {} entries", t.format(), t.nr_entries()),
            None => "no ORC tables: frame pointers".into(),
        }
    }

    /// Unwinds one stack. `task_stack` is that of the task; if it is not given, that of the task
    /// running on `cpu`. `cpu` is given for running tasks only: its interrupt and exception stacks
    /// may then be part of the way.
    #[must_use]
    pub fn unwind(&self, start: Start, task_stack: Option<Range<u64>>, cpu: Option<u32>) -> Stack {
        let task = cpu.and_then(|cpu| self.or_note(stack::read_current_task(self.kernel, cpu)));
        let task_stack = task_stack.or_else(|| self.or_note(stack::read_task_stack(self.kernel, task?)));
        self.unwind_on(start, task, task_stack, cpu)
    }

    /// Unwinds the stack of `task`, a `struct task_struct`. Prefer it for tasks that do not run: what
    /// tracers did to their stacks can then be undone.
    #[must_use]
    pub fn unwind_task(&self, task: VirtAddr, start: Start, cpu: Option<u32>) -> Stack {
        let task_stack = self.or_note(stack::read_task_stack(self.kernel, task));
        self.unwind_on(start, Some(task), task_stack, cpu)
    }

    fn unwind_on(
        &self,
        start: Start,
        task: Option<VirtAddr>,
        task_stack: Option<Range<u64>>,
        cpu: Option<u32>,
    ) -> Stack {
        let mut areas = Vec::new();
        areas.extend(task_stack.map(|range| Area { kind: Kind::Task, range }));
        if let Some(cpu) = cpu {
            let mut gaps = Vec::new();
            areas.extend(stack::read_cpu_areas(self.kernel, cpu, &mut gaps));
            gaps.into_iter().for_each(|gap| self.note(gap));
        }
        let mut areas = Areas(areas);
        let sp = match &start {
            Start::Regs(regs) => regs.sp.get(),
            Start::Sleeping { sp } => sp.0,
        };
        if areas.of_sp(sp).is_none() && !areas.0.iter().any(|a| a.kind == Kind::Task) {
            // Task stacks are aligned to their size.
            let size = thread_size(self.kernel);
            let start = sp & !(size - 1);
            areas.0.push(Area { kind: Kind::Task, range: start..start.saturating_add(size) });
        }
        self.ladder.unwind(start, &areas, task)
    }

    fn or_note<T>(&self, result: Result<T, Gap>) -> Option<T> {
        result.map_err(|gap| self.note(gap)).ok()
    }

    fn note(&self, gap: Gap) {
        let mut gaps = self.gaps.borrow_mut();
        if !gaps.contains(&gap) {
            gaps.push(gap);
        }
    }
}

/// An address space for tests without page tables: kernel image at physical 0, direct map where 4-level
/// kernels without KASLR have it.
#[cfg(test)]
const TEST_SPACE: kdump_vmcore::AddressSpace = kdump_vmcore::AddressSpace {
    mode: kdump_arch_x86::paging::Mode::FourLevel,
    root: kdump_arch_x86::PhysAddr(0),
    phys_base: 0,
    image_size: 1 << 30,
    page_offset_base: Some(VirtAddr(0xffff_8880_0000_0000)),
    max_phys: kdump_arch_x86::PhysAddr(1 << 30),
    sme_mask: 0,
};

#[cfg(test)]
mod tests;

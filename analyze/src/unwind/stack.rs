//! Stack areas: where the kernel's stacks lie, of which kind each is, and which may follow which.
//!
//! Source: arch/x86/kernel/dumpstack_64.c, `get_stack_info_noinstr`; asm/cpu_entry_area.h;
//! arch/x86/kernel/irq_64.c.

use std::fmt;
use std::ops::Range;

use kdump_arch_x86::{PAGE_SIZE, VirtAddr};

use crate::kernel::{Gap, Kernel};

/// Kinds of stacks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Kind {
    /// A task's own.
    Task,
    /// Interrupts and softirqs of a CPU.
    Irq,
    /// #DF.
    DoubleFault,
    /// Non-maskable interrupt.
    Nmi,
    /// #DB.
    Debug,
    /// #MC.
    MachineCheck,
    /// #VC of encrypted guests, and its fallback.
    Vmm,
    /// The trampoline stack that entries from user mode begin on.
    Entry,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Task => "task",
            Self::Irq => "IRQ",
            Self::DoubleFault => "#DF",
            Self::Nmi => "NMI",
            Self::Debug => "#DB",
            Self::MachineCheck => "#MC",
            Self::Vmm => "#VC",
            Self::Entry => "entry",
        })
    }
}

impl Kind {
    /// Whether what runs on a stack of kind `self` can have interrupted, or been called from, what
    /// ran on `outer`.
    ///
    /// Interrupts switch stacks only from a task's; exceptions with a stack of their own can strike
    /// anywhere; nothing comes back to the entry stack except from them.
    #[must_use]
    pub const fn may_leave_to(self, outer: Self) -> bool {
        match self {
            Self::Task | Self::Entry => false,
            Self::Irq => matches!(outer, Self::Task),
            Self::DoubleFault | Self::Nmi | Self::Debug | Self::MachineCheck | Self::Vmm => true,
        }
    }
}

/// One stack.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Area {
    /// What it is.
    pub kind: Kind,
    /// Its bytes.
    pub range: Range<u64>,
}

impl Area {
    /// Whether a stack pointer has run into the page below this task's stack.
    #[must_use]
    pub fn has_overflowed(&self, sp: u64) -> bool {
        self.kind == Kind::Task
            && (self.range.start.saturating_sub(PAGE_SIZE)..self.range.start).contains(&sp)
    }
}

/// The stacks that one unwind may meet: a task's and those of a CPU.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Areas(pub Vec<Area>);

impl Areas {
    /// Index of the stack that a stack pointer is on. The end counts: it is where the stack pointer
    /// of an empty stack is. So does the guard page below a task's: it is where an overflow ends.
    #[must_use]
    pub fn of_sp(&self, sp: u64) -> Option<usize> {
        let holds = |a: &Area| a.range.contains(&sp);
        let position = |test: &dyn Fn(&Area) -> bool| self.0.iter().position(test);
        position(&holds)
            .or_else(|| position(&|a| a.range.end == sp))
            .or_else(|| position(&|a| a.has_overflowed(sp)))
    }

    /// Index of the stack that holds all of `[at, at + len)`.
    #[must_use]
    pub fn of_bytes(&self, at: u64, len: u64) -> Option<usize> {
        let end = at.checked_add(len)?;
        self.0.iter().position(|a| a.range.start <= at && end <= a.range.end)
    }
}

/// Address of a per-CPU variable on `cpu`.
pub fn per_cpu(kernel: &Kernel<'_>, symbol: &str, cpu: u32) -> Result<VirtAddr, Gap> {
    let offsets = kernel.symbol("__per_cpu_offset")?;
    let offset = kernel.mem.read_u64(offsets.wrapping_add(u64::from(cpu) * 8))?;
    Ok(kernel.symbol(symbol)?.wrapping_add(offset))
}

/// Bytes of a task stack: 16 KiB, 32 KiB with KASAN. The linker script reserves one for the first
/// task, whose symbols were renamed in 6.10.
///
/// Source: include/asm-generic/vmlinux.lds.h, `INIT_TASK_DATA`.
#[must_use]
pub fn thread_size(kernel: &Kernel<'_>) -> u64 {
    let between = |start, end| Some(kernel.symbol(end).ok()?.0.wrapping_sub(kernel.symbol(start).ok()?.0));
    between("__start_init_stack", "__end_init_stack")
        .or_else(|| between("__start_init_task", "__end_init_task"))
        // A hostile size must not make any stack cover much.
        .filter(|size| size.is_power_of_two() && (PAGE_SIZE..=1 << 17).contains(size))
        .unwrap_or(16 << 10)
}

/// The task that runs on `cpu`.
pub fn read_current_task(kernel: &Kernel<'_>, cpu: u32) -> Result<VirtAddr, Gap> {
    // In 6.2 to 6.14 `current_task` lives in `pcpu_hot`.
    let current = match kernel.offset("pcpu_hot", "current_task") {
        Ok(offset) => per_cpu(kernel, "pcpu_hot", cpu)?.wrapping_add(offset),
        Err(_) => per_cpu(kernel, "current_task", cpu)?,
    };
    Ok(kernel.mem.read_ptr(current)?)
}

/// The stack of a task; it begins at 0 if it has been freed.
pub fn read_task_stack(kernel: &Kernel<'_>, task: VirtAddr) -> Result<Range<u64>, Gap> {
    let start = kernel.mem.read_u64(task.wrapping_add(kernel.offset("task_struct", "stack")?))?;
    Ok(start..start.saturating_add(thread_size(kernel)))
}

/// All stacks that belong to `cpu`. What cannot be found is left out, with a gap.
pub fn read_cpu_areas(kernel: &Kernel<'_>, cpu: u32, gaps: &mut Vec<Gap>) -> Vec<Area> {
    let mut areas = Vec::new();
    match read_irq_area(kernel, cpu) {
        Ok(area) => areas.push(area),
        Err(gap) => gaps.push(gap),
    }
    match read_exception_areas(kernel, cpu) {
        Ok(found) => areas.extend(found),
        Err(gap) => gaps.push(gap),
    }
    areas
}

fn read_irq_area(kernel: &Kernel<'_>, cpu: u32) -> Result<Area, Gap> {
    let at = match kernel.offset("pcpu_hot", "hardirq_stack_ptr") {
        Ok(offset) => per_cpu(kernel, "pcpu_hot", cpu)?.wrapping_add(offset),
        Err(_) => per_cpu(kernel, "hardirq_stack_ptr", cpu)?,
    };
    // 5.10 keeps the top of the stack, later kernels the word below it.
    let top = kernel.mem.read_ptr(at)?.page_up().filter(|t| t.0 != 0);
    let top = top.ok_or_else(|| Gap::Other(format!("CPU {cpu} has no IRQ stack")))?.0;
    let size = kernel.size("irq_stack").ok().filter(|s| (1 << 12..=1 << 17).contains(s));
    Ok(Area { kind: Kind::Irq, range: top.saturating_sub(size.unwrap_or(16 << 10))..top })
}

fn read_exception_areas(kernel: &Kernel<'_>, cpu: u32) -> Result<Vec<Area>, Gap> {
    const STACKS: [(Kind, &str); 6] = [
        (Kind::DoubleFault, "DF_stack"),
        (Kind::Nmi, "NMI_stack"),
        (Kind::Debug, "DB_stack"),
        (Kind::MachineCheck, "MCE_stack"),
        (Kind::Vmm, "VC_stack"),
        (Kind::Vmm, "VC2_stack"),
    ];
    let holder = "cea_exception_stacks";
    let base = kernel.mem.read_ptr(per_cpu(kernel, holder, cpu)?)?;
    if base.0 == 0 {
        return Err(Gap::Other(format!("CPU {cpu} has no exception stacks")));
    }
    // Every stack lies between two guard pages and all have one size.
    let size = kernel.offset(holder, "NMI_stack_guard")?.saturating_sub(kernel.offset(holder, "DF_stack")?);
    if !(PAGE_SIZE..=1 << 16).contains(&size) {
        return Err(Gap::Other(format!("exception stacks of {size} bytes cannot be")));
    }
    let area = |kind, at: VirtAddr, size| Area { kind, range: at.0..at.0.saturating_add(size) };
    let mut areas: Vec<_> = STACKS
        .iter()
        .filter_map(|&(kind, member)| {
            Some(area(kind, base.wrapping_add(kernel.offset(holder, member).ok()?), size))
        })
        .collect();
    if let (Ok(estacks), Ok(entry)) =
        (kernel.offset("cpu_entry_area", "estacks"), kernel.offset("cpu_entry_area", "entry_stack_page"))
    {
        let cea = VirtAddr(base.0.wrapping_sub(estacks));
        areas.push(area(Kind::Entry, cea.wrapping_add(entry), PAGE_SIZE));
    }
    Ok(areas)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stacks_are_left_outwards_only() {
        assert!(Kind::Nmi.may_leave_to(Kind::Irq) && Kind::Irq.may_leave_to(Kind::Task));
        assert!(Kind::Debug.may_leave_to(Kind::Nmi) && Kind::Nmi.may_leave_to(Kind::Entry));
        assert!(!Kind::Task.may_leave_to(Kind::Irq) && !Kind::Irq.may_leave_to(Kind::Nmi));
        assert!(!Kind::Entry.may_leave_to(Kind::Task));
    }

    #[test]
    fn the_top_of_a_stack_belongs_to_it_unless_another_begins_there() {
        let area = |kind, range| Area { kind, range };
        let areas = Areas(vec![area(Kind::Task, 0x1000..0x2000), area(Kind::Irq, 0x2000..0x3000)]);
        assert_eq!(areas.of_sp(0x1fff), Some(0));
        assert_eq!(areas.of_sp(0x2000), Some(1));
        assert_eq!(areas.of_sp(0x3000), Some(1));
        assert_eq!((areas.of_sp(0xff8), areas.of_bytes(0xff8, 8)), (Some(0), None));
        assert_eq!(areas.of_bytes(0x1ff8, 8), Some(0));
        assert_eq!(areas.of_bytes(0x1ff9, 8), None);
        assert_eq!(areas.of_bytes(u64::MAX, 8), None);
    }
}

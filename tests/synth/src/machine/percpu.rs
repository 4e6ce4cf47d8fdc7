//! Per-CPU areas: offsets, the current task, run queues, interrupt stacks.
//!
//! Source: `arch/x86/kernel/setup_percpu.c`, `arch/x86/include/asm/current.h`.

use crate::machine::tasks::THREAD_SIZE;
use crate::space::{CPU_ENTRY_AREA, PERCPU_UNIT, Section, Space};
use crate::{CurrentTask, PercpuVariable, flags};

/// Entries of `__per_cpu_offset` (CONFIG_NR_CPUS is larger; readers must stop at the possible CPUs).
const NR_CPUS: u64 = 64;

/// Where each CPU's copies lie.
#[derive(Clone, Debug)]
pub(crate) struct Percpu {
    /// `__per_cpu_offset[cpu]`.
    pub offsets: Vec<u64>,
    /// Base of the dynamic room for crash notes.
    pub crash_notes: u64,
}

impl Percpu {
    /// Lays out the section and the areas.
    pub fn build(space: &mut Space, nr_cpus: u32) -> Self {
        let types = &space.kernel.types;
        let (rq, hot) =
            (types.size("rq") as u64, types.has("pcpu_hot.current_task").then(|| types.size("pcpu_hot")));
        let start = space.percpu_start();
        let kind = if space.kernel.is_percpu_in_image { 'D' } else { 'A' };
        space.symbol("__per_cpu_start", kind, start);
        if !space.kernel.is_percpu_in_image {
            space.percpu_variable("fixed_percpu_data", 0x30, 64);
        }
        space.percpu_variable("this_cpu_off", 8, 8);
        match (space.kernel.current_task, hot) {
            (CurrentTask::PcpuHot, Some(size)) => _ = space.percpu_variable("pcpu_hot", size as u64, 64),
            _ => {
                let address = space.percpu_variable("current_task", 8, 8);
                if space.kernel.is_percpu_in_image {
                    space.symbol("const_current_task", kind, address);
                }
                space.percpu_variable("cpu_number", 4, 4);
                space.percpu_variable("hardirq_stack_ptr", 8, 8);
            }
        }
        space.percpu_variable("cea_exception_stacks", 8, 8);
        space.percpu_variable("runqueues", rq, 64);
        let end = space.percpu_alloc(0, 0x1000);
        space.symbol("__per_cpu_end", kind, end);
        let crash_notes = space.percpu_alloc(368, 4);

        let offsets: Vec<u64> =
            (0..nr_cpus).map(|_| space.alloc(PERCPU_UNIT, 0x1000).wrapping_sub(start)).collect();
        let load = space.image(Section::Data, 8, 8);
        let table = space.variable("__per_cpu_offset", Section::Data, 8 * NR_CPUS);
        for cpu in 0..NR_CPUS {
            // CPUs that cannot exist keep the boot-time value, which looks like an address.
            let unused = if space.kernel.is_percpu_in_image { 0 } else { load };
            let offset = offsets.get(cpu as usize).copied().unwrap_or(unused);
            space.put_u64(table + 8 * cpu, offset);
        }
        Self { offsets, crash_notes }
    }

    /// Returns the address of a CPU's copy of a per-CPU symbol.
    pub fn address(&self, space: &Space, name: &str, cpu: u32) -> u64 {
        space.address(name).wrapping_add(self.offsets[cpu as usize])
    }

    /// Fills one CPU's area: it runs `current`, its idle thread is `idle`.
    pub fn fill(&self, space: &mut Space, cpu: u32, current: u64, current_stack: u64, idle: u64, clock: u64) {
        let offset = self.offsets[cpu as usize];
        space.put_u64(self.address(space, "this_cpu_off", cpu), offset);
        let irq_stack = space.vmalloc(THREAD_SIZE, THREAD_SIZE) + THREAD_SIZE;
        // The pointer is the top of the stack, less one word since 5.12.
        let irq_stack = if space.kernel.at_least(5, 12) { irq_stack - 8 } else { irq_stack };
        if space.kernel.current_task == CurrentTask::PcpuHot {
            let hot = self.address(space, "pcpu_hot", cpu);
            space.set(hot, "pcpu_hot.current_task", current);
            space.set(hot, "pcpu_hot.preempt_count", 0x8000_0000);
            space.set(hot, "pcpu_hot.cpu_number", u64::from(cpu));
            space.set(hot, "pcpu_hot.top_of_stack", current_stack + THREAD_SIZE);
            space.set(hot, "pcpu_hot.hardirq_stack_ptr", irq_stack);
        } else {
            space.put_u64(self.address(space, "current_task", cpu), current);
            space.put_u32(self.address(space, "cpu_number", cpu), cpu);
            space.put_u64(self.address(space, "hardirq_stack_ptr", cpu), irq_stack);
        }
        let stacks = exception_stacks(space, cpu);
        space.put_u64(self.address(space, "cea_exception_stacks", cpu), stacks);
        let rq = self.address(space, "runqueues", cpu);
        space.set(rq, "rq.nr_running", u64::from(current != idle));
        space.set(rq, "rq.curr", current);
        space.set(rq, "rq.idle", idle);
        space.set(rq, "rq.cpu", u64::from(cpu));
        space.set(rq, "rq.clock", clock);
    }

    /// Returns what BTF says about the per-CPU variables; nothing in 5.10.
    pub fn btf_variables(space: &Space) -> Vec<PercpuVariable<'static>> {
        if !space.kernel.at_least(5, 15) {
            return Vec::new();
        }
        let start = space.percpu_start();
        [
            ("this_cpu_off", "unsigned long"),
            ("pcpu_hot", "struct pcpu_hot"),
            ("current_task", "struct task_struct *"),
            ("cpu_number", "int"),
            ("hardirq_stack_ptr", "void *"),
            ("cea_exception_stacks", "struct cea_exception_stacks *"),
            ("runqueues", "struct rq"),
        ]
        .into_iter()
        .filter(|(name, _)| space.symbols.iter().any(|symbol| symbol.name == *name))
        .map(|(name, ty)| (name, ty, (space.address(name) - start) as u32))
        .collect()
    }
}

/// Maps a CPU's exception stacks, guard pages between them, and returns where they are.
///
/// Source: `arch/x86/include/asm/cpu_entry_area.h`. From 6.2 on the slot is random with KASLR: CPU n gets slot 3n + 5.
fn exception_stacks(space: &mut Space, cpu: u32) -> u64 {
    let types = &space.kernel.types;
    let is_random = space.kernel.at_least(6, 2) && space.kernel.kaslr_offset != 0;
    let slot = u64::from(if is_random { 3 * cpu + 5 } else { cpu });
    let area = CPU_ENTRY_AREA + slot * types.size("cpu_entry_area") as u64;
    let stacks = area + types.offset("cpu_entry_area.estacks") as u64;
    for stack in ["DF_stack", "NMI_stack", "DB_stack", "MCE_stack"] {
        let path = format!("cea_exception_stacks.{stack}");
        let (start, size) = (space.member(stacks, &path), space.kernel.types.member_size(&path) as u64);
        space.map_fresh(start, size, flags::KERNEL);
    }
    stacks
}

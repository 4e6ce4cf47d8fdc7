//! CPUs and per-CPU data.
//!
//! Address on a CPU = symbol + `__per_cpu_offset[cpu]`, in every version: up to 6.14 per-CPU symbols
//! are small numbers, from 6.15 ordinary kernel addresses, and the offsets fit either.
//!
//! Source: arch/x86/kernel/setup_percpu.c, include/asm-generic/percpu.h.

use kdump_arch_x86::VirtAddr;
use kdump_arch_x86::regs::ElfPrstatus;
use kdump_vmcore::notes::KernelNotes;

use crate::kernel::{Gap, Kernel};

/// The largest CONFIG_NR_CPUS there is.
const CPUS_MAX: u32 = 8192;

/// The CPUs that the kernel could have.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cpus {
    /// Number and per-CPU offset of each possible CPU, ascending.
    pub possible: Vec<(u32, u64)>,
    /// Numbers of the CPUs that were online.
    pub online: Vec<u32>,
}

impl Cpus {
    /// Reads the masks and offsets.
    ///
    /// # Errors
    /// If `__per_cpu_offset` or the mask of possible CPUs cannot be read.
    pub fn read(k: &Kernel<'_>) -> Result<Self, Gap> {
        let offsets = k.symbol("__per_cpu_offset")?;
        let nr =
            k.symbol("nr_cpu_ids").and_then(|at| Ok(k.mem.read_u32(at)?)).unwrap_or(64).clamp(1, CPUS_MAX);
        let possible = read_mask(k, "__cpu_possible_mask", nr)?;
        let online = read_mask(k, "__cpu_online_mask", nr).unwrap_or_default();
        let possible = possible
            .into_iter()
            .map(|cpu| Ok((cpu, k.mem.read_u64(offsets.wrapping_add(u64::from(cpu) * 8))?)))
            .collect::<Result<_, Gap>>()?;
        Ok(Self { possible, online })
    }

    /// Per-CPU offset of a CPU.
    #[must_use]
    pub fn offset(&self, cpu: u32) -> Option<u64> {
        self.possible.iter().find(|p| p.0 == cpu).map(|p| p.1)
    }

    /// The task a CPU was running.
    ///
    /// # Errors
    /// If no way that a kernel version has leads to it.
    pub fn current_task(&self, k: &Kernel<'_>, cpu: u32) -> Result<VirtAddr, Gap> {
        let offset = self.offset(cpu).ok_or_else(|| Gap::Other(format!("CPU {cpu} has no per-CPU area")))?;
        // 6.2 to 6.14: struct pcpu_hot; before and after: a variable of its own.
        let at = if let Ok(hot) = k.symbol("pcpu_hot") {
            hot.wrapping_add(k.offset("pcpu_hot", "current_task")?)
        } else {
            match k.symbol("current_task") {
                Ok(at) => at,
                Err(_) => k.symbol("runqueues")?.wrapping_add(k.offset("rq", "curr")?),
            }
        };
        Ok(k.mem.read_ptr(at.wrapping_add(offset))?)
    }

    /// The registers a CPU saved when it was stopped; `None` if it never answered.
    ///
    /// The kernel's own note of that CPU is looked at first, since the order of the notes in the file
    /// says nothing about the number if one is missing. The file's are next: in a cut dump they are
    /// what is left, and a hypervisor's dump has no others.
    ///
    /// # Errors
    /// If `crash_notes` cannot be read, and the file's notes do not tell which CPU they belong to.
    pub fn registers(&self, k: &Kernel<'_>, cpu: u32) -> Result<Option<ElfPrstatus>, Gap> {
        let own = self.own_note(k, cpu);
        if let Ok(Some(_)) = own {
            return own;
        }
        let notes = k.dump.prstatus();
        // A note for every CPU: they are in the order of the CPUs.
        if notes.len() == self.possible.len() {
            let index = self.possible.iter().position(|p| p.0 == cpu);
            return Ok(index.and_then(|i| notes.get(i)).copied());
        }
        own
    }

    fn own_note(&self, k: &Kernel<'_>, cpu: u32) -> Result<Option<ElfPrstatus>, Gap> {
        let offset = self.offset(cpu).ok_or_else(|| Gap::Other(format!("CPU {cpu} has no per-CPU area")))?;
        let notes = k.mem.read_ptr(k.symbol("crash_notes")?)?;
        let bytes: [u8; 368] = k.mem.read_array(notes.wrapping_add(offset))?;
        Ok(KernelNotes::parse(&bytes).prstatus.first().copied())
    }
}

fn read_mask(k: &Kernel<'_>, name: &str, nr: u32) -> Result<Vec<u32>, Gap> {
    let at = k.symbol(name)?;
    let bytes = k.mem.read_vec(at, u64::from(nr.div_ceil(64)) * 8, CPUS_MAX as usize / 8)?;
    Ok((0..nr).filter(|cpu| bytes[*cpu as usize / 8] >> (cpu % 8) & 1 == 1).collect())
}

//! The page tables that panic path and payload run on until the payload has its own.
//!
//! Mapped are the first 2 MiB (BIOS data, EBDA, VGA text), all crashkernel memory, what the payload needs
//! elsewhere, and the ACPI tables, which compressed kernels before 5.10 read without page-fault handler, as
//! the crashed kernel's own map for kexec has them too. A console behind MMIO and the VGA window are uncached.
//!
//! Source: arch/x86/kernel/machine_kexec_64.c (`init_pgtable`, `map_acpi_tables`),
//! arch/x86/boot/compressed/acpi.c, ident_map_64.c; Documentation/arch/x86/boot.rst, "64-bit boot protocol".

use kdump_arch_x86::bootparam::E820Type;
use kdump_arch_x86::paging::identity::{self, IdentityMap, NR_ENTRIES, Roots, Table};
use kdump_arch_x86::{PAGE_SIZE, PhysAddr, PhysRange, range};
use kdump_panic_kernel::handoff::Console;

use crate::machine::Machine;

/// What lies below it is mapped: firmware's data and the VGA window, and what a 2 MiB page covers beside.
const LOW_END: u64 = 2 << 20;
/// The VGA window: device memory, whose MTRRs differ from what surrounds it.
const VGA_WINDOW: PhysRange = PhysRange::new(0xa_0000, 0xc_0000);

/// What is mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reach {
    cached: Vec<PhysRange>,
    uncached: Vec<PhysRange>,
}

impl Reach {
    /// Collects it.
    pub(super) fn new(machine: &Machine, outside: &[PhysRange], console: Console) -> Self {
        let mut cached = vec![PhysRange::new(0, LOW_END)];
        cached.extend(machine.iomem.crash_kernel());
        cached.extend(outside);
        // Useful, not indispensable: a table beyond what can be mapped is left out.
        let acpi = machine
            .iomem
            .firmware()
            .into_iter()
            .filter(|(_, kind)| matches!(*kind, E820Type::ACPI | E820Type::NVS));
        let rsdp = machine.rsdp.and_then(|at| PhysRange::from_len(at.0, RSDP_SIZE));
        cached.extend(acpi.map(|(range, _)| range).chain(rsdp).filter(|r| r.end().0 <= identity::END));

        let mut uncached = vec![VGA_WINDOW];
        uncached.extend(console.memory().and_then(|(start, len)| PhysRange::from_len(start, len)));
        Self { cached: sorted(cached), uncached: sorted(uncached) }
    }

    /// Bytes of the tables.
    pub(super) fn size(&self) -> Result<u64, identity::Error> {
        Ok(self.map().nr_tables()? as u64 * PAGE_SIZE)
    }

    /// The tables' bytes for being at `at`, and their roots.
    pub(super) fn build(&self, at: PhysAddr) -> Result<(Vec<u8>, Roots), identity::Error> {
        let mut tables: Vec<Table> = vec![[0; NR_ENTRIES]; self.map().nr_tables()?];
        let roots = self.map().build(at, &mut tables)?;
        let entries = tables.as_flattened().iter();
        Ok((entries.flat_map(|entry| entry.to_le_bytes()).collect(), roots))
    }

    fn map(&self) -> IdentityMap<'_> {
        IdentityMap { cached: &self.cached, uncached: &self.uncached }
    }
}

/// Bytes of the ACPI root pointer, version 2.
const RSDP_SIZE: u64 = 36;

fn sorted(mut ranges: Vec<PhysRange>) -> Vec<PhysRange> {
    ranges.sort_unstable();
    range::merge(ranges).collect()
}

//! All ORC tables of a kernel: the image's and, read when first needed, those of its modules.

use std::cell::OnceCell;
use std::ops::Range;

use kdump_arch_x86::VirtAddr;
use kdump_vmcore::KernelMem;

use super::ftrace::{self, Copy};
use super::orc::{ENTRY_SIZE, Entry, Format, Table};
use super::step::SpIndirect;
use super::text::{Place, Text};
use crate::kernel::{Gap, Kernel};

/// Where a module keeps its ORC table: `module.arch.orc_unwind_ip`, `.orc_unwind`, `.num_orcs`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ModuleOrc {
    /// The module's text.
    pub text: Range<u64>,
    /// Array of self-relative addresses.
    pub orc_ip: VirtAddr,
    /// Array of entries.
    pub orc: VirtAddr,
    /// Number of elements of both.
    pub num: u32,
}

/// The tables.
pub struct Tables<'a> {
    format: Format,
    /// How their SP_INDIRECT counts.
    pub indirect: SpIndirect,
    kernel: Table<'a>,
    modules: Vec<(ModuleOrc, OnceCell<Option<Table<'static>>>)>,
    /// Generated text that the image's table holds for.
    copies: Vec<Copy>,
}

impl<'a> Tables<'a> {
    /// Puts given tables together.
    #[must_use]
    pub fn new(format: Format, indirect: SpIndirect, kernel: Table<'a>, modules: Vec<ModuleOrc>) -> Self {
        Self {
            format,
            indirect,
            kernel,
            modules: modules.into_iter().map(|m| (m, OnceCell::new())).collect(),
            copies: Vec::new(),
        }
    }

    /// Reads the image's table; `None` if the kernel was built without. A format that can only be
    /// guessed though the kernel names it becomes a gap.
    ///
    /// # Errors
    /// If the table is damaged or unreadable, or its format is unknown.
    pub fn from_dump(
        kernel: &Kernel<'a>,
        modules: Vec<ModuleOrc>,
        gaps: &mut Vec<Gap>,
    ) -> Result<Option<Self>, Gap> {
        let Ok(ips) = kernel.symbol("__start_orc_unwind_ip") else { return Ok(None) };
        let entries = kernel.symbol("__start_orc_unwind")?;
        let stop = kernel.symbol("__stop_orc_unwind")?;
        let bytes = stop.0.checked_sub(entries.0).filter(|b| b % ENTRY_SIZE as u64 == 0);
        let num = bytes.ok_or_else(|| {
            Gap::Other(format!("the ORC table from {entries} to {stop} is not a whole number of entries"))
        })? / ENTRY_SIZE as u64;
        if num == 0 {
            return Ok(None);
        }
        let table = Table::read(&kernel.mem, ips, entries, num)
            .map_err(|source| Gap::Read { what: "ORC table".into(), source })?;
        let hash = read_header(kernel);
        let known = hash.as_ref().and_then(Format::from_hash);
        let format = known.or_else(|| Format::guess_from_entries(table.entries()));
        let format = format.ok_or_else(|| Gap::Other("the ORC table is in an unknown format".into()))?;
        if known.is_none()
            && let Some(hash) = hash
        {
            let hash: String = hash.iter().map(|b| format!("{b:02x}")).collect();
            gaps.push(Gap::Other(format!("the ORC format {hash} is not known; it looks like {format:?}")));
        }
        // The rewrite of IRQ stack switching that changed the meaning also brought this variable.
        let is_new = kernel.symbol("hardirq_stack_inuse").is_ok() || kernel.symbol("pcpu_hot").is_ok();
        let indirect = if is_new { SpIndirect::AfterRead } else { SpIndirect::BeforeRead };
        // A kernel without tracers, or without BTF, does without.
        let copies = ftrace::read_copies(kernel).unwrap_or_default();
        Ok(Some(Self { copies, ..Self::new(format, indirect, table, modules) }))
    }

    /// The entry that covers `ip`.
    #[must_use]
    pub fn find(&self, mem: &KernelMem<'_>, text: &Text, ip: u64) -> Option<Entry> {
        let table = match text.place(ip)? {
            Place::Kernel | Place::Init => &self.kernel,
            Place::Module(i) => {
                let (module, table) = self.modules.get(i)?;
                let read = || {
                    let table = Table::read(mem, module.orc_ip, module.orc, module.num.into());
                    table.ok().map(Table::into_owned)
                };
                table.get_or_init(read).as_ref()?
            }
            Place::Generated => {
                let copy = self.copies.iter().find(|c| c.range.contains(&ip))?;
                let original = copy.original.checked_add(ip - copy.range.start)?;
                return self.kernel.find(original, self.format);
            }
        };
        table.find(ip, self.format)
    }

    /// The encoding of the tables.
    #[must_use]
    pub const fn format(&self) -> Format {
        self.format
    }

    /// Entries in the image's table.
    #[must_use]
    pub fn nr_entries(&self) -> usize {
        self.kernel.nr_entries()
    }
}

/// The hash that names the table's format; kernels before 6.3.10 have none.
fn read_header(kernel: &Kernel<'_>) -> Option<[u8; 20]> {
    let at = kernel.symbol("__start_orc_header").or_else(|_| kernel.symbol("orc_header")).ok()?;
    kernel.mem.read_array(at).ok()
}

#[cfg(test)]
mod tests {
    use kdump_arch_x86::PhysAddr;
    use kdump_vmcore::mem::LiteralMem;

    use super::super::TEST_SPACE;
    use super::super::orc::Kind;
    use super::*;

    const IPS: u64 = 0xffff_ffff_8200_0000;
    const CALLER: u64 = IPS + 0x1000;
    const COPY: u64 = 0xffff_ffff_c020_0000;

    /// Check that a copy of entry code is looked up where the original is, and what is beside it not.
    #[test]
    fn a_copy_of_entry_code_has_the_entries_of_the_original() {
        // Two entries: at CALLER, and at CALLER + 0x20, each relative to its own place.
        let ips = [0x1000i32, 0x101c].map(i32::to_le_bytes).concat();
        let entries = vec![8, 0, 0, 0, 5, 2, 16, 0, 0, 0, 5, 2];
        let phys = LiteralMem(vec![(PhysAddr(0x200_0000), ips), (PhysAddr(0x200_0100), entries)]);
        let mem = KernelMem::new(&phys, TEST_SPACE);
        let image = Table::read(&mem, VirtAddr(IPS), VirtAddr(IPS + 0x100), 2).unwrap();
        let mut tables = Tables::new(Format::V3, SpIndirect::AfterRead, image, Vec::new());
        tables.copies = vec![Copy { range: COPY..COPY + 0x40, original: CALLER }];
        let text = Text::new(CALLER..CALLER + 0x100, 0..0, Vec::new(), 1 << 30);
        let found = |ip| tables.find(&mem, &text, ip).map(|e| (e.sp_offset, e.kind));
        assert_eq!(found(COPY + 0x1f), Some((8, Kind::Call)));
        assert_eq!(found(COPY + 0x20), Some((16, Kind::Call)));
        assert_eq!(found(COPY + 0x40), None);
        assert_eq!(found(CALLER + 0x20), Some((16, Kind::Call)));
    }
}

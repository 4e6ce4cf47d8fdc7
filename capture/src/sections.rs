//! Where the struct pages are: the memory model's sections.
//!
//! Memory is cut into sections (128 MiB on x86-64), each with an array of struct pages. A two-level
//! table, `mem_section`, says where each array is. All arrays being slices of one virtual array,
//! vmemmap, they are read a section at a time: 2 MiB that usually lie in one piece.
//!
//! Source: include/linux/mmzone.h, `struct mem_section`, `__nr_to_section`; mm/sparse.c,
//! `sparse_encode_mem_map`.

use alloc::string::ToString;
use alloc::vec::Vec;
use core::ops::RangeInclusive;

use kdump_arch_x86::{PAGE_SHIFT, PAGE_SIZE, PhysAddr, VirtAddr};
use kdump_vmcore::mem::page_pieces;
use kdump_vmcore::{AddressSpace, PhysMem, ReadError, VmcoreInfo};

use crate::classify::MissingFact;

/// The section tables of one kernel.
#[derive(Clone, Debug)]
pub struct Sections {
    space: AddressSpace,
    /// The first-level table, or with `is_flat` the only one.
    table: VirtAddr,
    is_flat: bool,
    /// Entries of the first level.
    nr_roots: u64,
    per_root: u64,
    entry_size: u64,
    map_offset: u64,
    /// Pages in a section.
    pages: u64,
    struct_size: u64,
    vmemmap: Option<u64>,
}

/// Why a section's struct pages cannot be found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SectionError {
    /// The tables cannot be read.
    #[error("mem_section cannot be read: {0}")]
    Read(#[from] ReadError),
    /// Two facts contradict each other.
    #[error("section {nr} has its struct pages at {virt:#x}, outside of vmemmap at {vmemmap:#x}")]
    NotInVmemmap {
        /// Number of the section.
        nr: u64,
        /// Where its first struct page would be.
        virt: u64,
        /// `SYMBOL(vmemmap)`.
        vmemmap: u64,
    },
}

/// `SECTION_MARKED_PRESENT` and `SECTION_HAS_MEM_MAP`.
const PRESENT_WITH_MAP: u64 = 0b11;
/// Flags below the encoded pointer: six bits by 6.15, and on x86-64 the pointer has twelve low zeros.
const FLAGS: u64 = 0xfff;

/// `SECTION_SIZE_BITS`, 27 on x86-64, and what it could grow to: a section's struct pages are read at
/// once.
const SECTION_BITS: RangeInclusive<u64> = 27..=30;

impl Sections {
    /// Collects the facts; what is missing goes to `missing`.
    pub fn new(
        info: &VmcoreInfo,
        space: AddressSpace,
        struct_size: usize,
        missing: &mut Vec<MissingFact>,
    ) -> Option<Self> {
        let mut need = |fact: &str| {
            missing.push(MissingFact {
                fact: fact.to_string(),
                effect: "struct pages cannot be found: all pages are kept",
            });
        };
        let mut fact = |value: Option<u64>, name: &str| {
            if value.is_none() {
                need(name);
            }
            value
        };
        let table = fact(info.symbol("mem_section"), "SYMBOL(mem_section)")?;
        let length = fact(info.length("mem_section"), "LENGTH(mem_section)")?;
        let in_page = |v: &u64| (8..=PAGE_SIZE).contains(v);
        let entry_size = fact(info.size("mem_section").filter(in_page), "SIZE(mem_section)")?;
        let map_offset = fact(
            info.offset("mem_section.section_mem_map")
                .filter(|at| at.checked_add(8).is_some_and(|end| end <= entry_size)),
            "OFFSET(mem_section.section_mem_map)",
        )?;
        let number = |name: &str| info.number(name).and_then(|n| u64::try_from(n).ok());
        let section_bits = fact(
            number("SECTION_SIZE_BITS").filter(|b| SECTION_BITS.contains(b)),
            "NUMBER(SECTION_SIZE_BITS)",
        )?;
        let phys_bits = fact(
            number("MAX_PHYSMEM_BITS").filter(|b| (section_bits..=60).contains(b)),
            "NUMBER(MAX_PHYSMEM_BITS)",
        )?;
        // Without SPARSEMEM_EXTREME a root holds one section, and the table is the sections themselves.
        let is_flat = length == 1 << (phys_bits - section_bits);
        Some(Self {
            space,
            table: VirtAddr(table),
            is_flat,
            nr_roots: length,
            per_root: if is_flat { 1 } else { PAGE_SIZE / entry_size },
            entry_size,
            map_offset,
            pages: 1 << (section_bits - u64::from(PAGE_SHIFT)),
            struct_size: struct_size as u64,
            vmemmap: info.symbol("vmemmap"),
        })
    }

    /// Pages in a section.
    #[must_use]
    pub const fn pages_per_section(&self) -> u64 {
        self.pages
    }

    /// Virtual address of the section's first struct page; `None` for a section without any.
    ///
    /// # Errors
    /// If the tables cannot be read, or contradict `SYMBOL(vmemmap)`.
    pub fn first_struct_page<M: PhysMem + ?Sized>(
        &self,
        mem: &M,
        nr: u64,
    ) -> Result<Option<u64>, SectionError> {
        let root = nr / self.per_root;
        if root >= self.nr_roots {
            return Ok(None);
        }
        let entry = if self.is_flat {
            self.table.wrapping_add(nr.wrapping_mul(self.entry_size))
        } else {
            match self.read_u64(mem, self.table.wrapping_add(root * 8))? {
                0 => return Ok(None),
                sections => VirtAddr(sections).wrapping_add(nr % self.per_root * self.entry_size),
            }
        };
        let word = self.read_u64(mem, entry.wrapping_add(self.map_offset))?;
        if word & PRESENT_WITH_MAP != PRESENT_WITH_MAP {
            return Ok(None);
        }
        let inside = nr.wrapping_mul(self.pages).wrapping_mul(self.struct_size);
        let virt = (word & !FLAGS).wrapping_add(inside);
        match self.vmemmap {
            Some(vmemmap) if vmemmap.wrapping_add(inside) != virt => {
                Err(SectionError::NotInVmemmap { nr, virt, vmemmap })
            }
            _ => Ok(Some(virt)),
        }
    }

    /// The `count` struct pages from `virt` on: borrowed where they lie in one piece, else collected in
    /// `buf`. Those that cannot be read are all ones, which the classifier takes for unsure.
    pub fn struct_pages<'a, M: PhysMem + ?Sized>(
        &self,
        mem: &'a M,
        virt: u64,
        count: u64,
        buf: &'a mut Vec<u8>,
    ) -> &'a [u8] {
        // At most 2^18 pages of 128 bytes: `Sections::new` and `Rules::new` bound both.
        let len = (count * self.struct_size) as usize;
        if let Ok((phys, contiguous)) = self.translate(mem, VirtAddr(virt))
            && contiguous >= len as u64
            && let Some(bytes) = mem.borrow(phys, len)
        {
            return bytes;
        }
        buf.clear();
        buf.resize(len, 0xff);
        let mut done = 0;
        while done < len {
            let here = VirtAddr(virt.wrapping_add(done as u64));
            let to_page_end = (PAGE_SIZE - here.page_offset()) as usize;
            let step = match self.translate(mem, here) {
                Ok((phys, contiguous)) => {
                    let n = usize::try_from(contiguous).unwrap_or(usize::MAX).min(len - done);
                    read_what_is_there(mem, phys, &mut buf[done..done + n]);
                    n
                }
                Err(_) => to_page_end,
            };
            done = done.saturating_add(step.max(1));
        }
        buf
    }

    fn translate<M: PhysMem + ?Sized>(&self, mem: &M, virt: VirtAddr) -> Result<(PhysAddr, u64), ReadError> {
        match self.space.linear(virt) {
            // Linear mappings are contiguous, but where they end is not asked here.
            Some(phys) => Ok((phys, PAGE_SIZE - virt.page_offset())),
            None => self.space.walk(mem, self.space.root, virt),
        }
    }

    fn read_u64<M: PhysMem + ?Sized>(&self, mem: &M, virt: VirtAddr) -> Result<u64, ReadError> {
        let (phys, _) = self.translate(mem, virt)?;
        mem.read_u64(phys)
    }
}

/// Reads as many pages as can be read, and leaves the others all ones.
fn read_what_is_there<M: PhysMem + ?Sized>(mem: &M, phys: PhysAddr, buf: &mut [u8]) {
    if mem.read(phys, buf).is_ok() {
        return;
    }
    for (at, here, n) in page_pieces(phys.0, buf.len()) {
        let piece = &mut buf[at..at + n];
        if mem.read(PhysAddr(here), piece).is_err() {
            piece.fill(0xff);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::vec;

    fn sections(offset: u64, bits: u32, missing: &mut Vec<MissingFact>) -> Option<Sections> {
        let info = VmcoreInfo::parse(
            format!(
                "SYMBOL(mem_section)=ffffffff84000000\nLENGTH(mem_section)=2048\nSIZE(mem_section)=16\n\
                 OFFSET(mem_section.section_mem_map)={offset}\nNUMBER(SECTION_SIZE_BITS)={bits}\n\
                 NUMBER(MAX_PHYSMEM_BITS)=46\nSYMBOL(init_top_pgt)=ffffffff82a10000\nNUMBER(phys_base)=0\n\
                 SYMBOL(swapper_pg_dir)=ffffffff82a10000\n"
            )
            .as_bytes(),
        );
        let space = AddressSpace::new(&info, PhysAddr(1 << 30)).unwrap();
        Sections::new(&info, space, 64, missing)
    }

    #[test]
    fn a_field_outside_of_its_struct_is_a_missing_fact() {
        assert!(sections(0, 27, &mut vec![]).is_some());
        for offset in [9, u64::MAX - 7, u64::MAX] {
            let mut missing = vec![];
            assert!(sections(offset, 27, &mut missing).is_none());
            assert_eq!(missing[0].fact, "OFFSET(mem_section.section_mem_map)");
        }
    }

    #[test]
    fn a_section_of_unbelievable_size_is_a_missing_fact() {
        assert!(sections(0, 30, &mut vec![]).is_some());
        for bits in [26, 31, 46] {
            let mut missing = vec![];
            assert!(sections(0, bits, &mut missing).is_none());
            assert_eq!(missing[0].fact, "NUMBER(SECTION_SIZE_BITS)");
        }
    }
}

//! Page tables of 4 and 5 levels, built into a [`Memory`].
//!
//! Source: Intel SDM vol. 3A §5.5; Linux `arch/x86/include/asm/pgtable_types.h`.

use crate::{Arena, Memory, PAGE_SIZE};

/// Bits of a page-table entry, by their Linux names without `_PAGE_`.
pub mod flags {
    /// Entry is valid.
    pub const PRESENT: u64 = 1 << 0;
    /// Writable.
    pub const RW: u64 = 1 << 1;
    /// Reachable from user mode.
    pub const USER: u64 = 1 << 2;
    /// Accessed.
    pub const ACCESSED: u64 = 1 << 5;
    /// Dirty.
    pub const DIRTY: u64 = 1 << 6;
    /// At PUD and PMD level: a large page. At PTE level this bit is PAT.
    pub const PSE: u64 = 1 << 7;
    /// Kept across a switch of CR3.
    pub const GLOBAL: u64 = 1 << 8;
    /// Not executable.
    pub const NX: u64 = 1 << 63;
    /// `_KERNPG_TABLE`: an entry that points at another table.
    pub const TABLE: u64 = PRESENT | RW | ACCESSED | DIRTY;
    /// `PAGE_KERNEL`: data.
    pub const KERNEL: u64 = TABLE | GLOBAL | NX;
    /// `PAGE_KERNEL_EXEC`: the image, which is not split by permission here.
    pub const KERNEL_EXEC: u64 = TABLE | GLOBAL;
}

/// What one leaf entry maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageSize {
    /// 4 KiB, a PTE.
    Size4K,
    /// 2 MiB, a PMD with PS set.
    Size2M,
    /// 1 GiB, a PUD with PS set.
    Size1G,
}

impl PageSize {
    /// Returns the size in bytes.
    pub fn bytes(self) -> u64 {
        1 << self.shift()
    }

    fn shift(self) -> u32 {
        match self {
            Self::Size4K => 12,
            Self::Size2M => 21,
            Self::Size1G => 30,
        }
    }
}

/// Builds one tree of page tables.
#[derive(Clone, Debug)]
pub struct PageTables {
    /// Physical address of the PGD (what CR3 would hold).
    pub root: u64,
    /// 4 or 5.
    pub levels: u32,
    tables: Arena,
}

impl PageTables {
    /// Returns an empty tree with its PGD at `root`; lower tables come from `tables` (physical).
    pub fn new(root: u64, levels: u32, tables: Arena) -> Self {
        assert!(levels == 4 || levels == 5, "{levels} levels of page tables do not exist on x86-64");
        assert_eq!(root % PAGE_SIZE, 0, "the PGD {root:#x} is not page aligned");
        Self { root, levels, tables }
    }

    /// Maps one page of the given size.
    pub fn map(&mut self, memory: &mut Memory, virt: u64, phys: u64, size: PageSize, flags: u64) {
        assert_eq!(virt % size.bytes(), 0, "{virt:#x} is not aligned for {size:?}");
        assert_eq!(phys % size.bytes(), 0, "{phys:#x} is not aligned for {size:?}");
        let pse = if size == PageSize::Size4K { 0 } else { flags::PSE };
        let entry = self.entry_address(memory, virt, size);
        memory.write_u64(entry, phys | flags | pse);
    }

    /// Maps a page-aligned range with the largest pages that fit.
    pub fn map_range(&mut self, memory: &mut Memory, virt: u64, phys: u64, len: u64, flags: u64) {
        let mut done = 0;
        while done < len {
            let size = [PageSize::Size1G, PageSize::Size2M, PageSize::Size4K]
                .into_iter()
                .find(|size| {
                    ((virt + done) | (phys + done)).is_multiple_of(size.bytes()) && len - done >= size.bytes()
                })
                .unwrap_or(PageSize::Size4K);
            self.map(memory, virt + done, phys + done, size, flags);
            done += size.bytes();
        }
    }

    /// Returns the physical address of the entry that maps `virt` with pages of `size`, creating the tables above it.
    ///
    /// Writing a raw value there makes swap entries, reserved bits and other things [`PageTables::map`] would not.
    pub fn entry_address(&mut self, memory: &mut Memory, virt: u64, size: PageSize) -> u64 {
        let mut table = self.root;
        let mut shift = 12 + 9 * (self.levels - 1);
        loop {
            let entry = table + 8 * ((virt >> shift) & 511);
            if shift == size.shift() {
                return entry;
            }
            let value = memory.read_u64(entry);
            let is_leaf = value & flags::PRESENT != 0 && value & flags::PSE != 0;
            assert!(!is_leaf, "{virt:#x} is already mapped by a larger page");
            table = if value & flags::PRESENT != 0 {
                value & 0x000f_ffff_ffff_f000
            } else {
                let table = self.tables.alloc(PAGE_SIZE, PAGE_SIZE);
                memory.write_u64(entry, table | flags::TABLE);
                table
            };
            shift -= 9;
        }
    }

    /// Returns the physical address behind `virt`, or `None` where nothing is mapped.
    pub fn translate(&self, memory: &Memory, virt: u64) -> Option<u64> {
        let mut table = self.root;
        let mut shift = 12 + 9 * (self.levels - 1);
        loop {
            let entry = memory.read_u64(table + 8 * ((virt >> shift) & 511));
            if entry & flags::PRESENT == 0 {
                return None;
            }
            let address = entry & 0x000f_ffff_ffff_f000;
            let in_page = (1u64 << shift) - 1;
            if shift == 12 || (shift <= 30 && entry & flags::PSE != 0) {
                return Some((address & !in_page) | (virt & in_page));
            }
            table = address;
            shift -= 9;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables(levels: u32) -> (Memory, PageTables) {
        (Memory::new(), PageTables::new(0x1000, levels, Arena::new(0x2000, 0x20000)))
    }

    #[test]
    fn every_page_size_translates_with_4_and_5_levels() {
        for levels in [4, 5] {
            let (mut memory, mut tables) = tables(levels);
            for (virt, phys, size) in [
                (0xffff_ffff_8100_0000, 0x20_0000, PageSize::Size2M),
                (0xffff_ffff_c000_1000, 0x1234_5000, PageSize::Size4K),
                (0xffff_8880_4000_0000, 0x4000_0000, PageSize::Size1G),
            ] {
                tables.map(&mut memory, virt, phys, size, flags::KERNEL);
                assert_eq!(tables.translate(&memory, virt + 0x234), Some(phys + 0x234));
            }
            assert_eq!(tables.translate(&memory, 0xffff_ffff_c000_2000), None);
        }
    }

    #[test]
    fn a_4_level_pgd_index_of_the_kernel_image_is_511() {
        let (mut memory, mut tables) = tables(4);
        tables.map(&mut memory, 0xffff_ffff_8100_0000, 0, PageSize::Size2M, flags::KERNEL_EXEC);
        assert_eq!(memory.read_u64(0x1000 + 511 * 8), 0x2000 | 0x63);
        // PUD 510 covers the top 2 GiB's lower half; PMD 8 is 16 MiB into it.
        assert_eq!(memory.read_u64(0x2000 + 510 * 8), 0x3000 | 0x63);
        assert_eq!(memory.read_u64(0x3000 + 8 * 8), 0x1e3);
    }

    #[test]
    fn a_range_uses_the_largest_pages_that_fit() {
        let (mut memory, mut tables) = tables(4);
        tables.map_range(&mut memory, 0x1f_f000, 0x1f_f000, 0x20_2000, flags::KERNEL);
        let pmd = memory.read_u64(memory.read_u64(0x1000) & !0xfff) & !0xfff;
        assert_eq!(memory.read_u64(pmd) & flags::PSE, 0);
        assert_ne!(memory.read_u64(pmd + 8) & flags::PSE, 0);
        assert_eq!(tables.translate(&memory, 0x40_0123), Some(0x40_0123));
    }
}

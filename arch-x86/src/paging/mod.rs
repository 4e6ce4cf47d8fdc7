//! The page-table walk as a step machine, for 4 and 5 levels with 1 GiB and 2 MiB pages.
//!
//! [`Walk`] says which table entry to read next and takes its value back; the caller owns
//! reading, caching and error context. A hole is an answer with an extent, so that a caller can
//! step over a whole absent table at once. [`identity`] builds tables instead of walking them.
//!
//! Source: Intel SDM vol. 3, section "4-level paging and 5-level paging";
//! Linux arch/x86/include/asm/pgtable_types.h.

use core::fmt;

pub mod identity;

use crate::addr::{PAGE_SIZE, PhysAddr, VirtAddr};

/// Number of paging levels in force.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// 48-bit virtual addresses.
    FourLevel,
    /// 57-bit virtual addresses (CR4.LA57).
    FiveLevel,
}

impl Mode {
    /// Significant bits of a virtual address.
    #[must_use]
    pub const fn bits(self) -> u32 {
        match self {
            Self::FourLevel => 48,
            Self::FiveLevel => 57,
        }
    }
    const fn top(self) -> Level {
        match self {
            Self::FourLevel => Level::P4d,
            Self::FiveLevel => Level::Pgd,
        }
    }
}

/// A level of the table tree, in Linux's names. With 4 levels the root is named PGD by the kernel
/// and is the table that 5-level paging calls P4D.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    /// Maps 4 KiB per entry.
    Pte,
    /// Maps 2 MiB per entry.
    Pmd,
    /// Maps 1 GiB per entry.
    Pud,
    /// Maps 512 GiB per entry.
    P4d,
    /// Maps 256 TiB per entry.
    Pgd,
}

impl Level {
    /// log2 of what one entry covers.
    #[must_use]
    pub const fn shift(self) -> u32 {
        match self {
            Self::Pte => 12,
            Self::Pmd => 21,
            Self::Pud => 30,
            Self::P4d => 39,
            Self::Pgd => 48,
        }
    }
    const fn below(self) -> Option<Self> {
        match self {
            Self::Pte => None,
            Self::Pmd => Some(Self::Pte),
            Self::Pud => Some(Self::Pmd),
            Self::P4d => Some(Self::Pud),
            Self::Pgd => Some(Self::P4d),
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pte => "PTE",
            Self::Pmd => "PMD",
            Self::Pud => "PUD",
            Self::P4d => "P4D",
            Self::Pgd => "PGD",
        })
    }
}

/// Entry bit: the entry is valid.
pub const PRESENT: u64 = 1;
/// Entry bit: writable.
pub const RW: u64 = 1 << 1;
/// Entry bit: user accessible.
pub const USER: u64 = 1 << 2;
/// Entry bit: at PMD and PUD level, the entry maps a page itself.
pub const PAGE_LARGE: u64 = 1 << 7;
/// Entry bit: no instruction fetch.
pub const NX: u64 = 1 << 63;
/// Bits 12 to 51: the physical address in an entry.
pub const ADDRESS_MASK: u64 = 0x000f_ffff_ffff_f000;

/// What a [`Walk`] wants or has found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Read the 8-byte entry at this physical address and hand it to [`Walk::feed`].
    Read(PhysAddr),
    /// Translated: the address, and how many bytes from it on are mapped contiguously.
    Mapped {
        /// The physical address.
        phys: PhysAddr,
        /// Bytes up to the end of the page it lies in.
        contiguous: u64,
    },
    /// The entry is not present: nothing is mapped up to the end of what it would cover.
    NotPresent {
        /// Level of the entry.
        level: Level,
        /// Where the entry lies.
        at: PhysAddr,
        /// Its raw value.
        entry: u64,
        /// Bytes from the address looked up to the next one that another entry governs.
        hole: u64,
    },
}

/// One translation in progress.
#[derive(Clone, Copy, Debug)]
pub struct Walk {
    virt: VirtAddr,
    level: Level,
    table: PhysAddr,
    /// Address bits that are encryption flags (AMD SME), not address.
    encryption_mask: u64,
}

impl Walk {
    /// Starts at the root table; `encryption_mask` is VMCOREINFO's `sme_mask`, else 0.
    #[must_use]
    pub const fn new(mode: Mode, root: PhysAddr, virt: VirtAddr, encryption_mask: u64) -> Self {
        Self { virt, level: mode.top(), table: root.page_down(), encryption_mask }
    }

    /// The table entry that governs the address at the present level.
    #[must_use]
    pub const fn step(&self) -> Step {
        Step::Read(self.entry_addr())
    }

    const fn entry_addr(&self) -> PhysAddr {
        let index = (self.virt.0 >> self.level.shift()) & 511;
        PhysAddr((self.table.0 & ADDRESS_MASK) + index * 8)
    }

    /// Takes the entry that [`Step::Read`] asked for and moves on.
    pub fn feed(&mut self, entry: u64) -> Step {
        let covered = 1u64 << self.level.shift();
        let inside = self.virt.0 & (covered - 1);
        if entry & PRESENT == 0 {
            return Step::NotPresent {
                level: self.level,
                at: self.entry_addr(),
                entry,
                hole: covered - inside,
            };
        }
        let target = entry & ADDRESS_MASK & !self.encryption_mask;
        let leaf = match self.level {
            Level::Pte => true,
            Level::Pmd | Level::Pud => entry & PAGE_LARGE != 0,
            Level::P4d | Level::Pgd => false,
        };
        match self.level.below() {
            Some(below) if !leaf => {
                self.level = below;
                self.table = PhysAddr(target);
                self.step()
            }
            // Bit 12 of a large entry is PAT: the low bits of the frame are not address bits.
            _ => Step::Mapped {
                phys: PhysAddr((target & !(covered - 1)) + inside),
                contiguous: covered - inside,
            },
        }
    }
}

const _: () = assert!(PAGE_SIZE == 1 << Level::Pte.shift());

#[cfg(test)]
mod tests {
    use super::*;

    /// Walks over a literal list of (physical address, entry).
    fn walk(mode: Mode, root: u64, virt: u64, entries: &[(u64, u64)]) -> Step {
        let mut w = Walk::new(mode, PhysAddr(root), VirtAddr(virt), 1 << 47);
        let mut step = w.step();
        for _ in 0..6 {
            let Step::Read(at) = step else { return step };
            let entry = entries.iter().find(|e| e.0 == at.0).map_or(0, |e| e.1);
            step = w.feed(entry);
        }
        panic!("did not end: {step:?}")
    }

    #[test]
    fn four_level_small_page() {
        // 0xffff888000201123: PGD[273] PUD[0] PMD[1] PTE[1]
        let t = [(0x1000 + 273 * 8, 0x2003), (0x2000, 0x3003), (0x3008, 0x4003), (0x4008, NX | 0x7_5000 | 3)];
        assert_eq!(
            walk(Mode::FourLevel, 0x1000, 0xffff_8880_0020_1123, &t),
            Step::Mapped { phys: PhysAddr(0x7_5123), contiguous: 0x1000 - 0x123 }
        );
    }

    #[test]
    fn five_level_large_pages_mask_pat_and_encryption() {
        // PGD[272] P4D[0] PUD[1]: 1 GiB page, PAT bit 12 and the encryption bit set.
        let t = [
            (0x1000 + 272 * 8, 0x2003),
            (0x2000, 0x3003),
            (0x3008, (1 << 47) | 0x8000_0000 | 0x1000 | PAGE_LARGE | 3),
        ];
        assert_eq!(
            walk(Mode::FiveLevel, 0x1000, 0xff10_0000_4000_0010, &t),
            Step::Mapped { phys: PhysAddr(0x8000_0010), contiguous: (1 << 30) - 0x10 }
        );
    }

    #[test]
    fn a_hole_names_level_entry_and_extent() {
        let t = [(0x1000, 0x2003), (0x2000, 0x3003), (0x3008, 0xdead_0000)];
        assert_eq!(
            walk(Mode::FourLevel, 0x1000, 0x20_1000, &t),
            Step::NotPresent { level: Level::Pmd, at: PhysAddr(0x3008), entry: 0xdead_0000, hole: 0x1f_f000 }
        );
    }

    #[test]
    fn the_large_bit_means_pat_in_a_pte() {
        let t = [(0x1000, 0x2003), (0x2000, 0x3003), (0x3000, 0x4003), (0x4000, 0x9000 | PAGE_LARGE | 1)];
        assert_eq!(
            walk(Mode::FourLevel, 0x1000, 0, &t),
            Step::Mapped { phys: PhysAddr(0x9000), contiguous: 0x1000 }
        );
    }
}

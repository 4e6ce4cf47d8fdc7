//! Building page tables of an identity map: every virtual address is the physical one, nothing else is mapped.
//!
//! Whole 2 MiB slots take a large page, the rest 4 KiB pages. One set of tables serves both paging modes:
//! the 5-level root points to the 4-level root. All entries are writable, executable, accessed and dirty, so that
//! the CPU never writes to the tables and their digest stays right.
//!
//! Source: Intel SDM vol. 3, "4-level paging and 5-level paging", "Accessed and dirty flags".

use core::fmt;

use super::{ADDRESS_MASK, Level, PAGE_LARGE, PRESENT, RW};
use crate::addr::{PAGE_SIZE, PhysAddr};
use crate::range::PhysRange;

/// Entry bit: write-through.
pub const PWT: u64 = 1 << 3;
/// Entry bit: caching disabled; with [`PWT`] the memory is uncacheable whatever the MTRRs say.
pub const PCD: u64 = 1 << 4;
/// Entry bit: the entry has been used.
pub const ACCESSED: u64 = 1 << 5;
/// Entry bit: the page has been written to.
pub const DIRTY: u64 = 1 << 6;

/// Entries of a table.
pub const NR_ENTRIES: usize = 512;
/// A table of any level.
pub type Table = [u64; NR_ENTRIES];

/// The end of what an identity map can reach: half of the virtual addresses of 4-level paging.
pub const END: u64 = 1 << 47;

const TO_TABLE: u64 = PRESENT | RW | ACCESSED;
const TO_PAGE: u64 = PRESENT | RW | ACCESSED | DIRTY;
const UNCACHED: u64 = PCD | PWT;

/// What is to be mapped. Both lists are sorted and free of overlaps (see [`crate::range::merge`]) and count in whole
/// pages around what they name; where both claim a page, it is uncached.
#[derive(Clone, Copy, Debug, Default)]
pub struct IdentityMap<'a> {
    /// Memory, write-back.
    pub cached: &'a [PhysRange],
    /// Device registers, uncacheable.
    pub uncached: &'a [PhysRange],
}

/// Roots of the finished tables: values of CR3.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Roots {
    /// With 4-level paging.
    pub four_level: PhysAddr,
    /// With 5-level paging.
    pub five_level: PhysAddr,
}

/// Why no tables can be built.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// A range ends beyond [`END`].
    TooHigh {
        /// The range.
        range: PhysRange,
    },
    /// The ranges are not sorted, or overlap.
    NotSorted {
        /// The first that is wrong.
        range: PhysRange,
    },
    /// Too few or too many tables were given.
    WrongCount {
        /// Tables that are needed.
        need: usize,
        /// Tables given.
        have: usize,
    },
    /// The tables cannot lie there.
    BadAddress {
        /// Where they were to lie.
        at: PhysAddr,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooHigh { range } => {
                write!(f, "{range} cannot be mapped: an identity map of 4-level paging ends at {END:#x}")
            }
            Self::NotSorted { range } => write!(f, "{range} lies below the end of the range before it"),
            Self::WrongCount { need, have } => {
                write!(f, "the map takes {need} page tables, {have} were given")
            }
            Self::BadAddress { at } => write!(f, "page tables cannot lie at {at}: not a page below {END:#x}"),
        }
    }
}

impl core::error::Error for Error {}

/// How the pages of a slot are mapped.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Slot {
    Empty,
    Whole { caching: u64 },
    Mixed,
}

impl IdentityMap<'_> {
    /// Number of tables that the map takes, both roots included.
    ///
    /// # Errors
    /// [`Error::TooHigh`], [`Error::NotSorted`].
    pub fn nr_tables(&self) -> Result<usize, Error> {
        self.check()?;
        let mut builder = Builder { map: *self, at: PhysAddr(0), tables: &mut [], used: 1 };
        builder.table(Level::P4d, 0);
        Ok(builder.used)
    }

    /// Writes the tables, as many as [`Self::nr_tables`], for being at `at`, one after the other.
    ///
    /// # Errors
    /// [`Error`].
    pub fn build(&self, at: PhysAddr, tables: &mut [Table]) -> Result<Roots, Error> {
        let (need, have) = (self.nr_tables()?, tables.len());
        if need != have {
            return Err(Error::WrongCount { need, have });
        }
        let end = at.0.checked_add(have as u64 * PAGE_SIZE);
        if !at.is_aligned(PAGE_SIZE) || end.is_none_or(|end| end > END) {
            return Err(Error::BadAddress { at });
        }
        for table in &mut *tables {
            table.fill(0);
        }
        let mut builder = Builder { map: *self, at, tables, used: 1 };
        let four_level = builder.table(Level::P4d, 0);
        // Everything lies in what the first entry of the 5-level root covers.
        builder.set(0, 0, four_level.0 | TO_TABLE);
        Ok(Roots { four_level, five_level: at })
    }

    fn check(&self) -> Result<(), Error> {
        for ranges in [self.cached, self.uncached] {
            for &range in ranges {
                if range.end().0 > END {
                    return Err(Error::TooHigh { range });
                }
            }
            for pair in ranges.windows(2) {
                if let [before, range] = *pair
                    && before.end() > range.start()
                {
                    return Err(Error::NotSorted { range });
                }
            }
        }
        Ok(())
    }

    fn slot(&self, start: u64, len: u64) -> Slot {
        let slot = PhysRange::new(start, start + len);
        match (share(self.uncached, slot), share(self.cached, slot)) {
            (Share::Whole, _) => Slot::Whole { caching: UNCACHED },
            (Share::None, Share::Whole) => Slot::Whole { caching: 0 },
            (Share::None, Share::None) => Slot::Empty,
            _ => Slot::Mixed,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Share {
    None,
    Part,
    Whole,
}

/// How much of a slot these ranges take, each grown to whole pages.
fn share(ranges: &[PhysRange], slot: PhysRange) -> Share {
    // The first that ends behind the slot's start: those before it cannot touch it.
    let first = ranges.partition_point(|r| grown(*r).end() <= slot.start());
    let mut covered = slot.start();
    for range in ranges.iter().skip(first).map(|r| grown(*r)) {
        if range.start() >= slot.end() {
            break;
        }
        if range.is_empty() {
            continue;
        }
        if range.start() > covered {
            return Share::Part;
        }
        covered = covered.max(range.end());
        if covered >= slot.end() {
            return Share::Whole;
        }
    }
    if covered > slot.start() { Share::Part } else { Share::None }
}

/// The pages around a range; none around an empty one.
fn grown(range: PhysRange) -> PhysRange {
    if range.is_empty() { range } else { range.grow_to_pages().unwrap_or(range) }
}

struct Builder<'a, 't> {
    map: IdentityMap<'a>,
    at: PhysAddr,
    /// Empty while counting.
    tables: &'t mut [Table],
    used: usize,
}

impl Builder<'_, '_> {
    /// Makes the table that covers addresses from `base` on with entries of `level`, and those below it.
    fn table(&mut self, level: Level, base: u64) -> PhysAddr {
        let this = self.used;
        self.used += 1;
        let covered = 1u64 << level.shift();
        for index in 0..NR_ENTRIES {
            let start = base + index as u64 * covered;
            if start >= END {
                break;
            }
            let entry = match (self.map.slot(start, covered), level.below()) {
                (Slot::Empty, _) => continue,
                // PTEs have no large bit: there it selects the PAT.
                (Slot::Whole { caching }, None) => start | TO_PAGE | caching,
                (Slot::Whole { caching }, Some(Level::Pte)) => start | TO_PAGE | caching | PAGE_LARGE,
                (_, Some(below)) => self.table(below, start).0 | TO_TABLE,
                // A page is mapped whole or not at all.
                (Slot::Mixed, None) => start | TO_PAGE | UNCACHED,
            };
            self.set(this, index, entry);
        }
        PhysAddr(self.at.0 + this as u64 * PAGE_SIZE)
    }

    fn set(&mut self, table: usize, index: usize, entry: u64) {
        debug_assert!(entry & ADDRESS_MASK == entry & !0xfff);
        if let Some(slot) = self.tables.get_mut(table).and_then(|t| t.get_mut(index)) {
            *slot = entry;
        }
    }
}

#[cfg(test)]
mod tests;

//! The page list of the kexec protocol: planning it, writing it, following it.
//!
//! A kexec image has to end up at addresses that are in use while it is loaded. Its pages are staged
//! elsewhere, and a list tells the control page (`kdump_arch_x86::control_page`) what goes where: entries of a page's address
//! and a flag. This module is the planning side, for a loader under Linux as for any kernel written in Rust:
//! plain addresses in, a [`KimagePlan`] out. It allocates (`alloc`), touches no memory itself, and knows nothing
//! of what is moved.
//!
//! * [`stage()`] decides where pages can be staged so that nothing is overwritten before it is read.
//! * [`order()`] takes pages that lie somewhere already, and finds an order (and a detour) for them.
//! * [`KimagePlan::encode`] writes the list as the pages that the control page reads.
//! * [`interpret`] follows an encoded list over any [`PageMemory`], as the control page does.
//!
//! ```
//! use kdump_panic_kernel::kimage::{self, Pages, Width};
//!
//! // An image of three pages for 0x10_0000; of those the second is free already. Free memory at 0x80_0000.
//! let destinations = [Pages::new(0x10_0000, 3).unwrap()];
//! let free = [Pages::new(0x10_1000, 1).unwrap(), Pages::new(0x80_0000, 8).unwrap()];
//! let plan = kimage::stage(&destinations, &free, Width::Bits64).unwrap();
//! // The free page takes its content at once; the others wait elsewhere.
//! assert_eq!(plan.source_of(0x10_1000), Some(0x10_1000));
//! assert_eq!(plan.source_of(0x10_0000), Some(0x80_0000));
//! assert_eq!(plan.moves().count(), 2);
//! // One page of list, and one for the code that follows it, outside every destination.
//! assert_eq!(plan.list_pages().len(), 1);
//! for (address, entries) in plan.encode() {
//!     assert!(address >= 0x80_0000 && !entries.is_empty());
//! }
//! ```
//!
//! Cost: O(n log n) in the number of ranges and moves, no more than a pass over the pages.
//!
//! Source of the format: `include/linux/kexec.h`, `kernel/kexec_core.c` (`kimage_add_entry`).

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

mod encode;
mod order;
mod stage;
#[cfg(test)]
mod tests;

pub use encode::{BadList, PageMemory, interpret};
pub use order::order;
pub use stage::stage;

use crate::PAGE_SIZE;

/// Flag of an entry: the page that the next source goes to.
pub const IND_DESTINATION: u64 = 1;
/// Flag of an entry: the list goes on there.
pub const IND_INDIRECTION: u64 = 2;
/// Flag of an entry: the end.
pub const IND_DONE: u64 = 4;
/// Flag of an entry: a page that goes to the destination, which then moves on by a page.
pub const IND_SOURCE: u64 = 8;

/// End of the addresses there can be: 2^52.
const ADDRESS_LIMIT: u64 = 1 << 52;

/// A run of whole pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pages {
    start: u64,
    nr: u64,
}

impl Pages {
    /// `nr` pages from a page's address on; none if they are no pages, are none, or reach 2^52.
    pub fn new(start: u64, nr: u64) -> Option<Self> {
        let end = nr.checked_mul(PAGE_SIZE)?.checked_add(start)?;
        (start.is_multiple_of(PAGE_SIZE) && nr > 0 && end <= ADDRESS_LIMIT).then_some(Self { start, nr })
    }

    fn between(start: u64, end: u64) -> Option<Self> {
        Self::new(start, end.checked_sub(start)? / PAGE_SIZE)
    }

    /// Address of the first page.
    pub fn start(self) -> u64 {
        self.start
    }

    /// Address behind the last page.
    pub fn end(self) -> u64 {
        self.start + self.nr * PAGE_SIZE
    }

    /// Number of pages.
    pub fn count(self) -> u64 {
        self.nr
    }

    /// Addresses of the pages.
    pub fn addresses(self) -> impl Iterator<Item = u64> {
        (0..self.nr).map(move |i| self.start + i * PAGE_SIZE)
    }
}

/// How wide the entries of the list are, which depends on the control page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// 4 bytes: every page of list, source and destination below 4 GiB.
    Bits32,
    /// 8 bytes.
    Bits64,
}

impl Width {
    fn bytes(self) -> usize {
        match self {
            Self::Bits32 => 4,
            Self::Bits64 => 8,
        }
    }

    fn limit(self) -> u64 {
        match self {
            Self::Bits32 => 1 << 32,
            Self::Bits64 => ADDRESS_LIMIT,
        }
    }

    /// Entries on a page of the list, the last of which leads to the next page or ends it.
    fn entries_per_page(self) -> usize {
        PAGE_SIZE as usize / self.bytes()
    }
}

/// Pages moved in order: `nr` from `source` on to `destination` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Move {
    /// Address of the first page moved.
    pub source: u64,
    /// Where it goes.
    pub destination: u64,
    /// Number of pages.
    pub nr: u64,
}

/// What the control page does with two pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// The source keeps its content.
    Copy,
    /// The source gets what the destination held.
    Swap,
}

/// Why there is no plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PlanError {
    /// Not enough free pages outside the destinations.
    TooFewPages {
        /// Pages needed there, for what cannot be staged in place, for the list and the control page.
        need: u64,
        /// Pages there are.
        have: u64,
    },
    /// Two destinations, or two free ranges, share a page.
    Overlap {
        /// Its address.
        address: u64,
    },
    /// A page that entries of the chosen width cannot name.
    OutOfReach {
        /// Its address.
        address: u64,
    },
}

impl core::fmt::Display for PlanError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::TooFewPages { need, have } => {
                write!(f, "{need} free pages outside the destinations are needed, there are {have}")
            }
            Self::Overlap { address } => write!(f, "the page at {address:#x} is named twice"),
            Self::OutOfReach { address } => {
                write!(f, "the page at {address:#x} is out of reach for entries of 32 bits")
            }
        }
    }
}

impl core::error::Error for PlanError {}

/// Where everything goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KimagePlan {
    /// By destination: where the content of each lies before, itself included.
    placement: Vec<Move>,
    /// What brings that about, in its order; none if that is the placement, but for what stays where it is.
    ordered: Option<Vec<Move>>,
    list: Vec<u64>,
    control_page: u64,
    width: Width,
}

impl KimagePlan {
    /// Where the content of each destination has to lie before the list is followed, by destination.
    pub fn placement(&self) -> &[Move] {
        &self.placement
    }

    /// Where the content of a destination page has to lie before.
    pub fn source_of(&self, destination: u64) -> Option<u64> {
        let after = self.placement.partition_point(|m| m.destination <= destination);
        let found = self.placement.get(after.checked_sub(1)?)?;
        let offset = destination - found.destination;
        (offset < found.nr * PAGE_SIZE).then_some(found.source + offset)
    }

    /// What the list does, in its order.
    pub fn moves(&self) -> impl Iterator<Item = Move> {
        let moves = self.ordered.as_ref().unwrap_or(&self.placement);
        moves.iter().copied().filter(|m| m.source != m.destination)
    }

    /// Where the content of every page that a swapping list touches ends up, by its page before: an image's page at
    /// its destination, and what the destinations held at the places it left. Nothing is lost by swapping.
    pub fn after_swaps(&self) -> BTreeMap<u64, u64> {
        let (mut at, mut holds) = (BTreeMap::new(), BTreeMap::new());
        for m in self.moves() {
            for i in 0..m.nr {
                let (a, b) = (m.source + i * PAGE_SIZE, m.destination + i * PAGE_SIZE);
                let (on_a, on_b) = (*holds.get(&a).unwrap_or(&a), *holds.get(&b).unwrap_or(&b));
                holds.extend([(a, on_b), (b, on_a)]);
                at.extend([(on_b, a), (on_a, b)]);
            }
        }
        at
    }

    /// Pages for the list, in its order; none if there is nothing to move.
    pub fn list_pages(&self) -> &[u64] {
        &self.list
    }

    /// A page for the code that follows the list.
    pub fn control_page(&self) -> u64 {
        self.control_page
    }

    /// First entry of the list, for the control page.
    pub fn head(&self) -> u64 {
        self.list.first().map_or(IND_DONE, |page| page | IND_INDIRECTION)
    }
}

/// Sorts ranges and joins neighbours.
///
/// # Errors
/// If two share a page.
fn normalise(ranges: &[Pages], width: Width) -> Result<Vec<Pages>, PlanError> {
    let mut sorted = ranges.to_vec();
    sorted.sort_unstable();
    for pair in sorted.windows(2) {
        if let [a, b] = pair
            && b.start < a.end()
        {
            return Err(PlanError::Overlap { address: b.start });
        }
    }
    if let Some(last) = sorted.last().filter(|last| last.end() > width.limit()) {
        return Err(PlanError::OutOfReach { address: last.end() - PAGE_SIZE });
    }
    sorted.dedup_by(|next, kept| {
        let is_next = next.start == kept.end();
        if is_next {
            kept.nr += next.nr;
        }
        is_next
    });
    Ok(sorted)
}

/// Cuts off what entries of this width cannot name, then sorts and joins: for free pages, which may lie anywhere.
fn normalise_free(ranges: &[Pages], width: Width) -> Result<Vec<Pages>, PlanError> {
    let within = ranges.iter().filter_map(|r| Pages::between(r.start, r.end().min(width.limit())));
    normalise(&within.collect::<Vec<_>>(), width)
}

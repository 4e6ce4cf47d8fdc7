//! The list as bytes: written for the control page, and followed as it does.

use alloc::vec::Vec;

use super::{IND_DESTINATION, IND_DONE, IND_INDIRECTION, IND_SOURCE, KimagePlan, Move, Transfer, Width};
use crate::PAGE_SIZE;
use crate::parity::Page;

/// Pages the list takes: a destination entry for each move, a source entry for each page; each page of the list but
/// the last gives one entry to the link, the last one to the end.
pub(super) fn nr_list_pages<'a>(moves: impl Iterator<Item = &'a Move>, width: Width) -> u64 {
    let nr_entries: u64 = moves.map(|m| 1 + m.nr).sum();
    nr_entries.div_ceil(width.entries_per_page() as u64 - 1)
}

impl KimagePlan {
    /// The list: the address and the bytes of each of its pages, which a stager writes there.
    pub fn encode(&self) -> Vec<(u64, Vec<u8>)> {
        let mut entries = self.moves().flat_map(|m| {
            let sources = (0..m.nr).map(move |i| (m.source + i * PAGE_SIZE) | IND_SOURCE);
            core::iter::once(m.destination | IND_DESTINATION).chain(sources)
        });
        let per_page = self.width.entries_per_page() - 1;
        let next_pages = self.list.iter().skip(1).map(|page| page | IND_INDIRECTION).chain([IND_DONE]);
        let mut pages = Vec::with_capacity(self.list.len());
        for (&address, last) in self.list.iter().zip(next_pages) {
            let mut bytes = Vec::with_capacity(PAGE_SIZE as usize);
            for entry in entries.by_ref().take(per_page).chain([last]) {
                match self.width {
                    Width::Bits64 => bytes.extend_from_slice(&entry.to_le_bytes()),
                    Width::Bits32 => bytes.extend_from_slice(&(entry as u32).to_le_bytes()),
                }
            }
            pages.push((address, bytes));
        }
        pages
    }
}

/// Memory that a list is followed on.
pub trait PageMemory {
    /// Reads a page; none where there is none.
    fn read(&self, address: u64) -> Option<Page>;
    /// Writes a page; false where there is none.
    fn write(&mut self, address: u64, page: &Page) -> bool;
}

/// What is wrong with a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BadList {
    /// No such page.
    NoPage {
        /// Its address.
        address: u64,
    },
    /// A source before any destination.
    NoDestination {
        /// The entry.
        entry: u64,
    },
    /// More entries than were allowed: the list may go in circles.
    TooLong,
}

impl core::fmt::Display for BadList {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NoPage { address } => write!(f, "the list names {address:#x}, where there is no memory"),
            Self::NoDestination { entry } => write!(f, "entry {entry:#x} comes before any destination"),
            Self::TooLong => f.write_str("the list does not end"),
        }
    }
}

impl core::error::Error for BadList {}

/// Follows a list from its first entry, as the control page does, through at most `max_entries` entries.
///
/// # Errors
/// [`BadList`]; what was moved until then stays so.
pub fn interpret<M: PageMemory>(
    memory: &mut M,
    head: u64,
    width: Width,
    transfer: Transfer,
    max_entries: usize,
) -> Result<(), BadList> {
    let no_page = |address| BadList::NoPage { address };
    let (mut entry, mut destination) = (head, None);
    let mut next = (0u64, 0usize);
    for _ in 0..max_entries {
        let address = entry & !(PAGE_SIZE - 1);
        if entry & IND_DONE != 0 {
            return Ok(());
        } else if entry & IND_INDIRECTION != 0 {
            next = (address, 0);
        } else if entry & IND_DESTINATION != 0 {
            destination = Some(address);
        } else if entry & IND_SOURCE != 0 {
            let to = destination.ok_or(BadList::NoDestination { entry })?;
            let content = memory.read(address).ok_or(no_page(address))?;
            let displaced = memory.read(to).ok_or(no_page(to))?;
            memory.write(to, &content);
            if transfer == Transfer::Swap {
                memory.write(address, &displaced);
            }
            destination = Some(to + PAGE_SIZE);
        }
        let (page, offset) = next;
        let bytes = memory.read(page).ok_or(no_page(page))?;
        let field = bytes.get(offset..).unwrap_or_default();
        entry = match width {
            Width::Bits64 => field.first_chunk().map(|bytes| u64::from_le_bytes(*bytes)),
            Width::Bits32 => field.first_chunk().map(|bytes| u32::from_le_bytes(*bytes).into()),
        }
        .ok_or(no_page(page + PAGE_SIZE))?;
        next = (page, offset + width.bytes());
    }
    Err(BadList::TooLong)
}

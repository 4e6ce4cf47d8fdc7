//! Where in the crashkernel memory each segment goes.

use kdump_arch_x86::{PAGE_SIZE, PhysRange};

use super::Error;
use super::staging::{Piece, Place};
use crate::machine::Machine;

pub(super) const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Free memory at the start of the region besides page tables: control page, PGD, the protected
/// copy of VMCOREINFO, and slack for what later kernels may want.
const CONTROL_ROOM: u64 = MIB;

/// Finds an address in the crashkernel memory for each piece: those with one of their own first, then the
/// low ones upwards from behind the kernel's control pages, then the high ones down from the top.
/// Gives the region, and a range for each piece.
///
/// # Errors
/// [`Error::NoReservation`], [`Error::NotFree`], [`Error::TooSmall`].
pub(super) fn lay_out(
    machine: &Machine,
    pieces: &[Piece],
    recommended: u64,
) -> Result<(PhysRange, Vec<PhysRange>), Error> {
    // With a low and a high reservation the kernel takes segments in the high one alone.
    let region = machine.iomem.crash_kernel().last().copied().and_then(PhysRange::shrink_to_pages);
    let region = region.ok_or(Error::NoReservation { need: recommended })?;
    let fixed = fixed_pieces(pieces, region)?;
    let mut placed = vec![PhysRange::new(0, 0); pieces.len()];

    let mut bottom = upwards(region.start().0, control_room(top_of_ram(machine)), PAGE_SIZE, &fixed);
    for (slot, piece) in placed.iter_mut().zip(pieces) {
        match piece.place {
            Place::At(at) => *slot = range_at(at, piece.size),
            Place::Low { align, min } => {
                *slot = upwards(bottom.end().0.max(min), piece.size, align, &fixed);
                bottom = *slot;
            }
            Place::High => {}
        }
    }
    let mut top = region.end().0;
    let mut is_enough = bottom.end().0 <= top;
    for (slot, piece) in placed.iter_mut().zip(pieces).filter(|(_, p)| p.place == Place::High) {
        let found = downwards(top, piece.size, &fixed).filter(|range| bottom.end() <= range.start());
        match found {
            Some(range) => {
                top = range.start().0;
                *slot = range;
            }
            None => is_enough = false,
        }
    }
    if is_enough { Ok((region, placed)) } else { Err(too_small(region, pieces, bottom, recommended)) }
}

/// Pieces with an address of their own, sorted.
fn fixed_pieces(pieces: &[Piece], region: PhysRange) -> Result<Vec<PhysRange>, Error> {
    let mut fixed: Vec<PhysRange> = Vec::new();
    for piece in pieces {
        let Place::At(at) = piece.place else { continue };
        let range = range_at(at, piece.size);
        let is_taken = fixed.iter().any(|other| other.overlap(range).is_some());
        if is_taken || !region.covers(range) || !at.is_multiple_of(PAGE_SIZE) {
            return Err(Error::NotFree { tag: piece.tag, range, region });
        }
        fixed.push(range);
    }
    fixed.sort_unstable();
    Ok(fixed)
}

fn range_at(start: u64, size: u64) -> PhysRange {
    PhysRange::new(start, start.saturating_add(pages(size)))
}

/// The first free range at or above `from`; the region's end is for the caller to mind.
fn upwards(from: u64, size: u64, align: u64, fixed: &[PhysRange]) -> PhysRange {
    fixed.iter().fold(range_at(from.next_multiple_of(align), size), |range, taken| {
        let is_free = range.overlap(*taken).is_none();
        if is_free { range } else { range_at(taken.end().0.next_multiple_of(align), size) }
    })
}

/// The last free range that ends at or below `top`.
fn downwards(top: u64, size: u64, fixed: &[PhysRange]) -> Option<PhysRange> {
    let below = |end: u64| PhysRange::try_new(end.checked_sub(pages(size))?, end);
    fixed.iter().rev().try_fold(below(top)?, |range, taken| {
        if range.overlap(*taken).is_none() { Some(range) } else { below(taken.start().0) }
    })
}

fn too_small(region: PhysRange, pieces: &[Piece], bottom: PhysRange, recommended: u64) -> Error {
    let size = |piece: &Piece| pages(piece.size);
    let high: u64 = pieces.iter().filter(|p| p.place == Place::High).map(size).sum();
    let need = (bottom.end().0 - region.start().0).saturating_add(high);
    let largest = pieces.iter().max_by_key(|p| p.size).copied();
    let (tag, largest) = largest.map_or(("the payload", 0), |p| (p.tag, size(&p)));
    Error::TooSmall {
        need,
        have: region.len(),
        tag,
        largest,
        rest: need.saturating_sub(largest),
        recommended: recommended.max(need),
        region,
    }
}

/// Room for control pages and for the identity map of all RAM: at worst, without 1 GiB pages, one
/// page of PMDs per GiB, and one of PUDs per 512 GiB.
pub(super) fn control_room(top_of_ram: u64) -> u64 {
    CONTROL_ROOM + (top_of_ram.div_ceil(GIB) + top_of_ram.div_ceil(512 * GIB)) * PAGE_SIZE
}

/// The end of RAM, as an address.
#[must_use]
pub fn top_of_ram(machine: &Machine) -> u64 {
    machine.iomem.ram().last().map_or(0, |r| r.end().0)
}

/// Size of the elfcorehdr segment, and whether the kernel is asked to keep it up to date: only
/// where it can, and says how much room it wants.
pub(super) fn elfcorehdr_room(machine: &Machine, len: u64) -> (u64, bool) {
    match machine.elfcorehdr_size {
        Some(wanted) if machine.has_crash_hotplug => (pages(wanted.max(len)), true),
        _ => (pages(len), false),
    }
}

/// Rounds up to whole pages.
pub(super) fn pages(bytes: u64) -> u64 {
    bytes.next_multiple_of(PAGE_SIZE)
}

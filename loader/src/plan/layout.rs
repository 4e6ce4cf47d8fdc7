//! Where in the crashkernel memory each segment goes, and how much of it a capture kernel needs.

use kdump_arch_x86::{PAGE_SIZE, PhysRange};

use super::Error;
use super::staging::{Piece, Place};
use crate::bzimage::BzImage;
use crate::machine::Machine;

pub(super) const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Free memory at the start of the region besides page tables: control page, PGD, the protected
/// copy of VMCOREINFO, and slack for what later kernels may want.
const CONTROL_ROOM: u64 = MIB;

/// What a capture kernel takes at run time beyond its image and the initramfs, packed and unpacked:
/// struct pages, slab, per-CPU memory, the capture program's buffers. Below it a warning is due.
///
/// Measured in 1 GiB guests with Debian's cloud kernels, in steps of 8 MiB: 6.1 dumped with 80 MiB of
/// crashkernel memory and not with 72, 6.12 with 88 and not with 80, 7.3 with 104 and not with 96. This
/// value recommends 112 MiB for each.
pub const RUN_ROOM: u64 = 40 * MIB;

/// Bitmaps of one bit per page frame that the capture program holds at once, up to the top of RAM.
const NR_BITMAPS: u64 = 3;

/// Bytes of crashkernel memory that this kernel with this initramfs can be expected to live in, to dump
/// RAM up to `top_of_ram`.
#[must_use]
pub fn recommended_bytes(image: &BzImage, initramfs_len: u64, unpacked_len: u64, top_of_ram: u64) -> u64 {
    let need = control_room(top_of_ram) + image.alignment() + image.init_size() + initramfs_len;
    // crashkernel memory comes in multiples of 16 MiB.
    let bitmaps = NR_BITMAPS * top_of_ram.div_ceil(8 * PAGE_SIZE);
    (need + unpacked_len + RUN_ROOM + bitmaps).next_multiple_of(16 * MIB)
}

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

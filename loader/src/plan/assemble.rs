//! The last steps of a plan: digests and parity over what is staged, and the handoff blocks that name them.

use kdump_arch_x86::{PAGE_SIZE, PhysAddr};
use kdump_panic_kernel::handoff::{Console, Handoff, HandoffError, Region, RegionFlags};
use kdump_panic_kernel::parity::Geometry;

use super::own::{Own, Pieces};
use super::seal::{Part, seal};
use super::{Error, Segment};
use crate::panic_image::{PanicImage, Placed};

/// The panic-path program and its copy, linked where they will lie.
pub(super) struct Twins {
    primary: Placed,
    copy: Placed,
}

impl Twins {
    /// Links both and tells each of the other.
    ///
    /// # Errors
    /// [`Error::PanicImage`].
    pub(super) fn place(image: &PanicImage, pieces: &Pieces, console: Console) -> Result<Self, Error> {
        let place = |own| image.place(pieces.at(own).start().0).map_err(Error::PanicImage);
        let (mut primary, mut copy) = (place(Own::Primary)?, place(Own::Copy)?);
        let early_port = if let Console::Uart8250Port { port, .. } = console { port } else { 0 };
        Placed::pair(&mut primary, &mut copy, early_port);
        Ok(Self { primary, copy })
    }

    /// The first instruction.
    pub(super) fn entry(&self) -> PhysAddr {
        PhysAddr(self.primary.entry)
    }
}

/// Seals all that is checked, adds parity, digest table and the program twice, and sorts by address. Gives
/// the program's handoff block; its copy's differs in who is the other.
///
/// # Errors
/// [`Error::Handoff`].
pub(super) fn finish(
    mut handoff: Handoff,
    pieces: &Pieces,
    twins: Twins,
    segments: &mut Vec<Segment<'_>>,
) -> Result<Handoff, Error> {
    let Twins { primary, copy } = twins;
    for (own, placed) in [(Own::Primary, &primary), (Own::Copy, &copy)] {
        // The rest changes while it runs, but for the handoff block, which has its own digest.
        let checked = placed.constant_len;
        let segment = pieces.segment(own, placed.bytes.clone());
        segments.push(Segment { checked, is_protected: true, ..segment });
    }
    let (parity_at, table_at) = (pieces.at(Own::Parity), pieces.at(Own::Digests));
    let nr = |bytes: u64| (bytes / PAGE_SIZE) as u32;
    let has_parity = !parity_at.is_empty();
    if has_parity {
        segments.push(pieces.segment(Own::Digests, vec![0; table_at.len() as usize]).checked());
    }
    // The interleaving goes on into the parity, so that has to lie above all it protects. A piece with an
    // address of its own may lie higher still: it is checked, and cannot be rebuilt.
    for segment in segments.iter_mut().filter(|s| !has_parity || s.range > parity_at) {
        segment.is_protected = false;
    }
    segments.sort_unstable_by_key(|s| s.range);

    let is_checked = |s: &&mut Segment<'_>| s.checked != 0;
    let checked: Vec<&mut Segment<'_>> = segments.iter_mut().filter(is_checked).collect();
    if has_parity {
        let protected = checked.iter().filter(|s| s.is_protected);
        handoff.parity = Geometry {
            parity_start: parity_at.start().0,
            nr_parity: nr(parity_at.len()),
            nr_protected: nr(protected.map(|s| s.checked.next_multiple_of(PAGE_SIZE)).sum()),
            table_start: table_at.start().0,
            nr_table: nr(table_at.len()),
        };
    }
    let parts: Vec<Part<'_>> = checked
        .iter()
        .map(|s| {
            let Segment { sha256, is_protected, .. } = **s;
            Part { bytes: s.checked_bytes(), sha256, is_protected }
        })
        .collect();
    let table = checked.iter().position(|s| has_parity && s.range == table_at);
    let sealed = seal(&parts, table, &handoff.parity);
    handoff.set_table_digests(&sealed.table_digests).map_err(Error::Handoff)?;
    for (segment, digest) in checked.into_iter().zip(&sealed.sha256) {
        segment.sha256 = Some(*digest);
        handoff.push_region(region_of(segment, *digest).map_err(Error::Handoff)?).map_err(Error::Handoff)?;
    }

    handoff.other_copy = copy.handoff;
    // What the panic path would refuse is refused now.
    Handoff::parse(&handoff.to_bytes()).map_err(Error::Handoff)?;

    let fill = |segments: &mut Vec<Segment<'_>>, at, bytes: &dyn Fn(&mut Vec<u8>)| {
        if let Some(segment) = segments.iter_mut().find(|s| s.range == at) {
            bytes(segment.bytes.to_mut());
        }
    };
    fill(segments, table_at, &|bytes| bytes.copy_from_slice(&sealed.table));
    let mut copys = handoff.clone();
    copys.other_copy = primary.handoff;
    for (own, block) in [(Own::Primary, &handoff), (Own::Copy, &copys)] {
        fill(segments, pieces.at(own), &|bytes| bytes.extend_from_slice(&block.to_bytes()));
    }
    if has_parity {
        segments.push(pieces.segment(Own::Parity, sealed.parity));
        segments.sort_unstable_by_key(|s| s.range);
    }
    Ok(handoff)
}

fn region_of(segment: &Segment<'_>, sha256: [u8; 32]) -> Result<Region, HandoffError> {
    let flags = if segment.is_protected { RegionFlags::PROTECTED } else { RegionFlags::default() };
    Region::new(segment.range.start().0, segment.checked, segment.tag, flags, sha256)
}

impl Segment<'_> {
    /// What the panic path checks.
    #[must_use]
    pub fn checked_bytes(&self) -> &[u8] {
        self.bytes.get(..self.checked as usize).unwrap_or(&self.bytes)
    }
}

//! Rebuilds damaged pages of a region from parity.
//!
//! A page is written back only if what was rebuilt hashes to its digest; whether the region is whole again
//! is for its own digest to say.

use crate::PAGE_SIZE;
use crate::handoff::Handoff;
use crate::parity::{DIGESTS_PER_PAGE, Page, PageDigest, address_of, first_index, page_digest, xor_into};
use crate::verify::Memory;

/// What was found and done in a region.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Repair {
    /// Pages that did not hash to their digest.
    pub nr_damaged: u32,
    /// Of those, how many were rebuilt.
    pub nr_repaired: u32,
}

/// Looks at every page of the region at place `region` and rebuilds the damaged ones. `each` is told the
/// address of every damaged page and whether it was rebuilt.
///
/// The region of the digest table must be looked at before all others: they are judged by it.
pub fn repair_region<M: Memory>(
    handoff: &Handoff,
    region: usize,
    memory: &mut M,
    mut each: impl FnMut(u64, bool),
) -> Repair {
    let mut repair = Repair::default();
    let regions = handoff.regions();
    let (Some(target), Some(first)) = (regions.get(region), first_index(regions, region)) else {
        return repair;
    };
    if handoff.parity.nr_parity == 0 {
        return repair;
    }
    for offset in 0..target.nr_pages() {
        let (index, address) = (first + offset as u32, target.start + offset * PAGE_SIZE);
        let Some(expected) = expected_digest(handoff, index, address, memory) else { continue };
        if read(memory, address).is_some_and(|page| page_digest(page) == expected) {
            continue;
        }
        repair.nr_damaged += 1;
        let rebuilt = rebuild(handoff, index, memory).filter(|page| page_digest(page) == expected);
        let is_repaired = rebuilt.is_some_and(|page| memory.write_page(address, &page));
        repair.nr_repaired += u32::from(is_repaired);
        each(address, is_repaired);
    }
    repair
}

/// What a protected page must hash to.
fn expected_digest<M: Memory>(handoff: &Handoff, index: u32, address: u64, memory: &M) -> Option<PageDigest> {
    let table = handoff.parity.table_start;
    if let Some(offset) = address.checked_sub(table)
        && let Some(digest) = handoff.table_digests().get((offset / PAGE_SIZE) as usize)
    {
        return Some(*digest);
    }
    let page = read(memory, table + u64::from(index / DIGESTS_PER_PAGE) * PAGE_SIZE)?;
    let at = (index % DIGESTS_PER_PAGE) as usize * size_of::<PageDigest>();
    page.get(at..)?.first_chunk().copied()
}

/// The XOR of the parity page and all other pages of the stripe.
fn rebuild<M: Memory>(handoff: &Handoff, index: u32, memory: &M) -> Option<Page> {
    let geometry = &handoff.parity;
    let parity = geometry.parity_start + u64::from(geometry.parity_page(index)?) * PAGE_SIZE;
    let mut page = *read(memory, parity)?;
    let first = index.checked_rem(geometry.nr_parity)?;
    for other in (first..geometry.nr_protected).step_by(geometry.nr_parity as usize) {
        if other != index {
            xor_into(&mut page, read(memory, address_of(handoff.regions(), other)?)?);
        }
    }
    Some(page)
}

fn read<M: Memory>(memory: &M, address: u64) -> Option<&Page> {
    memory.bytes(address, PAGE_SIZE)?.first_chunk()
}

#[cfg(test)]
mod tests;

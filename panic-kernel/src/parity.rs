//! Interleaved parity over the staged pages: where it lies, which pages a parity page vouches for.
//!
//! The pages of all protected regions are numbered `0..N` by address. Parity page `j` of `K` is the XOR of
//! all protected pages `i` with `i mod K == (N + j) mod K`. The parity lies above them and so continues the
//! numbering: any run of up to `K` pages, parity included, holds one page of each stripe at most, and one
//! missing page of a stripe is the XOR of the others. A run of `B` bytes at any offset touches at most
//! `B / 4096 + 1` pages, which makes `K` one more than the pages of the run.
//!
//! A digest of each page says which one is damaged. Its table is protected as well; the digests of the
//! table's pages stand in the handoff block.

use crate::PAGE_SIZE;
use crate::handoff::{HandoffError, MAX_TABLE_PAGES, Region};
use crate::xxh64::xxh64;

/// Bytes of a page.
pub type Page = [u8; PAGE_SIZE as usize];

/// The XXH64 of a page, little-endian: enough to tell a damaged one; the region's SHA-256 has the last word.
pub type PageDigest = [u8; 8];

/// Page digests on a page of the table.
pub const DIGESTS_PER_PAGE: u32 = (PAGE_SIZE / size_of::<PageDigest>() as u64) as u32;

/// Most parity pages: runs of 1 GiB.
const MAX_PARITY: u32 = 1 << 18;

/// Where parity and page digests lie, and how many pages they are about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Geometry {
    /// Physical address of the first parity page.
    pub parity_start: u64,
    /// Number of parity pages, `K`; 0 where nothing can be rebuilt.
    pub nr_parity: u32,
    /// Number of protected pages, `N`.
    pub nr_protected: u32,
    /// Physical address of the table of page digests, by number of the page.
    pub table_start: u64,
    /// Pages of the table.
    pub nr_table: u32,
}

impl Geometry {
    /// Parity pages that make any run of so many bytes repairable.
    pub fn parity_pages_for(run: u64) -> u64 {
        if run == 0 { 0 } else { run.div_ceil(PAGE_SIZE) + 1 }
    }

    /// Number of the parity page that the protected page `index` goes into.
    pub fn parity_page(&self, index: u32) -> Option<u32> {
        let k = self.nr_parity;
        let (stripe, first) = (index.checked_rem(k)?, self.nr_protected.checked_rem(k)?);
        Some(if stripe >= first { stripe - first } else { stripe + (k - first) })
    }

    /// Whether parity and table belong to these regions.
    pub(crate) fn check(&self, regions: &[Region]) -> Result<(), HandoffError> {
        let wrong = |nr: u64| Err(HandoffError::BadGeometry { nr });
        let mut nr_protected = 0;
        let mut end = 0;
        for region in regions {
            if region.start < end {
                return wrong(region.nr_pages());
            }
            if region.is_protected() {
                nr_protected += region.nr_pages();
                end = region.start + region.nr_pages() * PAGE_SIZE;
            }
        }
        if nr_protected != self.nr_protected.into() {
            return wrong(self.nr_protected.into());
        }
        if self.nr_parity == 0 {
            return Ok(());
        }
        let parity_end = self.parity_start.checked_add(u64::from(self.nr_parity) * PAGE_SIZE);
        let is_above = self.parity_start >= end && self.parity_start.is_multiple_of(PAGE_SIZE);
        if self.nr_parity > MAX_PARITY || !is_above || parity_end.is_none_or(|end| end >= 1 << 52) {
            return wrong(self.nr_parity.into());
        }
        let table = (self.table_start, u64::from(self.nr_table));
        let is_protected = regions.iter().any(|r| r.is_protected() && (r.start, r.nr_pages()) == table);
        let has_room = u64::from(self.nr_table) * u64::from(DIGESTS_PER_PAGE) >= nr_protected;
        if self.nr_table as usize > MAX_TABLE_PAGES || !is_protected || !has_room {
            return wrong(self.nr_table.into());
        }
        Ok(())
    }
}

/// The address of a protected page by its number.
pub fn address_of(regions: &[Region], index: u32) -> Option<u64> {
    let mut rest = u64::from(index);
    for region in regions.iter().filter(|region| region.is_protected()) {
        if rest < region.nr_pages() {
            return Some(region.start + rest * PAGE_SIZE);
        }
        rest -= region.nr_pages();
    }
    None
}

/// The number of the first page of a protected region by the region's place among all.
pub fn first_index(regions: &[Region], region: usize) -> Option<u32> {
    if !regions.get(region)?.is_protected() {
        return None;
    }
    let before = regions.iter().take(region).filter(|region| region.is_protected());
    u32::try_from(before.map(Region::nr_pages).sum::<u64>()).ok()
}

/// The digest of a page.
pub fn page_digest(page: &Page) -> PageDigest {
    xxh64(page).to_le_bytes()
}

/// Adds a page to a sum of pages, or takes it out again.
pub fn xor_into(sum: &mut Page, page: &Page) {
    let (sum, page) = (sum.as_chunks_mut::<8>().0, page.as_chunks::<8>().0);
    for (sum, word) in sum.iter_mut().zip(page) {
        *sum = (u64::from_ne_bytes(*sum) ^ u64::from_ne_bytes(*word)).to_ne_bytes();
    }
}

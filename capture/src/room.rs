//! Whether a dump will fit, and at which level: decided before anything is written, from counts of pages by class.
//!
//! How well pages compress is not known before. What was seen of a dump that did not fit counts, else a guess that is
//! worse than most: then a level is raised only where the dump as it was asked for hardly fits.

use kdump_vmcore::kdump::Compression;

use crate::capture::{Options, OutputFormat};
use crate::classify::PageClass;
use crate::filter::{DumpLevel, FilterPlan};

/// Bytes of a page.
const PAGE: u64 = 4096;
/// Bytes of a page in a compressed dump: kernels and programs come to a quarter or a third.
const TYPICAL: u64 = PAGE * 2 / 5;
/// Bytes of a page's descriptor in a kdump-compressed file.
const DESCRIPTOR: u64 = 24;

/// What the levels leave: each more than the one before, what is missed least first. Zero-filled pages, free ones, the cache,
/// memory of processes.
const STEPS: [u32; 4] = [1, 1 | 16, 1 | 2 | 4 | 16, 31];

/// Pages by class, and how large one becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prediction {
    found: [u64; PageClass::ALL.len()],
    /// Pages of the source.
    held: u64,
    page_bytes: u64,
    head_bytes: u64,
}

impl Prediction {
    /// From a filter's plan, which counts all classes whatever its level.
    #[must_use]
    pub fn new(plan: &FilterPlan, options: &Options) -> Self {
        let found = PageClass::ALL.map(|class| plan.found(class));
        let is_kdump = options.format == OutputFormat::Kdump;
        let page_bytes = match (options.format, options.compression) {
            (OutputFormat::Kdump, Compression::None) => PAGE + DESCRIPTOR,
            (OutputFormat::Kdump, _) => TYPICAL + DESCRIPTOR,
            (OutputFormat::Elf, _) => PAGE,
        };
        // Two bitmaps.
        let head_bytes = if is_kdump { plan.ram.bits() / 4 } else { 0 };
        Self { held: found.iter().sum(), found, page_bytes, head_bytes }
    }

    /// The same with what was seen: so many bytes for so many pages.
    #[must_use]
    pub fn measured(&self, bytes: u64, pages: u64) -> Self {
        let page_bytes =
            bytes.checked_div(pages).map_or(self.page_bytes, |seen| seen.clamp(1, PAGE + DESCRIPTOR));
        Self { page_bytes, ..self.clone() }
    }

    /// Bytes of a dump at this level. Zero-filled pages count as others: how many there are is not known.
    #[must_use]
    pub fn bytes(&self, level: DumpLevel) -> u64 {
        let excluded = PageClass::ALL.into_iter().filter(|class| level.excludes(*class));
        let excluded: u64 = excluded.map(|class| self.found[class as usize]).sum();
        let pages = self.held.saturating_sub(excluded);
        pages.saturating_mul(self.page_bytes).saturating_add(self.head_bytes)
    }

    /// The level to write at where `room` bytes are free: the one asked for, or the lowest above it at which the dump fits.
    /// `None` if it fits at none.
    #[must_use]
    pub fn level_that_fits(&self, asked: DumpLevel, room: u64) -> Option<DumpLevel> {
        levels_from(asked).find(|level| self.bytes(*level) <= room)
    }
}

/// The levels that leave out at least what `asked` does, each more than the one before.
pub fn levels_from(asked: DumpLevel) -> impl Iterator<Item = DumpLevel> {
    let raised = STEPS.into_iter().filter_map(move |step| DumpLevel::new(asked.bits() | step));
    let mut last = None;
    std::iter::once(asked).chain(raised).filter(move |level| last.replace(*level) != Some(*level))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prediction() -> Prediction {
        let mut found = [0; PageClass::ALL.len()];
        for (class, pages) in [
            (PageClass::Kernel, 100),
            (PageClass::Cache, 200),
            (PageClass::Anon, 400),
            (PageClass::Free, 800),
        ] {
            found[class as usize] = pages;
        }
        Prediction { found, held: 1500, page_bytes: 1000, head_bytes: 0 }
    }

    fn bits(asked: u32, room: u64) -> Option<u32> {
        prediction().level_that_fits(DumpLevel::new(asked).unwrap(), room).map(DumpLevel::bits)
    }

    #[test]
    fn a_level_is_raised_no_further_than_it_must_be() {
        assert_eq!(bits(0, 1_500_000), Some(0));
        assert_eq!(bits(0, 1_499_999), Some(17), "free pages go first");
        assert_eq!(bits(0, 699_999), Some(23), "then the cache");
        assert_eq!(bits(0, 499_999), Some(31), "then memory of processes");
        assert_eq!(bits(0, 99_999), None);
        assert_eq!(bits(8, 1_100_000), Some(8));
        assert_eq!(bits(8, 300_000), Some(25));
    }

    #[test]
    fn levels_rise_and_never_leave_out_less() {
        for asked in 0..=31 {
            let levels: Vec<_> = levels_from(DumpLevel::new(asked).unwrap()).map(DumpLevel::bits).collect();
            assert_eq!((levels[0], *levels.last().unwrap()), (asked, 31));
            assert!(levels.windows(2).all(|w| w[0] & w[1] == w[0] && w[0] != w[1]), "{levels:?}");
        }
    }

    #[test]
    fn what_was_seen_counts_more_than_a_guess() {
        let seen = prediction().measured(50_000, 500);
        assert_eq!(seen.bytes(DumpLevel::MAX), 10_000);
        assert_eq!(prediction().measured(0, 0), prediction());
    }
}

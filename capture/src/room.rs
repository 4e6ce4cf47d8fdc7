//! Whether a dump will fit, and at which level: decided before anything is written, from counts of pages by class.
//!
//! How well pages compress is not known before. What was seen of a dump that did not fit counts, else a guess that is
//! worse than most: then a level is raised only where the dump as it was asked for hardly fits.

use kdump_vmcore::kdump::Compression;

use crate::capture::{Options, OutputFormat};
use crate::plan::Census;
use crate::selection::{DumpLevel, Selection};

/// Bytes of a page.
const PAGE: u64 = 4096;
/// Bytes of a page in a compressed dump: kernels and programs come to a quarter or a third.
const TYPICAL: u64 = PAGE * 2 / 5;
/// Bytes of a page's descriptor in a kdump-compressed file.
const DESCRIPTOR: u64 = 24;

/// What the levels leave out, each more than the one before, what is missed least first: zero-filled pages, free ones, the
/// cache, memory of processes.
const STEPS: [u32; 4] = [1, 1 | 16, 1 | 2 | 4 | 16, 31];

/// How large dumps of a source would be.
#[derive(Clone, Debug)]
pub struct Prediction {
    census: Census,
    page_bytes: u64,
    head_bytes: u64,
}

impl Prediction {
    /// From counts, which are of all classes whatever was wanted.
    #[must_use]
    pub fn new(census: &Census, options: &Options) -> Self {
        let (page_bytes, head_bytes) = match (options.format, options.compression) {
            // Two bitmaps.
            (OutputFormat::Kdump, Compression::None) => (PAGE + DESCRIPTOR, census.ram / 4),
            (OutputFormat::Kdump, _) => (TYPICAL + DESCRIPTOR, census.ram / 4),
            (OutputFormat::Elf, _) => (PAGE, 0),
            (OutputFormat::ElfZstd, _) => (TYPICAL, 0),
        };
        Self { census: census.clone(), page_bytes, head_bytes }
    }

    /// The same with what was seen: so many bytes for so many pages.
    #[must_use]
    pub fn measured(&self, bytes: u64, pages: u64) -> Self {
        let page_bytes =
            bytes.checked_div(pages).map_or(self.page_bytes, |seen| seen.clamp(1, PAGE + DESCRIPTOR));
        Self { page_bytes, ..self.clone() }
    }

    /// Bytes of a dump of what is selected. Zero-filled pages count as others: how many there are is not known.
    #[must_use]
    pub fn bytes(&self, selection: Selection) -> u64 {
        let pages = self.census.dumped_by(selection);
        pages.saturating_mul(self.page_bytes).saturating_add(self.head_bytes)
    }

    /// What to write where `room` bytes are free: what was asked for, or as little less as fits. `None` if nothing does.
    #[must_use]
    pub fn that_fits(&self, asked: Selection, room: u64) -> Option<Selection> {
        raised(asked).find(|selection| self.bytes(*selection) <= room)
    }
}

/// `asked`, and then the same at higher and higher levels: each leaves out all that the one before does.
pub fn raised(asked: Selection) -> impl Iterator<Item = Selection> {
    let higher = STEPS.into_iter().filter_map(move |step| DumpLevel::new(asked.level.bits() | step));
    let mut last = None;
    std::iter::once(asked.level)
        .chain(higher)
        .filter(move |level| last.replace(*level) != Some(*level))
        .map(move |level| Selection { level, ..asked })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classify::PageClass;

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
        let census = Census {
            selection: Selection::default(),
            source_level: None,
            ram: 1500,
            dumped: 1500,
            worth: Default::default(),
            found,
            absent: 0,
            missing: vec![],
            troubles: vec![],
        };
        Prediction { census, page_bytes: 1000, head_bytes: 0 }
    }

    fn level(bits: u32) -> Selection {
        DumpLevel::new(bits).unwrap().into()
    }

    fn bits(asked: u32, room: u64) -> Option<u32> {
        prediction().that_fits(level(asked), room).map(|selection| selection.level.bits())
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
            let levels: Vec<_> = raised(level(asked)).map(|selection| selection.level.bits()).collect();
            assert_eq!((levels[0], *levels.last().unwrap()), (asked, 31));
            assert!(levels.windows(2).all(|w| w[0] & w[1] == w[0] && w[0] != w[1]), "{levels:?}");
        }
    }

    #[test]
    fn what_was_seen_counts_more_than_a_guess() {
        let seen = prediction().measured(50_000, 500);
        assert_eq!(seen.bytes(level(31)), 10_000);
        assert_eq!(prediction().measured(0, 0).bytes(level(31)), 100_000);
    }
}

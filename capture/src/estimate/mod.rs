//! How large dumps would be, before any is written: pages of each class are counted, and some of each are read, to see how
//! many are zero-filled and how well the others pack.

pub mod live;
pub mod page_flags;

use kdump_arch_x86::PAGE_SIZE;
use kdump_vmcore::Dump;
use kdump_vmcore::kdump::write::Layout;

use crate::capture::{Error, Options, OutputFormat};
use crate::classify::PageClass;
use crate::compress::Compressor;
use crate::filter::{Counts, PART};
use crate::plan::{Census, Plan, Wanted};
use crate::selection::{DumpLevel, Selection};
use crate::source::read_page;

const PAGE: usize = PAGE_SIZE as usize;
/// Pages of each class that are read.
const SAMPLES: u64 = 2048;
/// Bytes of a page's descriptor in a kdump-compressed file.
const DESCRIPTOR: u64 = 24;
/// Bytes that a page of no class that was read packs to: kernels and programs come to a quarter or a third.
const TYPICAL: f64 = 4096.0 / 3.0;

/// What was seen of a class.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Seen {
    /// Pages that were read.
    pub sampled: u64,
    /// Zero-filled ones among them.
    pub zero: u64,
    /// Bytes that the others pack to, each by itself.
    pub packed: u64,
}

impl Seen {
    /// Share of pages that are zero-filled, 0 to 1.
    #[must_use]
    pub fn zero_share(&self) -> f64 {
        if self.sampled == 0 { 0.0 } else { self.zero as f64 / self.sampled as f64 }
    }

    /// Bytes that a page packs to that is not zero-filled; `None` if no such page was read.
    #[must_use]
    pub fn page_bytes(&self) -> Option<f64> {
        let pages = self.sampled.saturating_sub(self.zero);
        (pages > 0).then(|| self.packed as f64 / pages as f64)
    }
}

/// What a dump would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Predicted {
    /// Pages that it would hold, zero-filled ones included.
    pub pages: u64,
    /// Zero-filled ones among them.
    pub zero: u64,
    /// Bytes of the file.
    pub bytes: u64,
}

/// What was counted and seen.
#[derive(Clone, Debug)]
pub struct Estimate {
    /// Frames by class.
    pub found: Counts,
    /// Frames that were memory and that the source does not hold.
    pub absent: u64,
    /// What was seen, by class.
    pub seen: [Seen; PageClass::ALL.len()],
    /// What could not be found out.
    pub troubles: Vec<String>,
    format: OutputFormat,
    /// Bytes before descriptors and pages.
    head: u64,
    /// Bytes that a zero-filled page packs to.
    packed_zero: u64,
}

impl Estimate {
    /// Counts the pages of a dump, and reads some.
    ///
    /// # Errors
    /// As [`crate::capture()`].
    pub fn of_dump(dump: &Dump, options: &Options) -> Result<Self, Error> {
        let wanted = Wanted { selection: DumpLevel::default().into(), ..options.wanted.clone() };
        let plan = Plan::new(dump, &wanted)?;
        let mut sampler = Sampler::new(&plan.census.found, options)?;
        let map = plan.decider.map();
        let mut buf = Vec::new();
        let mut from = 0;
        while let Some(pfn) = map.next(from) {
            let first = pfn / PART * PART;
            from = first.saturating_add(PART);
            // What cannot be said of a window was said by the plan.
            let Ok(pages) = map.window(first, from) else { continue };
            plan.decider.filter().classify(dump, &pages.held, &mut buf, &mut |start, end, class| {
                for (start, end) in pages.held.runs_in(start, end) {
                    sampler
                        .take(start, end, class, |pfn, page| read_page(dump, dump.ram(), pfn, page).is_ok());
                }
            });
        }
        let Census { found, absent, missing, mut troubles, .. } = plan.census.clone();
        troubles.extend(missing.iter().map(|m| format!("VMCOREINFO has no {}: {}", m.fact, m.effect)));
        Ok(sampler.finish(found, absent, troubles, head_bytes(dump.notes().len() as u64, map.end())))
    }

    /// Bytes that a page of `class` packs to that is not zero-filled.
    #[must_use]
    pub fn page_bytes(&self, class: PageClass) -> f64 {
        match self.format {
            OutputFormat::Elf => PAGE as f64,
            _ => self.seen[class as usize].page_bytes().unwrap_or(TYPICAL),
        }
    }

    /// Zero-filled pages of `class`.
    #[must_use]
    pub fn zero(&self, class: PageClass) -> u64 {
        let pages = self.found[class as usize];
        ((pages as f64 * self.seen[class as usize].zero_share()).round() as u64).min(pages)
    }

    /// What a dump of what is selected would be.
    #[must_use]
    pub fn predict(&self, selection: Selection) -> Predicted {
        let zero_bytes = match (selection.excludes_zero(), self.format) {
            // One page that all share, or holes.
            (true, OutputFormat::Kdump | OutputFormat::Elf) => 0,
            (false, OutputFormat::Elf) => PAGE_SIZE,
            _ => self.packed_zero,
        };
        let mut predicted = Predicted { pages: 0, zero: 0, bytes: 0 };
        let mut bytes = 0.0;
        for class in PageClass::ALL.into_iter().filter(|class| !selection.excludes(*class)) {
            let (pages, zero) = (self.found[class as usize], self.zero(class));
            predicted.pages += pages;
            predicted.zero += zero;
            bytes += (pages - zero) as f64 * self.page_bytes(class) + (zero * zero_bytes) as f64;
        }
        let tables = match self.format {
            OutputFormat::Kdump => self.head + predicted.pages * DESCRIPTOR,
            OutputFormat::Elf | OutputFormat::ElfZstd => 0,
        };
        predicted.bytes = bytes as u64 + tables;
        predicted
    }
}

/// Bytes of headers, notes and bitmaps.
fn head_bytes(notes: u64, frames: u64) -> u64 {
    Layout::plan(notes, frames, 0).data_at()
}

/// Reads every so-manieth page of each class.
struct Sampler {
    compressor: Compressor,
    format: OutputFormat,
    /// Between two pages of a class that are read; odd, so that no pattern of huge pages hides from it.
    strides: Counts,
    /// Pages of a class until the next one that is read.
    left: Counts,
    seen: [Seen; PageClass::ALL.len()],
    page: Vec<u8>,
    packed: Vec<u8>,
}

impl Sampler {
    fn new(found: &Counts, options: &Options) -> Result<Self, Error> {
        let compression = match options.format {
            OutputFormat::ElfZstd => kdump_vmcore::kdump::Compression::Zstd,
            _ => options.compression,
        };
        Ok(Self {
            compressor: Compressor::new(compression, options.level).map_err(Error::Start)?,
            format: options.format,
            strides: found.map(|pages| (pages / SAMPLES) | 1),
            left: [0; PageClass::ALL.len()],
            seen: Default::default(),
            page: vec![0; PAGE],
            packed: vec![0; PAGE],
        })
    }

    /// Takes a run of frames of one class; `read` fills a page, and says whether it could.
    fn take(&mut self, start: u64, end: u64, class: PageClass, mut read: impl FnMut(u64, &mut [u8]) -> bool) {
        // Reading these may stop the machine, or there is nothing to read.
        if matches!(class, PageClass::HwPoison | PageClass::Offline) {
            return;
        }
        let at = class as usize;
        let mut pfn = start.saturating_add(self.left[at]);
        while pfn < end {
            if read(pfn, &mut self.page) {
                let bytes = self.packed_len();
                let is_zero = self.page.iter().all(|byte| *byte == 0);
                let seen = &mut self.seen[at];
                seen.sampled += 1;
                seen.zero += u64::from(is_zero);
                seen.packed += if is_zero { 0 } else { bytes };
            }
            pfn += self.strides[at];
        }
        self.left[at] = pfn - end;
    }

    fn packed_len(&mut self) -> u64 {
        self.compressor.page(&self.page, &mut self.packed).unwrap_or(PAGE) as u64
    }

    fn finish(mut self, found: Counts, absent: u64, troubles: Vec<String>, head: u64) -> Estimate {
        self.page.fill(0);
        let packed_zero = self.packed_len();
        Estimate { found, absent, seen: self.seen, troubles, format: self.format, head, packed_zero }
    }
}

#[cfg(test)]
mod tests;

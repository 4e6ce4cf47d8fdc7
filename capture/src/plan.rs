//! What a dump will hold, decided and counted before anything is written.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use kdump_arch_x86::{PAGE_SIZE, PhysAddr};
use kdump_vmcore::Dump;

use crate::classify::{MissingFact, PageClass, TypeFacts};
use crate::decide::{Decider, WINDOW, Worth};
use crate::filter::{Counts, Filter, TROUBLES_MAX};
use crate::selection::{DumpLevel, Selection};
use crate::source::{MAX_FRAMES, SourceMap, TooHigh};
use crate::types;

/// What is to be decided, and how.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// What to leave out.
    pub selection: Selection,
    /// Threads; `None`: one per CPU.
    pub workers: Option<NonZeroUsize>,
    /// Runs of frames, `start..end`, that are written first: what a report needs.
    pub first: Vec<(u64, u64)>,
    /// Frames that are handled at a time: memory grows with it.
    pub window: u64,
}

impl Default for Wanted {
    fn default() -> Self {
        Self { selection: DumpLevel::MAX.into(), workers: None, first: Vec::new(), window: WINDOW }
    }
}

/// Pages, counted.
#[derive(Clone, Debug)]
pub struct Census {
    /// What was wanted.
    pub selection: Selection,
    /// The level at which the source was filtered before, if it says so.
    pub source_level: Option<DumpLevel>,
    /// Frames that were memory.
    pub ram: u64,
    /// Frames to write. Zero-filled ones are among them: that takes reading.
    pub dumped: u64,
    /// Frames to write, by [`Worth`].
    pub worth: [u64; Worth::ALL.len()],
    /// Frames the source holds, by class.
    pub found: Counts,
    /// Frames that were memory and that the source does not hold.
    pub absent: u64,
    /// Facts that the kernel did not give.
    pub missing: Vec<MissingFact>,
    /// What went wrong on the way, once each.
    pub troubles: Vec<String>,
}

impl Census {
    /// The level as the file's header says it: what either filtering left out is not there.
    #[must_use]
    pub fn level_in_file(&self) -> u32 {
        self.selection.level.bits() | self.source_level.unwrap_or_default().bits()
    }

    /// Frames of `class` that the source holds.
    #[must_use]
    pub const fn found(&self, class: PageClass) -> u64 {
        self.found[class as usize]
    }

    /// Frames that a dump by another selection would hold, zero-filled ones included.
    #[must_use]
    pub fn dumped_by(&self, selection: Selection) -> u64 {
        PageClass::ALL.into_iter().filter(|c| !selection.excludes(*c)).map(|c| self.found(c)).sum()
    }
}

/// A dump that is decided on.
pub struct Plan<'a> {
    pub(crate) dump: &'a Dump,
    pub(crate) decider: Decider<'a, Dump>,
    pub(crate) workers: NonZeroUsize,
    pub(crate) first: Vec<(u64, u64)>,
    /// What was counted.
    pub census: Census,
    /// The time it took.
    pub time: Duration,
}

impl<'a> Plan<'a> {
    /// Goes over all of the dump's memory once, and decides.
    ///
    /// # Errors
    /// If it describes memory at addresses that no machine has.
    pub fn new(dump: &'a Dump, wanted: &Wanted) -> Result<Self, TooHigh> {
        let begin = Instant::now();
        let map = SourceMap::new(dump);
        if map.end() > MAX_FRAMES {
            return Err(TooHigh(PhysAddr(map.end().saturating_mul(PAGE_SIZE))));
        }
        let workers =
            wanted.workers.or_else(|| std::thread::available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN);
        let facts = if wanted.selection.needs_types() { types::facts(dump) } else { TypeFacts::default() };
        let max_phys = PhysAddr(map.end().saturating_mul(PAGE_SIZE));
        let filter = Filter::new(dump, dump.vmcoreinfo(), facts, max_phys, wanted.selection);
        let mut decider = Decider::new(dump, map, filter, workers.get(), wanted.window);
        let mut census = Census {
            selection: wanted.selection,
            source_level: source_level(dump),
            ram: 0,
            dumped: 0,
            worth: [0; Worth::ALL.len()],
            found: [0; PageClass::ALL.len()],
            absent: 0,
            missing: decider.filter().missing.clone(),
            troubles: decider.filter().troubles.clone(),
        };
        let first = merged(&wanted.first);
        decider.first_sweep(|decision| {
            let ram = decision.ram.count();
            census.ram += ram;
            census.absent += ram.saturating_sub(decision.held);
            census.dumped += decision.dumped.count();
            for worth in Worth::ALL {
                census.worth[worth as usize] += decision.of_worth(worth, &first).count();
            }
            census.found.iter_mut().zip(decision.found).for_each(|(sum, n)| *sum += n);
            let room = TROUBLES_MAX.saturating_sub(census.troubles.len());
            census.troubles.extend(decision.troubles.iter().take(room).cloned());
        });
        if dump.is_incomplete() {
            census.troubles.push("the source is incomplete: it was never finished, or was cut".to_string());
        }
        Ok(Self { dump, decider, workers, first, census, time: begin.elapsed() })
    }
}

/// Sorted runs that do not touch: each frame counts once.
fn merged(runs: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let mut sorted: Vec<_> = runs.iter().copied().filter(|(start, end)| start < end).collect();
    sorted.sort_unstable();
    let mut out: Vec<(u64, u64)> = Vec::new();
    for (start, end) in sorted {
        match out.last_mut() {
            Some(last) if start <= last.1 => last.1 = last.1.max(end),
            _ => out.push((start, end)),
        }
    }
    out
}

/// The level at which the source was filtered already, where it says so and can be believed.
fn source_level(dump: &Dump) -> Option<DumpLevel> {
    DumpLevel::new(u32::try_from(dump.kdump()?.info().dump_level?).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_merged_so_that_no_page_is_written_twice() {
        assert_eq!(merged(&[(5, 7), (1, 3), (2, 4), (7, 8), (9, 9)]), [(1, 4), (5, 8)]);
    }
}

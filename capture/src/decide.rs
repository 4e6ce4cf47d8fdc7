//! Deciding on a window of the address space, in parallel; and going over all windows.
//!
//! A window's bitmaps take little memory, whatever the machine's. Where the machine has one window, what was decided is kept;
//! where it has many, each sweep decides anew: struct pages are a 64th of memory, and reading them twice is cheaper than
//! memory that a capture kernel does not have.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use kdump_vmcore::PhysMem;
use kdump_vmcore::kdump::bitmap::PageBitmap;

use crate::classify::PageClass;
use crate::filter::{Counts, Filter, PART, TROUBLES_MAX};
use crate::source::{SourceMap, SourcePages};

/// Frames of a window: 32 GiB, 1 MiB for each bitmap.
pub const WINDOW: u64 = 32 * PART;

/// The order in which pages are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum Worth {
    /// What a report needs.
    First,
    /// Kernel objects and page tables.
    Slabs,
    /// What else is the kernel's.
    Kernel,
    /// Everything else.
    Rest,
}

impl Worth {
    /// In order.
    pub const ALL: [Self; 4] = [Self::First, Self::Slabs, Self::Kernel, Self::Rest];
}

/// What was decided of one window.
#[derive(Clone, Debug)]
pub struct Decision {
    /// Frames that were memory.
    pub ram: PageBitmap,
    /// Frames to write.
    pub dumped: PageBitmap,
    slabs: PageBitmap,
    kernel: PageBitmap,
    /// Frames that the source holds, by class.
    pub found: Counts,
    /// Frames that the source holds.
    pub held: u64,
    /// What went wrong, once each.
    pub troubles: Vec<String>,
}

impl Decision {
    /// Those of the frames to write that are of `worth`, where `first`, runs of frames, are the ones that matter most.
    #[must_use]
    pub fn of_worth(&self, worth: Worth, first: &[(u64, u64)]) -> PageBitmap {
        let mut pages = match worth {
            Worth::First => {
                let mut pages = PageBitmap::window(self.dumped.first(), self.dumped.bits());
                for &(start, end) in first {
                    self.dumped.runs_in(start, end).for_each(|(s, e)| pages.insert(s, e));
                }
                return pages;
            }
            Worth::Slabs => self.slabs.clone(),
            Worth::Kernel => self.kernel.clone(),
            Worth::Rest => {
                let mut pages = self.dumped.clone();
                for map in [&self.slabs, &self.kernel] {
                    map.runs().for_each(|(s, e)| {
                        pages.remove(s, e);
                    });
                }
                pages
            }
        };
        for &(start, end) in first {
            pages.remove(start, end);
        }
        pages
    }
}

/// Everything that decides, and how the address space is gone over.
pub struct Decider<'a, M: ?Sized> {
    mem: &'a M,
    map: SourceMap<'a>,
    filter: Filter,
    workers: usize,
    window: u64,
    /// What was decided of the only window there is.
    kept: Option<Decision>,
}

impl<'a, M: PhysMem + Sync + ?Sized> Decider<'a, M> {
    /// With `workers` threads and windows of `window` frames, a multiple of [`PART`].
    pub fn new(mem: &'a M, map: SourceMap<'a>, filter: Filter, workers: usize, window: u64) -> Self {
        let window = window.next_multiple_of(PART).max(PART);
        Self { mem, map, filter, workers: workers.max(1), window, kept: None }
    }

    /// The filter's facts.
    pub const fn filter(&self) -> &Filter {
        &self.filter
    }

    /// The frames of the source.
    pub const fn map(&self) -> &SourceMap<'a> {
        &self.map
    }

    /// Goes over all windows that have memory, in ascending order.
    ///
    /// # Errors
    /// The first error of `take`.
    pub fn sweep<E>(&self, mut take: impl FnMut(&Decision) -> Result<(), E>) -> Result<(), E> {
        if let Some(kept) = &self.kept {
            return take(kept);
        }
        let mut from = 0;
        while let Some(pfn) = self.map.next(from) {
            let first = pfn / self.window * self.window;
            from = first.saturating_add(self.window);
            take(&self.decide(first, from))?;
        }
        Ok(())
    }

    /// The same, the first time: what is decided is kept if there is one window only.
    pub fn first_sweep(&mut self, mut take: impl FnMut(&Decision)) {
        let mut last = None;
        let mut nr = 0;
        let done: Result<(), std::convert::Infallible> = self.sweep(|decision| {
            take(decision);
            nr += 1;
            last = (nr == 1 && self.map.end() <= self.window).then(|| decision.clone());
            Ok(())
        });
        let Ok(()) = done;
        self.kept = last;
    }

    /// Decides on `first..end`.
    fn decide(&self, first: u64, end: u64) -> Decision {
        let (pages, trouble) = match self.map.window(first, end) {
            Ok(pages) => (pages, None),
            Err(e) => {
                (SourcePages::none(first), Some(format!("which pages there are from {first:#x} on: {e}")))
            }
        };
        let (first, end) = (pages.held.first(), pages.held.bits());
        let empty = || PageBitmap::window(first, end);
        let held = pages.held.count();
        let decision = Mutex::new(Decision {
            ram: pages.ram,
            dumped: empty(),
            slabs: empty(),
            kernel: empty(),
            found: [0; PageClass::ALL.len()],
            held,
            troubles: trouble.into_iter().collect(),
        });
        let next = AtomicU64::new(0);
        let work = || {
            let mut buf = Vec::new();
            loop {
                let start = first + next.fetch_add(PART, Ordering::Relaxed);
                if start >= end {
                    break;
                }
                let stop = (start + PART).min(end);
                let mut part = PageBitmap::window(start, stop);
                pages.held.runs_in(start, stop).for_each(|(s, e)| part.insert(s, e));
                if part.runs().next().is_none() {
                    continue;
                }
                let decided = self.filter.decide(self.mem, part, &mut buf);
                // A worker that panicked left nothing half done.
                let mut whole = decision.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                whole.dumped.replace(&decided.dumped);
                whole.slabs.replace(&decided.slabs);
                whole.kernel.replace(&decided.kernel);
                whole.found.iter_mut().zip(decided.found).for_each(|(sum, n)| *sum += n);
                let room = TROUBLES_MAX.saturating_sub(whole.troubles.len());
                whole.troubles.extend(decided.troubles.into_iter().take(room));
            }
        };
        let parts = usize::try_from((end - first).div_ceil(PART)).unwrap_or(usize::MAX);
        std::thread::scope(|scope| {
            // Where no thread can be had, this one does it all.
            for _ in 1..self.workers.min(parts) {
                let _ = std::thread::Builder::new().name("page-filter".into()).spawn_scoped(scope, work);
            }
            work();
        });
        decision.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

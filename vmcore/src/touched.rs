//! Which pages were read: what a report needed, so that a dump has those first.

use std::sync::Mutex;
use std::vec::Vec;

use kdump_arch_x86::{PAGE_SIZE, PhysAddr};

/// Runs that are noted before they are sorted and joined.
const LOOSE: usize = 1 << 14;
/// Runs that are kept; a report needs some hundreds. More would be a walk over all of memory, which no order helps.
const MOST: usize = 1 << 16;

/// A note of what was read.
#[derive(Debug, Default)]
pub struct Touched(Mutex<Noted>);

#[derive(Debug, Default)]
struct Noted {
    /// Frames, `start..end`; the first `joined` of them ascend and do not touch.
    runs: Vec<(u64, u64)>,
    joined: usize,
}

impl Touched {
    /// Notes that `len` bytes from `at` on were read.
    pub fn note(&self, at: PhysAddr, len: usize) {
        let start = at.0 / PAGE_SIZE;
        let end = at.0.saturating_add(len as u64).div_ceil(PAGE_SIZE);
        // Nobody panics while this is locked.
        let Ok(mut noted) = self.0.lock() else { return };
        if let Some(last) = noted.runs.last()
            && last.0 <= start
            && end <= last.1
        {
            return;
        }
        noted.runs.push((start, end));
        if noted.runs.len() >= noted.joined + LOOSE {
            noted.join();
        }
    }

    /// The frames, as runs that ascend and do not touch.
    #[must_use]
    pub fn runs(&self) -> Vec<(u64, u64)> {
        let Ok(mut noted) = self.0.lock() else { return Vec::new() };
        noted.join();
        noted.runs.clone()
    }
}

impl Noted {
    fn join(&mut self) {
        self.runs.sort_unstable();
        self.runs.dedup_by(|next, before| {
            let touches = next.0 <= before.1;
            if touches {
                before.1 = before.1.max(next.1);
            }
            touches
        });
        self.runs.truncate(MOST);
        self.joined = self.runs.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_is_noted_once() {
        let touched = Touched::default();
        for (at, len) in [(0x5ff8, 16), (0x1000, 8), (0x2000, 4096), (0x1800, 1), (0x9000, 0x3000)] {
            touched.note(PhysAddr(at), len);
        }
        assert_eq!(touched.runs(), [(1, 3), (5, 7), (9, 12)]);
        for i in 0..200_000 {
            touched.note(PhysAddr((i * 7919 % 100_003) * 0x4000), 1);
        }
        let runs = touched.runs();
        assert!(runs.len() <= MOST && runs.windows(2).all(|w| w[0].1 < w[1].0));
    }
}

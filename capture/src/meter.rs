//! How far a dump is, in words: done, rate, time left.

use std::time::Duration;

use crate::capture::Progress;

/// Tells lines from counts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Meter {
    /// Where the rate is measured from, and how far it was then.
    since: Option<(Duration, Progress)>,
}

/// A stretch that the rate is measured over begins anew after so long.
const STRETCH: Duration = Duration::from_secs(30);

impl Meter {
    /// One line: `45% (12345 of 27000 pages), 120 MiB, 24.0 MiB/s, 12 s left`. `at` is the time since any beginning.
    pub fn line(&mut self, progress: Progress, at: Duration) -> String {
        let Progress { done, total, bytes } = progress;
        let mut text = format!("{}% ({done} of {total} pages), {} MiB", percent(progress), bytes >> 20);
        let (since, first) = *self.since.get_or_insert((at, progress));
        let seconds = at.saturating_sub(since).as_secs_f64();
        let pages = done.saturating_sub(first.done);
        if seconds > 0.0 && pages > 0 {
            let rate = bytes.saturating_sub(first.bytes) as f64 / seconds / f64::from(1 << 20);
            let left = total.saturating_sub(done) as f64 * seconds / pages as f64;
            text.push_str(&format!(", {rate:.1} MiB/s, {left:.0} s left"));
        }
        if at.saturating_sub(since) >= STRETCH {
            self.since = Some((at, progress));
        }
        text
    }

    /// The same behind a bar, in `width` columns at most.
    pub fn bar(&mut self, progress: Progress, at: Duration, width: usize) -> String {
        let line = self.line(progress, at);
        let room = width.saturating_sub(line.len() + 3).min(40);
        if room < 10 {
            return line.chars().take(width).collect();
        }
        let full = room * usize::try_from(percent(progress)).unwrap_or(0) / 100;
        format!("[{}{}] {line}", "#".repeat(full), "-".repeat(room - full))
    }
}

fn percent(progress: Progress) -> u64 {
    progress.done.saturating_mul(100).checked_div(progress.total).unwrap_or(100).min(100)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(done: u64) -> Progress {
        Progress { done, total: 1000, bytes: done << 20 }
    }

    #[test]
    fn rate_and_time_left_are_those_of_the_last_stretch() {
        let mut meter = Meter::default();
        let seconds = Duration::from_secs;
        assert_eq!(meter.line(at(100), seconds(1)), "10% (100 of 1000 pages), 100 MiB");
        assert_eq!(
            meter.line(at(300), seconds(11)),
            "30% (300 of 1000 pages), 300 MiB, 20.0 MiB/s, 35 s left"
        );
        meter.line(at(400), seconds(31));
        // From here on the rate counts from the 31st second.
        assert_eq!(
            meter.line(at(410), seconds(41)),
            "41% (410 of 1000 pages), 410 MiB, 1.0 MiB/s, 590 s left"
        );
    }

    #[test]
    fn nothing_to_do_is_done() {
        let none = Progress { done: 0, total: 0, bytes: 0 };
        assert_eq!(Meter::default().line(none, Duration::ZERO), "100% (0 of 0 pages), 0 MiB");
    }

    #[test]
    fn a_bar_fits_its_line() {
        let mut meter = Meter::default();
        for width in [0, 5, 20, 40, 80, 200] {
            assert!(meter.bar(at(500), Duration::ZERO, width).len() <= width);
        }
        assert!(meter.bar(at(500), Duration::ZERO, 80).starts_with("[####################-------"));
    }
}

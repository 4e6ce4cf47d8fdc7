//! Which messages are shown, and where: `--message-level`. Progress and errors go to standard error, what else is said to
//! standard output, unless that takes the dump.
//!
//! Source: makedumpfile `print_info.h`.

use std::io::{self, Write as _};
use std::time::{Duration, Instant};

use kdump_capture::Progress;

/// How far it is.
const PROGRESS: u32 = 1;
/// What is done.
const COMMON: u32 = 2;
/// What went wrong.
const ERROR: u32 = 4;
/// Details.
pub const DEBUG: u32 = 8;
/// Counts.
pub const REPORT: u32 = 16;
/// Unless told otherwise.
pub const DEFAULT: u32 = PROGRESS | COMMON | ERROR;
/// Everything.
pub const MAX: u32 = 31;

/// How often progress is shown.
const EVERY: Duration = Duration::from_secs(1);

/// What is shown, and where. A message that cannot be written is not worth a dump.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Voice {
    /// Kinds of messages, added up.
    pub level: u32,
    /// Standard output takes the dump: all goes to standard error.
    pub to_stderr: bool,
}

impl Voice {
    fn put(self, kind: u32, text: &str) {
        if self.level & kind == 0 {
            return;
        }
        let _ = if self.to_stderr || kind == PROGRESS || kind == ERROR {
            io::stderr().write_all(text.as_bytes())
        } else {
            let mut out = io::stdout().lock();
            out.write_all(text.as_bytes()).and_then(|()| out.flush())
        };
    }

    /// A line about what is done.
    pub fn common(self, text: &str) {
        self.put(COMMON, &format!("{text}\n"));
    }

    /// A line about what went wrong.
    pub fn error(self, text: &str) {
        self.put(ERROR, &format!("{text}\n"));
    }

    /// A line of details.
    pub fn debug(self, text: &str) {
        self.put(DEBUG, &format!("{text}\n"));
    }

    /// Lines of counts.
    pub fn report(self, text: &str) {
        self.put(REPORT, text);
    }

    /// A phase that is over.
    pub fn done(self, phase: &str) {
        self.put(PROGRESS, &format!("\r{}", progress_line(phase, 1000, 0, "eta: 0s")));
    }
}

/// `Copying data   : [ 12.3 %] |   eta: 5s`.
fn progress_line(phase: &str, promille: u64, turn: usize, eta: &str) -> String {
    let spinner = ["/", "|", "\\", "-"][turn % 4];
    format!("{phase:<50}: [{:>3}.{} %] {spinner}  {eta:>16}", promille / 10, promille % 10)
}

/// The line that shows how far copying is.
pub struct Copying {
    voice: Voice,
    begin: Instant,
    next: Duration,
    turn: usize,
}

impl Copying {
    /// Shows nothing yet.
    pub fn new(voice: Voice) -> Self {
        Self { voice, begin: Instant::now(), next: EVERY, turn: 0 }
    }

    /// Shows how far it is, unless it was just shown.
    pub fn tell(&mut self, progress: Progress) {
        let at = self.begin.elapsed();
        if at < self.next {
            return;
        }
        self.next = at + EVERY;
        let promille = progress.done.saturating_mul(1000).checked_div(progress.total).unwrap_or(1000);
        let left = (at.as_secs() * 1000).checked_div(promille).map_or(0, |all| all - at.as_secs());
        self.voice.put(
            PROGRESS,
            &format!("\r{}", progress_line(COPYING, promille.min(1000), self.turn, &eta(left))),
        );
        self.turn += 1;
    }

    /// Shows that it is through.
    pub fn done(self) {
        self.voice.done(COPYING);
    }
}

const COPYING: &str = "Copying data";

fn eta(seconds: u64) -> String {
    match seconds {
        0..100 => format!("eta: {seconds}s"),
        100..6000 => format!("eta: {}m{}s", seconds / 60, seconds % 60),
        _ => format!("eta: {}h{}m", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_looks_as_scripts_know_it() {
        let line = progress_line(COPYING, 1000, 0, &eta(0));
        assert_eq!(line, format!("{:<50}: [100.0 %] /           eta: 0s", "Copying data"));
        assert_eq!(
            (eta(99), eta(125), eta(7260)),
            ("eta: 99s".into(), "eta: 2m5s".into(), "eta: 2h1m".into())
        );
    }
}

//! A line on the terminal that says how far a dump is; nothing where the standard error is no terminal.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use kdump_capture::Progress;
use kdump_capture::meter::Meter;

/// How often it is written anew.
const EVERY: Duration = Duration::from_millis(200);
/// When the terminal does not tell.
const WIDTH: usize = 80;

/// The line.
pub struct Bar {
    begin: Instant,
    next: Duration,
    meter: Meter,
    is_shown: bool,
}

impl Bar {
    /// Nothing is shown before the first [`Self::tell`].
    pub fn new() -> Self {
        Self { begin: Instant::now(), next: Duration::ZERO, meter: Meter::default(), is_shown: false }
    }

    /// Shows how far it is, unless it was just shown.
    pub fn tell(&mut self, progress: Progress) {
        let at = self.begin.elapsed();
        if at < self.next || !io::stderr().is_terminal() {
            return;
        }
        self.next = at + EVERY;
        self.is_shown = true;
        let width =
            rustix::termios::tcgetwinsize(io::stderr()).map_or(WIDTH, |size| usize::from(size.ws_col));
        // The last column is left free: some terminals go to the next line behind it.
        let line = self.meter.bar(progress, at, width.saturating_sub(1));
        let _ = write!(io::stderr(), "\r\x1b[K{line}");
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if self.is_shown {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

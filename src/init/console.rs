//! Lines on the console, with seconds since the start.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Prints a line `kdump-init: [seconds] …` on the console. Never fails.
macro_rules! say {
    ($($arg:tt)*) => { $crate::console::line(format_args!($($arg)*)) };
}
pub(crate) use say;

static START: OnceLock<Instant> = OnceLock::new();
/// Milliseconds after the start at which something was last done.
static LAST_MOVE: AtomicU64 = AtomicU64::new(0);

/// Time since the first line.
fn elapsed() -> Duration {
    START.get_or_init(Instant::now).elapsed()
}

/// Tells the watchdog that things are moving.
pub fn moved() {
    let now = u64::try_from(elapsed().as_millis()).unwrap_or(u64::MAX);
    LAST_MOVE.store(now, Ordering::Relaxed);
}

/// How long nothing has moved.
pub fn still_for() -> Duration {
    elapsed().saturating_sub(Duration::from_millis(LAST_MOVE.load(Ordering::Relaxed)))
}

/// Where lines go: the console, which the kernel opened for us, else the kernel log.
fn output() -> Option<&'static File> {
    static OUTPUT: OnceLock<Option<File>> = OnceLock::new();
    let open = |path| OpenOptions::new().write(true).open(path).ok();
    OUTPUT.get_or_init(|| open("/dev/console").or_else(|| open("/dev/kmsg"))).as_ref()
}

/// See [`say!`].
pub fn line(text: std::fmt::Arguments<'_>) {
    moved();
    let seconds = elapsed().as_secs_f64();
    let Some(mut out) = output() else { return };
    // Causes may have lines of their own. One write each, so that kernel messages come between them.
    for part in text.to_string().lines() {
        let _ = out.write_all(format!("kdump-init: [{seconds:6.2}] {part}\n").as_bytes());
    }
}

/// Prints text as it is, `limit` bytes of it at most.
pub fn text(text: &str, limit: usize) {
    moved();
    let bytes = text.as_bytes();
    if let Some(mut out) = output() {
        let _ = out.write_all(&bytes[..bytes.len().min(limit)]);
        let _ = out.write_all(b"\n");
    }
}

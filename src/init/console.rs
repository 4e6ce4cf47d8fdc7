//! Lines on the console, with seconds since the start. Saying something never holds anything up: a
//! console that takes nothing (a ^S on a serial line is enough) is given up after a few seconds, and
//! what follows goes to the kernel log.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;

/// Prints a line `kdump-init: [seconds] …` on the console. Never fails, and never waits for long.
macro_rules! say {
    ($($arg:tt)*) => { $crate::console::line(format_args!($($arg)*)) };
}
pub(crate) use say;

/// A console that takes not one byte for so long is stuck: at 300 baud it takes a hundred.
const STUCK: Duration = Duration::from_secs(3);
const RETRY: Duration = Duration::from_millis(10);
/// A record of the kernel log is at most 1024 bytes, prefix included.
/// Source: kernel/printk/printk.c `devkmsg_write`
const KMSG_MAX: usize = 960;

static START: OnceLock<Instant> = OnceLock::new();
/// Milliseconds after the start at which something was last done.
static LAST_MOVE: AtomicU64 = AtomicU64::new(0);

static CONSOLE: OnceLock<File> = OnceLock::new();
static KMSG: OnceLock<File> = OnceLock::new();
/// The console was given up, for good: waiting for it once more with every line would add up.
static GIVEN_UP: AtomicBool = AtomicBool::new(false);

/// Counts seconds from `before` ago, where another process began before this one.
pub fn began(before: Duration) {
    let now = Instant::now();
    let _ = START.set(now.checked_sub(before).unwrap_or(now));
}

/// Time since the first line.
pub fn elapsed() -> Duration {
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

/// See [`say!`].
pub fn line(text: std::fmt::Arguments<'_>) {
    moved();
    let seconds = elapsed().as_secs_f64();
    // Causes may have lines of their own. One write each, so that kernel messages come between them.
    for part in text.to_string().lines() {
        put(format!("kdump-init: [{seconds:6.2}] {part}\n").as_bytes());
    }
}

/// Prints text as it is, `limit` bytes of it at most.
pub fn text(text: &str, limit: usize) {
    let bytes = text.as_bytes();
    for line in bytes[..bytes.len().min(limit)].split_inclusive(|&b| b == b'\n') {
        moved();
        put(line);
    }
    put(b"\n");
}

/// Writes one line to the console, else to the kernel log.
fn put(line: &[u8]) {
    if !GIVEN_UP.load(Ordering::Relaxed)
        && let Some(console) = opened(&CONSOLE, "/dev/console")
    {
        match write_bounded(console, line, STUCK) {
            Err(e) if e.kind() == io::ErrorKind::TimedOut => {
                GIVEN_UP.store(true, Ordering::Relaxed);
                // The kernel log takes ten lines in five seconds from a program, unless told otherwise.
                let _ = std::fs::write("/proc/sys/kernel/printk_devkmsg", "on");
            }
            _ => return,
        }
    }
    if let Some(mut log) = opened(&KMSG, "/dev/kmsg") {
        let _ = log.write(&line[..line.len().min(KMSG_MAX)]);
    }
}

/// The file, opened when first needed; again if that failed, as /dev may be mounted by then.
fn opened(file: &'static OnceLock<File>, path: &str) -> Option<&'static File> {
    if file.get().is_none() {
        let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
        let _ = file.set(OpenOptions::new().write(true).custom_flags(flags).open(path).ok()?);
    }
    file.get()
}

/// Writes all of `bytes` to what does not block; `TimedOut` when not one byte is taken for `patience`.
fn write_bounded(mut out: impl Write, mut bytes: &[u8], patience: Duration) -> io::Result<()> {
    let mut last = Instant::now();
    while !bytes.is_empty() {
        let taken = match out.write(bytes) {
            Ok(n) => n,
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => 0,
            Err(e) => return Err(e),
        };
        if taken > 0 {
            bytes = bytes.get(taken..).unwrap_or_default();
            last = Instant::now();
        } else if last.elapsed() >= patience {
            return Err(io::ErrorKind::TimedOut.into());
        } else {
            std::thread::sleep(RETRY);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes `left` bytes, three at a time, then none.
    struct Stopped(usize);

    impl Write for Stopped {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let n = bytes.len().min(3).min(self.0);
            self.0 -= n;
            if n == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(n) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_console_that_takes_nothing_is_given_up() {
        let begin = Instant::now();
        let e = write_bounded(Stopped(7), b"eight by", Duration::from_millis(50)).unwrap_err();
        assert_eq!(e.kind(), io::ErrorKind::TimedOut);
        assert!(begin.elapsed() < Duration::from_secs(2));
    }

    #[test]
    fn a_slow_console_gets_all_of_a_line() {
        let mut out = Stopped(8);
        write_bounded(&mut out, b"eight by", Duration::from_millis(50)).unwrap();
        assert_eq!(out.0, 0);
    }
}

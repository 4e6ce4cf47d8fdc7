//! Lines on the console, with seconds since the start. Saying something never holds anything up: a
//! console that takes nothing (a ^S on a serial line is enough) is given up after a few seconds, and
//! what follows goes to the kernel log. All lines are kept in a file, too, of which each dump gets a copy.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
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

/// Everything that was said, by all processes. Not below /run, which is mounted only after the first words.
const LOG: &str = "/capture.log";
/// Its copy beside a dump.
const COPY: &str = "capture.log";
/// More than this is not kept: it lies in memory.
const LOG_MAX: u64 = 1 << 20;
/// A child says at most so often that it moves.
const BEAT: u64 = 500;

static LOG_FILE: OnceLock<File> = OnceLock::new();
static COPY_FILE: Mutex<Option<File>> = Mutex::new(None);
/// Whether this is a child, whose standard output is for signs of life.
static IS_CHILD: AtomicBool = AtomicBool::new(false);

static CONSOLE: OnceLock<File> = OnceLock::new();
static KMSG: OnceLock<File> = OnceLock::new();
/// The console was given up, for good: waiting for it once more with every line would add up.
static GIVEN_UP: AtomicBool = AtomicBool::new(false);

/// Counts seconds from `before` ago: this is a child, and another process began before it.
pub fn began(before: Duration) {
    IS_CHILD.store(true, Ordering::Relaxed);
    let now = Instant::now();
    let _ = START.set(now.checked_sub(before).unwrap_or(now));
}

/// Time since the first line.
pub fn elapsed() -> Duration {
    START.get_or_init(Instant::now).elapsed()
}

/// Tells the watchdog that things are moving: here, or in the process that started this one.
pub fn moved() {
    let now = u64::try_from(elapsed().as_millis()).unwrap_or(u64::MAX);
    let last = LAST_MOVE.load(Ordering::Relaxed);
    if !IS_CHILD.load(Ordering::Relaxed) {
        LAST_MOVE.store(now, Ordering::Relaxed);
    } else if now.saturating_sub(last) >= BEAT || last == 0 {
        LAST_MOVE.store(now, Ordering::Relaxed);
        let mut out = io::stdout();
        let _ = out.write(b".").and_then(|_| out.flush());
    }
}

/// Writes everything that was and will be said to `capture.log` in `dir`, too.
///
/// # Errors
/// Whatever the operating system says.
pub fn log_to(dir: &Path) -> io::Result<()> {
    let path = dir.join(COPY);
    let is_new = !path.exists();
    let mut copy = OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
    let mut copied = Ok(());
    if is_new {
        copied = log().and_then(|log| copy.write_all(&log));
    }
    *COPY_FILE.lock().unwrap_or_else(PoisonError::into_inner) = Some(copy);
    copied
}

/// Everything that was said so far.
///
/// # Errors
/// Whatever the operating system says.
pub fn log() -> io::Result<Vec<u8>> {
    std::fs::read(LOG)
}

/// Brings the copy beside the dump to the disk.
pub fn sync_log() {
    if let Some(copy) = COPY_FILE.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
        let _ = copy.sync_all();
    }
}

/// Writes no copy any more.
pub fn log_nowhere() {
    sync_log();
    *COPY_FILE.lock().unwrap_or_else(PoisonError::into_inner) = None;
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
        let line = format!("kdump-init: [{seconds:6.2}] {part}\n");
        keep(line.as_bytes());
        put(line.as_bytes());
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

/// Writes one line to the files that keep them.
fn keep(line: &[u8]) {
    if LOG_FILE.get().is_none()
        && let Ok(log) = OpenOptions::new().append(true).create(true).open(LOG)
    {
        let _ = LOG_FILE.set(log);
    }
    if let Some(mut log) = LOG_FILE.get().filter(|log| log.metadata().is_ok_and(|m| m.len() < LOG_MAX)) {
        let _ = log.write_all(line);
    }
    if let Some(copy) = COPY_FILE.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
        let _ = copy.write_all(line);
    }
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

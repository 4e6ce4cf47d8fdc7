//! Hardware watchdogs: fed as long as things move, so that they bite when kdump-init, or the kernel below it, does not go
//! on. One that was running when the machine crashed would do that in the middle of the dump.
//!
//! Source: Documentation/watchdog/watchdog-api.rst.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::console::{say, still_for};
use crate::end;

const CLASS: &str = "/sys/class/watchdog";
/// No watchdog counts less than this.
const MEAL: Duration = Duration::from_secs(1);

/// Those that are fed. They bite when these files are closed without a word, too.
static OPEN: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// Opens all watchdogs, which starts them, and feeds them from now on.
pub fn start() {
    for entry in fs::read_dir(CLASS).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let tell =
            |file: &str| fs::read_to_string(entry.path().join(file)).unwrap_or_default().trim().to_owned();
        match OpenOptions::new().write(true).open(Path::new("/dev").join(&name)) {
            Ok(file) => {
                say!("feeding {name} ({}, {} s)", tell("identity"), tell("timeout"));
                lock().push(file);
            }
            Err(e) => say!("/dev/{name}: {e}: it is not fed"),
        }
    }
    if lock().is_empty() {
        return;
    }
    let thread = std::thread::Builder::new().name("feed".into()).spawn(|| {
        while still_for() < end::STALL && !end::is_stuck() {
            for dog in lock().iter_mut() {
                let _ = dog.write_all(b"\n");
            }
            std::thread::sleep(MEAL);
        }
    });
    if let Err(e) = thread {
        say!("no thread to feed watchdogs: {e}");
    }
}

/// Stops them, as far as they can be stopped: for an end that is no restart.
pub fn stop() {
    for mut dog in lock().drain(..) {
        // The word without which closing it does not stop it.
        if let Err(e) = dog.write_all(b"V") {
            say!("a watchdog cannot be stopped: {e}");
        }
    }
}

fn lock() -> std::sync::MutexGuard<'static, Vec<File>> {
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

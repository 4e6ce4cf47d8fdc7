//! What the tests that boot guests share: the programs, the kernels, and a turn for each guest.

#![allow(dead_code, reason = "each test uses its part")]

use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};

use kdump_rehearse::{Programs, Progress};

/// The command under test.
pub const KDUMP_RS: &str = env!("CARGO_BIN_EXE_kdump-rs");
/// The capture kernel's first program.
pub const KDUMP_INIT: &str = env!("CARGO_BIN_EXE_kdump-init");

pub fn programs() -> Programs {
    Programs { kdump_rs: KDUMP_RS.into(), kdump_init: KDUMP_INIT.into() }
}

/// Places that are free. An emulated guest keeps about one CPU busy, whatever number of CPUs it has.
static FREE: Mutex<Option<Vec<usize>>> = Mutex::new(None);
static GIVEN_BACK: Condvar = Condvar::new();

/// A place among the guests that may run now, given back when it is dropped.
pub struct Turn(usize);

impl Turn {
    /// Waits for one.
    pub fn wait() -> Self {
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let places = free.get_or_insert_with(|| {
                (0..std::thread::available_parallelism().map_or(1, usize::from)).collect()
            });
            if let Some(place) = places.pop() {
                return Self(place);
            }
            free = GIVEN_BACK.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A directory that no other running guest has.
    pub fn directory(&self, name: &str) -> PathBuf {
        scratch(&format!("{name}-{}", self.0))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(places) = FREE.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            places.push(self.0);
        }
        GIVEN_BACK.notify_one();
    }
}

/// A path for a test's own files.
pub fn scratch(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// Where the scripts put kernels and what else was fetched.
pub fn cache() -> PathBuf {
    let base = match std::env::var_os("XDG_CACHE_HOME") {
        Some(dir) if !dir.is_empty() => PathBuf::from(dir),
        _ => PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache"),
    };
    base.join("kdump-rs")
}

/// A kernel by the name of its directory in the cache.
pub fn kernel(name: &str) -> PathBuf {
    let image = cache().join("kernels").join(name).join("vmlinuz");
    assert!(image.exists(), "{} is missing: run scripts/fetch-kernel.sh {name}", image.display());
    image
}

/// A console, without the carriage returns.
pub fn serial_of(out: &Path) -> String {
    let bytes = std::fs::read(out.join("serial.log")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\r', "")
}

/// Tells nobody how far a rehearsal is.
pub struct Quiet;

impl Progress for Quiet {}

//! Bringing a file to the disk while it is being written, so that a power cut costs the last seconds and not all of it: left
//! to itself, a file system keeps half a minute of it in memory, its headers included.

use std::fs::File;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::console::say;

/// What a power cut may cost, beside what the writer itself holds back.
const EVERY: Duration = Duration::from_secs(1);

/// Does it until it is dropped.
pub struct Settling {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Settling {
    /// Begins. The file is opened once more: what fails here is told to whoever has it open for writing, too.
    pub fn begin(path: &Path) -> Self {
        let (stop, stopped) = channel::<()>();
        let work = File::open(path).and_then(|file| {
            std::thread::Builder::new().name("settle".into()).spawn(move || {
                // At once, for the headers.
                let mut wait = EVERY / 10;
                while stopped.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
                    if file.sync_data().is_err() {
                        break;
                    }
                    wait = EVERY;
                }
            })
        });
        match work {
            Ok(thread) => Self { stop: Some(stop), thread: Some(thread) },
            Err(e) => {
                say!("the dump comes to the disk only at its end: {e}");
                Self { stop: None, thread: None }
            }
        }
    }
}

impl Drop for Settling {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn it_ends_when_it_is_dropped() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let settling = Settling::begin(file.path());
        let begin = Instant::now();
        drop(settling);
        assert!(begin.elapsed() < EVERY);
        assert!(Settling::begin(Path::new("/nonexistent")).thread.is_none());
    }
}

//! Where the small files of a dump go: to a directory or a server, in the clear or encrypted.

use std::fs;
use std::io;
use std::path::Path;

use kdump_capture::durable::write_small;
use kdump_capture::encrypt::{Recipients, seal};
use kdump_capture::remote::Remote;

use crate::console::say;
use crate::triage;

/// Where the report lies until it goes on, in memory.
const WAITING: &str = "/run/report";
/// A report has a few hundred KiB.
const MAX_REPORT: u64 = 64 << 20;

/// The place.
pub enum Store<'a> {
    /// A directory.
    Directory(&'a Path),
    /// A server.
    Server(&'a mut dyn Remote),
}

impl Store<'_> {
    /// Writes a file, and says how that went.
    ///
    /// # Errors
    /// What was said already.
    pub fn save(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let saved = match self {
            Self::Directory(dir) => write_small(&dir.join(name), bytes),
            Self::Server(remote) => remote.put(name, bytes),
        };
        match &saved {
            Ok(()) => say!("wrote {name}, {} bytes", bytes.len()),
            Err(e) => say!("cannot write {name}: {e}"),
        }
        saved
    }

    /// The same, encrypted if there are recipients.
    ///
    /// # Errors
    /// What was said already.
    pub fn save_for(&mut self, recipients: Option<&Recipients>, name: &str, bytes: &[u8]) -> io::Result<()> {
        let Some(recipients) = recipients else { return self.save(name, bytes) };
        let name = format!("{name}.age");
        match seal(recipients, bytes) {
            Ok(sealed) => self.save(&name, &sealed),
            Err(e) => {
                say!("cannot write {name}: {e}");
                Err(e)
            }
        }
    }

    /// Has the report made, and puts it here.
    pub fn report(&mut self, recipients: Option<&Recipients>) {
        let dir = match self {
            Self::Directory(dir) => Some(*dir),
            Self::Server(_) => None,
        };
        if let (Some(dir), None) = (dir, recipients) {
            return triage::run(Some(dir), Some(dir));
        }
        let waiting = Path::new(WAITING);
        if let Err(e) = fs::create_dir_all(waiting) {
            return say!("no report: {WAITING}: {e}");
        }
        triage::run(Some(waiting), dir);
        for name in ["report.json", "report.txt"] {
            let path = waiting.join(name);
            if fs::metadata(&path).is_ok_and(|metadata| metadata.len() <= MAX_REPORT)
                && let Ok(bytes) = fs::read(&path)
            {
                // What can be said of a failure was said.
                let _ = self.save_for(recipients, name, &bytes);
            }
        }
        // It lies in memory.
        let _ = fs::remove_dir_all(waiting);
    }
}

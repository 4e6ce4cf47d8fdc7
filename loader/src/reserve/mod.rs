//! Writing `crashkernel=` into the configuration of whatever boots this machine, and taking it out again.
//!
//! [`plan`] reads and decides, [`Plan::apply`] performs: it keeps what was there in a [`Record`] first, from which
//! [`undo`] restores it. All boot loaders that are found get the value. What is not understood is not touched, and
//! named. The root directory is a parameter, so that tests work on directories of files.

mod diff;
mod entries;
mod grub;
mod record;
#[cfg(test)]
mod tests;
mod words;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use record::{Record, undo};
pub use words::{BadValue, Form, Value, effective, values};

/// Larger files are no configuration.
const MAX_BYTES: u64 = 1 << 20;

/// A file that is to change. Paths are relative to the root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The file.
    pub path: PathBuf,
    /// Its text; `None` if it is not there.
    pub before: Option<String>,
    /// What it will be; `None` if it goes away.
    pub after: Option<String>,
}

impl Change {
    fn new(path: impl Into<PathBuf>, before: Option<String>, after: Option<String>) -> Self {
        Self { path: path.into(), before, after }
    }

    /// The change as a unified diff; empty if there is none.
    #[must_use]
    pub fn diff(&self) -> String {
        diff::unified(&Path::new("/").join(&self.path), self.before.as_deref(), self.after.as_deref())
    }

    fn is_none(&self) -> bool {
        self.before == self.after
    }
}

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// What boots this machine.
    pub found: Vec<&'static str>,
    /// Files that change.
    pub changes: Vec<Change>,
    /// Commands that make the boot loader see it.
    pub commands: Vec<Vec<String>>,
    /// What is worth knowing: files left alone, values that no longer count.
    pub notes: Vec<String>,
}

/// Why nothing, or not all, was done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing is known to boot this machine.
    #[error(
        "no boot loader configuration that is understood: looked for GRUB (/etc/default/grub), /etc/kernel/cmdline \
         and entries in /boot, /efi and /boot/efi (loader/entries/*.conf). Add {} to the kernel command line yourself{}",
        value.word(), if notes.is_empty() { String::new() } else { format!(". {}", notes.join(". ")) }
    )]
    NoBootLoader {
        /// What would have been written.
        value: Value,
        /// What was found and left alone.
        notes: Vec<String>,
    },
    /// A line means something that this program cannot tell.
    #[error("{path}, line {line}: {why}; nothing was changed: put crashkernel= there by hand", path = path.display())]
    NotUnderstood {
        /// The file.
        path: PathBuf,
        /// Its line, from 1.
        line: usize,
        /// What is odd about it.
        why: &'static str,
    },
    /// Another value would win.
    #[error(
        "crashkernel={other} in {path} would win over crashkernel={value}; nothing was changed: remove it there first",
        path = path.display()
    )]
    Overridden {
        /// The file.
        path: PathBuf,
        /// Its value.
        other: String,
        /// Ours.
        value: Value,
    },
    /// A file cannot be read or written.
    #[error("{path} cannot be {action}", path = path.display())]
    File {
        /// "read", "written", "removed".
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A command failed, or is not there.
    #[error("{command} failed; the files are as they were before")]
    Command {
        /// The command.
        command: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is nothing to take back.
    #[error("nothing to undo: {path} is not there, so `reserve --apply` has changed nothing", path = path.display())]
    NothingToUndo {
        /// The record.
        path: PathBuf,
    },
    /// Somebody else has been there.
    #[error("{path} was changed by somebody else since; nothing was undone: take crashkernel= out by hand", path = path.display())]
    ChangedSince {
        /// The file.
        path: PathBuf,
    },
    /// The record is of another program's making.
    #[error("{path} is not a record of this version", path = path.display())]
    BadRecord {
        /// The record.
        path: PathBuf,
    },
}

/// Finds what boots the machine under `root`, and what has to change there.
///
/// # Errors
/// [`Error`]: a file that cannot be read, is not understood, or would override the value.
pub fn plan(root: &Path, value: &Value) -> Result<Plan, Error> {
    let mut plan = Plan::default();
    grub::plan(root, value, &mut plan)?;
    entries::plan(root, value, &mut plan)?;
    if plan.found.is_empty() {
        return Err(Error::NoBootLoader { value: value.clone(), notes: plan.notes });
    }
    plan.changes.retain(|change| !change.is_none());
    if plan.changes.is_empty() {
        plan.commands.clear();
    }
    Ok(plan)
}

/// The text of a file; `None` if it is not there.
fn read(root: &Path, path: impl AsRef<Path>) -> Result<Option<String>, Error> {
    let path = root.join(path);
    let failed = |source| Error::File { action: "read", path: path.clone(), source };
    match fs::metadata(&path) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(failed(error)),
        Ok(metadata) if !metadata.is_file() || metadata.len() > MAX_BYTES => {
            let text = format!("not a regular file of at most {MAX_BYTES} bytes");
            Err(failed(io::Error::new(io::ErrorKind::InvalidData, text)))
        }
        Ok(_) => fs::read_to_string(&path).map(Some).map_err(failed),
    }
}

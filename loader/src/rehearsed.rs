//! When this machine was last rehearsed, with which kernel, and how that went: kept in /var/lib for `status`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The record's file.
pub const REHEARSED_PATH: &str = "var/lib/kdump-rs/rehearsed.json";
/// A larger file is no record of ours.
const MAX_BYTES: u64 = 64 << 10;

/// The last rehearsal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rehearsed {
    /// When it ended, in seconds since 1970.
    pub at: u64,
    /// `uname -r` of the kernel that was rehearsed.
    pub release: String,
    /// Its image.
    pub kernel: PathBuf,
    /// Causes of a crash that ended in a dump whose report names them.
    pub passed: Vec<String>,
    /// Causes that did not, or could not be rehearsed.
    pub failed: Vec<String>,
    /// The version of kdump-rs that rehearsed.
    pub version: String,
}

impl Rehearsed {
    /// Writes the record, whole or not at all.
    ///
    /// # Errors
    /// What the file system gave.
    pub fn write(&self, root: &Path) -> io::Result<()> {
        crate::state::write_json(&root.join(REHEARSED_PATH), self)
    }

    /// Reads the record; `None` if there is none.
    ///
    /// # Errors
    /// A file that is there but cannot be read, or is no such record.
    pub fn read(root: &Path) -> io::Result<Option<Self>> {
        let path = root.join(REHEARSED_PATH);
        match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
            Ok(metadata) if metadata.len() > MAX_BYTES => {
                let text = format!("{} bytes are no record of a rehearsal", metadata.len());
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
            Ok(_) => {}
        }
        Ok(Some(serde_json::from_slice(&fs::read(&path)?)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rehearsed() -> Rehearsed {
        Rehearsed {
            at: 1_795_000_000,
            release: "6.12.117+deb13-cloud-amd64".into(),
            kernel: "/boot/vmlinuz-6.12.117+deb13-cloud-amd64".into(),
            passed: vec!["sysrq".into(), "bug".into()],
            failed: vec!["nmi".into()],
            version: "0.1.0".into(),
        }
    }

    #[test]
    fn a_record_survives_its_file() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(Rehearsed::read(root.path()).unwrap(), None);
        rehearsed().write(root.path()).unwrap();
        assert_eq!(Rehearsed::read(root.path()).unwrap(), Some(rehearsed()));
        let next = Rehearsed { failed: vec![], ..rehearsed() };
        next.write(root.path()).unwrap();
        assert_eq!(Rehearsed::read(root.path()).unwrap(), Some(next));
    }

    #[test]
    fn what_is_no_record_is_an_error_and_not_no_rehearsal() {
        let root = tempfile::tempdir().unwrap();
        rehearsed().write(root.path()).unwrap();
        let path = root.path().join(REHEARSED_PATH);
        for content in [&b"{}"[..], b"", &[b' '; MAX_BYTES as usize + 1]] {
            fs::write(&path, content).unwrap();
            assert!(Rehearsed::read(root.path()).is_err(), "{} bytes", content.len());
        }
    }
}

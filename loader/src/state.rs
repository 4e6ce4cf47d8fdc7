//! What was armed, kept in /run for `status`: files with their digests, target, plan.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::plan::hex;
use crate::target::Target;

/// The state file; /run is emptied at boot, as the loaded image is.
pub const STATE_PATH: &str = "run/kdump-rs/armed.json";
/// Layout of the file.
pub const STATE_VERSION: u32 = 1;

/// A file as it was when it was loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileId {
    /// Its path.
    pub path: PathBuf,
    /// Bytes.
    pub size_bytes: u64,
    /// Modification time, seconds since 1970.
    pub mtime: i64,
    /// Digest of its content.
    pub sha256: String,
}

impl FileId {
    /// Describes a file whose content is `bytes`.
    ///
    /// # Errors
    /// What stat(2) gave.
    pub fn new(path: &Path, bytes: &[u8]) -> io::Result<Self> {
        let mtime = fs::metadata(path)?.mtime();
        let sha256 = hex(&Sha256::digest(bytes));
        Ok(Self { path: path.to_owned(), size_bytes: bytes.len() as u64, mtime, sha256 })
    }

    /// What has become of the file, in words; `None` if it is the same. The content is read only
    /// if time or size differ.
    #[must_use]
    pub fn change(&self) -> Option<String> {
        let path = self.path.display();
        let metadata = match fs::metadata(&self.path) {
            Ok(metadata) => metadata,
            Err(error) => return Some(format!("{path} is no longer there: {error}")),
        };
        if metadata.mtime() == self.mtime && metadata.size() == self.size_bytes {
            return None;
        }
        let mut digest = Sha256::new();
        match File::open(&self.path).and_then(|mut file| io::copy(&mut file, &mut DigestWriter(&mut digest)))
        {
            Err(error) => Some(format!("{path} cannot be read: {error}")),
            Ok(_) if hex(&digest.finalize()) == self.sha256 => None,
            Ok(_) => Some(format!("{path} has changed since")),
        }
    }
}

struct DigestWriter<'a>(&'a mut Sha256);

impl io::Write for DigestWriter<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.update(buf);
        Ok(buf.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What was armed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// [`STATE_VERSION`].
    pub version: u32,
    /// Seconds since 1970.
    pub armed_at: u64,
    /// The boot it was armed in.
    pub boot_id: String,
    /// The capture kernel.
    pub kernel: FileId,
    /// Its version text.
    pub kernel_version: Option<String>,
    /// The first program of the capture kernel.
    pub init: FileId,
    /// Modules in the initramfs, in load order.
    pub modules: Vec<String>,
    /// Bytes of the initramfs, packed.
    pub initramfs_bytes: u64,
    /// Where the dump goes.
    pub target: Target,
    /// Dump level.
    pub level: u8,
    /// Dump format.
    pub format: String,
    /// Compression of its pages.
    pub compression: String,
    /// What follows the capture.
    pub end: String,
    /// Where the panic path prints, in words.
    pub console: String,
    /// The plan, as `--json` prints it.
    pub plan: serde_json::Value,
}

impl State {
    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    /// What the file system gave.
    pub fn write(&self, root: &Path) -> io::Result<()> {
        let path = root.join(STATE_PATH);
        let Some(dir) = path.parent() else { return Ok(()) };
        fs::create_dir_all(dir)?;
        let new = path.with_extension("json.new");
        fs::write(&new, serde_json::to_vec_pretty(self)?)?;
        fs::rename(&new, &path)
    }

    /// Reads the file; `None` if there is none.
    ///
    /// # Errors
    /// A file that is there but cannot be read or is not of this version.
    pub fn read(root: &Path) -> io::Result<Option<Self>> {
        match fs::read(root.join(STATE_PATH)) {
            Ok(bytes) => {
                let state: Self = serde_json::from_slice(&bytes)?;
                if state.version != STATE_VERSION {
                    let text = format!("version {}, not {STATE_VERSION}", state.version);
                    return Err(io::Error::new(io::ErrorKind::InvalidData, text));
                }
                Ok(Some(state))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes the file; no error if there is none.
    ///
    /// # Errors
    /// What the file system gave.
    pub fn remove(root: &Path) -> io::Result<()> {
        match fs::remove_file(root.join(STATE_PATH)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// What no longer fits, in words: files that changed, a target that went away.
    #[must_use]
    pub fn changes(&self) -> Vec<String> {
        let mut changes: Vec<_> = [&self.kernel, &self.init].into_iter().filter_map(FileId::change).collect();
        match Target::resolve(&self.target.directory) {
            Ok(target) if target.uuid != self.target.uuid || target.path != self.target.path => {
                changes.push(format!("{} is another directory now", self.target.directory.display()));
            }
            // Whoever may not read the disk cannot tell.
            Ok(_) | Err(crate::target::Error::Device { .. }) => {}
            Err(error) => changes.push(error.to_string()),
        }
        changes
    }
}

/// Seconds since 1970.
#[must_use]
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_file_is_noticed_and_a_touched_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vmlinuz");
        fs::write(&path, b"kernel").unwrap();
        let id = FileId::new(&path, b"kernel").unwrap();
        assert_eq!(id.change(), None);
        let touched = FileId { mtime: id.mtime - 100, ..id.clone() };
        assert_eq!(touched.change(), None);
        fs::write(&path, b"kernel2").unwrap();
        assert!(id.change().unwrap().contains("has changed"));
        fs::remove_file(&path).unwrap();
        assert!(id.change().unwrap().contains("no longer there"));
    }
}

//! What was armed, kept in /run for `status`: files with their digests, target, plan.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use kdump_panic_kernel::sha256;
use serde::{Deserialize, Serialize};

use crate::image;
use crate::plan::hex;
use crate::target::Rung;

/// The state file; /run is emptied at boot, as the loaded image is.
pub const STATE_PATH: &str = "run/kdump-rs/armed.json";
/// Layout of the file.
pub const STATE_VERSION: u32 = 3;

/// A file as it was when it was loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileId {
    /// Its path.
    pub path: PathBuf,
    /// Bytes.
    pub size_bytes: u64,
    /// Modification time, seconds since 1970.
    pub mtime: i64,
    /// Digest of what was loaded from it: of a kernel image its protected-mode part, unpacked, as
    /// the panic path checks it; of other files all.
    pub sha256: String,
}

impl FileId {
    /// Describes a file from which bytes with this digest were loaded.
    ///
    /// # Errors
    /// What stat(2) gave.
    pub fn new(path: &Path, sha256: [u8; 32]) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        let (size_bytes, mtime) = (metadata.size(), metadata.mtime());
        Ok(Self { path: path.to_owned(), size_bytes, mtime, sha256: hex(&sha256) })
    }

    /// What has become of the file, in words; `None` if the same would be loaded from it. Its content
    /// is read, and given to `digest`, only if time or size differ.
    #[must_use]
    pub fn change(&self, digest: impl Fn(Vec<u8>) -> Option<[u8; 32]>) -> Option<String> {
        let path = self.path.display();
        let metadata = match fs::metadata(&self.path) {
            Ok(metadata) => metadata,
            Err(error) => return Some(format!("{path} is no longer there: {error}")),
        };
        if metadata.mtime() == self.mtime && metadata.size() == self.size_bytes {
            return None;
        }
        match fs::read(&self.path).map(digest) {
            Err(error) => Some(format!("{path} cannot be read: {error}")),
            Ok(Some(digest)) if hex(&digest) == self.sha256 => None,
            Ok(_) => Some(format!("{path} has changed since")),
        }
    }
}

/// Digest of a whole file.
#[must_use]
pub fn file_sha256(bytes: &[u8]) -> [u8; 32] {
    sha256::digest(bytes)
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
    /// The first program of the capture kernel, or somebody else's initramfs.
    pub init: Option<FileId>,
    /// Modules in the initramfs, in load order.
    pub modules: Vec<String>,
    /// Bytes of the initramfs, packed.
    pub initramfs_bytes: u64,
    /// Where the dump goes, in this order, as far as it is known.
    pub targets: Vec<Rung>,
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
    /// What the panic path can rebuild, in words.
    #[serde(default)]
    pub parity: String,
    /// A failure that the panic path brings about itself: there will be no dump.
    #[serde(default)]
    pub panic_test: Option<String>,
    /// The system call that loaded it.
    #[serde(default)]
    pub via: String,
    /// The arguments of the `arm` that loaded it.
    #[serde(default)]
    pub arguments: Vec<String>,
    /// The plan, as `--json` prints it.
    pub plan: serde_json::Value,
}

impl State {
    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    /// What the file system gave.
    pub fn write(&self, root: &Path) -> io::Result<()> {
        write_json(&root.join(STATE_PATH), self)
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
        let kernel = self.kernel.change(image::sha256);
        let init = self.init.as_ref().and_then(|init| init.change(|bytes| Some(file_sha256(&bytes))));
        kernel.into_iter().chain(init).chain(self.targets.iter().filter_map(Rung::change)).collect()
    }
}

/// Writes a file, whole or not at all, and the directory it is in.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let Some(dir) = path.parent() else { return Ok(()) };
    fs::create_dir_all(dir)?;
    let new = path.with_extension("json.new");
    fs::write(&new, serde_json::to_vec_pretty(value)?)?;
    fs::rename(&new, path)
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
        let path = dir.path().join("kdump-init");
        let digest = |bytes: Vec<u8>| Some(file_sha256(&bytes));
        fs::write(&path, b"init").unwrap();
        let id = FileId::new(&path, file_sha256(b"init")).unwrap();
        assert_eq!(id.change(digest), None);
        let touched = FileId { mtime: id.mtime - 100, ..id.clone() };
        assert_eq!(touched.change(digest), None);
        fs::write(&path, b"init2").unwrap();
        assert!(id.change(digest).unwrap().contains("has changed"));
        fs::remove_file(&path).unwrap();
        assert!(id.change(digest).unwrap().contains("no longer there"));
    }
}

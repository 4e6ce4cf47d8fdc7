//! A file that has its name only when it is whole and on the disk.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

/// A file being written under `NAME.partial`. [`DurableFile::commit`] gives it its name; until then, and
/// if that never comes, nothing of that name exists.
#[derive(Debug)]
pub struct DurableFile {
    file: File,
    partial: PathBuf,
    path: PathBuf,
    replace: bool,
}

impl DurableFile {
    /// Creates `PATH.partial`, for its owner only. With `replace`, leftovers of either name are replaced.
    ///
    /// # Errors
    /// `AlreadyExists` naming the file that is in the way; else whatever the operating system says.
    pub fn create(path: &Path, replace: bool) -> io::Result<Self> {
        let mut name = path.as_os_str().to_os_string();
        name.push(".partial");
        let partial = PathBuf::from(name);
        if !replace && path.symlink_metadata().is_ok() {
            return Err(exists(path));
        }
        if replace {
            // Not opened and emptied: it may be a symbolic link, or readable to others.
            match std::fs::remove_file(&partial) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    return Err(io::Error::new(e.kind(), format!("{}: {e}", partial.display())));
                }
                _ => {}
            }
        }
        let open = OpenOptions::new().read(true).write(true).mode(0o600).create_new(true).open(&partial);
        let file = open.map_err(|e| match e.kind() {
            io::ErrorKind::AlreadyExists => io::Error::new(
                e.kind(),
                format!(
                    "{} exists: a dump is being written, or its writing was cut short",
                    partial.display()
                ),
            ),
            _ => io::Error::new(e.kind(), format!("{}: {e}", partial.display())),
        })?;
        Ok(Self { file, partial, path: path.to_path_buf(), replace })
    }

    /// The file, to write to.
    #[must_use]
    pub const fn file(&self) -> &File {
        &self.file
    }

    /// The name it has until it is committed.
    #[must_use]
    pub fn partial_path(&self) -> &Path {
        &self.partial
    }

    /// Brings the contents to the disk, then gives the file its name, then brings that to the disk.
    ///
    /// # Errors
    /// `AlreadyExists` if a file of that name has come up meanwhile and is not to be replaced; else whatever
    /// the operating system says. The file then still has its partial name, or its name is not yet on the
    /// disk.
    pub fn commit(self) -> io::Result<()> {
        self.file.sync_all()?;
        if self.replace {
            std::fs::rename(&self.partial, &self.path)?;
        } else {
            rename_new(&self.partial, &self.path)?;
        }
        sync_dir(parent(&self.path))
    }

    /// Leaves the file under its partial name, with what it has so far brought to the disk as far as that goes.
    ///
    /// # Errors
    /// Whatever the operating system says; nothing is lost by it that was on the disk.
    pub fn leave(self) -> io::Result<()> {
        let contents = self.file.sync_all();
        contents.and(sync_dir(parent(&self.partial)))
    }
}

fn exists(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::AlreadyExists, format!("{} exists", path.display()))
}

/// Renames, unless something of the new name exists.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        Err(Errno::EXIST) => Err(exists(to)),
        // The file system cannot (NFS, FUSE), or the kernel: all that is left is to look first.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => match to.symlink_metadata() {
            Ok(_) => Err(exists(to)),
            Err(_) => std::fs::rename(from, to),
        },
        Err(e) => Err(e.into()),
    }
}

/// Writes a small file whole: either all of `bytes` is there under its name, or nothing is.
///
/// # Errors
/// As [`DurableFile`].
pub fn write_small(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let out = DurableFile::create(path, true)?;
    io::Write::write_all(&mut out.file(), bytes)?;
    out.commit()
}

/// Makes a directory, for its owner only, with all that lead to it, and brings their names to the disk.
///
/// # Errors
/// `AlreadyExists` if the last of them is there already; else whatever the operating system says.
pub fn create_dir(path: &Path) -> io::Result<()> {
    let dir = parent(path);
    if !dir.is_dir() {
        match create_dir(dir) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
            _ => {}
        }
    }
    DirBuilder::new().mode(0o700).create(path)?;
    sync_dir(dir)
}

/// Brings a directory's entries to the disk.
///
/// # Errors
/// Whatever the operating system says.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    match File::open(dir)?.sync_all() {
        // A file system that has no such thing.
        Err(e) if e.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => Ok(()),
        other => other,
    }
}

/// The directory that a path is in.
fn parent(path: &Path) -> &Path {
    path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn the_name_appears_only_with_the_whole_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vmcore");
        let out = DurableFile::create(&path, false).unwrap();
        io::Write::write_all(&mut out.file(), b"x").unwrap();
        assert!(!path.exists() && dir.path().join("vmcore.partial").exists());
        out.commit().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"x");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!dir.path().join("vmcore.partial").exists());
    }

    #[test]
    fn directories_are_private_and_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/c");
        create_dir(&path).unwrap();
        for made in [&path, path.parent().unwrap()] {
            assert_eq!(std::fs::metadata(made).unwrap().permissions().mode() & 0o777, 0o700);
        }
        assert_eq!(create_dir(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        std::fs::write(dir.path().join("file"), "x").unwrap();
        assert!(create_dir(&dir.path().join("file/d")).is_err());
    }

    #[test]
    fn what_is_left_keeps_its_partial_name() {
        let dir = tempfile::tempdir().unwrap();
        let out = DurableFile::create(&dir.path().join("vmcore"), false).unwrap();
        io::Write::write_all(&mut out.file(), b"half").unwrap();
        out.leave().unwrap();
        assert_eq!(std::fs::read(dir.path().join("vmcore.partial")).unwrap(), b"half");
        assert!(!dir.path().join("vmcore").exists());
    }

    #[test]
    fn a_leftover_is_neither_followed_nor_are_its_permissions_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (path, partial, target) =
            ["vmcore", "vmcore.partial", "target"].map(|n| dir.path().join(n)).into();
        std::fs::write(&target, "precious").unwrap();
        std::os::unix::fs::symlink(&target, &partial).unwrap();
        write_small(&path, b"x").unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"precious");
        std::fs::write(&partial, "old").unwrap();
        std::fs::set_permissions(&partial, std::fs::Permissions::from_mode(0o644)).unwrap();
        write_small(&path, b"y").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"y");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_file_that_came_up_meanwhile_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vmcore");
        let out = DurableFile::create(&path, false).unwrap();
        std::fs::write(&path, "theirs").unwrap();
        assert_eq!(out.commit().unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&path).unwrap(), b"theirs");
        assert!(dir.path().join("vmcore.partial").exists());
    }

    #[test]
    fn what_is_there_is_not_replaced_unasked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vmcore");
        let unfinished = DurableFile::create(&path, false).unwrap();
        drop(unfinished);
        let e = DurableFile::create(&path, false).unwrap_err();
        assert!(e.to_string().contains("vmcore.partial exists"), "{e}");
        write_small(&path, b"old").unwrap();
        assert!(DurableFile::create(&path, false).is_err());
        write_small(&path, b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
    }
}

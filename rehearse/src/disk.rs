//! The guest's disk: a sparse file with an ext4 file system of a UUID we know.
//!
//! e2fsprogs makes it and reads it back; nothing is ever mounted on the host, so no root is needed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Error;

/// The file system's UUID.
pub const UUID: &str = "6b64756d-702d-7265-6865-617273616c21";

/// Where the guest mounts the disk.
pub const MOUNT_POINT: &str = "/var";

/// The dump target, relative to the file system's root: `/var/crash` in the guest.
pub const DUMPS: &str = "crash";

const PACKAGE: &str = "e2fsprogs";

/// Makes a disk of `bytes` at `path`, in place of what is there, with the files below `files` on it.
///
/// # Errors
/// [`Error::File`], [`Error::NoProgram`], [`Error::Program`].
pub fn create(path: &Path, bytes: u64, files: Option<&Path>) -> Result<(), Error> {
    let file = File::create(path).map_err(Error::file("create", path))?;
    file.set_len(bytes).map_err(Error::file("size", path))?;
    drop(file);
    let mut mkfs = e2fsprogs("mkfs.ext4");
    // No discard: a sparse file has nothing to give back.
    mkfs.args(["-q", "-F", "-E", "nodiscard", "-U", UUID, "-L", "kdump-rehearsal"]);
    if let Some(files) = files {
        mkfs.arg("-d").arg(files);
    }
    mkfs.arg(path);
    run("mkfs.ext4", mkfs)?;
    Ok(())
}

/// Bytes of a file system that what is below `dir` takes.
///
/// # Errors
/// [`Error::File`].
pub fn room_for(dir: &Path) -> Result<u64, Error> {
    /// What small files, their inodes among it, take beyond their bytes.
    const EACH: u64 = 8 << 10;
    let mut bytes = 0;
    for entry in fs::read_dir(dir).map_err(Error::file("list", dir))?.flatten() {
        match entry.metadata() {
            Ok(meta) if meta.is_dir() => bytes += room_for(&entry.path())? + EACH,
            Ok(meta) => bytes += meta.len() + EACH,
            Err(_) => {}
        }
    }
    Ok(bytes)
}

/// Takes the dump directories out of the disk at `path`, into `out`, which must not exist yet.
/// The file system must have been unmounted cleanly.
///
/// # Errors
/// [`Error::Unclean`], [`Error::NoDump`], and those of [`create`].
pub fn extract(path: &Path, out: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut stats = e2fsprogs("dumpe2fs");
    stats.arg("-h").arg(path);
    if let Some(state) = unclean(&run("dumpe2fs", stats)?) {
        return Err(Error::Unclean(state));
    }
    let mut check = e2fsprogs("e2fsck");
    check.args(["-f", "-n"]).arg(path);
    run("e2fsck", check)?;

    fs::create_dir_all(out).map_err(Error::file("create", out))?;
    let mut dump = e2fsprogs("debugfs");
    dump.arg("-R").arg(format!("rdump /{DUMPS} {}", quoted(out))).arg(path);
    run("debugfs", dump)?;

    // debugfs reports most errors on stderr only, ownership it may not set among them.
    let dumps = out.join(DUMPS);
    let mut found = Vec::new();
    for entry in fs::read_dir(&dumps).map_err(|_| Error::NoDump)? {
        let entry = entry.map_err(Error::file("list", &dumps))?;
        if entry.path().is_dir() {
            found.push(entry.path());
        }
    }
    found.sort();
    if found.is_empty() { Err(Error::NoDump) } else { Ok(found) }
}

/// What dumpe2fs says about a file system that is in use or was not unmounted.
fn unclean(superblock: &str) -> Option<String> {
    let field = |name: &str| superblock.lines().find_map(|l| l.strip_prefix(name)).map(str::trim);
    let state = field("Filesystem state:").unwrap_or("unknown");
    let features = field("Filesystem features:").unwrap_or("");
    if features.split_whitespace().any(|f| f == "needs_recovery") {
        return Some("its journal needs recovery".to_owned());
    }
    (state != "clean").then(|| format!("its state is {state:?}"))
}

/// Quotes a path for debugfs' command line.
fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.display().to_string().replace('"', "\"\""))
}

/// A command of e2fsprogs; /sbin is not in everybody's PATH.
fn e2fsprogs(program: &str) -> Command {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new(program);
    command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
    command.env("LC_ALL", "C");
    command
}

fn run(program: &'static str, mut command: Command) -> Result<String, Error> {
    let out = command.stdin(std::process::Stdio::null()).output().map_err(|source| Error::NoProgram {
        program,
        package: PACKAGE,
        source,
    })?;
    if !out.status.success() {
        let mut stderr = String::from_utf8_lossy(&out.stderr).into_owned();
        stderr.push_str(&String::from_utf8_lossy(&out.stdout));
        return Err(Error::Program {
            program,
            status: out.status.to_string(),
            stderr: stderr.trim().to_owned(),
        });
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_that_was_not_unmounted_is_noticed() {
        let text = |features: &str, state: &str| {
            format!("Filesystem features:      has_journal {features}\nFilesystem state:         {state}\n")
        };
        assert_eq!(unclean(&text("extent", "clean")), None);
        assert!(unclean(&text("extent needs_recovery", "clean")).is_some());
        assert!(unclean(&text("extent", "not clean with errors")).is_some());
        assert!(unclean("").is_some());
    }

    #[test]
    fn the_uuid_is_text_that_says_what_it_is() {
        let hex: String = UUID.chars().filter(|c| *c != '-').collect();
        let bytes: Vec<u8> =
            (0..16).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect();
        assert_eq!(bytes, b"kdump-rehearsal!");
    }

    /// Check that what is put on a disk comes out of it, without mounting, where e2fsprogs is installed.
    #[test]
    fn a_new_disk_is_clean_and_holds_no_dump() {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("disk.img");
        match create(&image, 64 << 20, None) {
            Err(Error::NoProgram { .. }) => return eprintln!("skipped: no e2fsprogs here"),
            other => other.unwrap(),
        }
        assert!(matches!(extract(&image, &dir.path().join("none")), Err(Error::NoDump)));
        let file = dir.path().join("vmcore");
        fs::write(&file, b"dump").unwrap();
        for request in ["mkdir crash", "mkdir crash/a", &format!("write {} crash/a/vmcore", quoted(&file))] {
            let mut debugfs = e2fsprogs("debugfs");
            debugfs.args(["-w", "-R", request]).arg(&image);
            run("debugfs", debugfs).unwrap();
        }
        let dumps = extract(&image, &dir.path().join("out")).unwrap();
        assert_eq!(fs::read(dumps[0].join("vmcore")).unwrap(), b"dump");
    }
}

//! Writing initramfs archives: cpio in the "newc" form, the one the kernel unpacks.
//!
//! An archive is a sequence of members, each a 110-byte header of hexadecimal text, the name, the
//! data, with name and data padded to 4 bytes. Parent directories are added by themselves. Owner,
//! group and time are 0, so equal input gives equal bytes. Reading archives is not done here.
//!
//! Source: Documentation/driver-api/early-userspace/buffer-format.rst; init/initramfs.c.

use std::collections::BTreeSet;

const S_IFLNK: u32 = 0o120_000;
const S_IFREG: u32 = 0o100_000;
const S_IFDIR: u32 = 0o040_000;
const S_IFCHR: u32 = 0o020_000;

/// A member that newc cannot hold.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// Sizes are 32-bit.
    #[error("{path} has {len} bytes; an initramfs member holds less than 4 GiB")]
    TooLarge {
        /// The member's name.
        path: String,
        /// Its length in bytes.
        len: usize,
    },
    /// PATH_MAX, as init/initramfs.c checks it, or a NUL inside.
    #[error("{path:?} is not a name the kernel would unpack")]
    BadName {
        /// The name.
        path: String,
    },
}

/// An archive under construction.
///
/// Names are relative to `/`; a leading `/` is dropped.
#[derive(Default, Debug)]
pub struct Archive {
    bytes: Vec<u8>,
    directories: BTreeSet<String>,
    inode: u32,
}

impl Archive {
    /// An archive without members.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a directory with mode 0755, and its parents. One that is already there is left as it is.
    ///
    /// # Errors
    /// [`Error::BadName`].
    pub fn dir(&mut self, path: &str) -> Result<(), Error> {
        let path = path.trim_matches('/');
        if path.is_empty() || self.directories.contains(path) {
            return Ok(());
        }
        self.parents(path)?;
        self.member(path, S_IFDIR | 0o755, 2, (0, 0), &[])?;
        self.directories.insert(path.to_owned());
        Ok(())
    }

    /// Adds a regular file with permission bits `mode`.
    ///
    /// # Errors
    /// [`Error`].
    pub fn file(&mut self, path: &str, mode: u32, bytes: &[u8]) -> Result<(), Error> {
        let path = path.trim_matches('/');
        self.parents(path)?;
        self.member(path, S_IFREG | (mode & 0o7777), 1, (0, 0), bytes)
    }

    /// Adds a character device node with permission bits `mode`.
    ///
    /// # Errors
    /// [`Error::BadName`].
    pub fn node(&mut self, path: &str, mode: u32, major: u32, minor: u32) -> Result<(), Error> {
        let path = path.trim_matches('/');
        self.parents(path)?;
        self.member(path, S_IFCHR | (mode & 0o7777), 1, (major, minor), &[])
    }

    /// Adds a symbolic link to `target`.
    ///
    /// # Errors
    /// [`Error::BadName`].
    pub fn symlink(&mut self, path: &str, target: &str) -> Result<(), Error> {
        let path = path.trim_matches('/');
        self.parents(path)?;
        self.member(path, S_IFLNK | 0o777, 1, (0, 0), target.as_bytes())
    }

    /// Ends the archive and gives its bytes, padded to 512 as cpio(1) does.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.inode = 0;
        self.write_member("TRAILER!!!", 0, 1, (0, 0), 0, &[]);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self.bytes
    }

    fn parents(&mut self, path: &str) -> Result<(), Error> {
        match path.rsplit_once('/') {
            Some((parent, _)) => self.dir(parent),
            None => Ok(()),
        }
    }

    fn member(
        &mut self,
        path: &str,
        mode: u32,
        links: u32,
        dev: (u32, u32),
        data: &[u8],
    ) -> Result<(), Error> {
        if path.is_empty() || path.len() >= 4096 || path.contains('\0') {
            return Err(Error::BadName { path: path.to_owned() });
        }
        let size = u32::try_from(data.len())
            .map_err(|_| Error::TooLarge { path: path.to_owned(), len: data.len() })?;
        self.inode += 1;
        self.write_member(path, mode, links, dev, size, data);
        Ok(())
    }

    fn write_member(
        &mut self,
        path: &str,
        mode: u32,
        links: u32,
        (major, minor): (u32, u32),
        size: u32,
        data: &[u8],
    ) {
        // ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
        let name_size = path.len() as u32 + 1; // bounded by PATH_MAX in `member`
        let fields = [self.inode, mode, 0, 0, links, 0, size, 0, 0, major, minor, name_size, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(data);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    fn sample() -> Vec<u8> {
        let mut a = Archive::new();
        a.file("/init", 0o755, b"#!/bin/sh\n").unwrap();
        a.file("etc/kdump-rs/capture.toml", 0o600, b"x").unwrap();
        a.dir("etc/kdump-rs").unwrap();
        a.node("dev/console", 0o600, 5, 1).unwrap();
        a.symlink("bin", "usr/bin").unwrap();
        a.finish()
    }

    #[test]
    fn headers_and_padding_are_newc() {
        let bytes = sample();
        assert_eq!(bytes.len() % 512, 0);
        assert_eq!(&bytes[..14], b"07070100000001");
        assert_eq!(&bytes[14..22], b"000081ED"); // regular, 0755
        assert_eq!(&bytes[54..62], b"0000000A"); // 10 bytes
        assert_eq!(&bytes[94..102], b"00000005"); // "init" and NUL
        assert_eq!(&bytes[110..115], b"init\0");
        assert_eq!(&bytes[116..126], b"#!/bin/sh\n");
        assert_eq!(&bytes[128..134], b"070701");
    }

    #[test]
    fn a_name_the_kernel_would_not_unpack_is_refused() {
        let mut a = Archive::new();
        assert!(matches!(a.file("", 0o644, b""), Err(Error::BadName { .. })));
        assert!(matches!(a.file("a\0b", 0o644, b""), Err(Error::BadName { .. })));
        assert!(matches!(a.file(&"x".repeat(4096), 0o644, b""), Err(Error::BadName { .. })));
    }

    /// Check that cpio(1), where it is installed, lists each member once, parents first.
    #[test]
    fn cpio_lists_each_member_once() {
        let Ok(mut child) =
            Command::new("cpio").args(["-t", "--quiet"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()
        else {
            eprintln!("skipped: no cpio(1) here");
            return;
        };
        child.stdin.take().unwrap().write_all(&sample()).unwrap();
        let out = child.wait_with_output().unwrap();
        assert!(out.status.success());
        let names = String::from_utf8(out.stdout).unwrap();
        assert_eq!(names, "init\netc\netc/kdump-rs\netc/kdump-rs/capture.toml\ndev\ndev/console\nbin\n");
    }
}

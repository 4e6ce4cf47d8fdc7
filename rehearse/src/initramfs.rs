//! What the production guest boots with: our two programs, the kernel image as `arm` looks for it,
//! and the part of the module tree that the disk and its file system need.
//!
//! Modules are left compressed, indexes complete: `arm` in the guest meets a module directory as
//! on an installed machine, only with fewer files in it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use kdump_loader::{cpio, modules};

use crate::guest::Orders;
use crate::trigger;
use crate::{Error, Mount};

/// What the guest needs from its kernel's modules to reach its disk.
pub const GUEST_MODULES: [&str; 3] = ["virtio_pci", "virtio_blk", "ext4"];

/// What the guest needs to mount another file system.
pub(crate) fn modules_of(mount: &Mount) -> Vec<&str> {
    match mount.fstype.as_str() {
        "ext2" | "ext3" | "ext4" => vec!["ext4"],
        // Its character sets, as kernels are built to choose them.
        "vfat" => vec!["vfat", "nls_cp437", "nls_ascii"],
        other => vec![other],
    }
}

/// Where our program is in the guest.
pub const KDUMP_RS: &str = "/usr/sbin/kdump-rs";

/// The text indexes that depmod writes and the kernel package brings.
const INDEXES: [&str; 5] =
    ["modules.dep", "modules.builtin", "modules.softdep", "modules.alias", "modules.order"];

/// The files the archive is made of.
#[derive(Debug)]
pub struct Contents<'a> {
    /// `kdump-rs`, static.
    pub kdump_rs: &'a Path,
    /// `kdump-init`, static.
    pub kdump_init: &'a Path,
    /// bzImage, whole.
    pub kernel: &'a [u8],
    /// Its `uname -r`.
    pub release: &'a str,
    /// Its module directory.
    pub modules: &'a Path,
    /// The module that crashes the guest.
    pub trigger: Option<&'a Path>,
    /// More files: where in the guest, and where here.
    pub files: &'a [(String, PathBuf)],
    /// What PID 1 is to do.
    pub orders: &'a Orders,
}

impl Contents<'_> {
    /// Builds the archive.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Modules`], [`Error::Initramfs`].
    pub fn build(&self) -> Result<Vec<u8>, Error> {
        let read = |path: &Path| fs::read(path).map_err(Error::file("read", path));
        let mut archive = cpio::Archive::new();
        for dir in ["proc", "sys", "dev", "run", "tmp", "var", "etc", "root"] {
            archive.dir(dir)?;
        }
        // PID 1 has no standard streams without the first; Rust's start-up aborts without the second.
        archive.node("dev/console", 0o600, 5, 1)?;
        archive.node("dev/null", 0o666, 1, 3)?;
        archive.file(KDUMP_RS, 0o755, &read(self.kdump_rs)?)?;
        archive.file("usr/sbin/kdump-init", 0o755, &read(self.kdump_init)?)?;
        archive.file(&format!("boot/vmlinuz-{}", self.release), 0o644, self.kernel)?;
        archive.file(Orders::PATH, 0o600, self.orders.to_text().as_bytes())?;

        if let Some(trigger) = self.trigger {
            archive.file(trigger::GUEST_PATH, 0o644, &read(trigger)?)?;
        }
        for (there, here) in self.files {
            let mode = fs::metadata(here).map_err(Error::file("read", here))?.permissions().mode();
            archive.file(there, mode & 0o777, &read(here)?)?;
        }
        let tree = modules::Tree::open(self.modules)?;
        let directory = format!("lib/modules/{}", self.release);
        let mut names = GUEST_MODULES.to_vec();
        names.extend(self.orders.modules.iter().map(String::as_str));
        names.extend(self.orders.mounts.iter().flat_map(modules_of));
        for path in tree.closure(&names)? {
            archive.file(&format!("{directory}/{path}"), 0o644, &read(&self.modules.join(&path))?)?;
        }
        for index in INDEXES {
            let path = self.modules.join(index);
            if path.exists() {
                archive.file(&format!("{directory}/{index}"), 0o644, &read(&path)?)?;
            }
        }
        Ok(archive.finish())
    }
}

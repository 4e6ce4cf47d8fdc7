//! Building the capture initramfs: kdump-init, drivers, configuration, three device nodes.
//!
//! Generated from a list, nothing is copied from the system's own initramfs, so it is a few MB. It
//! is unpacked into memory that the capture kernel is short of, hence packed with gzip (which every
//! kernel unpacks) at the fastest level: arming is waited for, too.

use std::io::Write as _;

use serde::Serialize;

use crate::cpio::{self, Archive};
use crate::modules::{self, Tree};
use crate::target::Target;

/// Where kdump-init reads its orders.
pub const CONFIG_PATH: &str = "etc/kdump-rs/capture.toml";
const MODULE_DIR: &str = "lib/modules";

/// What kdump-init is told: `/etc/kdump-rs/capture.toml`.
///
/// The reading side is in the capture crate, which does not depend on this one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Default)]
pub struct CaptureConfig {
    /// Modules in load order, relative to `/`.
    pub modules: Vec<String>,
    /// The production kernel's boot id.
    pub boot_id: String,
    /// Where the dump goes.
    pub target: TargetConfig,
    /// What the dump is.
    pub dump: DumpConfig,
    /// What follows.
    pub end: EndConfig,
}

impl CaptureConfig {
    /// The file's text.
    ///
    /// # Errors
    /// None for these types; TOML's own.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(self)
    }
}

/// `[target]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Default)]
pub struct TargetConfig {
    /// UUID of the file system.
    pub uuid: String,
    /// Its type.
    pub fstype: String,
    /// The directory inside it.
    pub path: String,
}

/// `[dump]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Default)]
pub struct DumpConfig {
    /// Which page classes are left out, 0 to 31, as makedumpfile numbers them.
    pub level: u8,
    /// `kdump` or `elf`.
    pub format: String,
    /// `zstd`, `zlib` or `none`.
    pub compression: String,
}

/// `[end]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Default)]
pub struct EndConfig {
    /// `reboot`, `poweroff` or `halt`.
    pub action: String,
}

/// Why no initramfs can be built.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A module.
    #[error(transparent)]
    Modules(#[from] modules::Error),
    /// A member.
    #[error(transparent)]
    Archive(#[from] cpio::Error),
    /// The configuration.
    #[error("the configuration for kdump-init cannot be written as TOML")]
    Config(#[from] toml::ser::Error),
    /// gzip.
    #[error("the initramfs cannot be packed")]
    Pack(#[source] std::io::Error),
    /// It would not start.
    #[error(
        "kdump-init needs a loader ({interpreter}), which the initramfs has not: it must be linked statically"
    )]
    NotStatic {
        /// Its PT_INTERP.
        interpreter: String,
    },
    /// It is something else.
    #[error("kdump-init is no 64-bit x86 ELF program")]
    NotAProgram,
}

/// A finished initramfs.
#[derive(Clone, Debug)]
pub struct Initramfs {
    /// gzip of the archive.
    pub packed: Vec<u8>,
    /// Bytes of the archive.
    pub unpacked_len: u64,
    /// Modules in it, as the module directory names them, in load order.
    pub modules: Vec<String>,
    /// The configuration in it.
    pub config: CaptureConfig,
}

/// The modules that `target` needs: drivers from its device up, then its file system, in load order.
///
/// # Errors
/// [`modules::Error::NotFound`] if the kernel has no such file system, [`modules::Error::NoDriver`] if it
/// has no driver for the disk.
pub fn find_modules(tree: &Tree, target: &Target) -> Result<Vec<String>, modules::Error> {
    let mut names = Vec::new();
    for device in &target.sysfs {
        names.extend(modules::devices::find_drivers(tree, device)?);
    }
    // ext4 serves ext2 and ext3, by the alias under which the kernel itself asks for them.
    let alias = format!("fs-{}", target.fstype);
    names.push(if tree.find_alias(&target.fstype).is_empty() && !tree.is_builtin(&target.fstype) {
        alias
    } else {
        target.fstype.clone()
    });
    tree.closure(&names)
}

/// Builds the initramfs. `init` is the program; `config.modules` is filled in here.
///
/// # Errors
/// [`Error`].
pub fn build(
    init: &[u8],
    tree: &Tree,
    modules: Vec<String>,
    mut config: CaptureConfig,
) -> Result<Initramfs, Error> {
    check_init(init)?;
    let mut archive = Archive::new();
    for dir in ["dev", "proc", "sys", "run", "mnt"] {
        archive.dir(dir)?;
    }
    // The kernel opens /dev/console for init before anything is mounted.
    archive.node("dev/console", 0o600, 5, 1)?;
    archive.node("dev/null", 0o666, 1, 3)?;
    // Where kdump-init's own lines go before devtmpfs is there.
    archive.node("dev/kmsg", 0o600, 1, 11)?;
    archive.file("init", 0o755, init)?;
    config.modules.clear();
    for path in &modules {
        let name = format!("{MODULE_DIR}/{}", modules::plain_file_name(path));
        archive.file(&name, 0o644, &tree.read_decompressed(path)?)?;
        config.modules.push(name);
    }
    archive.file(CONFIG_PATH, 0o600, config.to_toml()?.as_bytes())?;
    let plain = archive.finish();

    let room = Vec::with_capacity(plain.len() / 2);
    let mut gzip = flate2::write::GzEncoder::new(room, flate2::Compression::fast());
    let packed = gzip.write_all(&plain).and_then(|()| gzip.finish()).map_err(Error::Pack)?;
    Ok(Initramfs { packed, unpacked_len: plain.len() as u64, modules, config })
}

/// Refuses a program that would not start as the first of a system without libraries.
fn check_init(init: &[u8]) -> Result<(), Error> {
    let elf = goblin::elf::Elf::parse(init).map_err(|_| Error::NotAProgram)?;
    if !elf.is_64 || elf.header.e_machine != goblin::elf::header::EM_X86_64 {
        return Err(Error::NotAProgram);
    }
    match elf.interpreter {
        Some(interpreter) => Err(Error::NotStatic { interpreter: interpreter.to_owned() }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    fn config() -> CaptureConfig {
        CaptureConfig {
            modules: vec![],
            boot_id: "b4bb3a2f-5b1c-4a52-a7a4-3b2f8e8e7c11".into(),
            target: TargetConfig {
                uuid: "a0a1a2a3-a4a5-a6a7-a8a9-aaabacadaeaf".into(),
                fstype: "ext4".into(),
                path: "/var/crash \"odd\"".into(),
            },
            dump: DumpConfig { level: 31, format: "kdump".into(), compression: "zstd".into() },
            end: EndConfig { action: "reboot".into() },
        }
    }

    /// Check that a static program, a module and the configuration arrive in the archive.
    #[test]
    fn the_archive_holds_init_modules_and_configuration() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("modules.dep"), "k/virtio_blk.ko.zst:\n").unwrap();
        std::fs::create_dir(dir.path().join("k")).unwrap();
        let module = zstd::bulk::compress(b"\x7fELF the module", 1).unwrap();
        std::fs::write(dir.path().join("k/virtio_blk.ko.zst"), module).unwrap();
        let tree = Tree::open(dir.path()).unwrap();

        // This test program is linked as kdump-init is: .cargo/config.toml makes all static.
        let init = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let built = build(&init, &tree, vec!["k/virtio_blk.ko.zst".into()], config()).unwrap();
        assert_eq!(built.config.modules, ["lib/modules/virtio_blk.ko"]);
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(built.packed.as_slice()).read_to_end(&mut plain).unwrap();
        assert_eq!(plain.len() as u64, built.unpacked_len);
        let has = |needle: &[u8]| plain.windows(needle.len()).any(|w| w == needle);
        assert!(has(b"\x7fELF the module") && has(b"etc/kdump-rs/capture.toml\0") && has(b"dev/console\0"));
        assert!(has(b"dev/kmsg\0"));
        let text = built.config.to_toml().unwrap();
        assert!(has(text.as_bytes()));
        assert_eq!(
            text.parse::<toml::Table>().unwrap()["target"]["path"].as_str(),
            Some("/var/crash \"odd\"")
        );
    }

    #[test]
    fn a_script_is_no_init() {
        assert!(matches!(check_init(b"#!/bin/sh\n"), Err(Error::NotAProgram)));
    }
}

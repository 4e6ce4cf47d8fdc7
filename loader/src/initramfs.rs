//! Building the capture initramfs: kdump-init, drivers and their firmware, configuration, three device nodes.
//!
//! Nothing goes in without a reason, which stays beside it as a [`Member`]: `arm --explain` prints them.
//! Generated from a list, nothing is copied from the system's own initramfs, so it is a few MB, which are loaded as
//! they are: packing them would take a quarter of the time that arming takes, and unpacking them a part of what a dump
//! takes. A larger one is packed with gzip (which every kernel unpacks) at the fastest level, as packed and unpacked it
//! has to fit into the reservation at the same time.

mod config;
mod member;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::cpio::{self, Archive};
use crate::modules::firmware::{self, FIRMWARE_DIR, MAX_FIRMWARE_BYTES};
use crate::modules::{self, Reason, Tree, Wanted};
use crate::target::{Place, Rung};

pub use config::{CaptureConfig, DumpConfig, EndConfig, RetentionConfig, TargetConfig};
pub use member::{Member, Why};

/// Where kdump-init reads its orders.
pub const CONFIG_PATH: &str = "etc/kdump-rs/capture.toml";
const MODULE_DIR: &str = "lib/modules";
/// Where it finds the program for a shell at the end.
pub const SHELL_PATH: &str = "bin/shell";
/// The largest archive that is loaded unpacked.
const PLAIN_MAX: usize = 4 << 20;

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
    Pack(#[source] io::Error),
    /// It would not start.
    #[error(
        "{what} needs a loader ({interpreter}), which the initramfs has not: it must be linked statically"
    )]
    NotStatic {
        /// What it is.
        what: &'static str,
        /// Its PT_INTERP.
        interpreter: String,
    },
    /// It is something else.
    #[error("{what} is no 64-bit x86 ELF program")]
    NotAProgram {
        /// What it should be.
        what: &'static str,
    },
}

/// A finished initramfs.
#[derive(Clone, Debug, Default)]
pub struct Initramfs {
    /// What is loaded: the archive, or gzip of a large one.
    pub packed: Vec<u8>,
    /// Bytes of the archive.
    pub unpacked_len: u64,
    /// Modules in it, as the module directory names them, in load order.
    pub modules: Vec<String>,
    /// The configuration in it.
    pub config: CaptureConfig,
    /// What is in it, in the order of the archive; nothing of one that somebody else made.
    pub members: Vec<Member>,
    /// What is not as it should be, but does not prevent a capture: firmware that is not there.
    pub warnings: Vec<String>,
    /// How long building it took, reading modules included.
    pub took: Duration,
}

/// The modules that `targets` need, each with its reason: drivers from their devices up, then their file systems, in
/// load order. `more` are others that are wanted, such as a watchdog's.
///
/// # Errors
/// [`modules::Error::NotFound`] if the kernel has no such file system, [`modules::Error::NoDriver`] if it
/// has no driver for the disk.
pub fn find_modules(
    tree: &Tree,
    targets: &[Rung],
    more: Vec<(String, Reason)>,
) -> Result<Vec<Wanted>, modules::Error> {
    let mut names = Vec::new();
    for target in targets {
        for device in target.sysfs() {
            names.extend(modules::devices::find_drivers(tree, device)?);
        }
        match &target.place {
            Place::Directory(target) => names.extend(file_system(tree, &target.fstype, &target.options)),
            Place::Nfs(nfs) => names.extend(file_system(tree, &nfs.fstype, &nfs.options)),
            Place::Raw(_) | Place::Url(_) => {}
        }
    }
    names.extend(more);
    tree.wanted(&names)
}

/// What a file system is served by, and the character sets that its options name.
fn file_system(tree: &Tree, fstype: &str, options: &str) -> Vec<(String, Reason)> {
    let reason = || Reason::FileSystem { fstype: fstype.to_owned() };
    let is_known = |name: &str| !tree.find_alias(name).is_empty() || tree.is_builtin(name);
    // The kernel itself asks for them by this alias. What is built in has none, and ext4 serves ext2 and ext3.
    let alias = format!("fs-{fstype}");
    let family = if fstype.starts_with("ext") { "ext4" } else { fstype };
    let name = [fstype, &alias, family].into_iter().find(|name| is_known(name)).unwrap_or(&alias);
    let mut names = vec![(name.to_owned(), reason())];
    for option in options.split(',') {
        let charset = match option.split_once('=') {
            Some(("codepage", page)) => format!("nls_cp{page}"),
            Some(("iocharset", charset)) => format!("nls_{charset}"),
            _ => continue,
        };
        // One that is not a module here is built in, or the mount now would not have it.
        names.extend(is_known(&charset).then(|| (charset, reason())));
    }
    // Each version of NFS is a module of its own, asked for by name.
    let version = if fstype == "nfs4" { "nfsv4" } else { "nfsv3" };
    names.extend((fstype.starts_with("nfs") && is_known(version)).then(|| (version.to_owned(), reason())));
    names
}

/// Builds the initramfs. `init` is the program, `shell` one to end in; `firmware` are the directories in which the
/// modules' firmware is looked for; `later` are modules that wait until the network is needed; `config.modules` and
/// `config.network.modules` are filled in here.
///
/// # Errors
/// [`Error`].
pub fn build(
    init: &[u8],
    shell: Option<&[u8]>,
    tree: &Tree,
    modules: Vec<Wanted>,
    later: Vec<Wanted>,
    firmware: &[PathBuf],
    mut config: CaptureConfig,
) -> Result<Initramfs, Error> {
    let start = Instant::now();
    check_static("kdump-init", init)?;
    let mut contents = Contents::default();
    for dir in ["dev", "proc", "sys", "run", "mnt"] {
        contents.archive.dir(dir)?;
        contents.add(dir, 0, Why::MountPoint);
    }
    // The kernel opens /dev/console for init before anything is mounted.
    contents.node("dev/console", 0o600, (5, 1), "the kernel opens it for init")?;
    contents.node("dev/null", 0o666, (1, 3), "standard streams of the programs that kdump-init starts")?;
    // Where kdump-init's own lines go before devtmpfs is there.
    contents.node("dev/kmsg", 0o600, (1, 11), "kdump-init's own lines, before /dev is mounted")?;
    contents.file("init", 0o755, init, Why::Init)?;
    if let Some(shell) = shell {
        check_static("the shell", shell)?;
        contents.file(SHELL_PATH, 0o755, shell, Why::Shell)?;
    }
    let mut files = Vec::new();
    let mut warnings = Vec::new();
    let mut left = MAX_FIRMWARE_BYTES;
    for Wanted { name, path, reason } in modules.iter().chain(&later) {
        let file = format!("{MODULE_DIR}/{}", modules::plain_file_name(path));
        let bytes = tree.read_decompressed(path)?;
        let why = Why::Module { module: name.clone(), reason: reason.clone() };
        contents.file(&file, 0o644, &bytes, why)?;
        files.push(file);
        match firmware::names(&bytes) {
            Some(names) => {
                left =
                    contents.firmware(name, &firmware::find(firmware, &names, left), left, &mut warnings)?;
            }
            None => warnings
                .push(format!("{path} has no readable .modinfo: whether it needs firmware is unknown")),
        }
    }
    let network = files.split_off(modules.len());
    config.modules = files;
    if let Some(config) = &mut config.network {
        config.modules = network;
    }
    contents.file(CONFIG_PATH, 0o600, config.to_toml()?.as_bytes(), Why::Configuration)?;
    let plain = contents.archive.finish();

    let unpacked_len = plain.len() as u64;
    let packed = if plain.len() > PLAIN_MAX { pack(&plain).map_err(Error::Pack)? } else { plain };
    Ok(Initramfs {
        packed,
        unpacked_len,
        modules: modules.into_iter().chain(later).map(|module| module.path).collect(),
        config,
        members: contents.members,
        warnings,
        took: start.elapsed(),
    })
}

fn pack(plain: &[u8]) -> io::Result<Vec<u8>> {
    let room = Vec::with_capacity(plain.len() / 2);
    let mut gzip = flate2::write::GzEncoder::new(room, flate2::Compression::fast());
    gzip.write_all(plain)?;
    gzip.finish()
}

/// An archive and what is said of each of its members.
#[derive(Default)]
struct Contents {
    archive: Archive,
    members: Vec<Member>,
}

impl Contents {
    fn add(&mut self, path: &str, bytes: usize, why: Why) {
        self.members.push(Member { path: path.to_owned(), bytes: bytes as u64, why });
    }

    fn file(&mut self, path: &str, mode: u32, bytes: &[u8], why: Why) -> Result<(), cpio::Error> {
        self.archive.file(path, mode, bytes)?;
        self.add(path, bytes.len(), why);
        Ok(())
    }

    fn node(
        &mut self,
        path: &str,
        mode: u32,
        (major, minor): (u32, u32),
        purpose: &'static str,
    ) -> Result<(), cpio::Error> {
        self.archive.node(path, mode, major, minor)?;
        self.add(path, 0, Why::Node { purpose });
        Ok(())
    }

    /// Adds a module's firmware, each file once, and gives what is left of `left` bytes.
    fn firmware(
        &mut self,
        module: &str,
        found: &firmware::Found,
        mut left: u64,
        warnings: &mut Vec<String>,
    ) -> Result<u64, cpio::Error> {
        for file in &found.files {
            let path = format!("{FIRMWARE_DIR}/{}", file.name);
            if self.members.iter().any(|member| member.path == path) {
                continue;
            }
            let why = Why::Firmware { module: module.to_owned(), from: file.path.clone() };
            self.file(&path, 0o644, &file.bytes, why)?;
            left -= file.bytes.len() as u64;
        }
        if !found.missing.is_empty() {
            warnings.push(format!(
                "module {module} may ask for firmware that is not installed here: {}",
                found.missing.join(", ")
            ));
        }
        warnings.extend(found.unusable.iter().map(|why| format!("firmware of module {module}: {why}")));
        Ok(left)
    }
}

/// Refuses a program that would not start as the first of a system without libraries.
///
/// # Errors
/// [`Error::NotAProgram`], [`Error::NotStatic`].
pub fn check_static(what: &'static str, program: &[u8]) -> Result<(), Error> {
    let elf = goblin::elf::Elf::parse(program).map_err(|_| Error::NotAProgram { what })?;
    if !elf.is_64 || elf.header.e_machine != goblin::elf::header::EM_X86_64 {
        return Err(Error::NotAProgram { what });
    }
    match elf.interpreter {
        Some(interpreter) => Err(Error::NotStatic { what, interpreter: interpreter.to_owned() }),
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
            targets: vec![TargetConfig {
                uuid: "a0a1a2a3-a4a5-a6a7-a8a9-aaabacadaeaf".into(),
                fstype: "ext4".into(),
                path: "/var/crash \"odd\"".into(),
                ..TargetConfig::default()
            }],
            dump: DumpConfig {
                level: 31,
                format: "kdump".into(),
                compression: "zstd".into(),
                ..DumpConfig::default()
            },
            end: EndConfig { action: "reboot".into() },
            ..CaptureConfig::default()
        }
    }

    fn named(name: &str) -> (String, Reason) {
        (name.to_owned(), Reason::Named)
    }

    /// The archive: the test program, which is init in it, may be large.
    fn plain(built: &Initramfs) -> Vec<u8> {
        let mut plain = Vec::new();
        match built.packed.as_slice() {
            [0x1f, 0x8b, ..] => {
                flate2::read::GzDecoder::new(built.packed.as_slice()).read_to_end(&mut plain).unwrap();
            }
            archive => plain.extend_from_slice(archive),
        }
        assert_eq!(plain.len() as u64, built.unpacked_len);
        plain
    }

    /// Paths and sizes of an archive's members.
    fn list(mut archive: &[u8]) -> Vec<(String, u64)> {
        let mut members = Vec::new();
        loop {
            let field = |nr: usize| {
                let digits = std::str::from_utf8(&archive[6 + 8 * nr..14 + 8 * nr]).unwrap();
                usize::from_str_radix(digits, 16).unwrap()
            };
            let (size, name_size) = (field(6), field(11));
            let name = String::from_utf8(archive[110..110 + name_size - 1].to_vec()).unwrap();
            if name == "TRAILER!!!" {
                return members;
            }
            let data = (110 + name_size).next_multiple_of(4);
            archive = &archive[data + size.next_multiple_of(4)..];
            members.push((name, size as u64));
        }
    }

    /// Check that what is explained is what is there: every member of the archive but the directories that lead to
    /// others, with its size; and that a module's firmware comes along.
    #[test]
    fn every_file_of_the_archive_is_explained() {
        let dir = tempfile::tempdir().unwrap();
        let (modules, lib) = (dir.path().join("modules/6.1"), dir.path().join("lib/firmware"));
        std::fs::create_dir_all(&modules).unwrap();
        std::fs::create_dir_all(lib.join("q")).unwrap();
        std::fs::write(modules.join("modules.dep"), "qla.ko: fc.ko\nfc.ko:\n").unwrap();
        std::fs::write(modules.join("fc.ko"), firmware::tests::module(&["license=GPL"])).unwrap();
        let qla = firmware::tests::module(&["firmware=q/1.bin", "firmware=q/2.bin"]);
        std::fs::write(modules.join("qla.ko"), &qla).unwrap();
        std::fs::write(lib.join("q/1.bin"), b"microcode").unwrap();
        let tree = Tree::open(&modules).unwrap();
        let init = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let driver = Reason::Driver { device: "/sys/devices/pci0".into(), by: modules::FoundBy::Sysfs };
        let wanted = tree.wanted(&[("qla".to_owned(), driver)]).unwrap();
        let directories = firmware::directories(dir.path(), "6.1");
        let built = build(&init, None, &tree, wanted, vec![], &directories, config()).unwrap();

        let leads = ["etc", "etc/kdump-rs", "lib", "lib/modules", "lib/firmware", "lib/firmware/q"];
        let in_archive: Vec<_> =
            list(&plain(&built)).into_iter().filter(|(name, _)| !leads.contains(&name.as_str())).collect();
        let explained: Vec<_> = built.members.iter().map(|m| (m.path.clone(), m.bytes)).collect();
        assert_eq!(in_archive, explained);
        assert!(explained.contains(&("lib/modules/qla.ko".to_owned(), qla.len() as u64)));

        let text = built.explain();
        for line in [
            "lib/modules/fc.ko          dependency of qla",
            "lib/modules/qla.ko         driver of /sys/devices/pci0 (sysfs: in use now)",
            "lib/firmware/q/1.bin       firmware asked for by qla",
            "9 B in 1 firmware files",
        ] {
            assert!(text.contains(line), "{line}:\n{text}");
        }
        assert_eq!(built.warnings, ["module qla may ask for firmware that is not installed here: q/2.bin"]);
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
        let built =
            build(&init, None, &tree, tree.wanted(&[named("virtio_blk")]).unwrap(), vec![], &[], config())
                .unwrap();
        assert_eq!(built.config.modules, ["lib/modules/virtio_blk.ko"]);
        let plain = plain(&built);
        let has = |needle: &[u8]| plain.windows(needle.len()).any(|w| w == needle);
        assert!(has(b"\x7fELF the module") && has(b"etc/kdump-rs/capture.toml\0") && has(b"dev/console\0"));
        assert!(has(b"dev/kmsg\0"));
        let text = built.config.to_toml().unwrap();
        assert!(has(text.as_bytes()));
        assert_eq!(
            text.parse::<toml::Table>().unwrap()["target"][0]["path"].as_str(),
            Some("/var/crash \"odd\"")
        );
    }

    /// Check that one that is large is packed, and comes out of gzip as it would have been.
    #[test]
    fn a_large_archive_is_packed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("modules.dep"), "large.ko:\n").unwrap();
        let init = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let tree = Tree::open(dir.path()).unwrap();
        std::fs::write(dir.path().join("large.ko"), b"module".repeat(PLAIN_MAX / 6)).unwrap();
        let large = build(&init, None, &tree, tree.wanted(&[named("large")]).unwrap(), vec![], &[], config())
            .unwrap();
        assert!(large.packed.starts_with(b"\x1f\x8b"));
        assert!(list(&plain(&large)).iter().any(|(name, _)| name == "lib/modules/large.ko"));
    }

    #[test]
    fn a_file_system_brings_its_module_and_its_character_sets() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("modules.dep"), "vfat.ko: fat.ko\nfat.ko:\nnls_cp437.ko:\nxfs.ko:\n")
            .unwrap();
        // As Debian's cloud kernels have it: built in, and so without aliases.
        std::fs::write(dir.path().join("modules.builtin"), "kernel/fs/ext4/ext4.ko\n").unwrap();
        let tree = Tree::open(dir.path()).unwrap();
        let names = |fstype, options| -> Vec<String> {
            file_system(&tree, fstype, options).into_iter().map(|(name, _)| name).collect()
        };
        for fstype in ["ext2", "ext3", "ext4"] {
            assert_eq!(names(fstype, ""), ["ext4"]);
        }
        assert_eq!(names("vfat", "codepage=437,iocharset=ascii,umask=0077"), ["vfat", "nls_cp437"]);
        assert_eq!(names("btrfs", "subvolid=5"), ["fs-btrfs"], "which the tree does not have, and says so");
        assert!(tree.wanted(&file_system(&tree, "btrfs", "")).is_err());
    }

    #[test]
    fn a_script_is_no_init() {
        assert!(matches!(check_static("kdump-init", b"#!/bin/sh\n"), Err(Error::NotAProgram { .. })));
    }
}

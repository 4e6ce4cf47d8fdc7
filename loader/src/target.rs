//! From a directory to what the capture kernel needs to find it: file system, UUID, path, device; and the ladder of
//! targets that are tried in order: what was asked for ([`Wish`]), and what came of looking at it ([`Rung`]).
//!
//! Directories may be on ext2, ext3, ext4, xfs, btrfs and vfat, on a partition or a whole disk, or on a server. Everything
//! else is refused by name, since a target that cannot be mounted after the panic is no target.

mod rung;
mod server;
mod wish;

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use procfs::FromRead as _;
use procfs::process::MountInfos;

use crate::superblock::{self, Kind};

pub use rung::{Nfs, Place, Raw, Rung};
pub use server::{Client, Contact, Sealed, Server};
pub use wish::{Error as WishError, Wish, WishedPlace};

/// A directory for dumps.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Target {
    /// As the user named it, links resolved.
    pub directory: PathBuf,
    /// The file system's UUID.
    pub uuid: String,
    /// Its type, as mounted.
    pub fstype: String,
    /// The directory inside that file system, absolute.
    pub path: String,
    /// The device that holds it, for people.
    pub device: PathBuf,
    /// Mount options that it needs.
    #[serde(default)]
    pub options: String,
    /// Directories under /sys/devices whose drivers reach the disk: its own, or those of the controllers
    /// that share it.
    #[serde(skip)]
    pub sysfs: Vec<PathBuf>,
    /// Bytes free for root.
    pub free_bytes: u64,
}

/// Why a directory cannot take dumps.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not there.
    #[error("target directory {path} cannot be used: create it, or mount the file system it belongs to", path = path.display())]
    NoDirectory {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is a file.
    #[error("target {path} is not a directory", path = path.display())]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// Its file system has no disk.
    #[error(
        "target directory {path} is on {fstype}, which has no disk of its own: name a directory on a local \
         file system with --target", path = path.display()
    )]
    NoDisk {
        /// The directory.
        path: PathBuf,
        /// Its file system.
        fstype: String,
    },
    /// Its file system is not one of ours.
    #[error(
        "target directory {path} is on {fstype}; the capture kernel writes to ext2, ext3, ext4, xfs, btrfs and vfat",
        path = path.display()
    )]
    Unsupported {
        /// The directory.
        path: PathBuf,
        /// Its file system.
        fstype: String,
    },
    /// LVM, LUKS, RAID.
    #[error(
        "target directory {path} is on {device}, a device made of others (LVM, LUKS, RAID): the capture kernel \
         does not assemble those yet; name a directory on a plain partition with --target", path = path.display()
    )]
    Stacked {
        /// The directory.
        path: PathBuf,
        /// The device.
        device: String,
    },
    /// loop, nbd, zram, drbd, brd: what stands behind it will not be there.
    #[error(
        "target directory {path} is on {device}, which is no disk of this machine ({kind}): the capture kernel \
         does not set it up; name a directory on a local disk with --target", path = path.display()
    )]
    Virtual {
        /// The directory.
        path: PathBuf,
        /// The device.
        device: String,
        /// The class of /sys/devices/virtual, or the like.
        kind: String,
    },
    /// iSCSI, NVMe over fabrics, Ceph.
    #[error(
        "target directory {path} is on {device}, which needs the network ({transport}): the capture kernel has \
         none; name a directory on a local disk with --target", path = path.display()
    )]
    Network {
        /// The directory.
        path: PathBuf,
        /// The device.
        device: String,
        /// What it is reached by.
        transport: &'static str,
    },
    /// Read-only now, so it would be then.
    #[error("target directory {path} is mounted read-only", path = path.display())]
    ReadOnly {
        /// The directory.
        path: PathBuf,
    },
    /// /proc/self/mountinfo has no mount for it.
    #[error("no line of /proc/self/mountinfo belongs to {path} (device {device})", path = path.display())]
    NoMount {
        /// The directory.
        path: PathBuf,
        /// Its device, major:minor.
        device: String,
    },
    /// The mount table cannot be read.
    #[error("/proc/self/mountinfo cannot be read")]
    Mounts(#[source] procfs::ProcError),
    /// The device cannot be read.
    #[error("the file system's UUID cannot be read from {device}", device = device.display())]
    Device {
        /// The device.
        device: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Mounted, but no such superblock.
    #[error("{device} has no {kind} superblock with a UUID", device = device.display())]
    NoUuid {
        /// The device.
        device: PathBuf,
        /// What it should be.
        kind: &'static str,
    },
    /// A log or a part of it is elsewhere.
    #[error(
        "target directory {path} is on {device}, which cannot be mounted without {needs}: name a directory on a file \
         system of one device with --target", path = path.display(), device = device.display()
    )]
    NeedsMore {
        /// The directory.
        path: PathBuf,
        /// The device.
        device: PathBuf,
        /// What else.
        needs: &'static str,
    },
    /// A raw target that nobody has said yes to.
    #[error("raw target {device} would be written over: say so with --target raw:{device},overwrite")]
    NotToBeOverwritten {
        /// As it was named.
        device: String,
    },
    /// A raw target that is no block device.
    #[error("raw target {device} is no block device", device = device.display())]
    NotADevice {
        /// The path.
        device: PathBuf,
    },
    /// A partition that is not there.
    #[error("no partition has PARTUUID {uuid}")]
    NoPartition {
        /// The PARTUUID.
        uuid: String,
    },
    /// Mounted, swapped to, or part of another device.
    #[error("raw target {device} is in use ({user}): a dump would destroy what is there", device = device.display())]
    InUse {
        /// The device.
        device: PathBuf,
        /// By what.
        user: String,
    },
    /// A raw target with something on it.
    #[error(
        "raw target {device} holds {what}: to have it written over at a panic all the same, name it with \
         --target raw:{device},overwrite-file-system", device = device.display()
    )]
    HoldsSomething {
        /// The device.
        device: PathBuf,
        /// What.
        what: &'static str,
    },
    /// A server that cannot be found.
    #[error("the address of NFS server {server} cannot be found")]
    NoServer {
        /// Server and directory, as named.
        server: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A server that nothing here can upload to.
    #[error("target {url} cannot be used")]
    Server {
        /// The URL.
        url: String,
        /// What its client says.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The path cannot stand in a configuration file.
    #[error("target directory {path} has a name that is not UTF-8", path = path.display())]
    NotUtf8 {
        /// The directory.
        path: PathBuf,
    },
}

/// A directory and the mount it belongs to.
struct Mounted {
    path: PathBuf,
    device_number: u64,
    fstype: String,
    /// What was mounted: a device, a server's directory.
    source: String,
    /// The directory inside the file system.
    inside: String,
    /// The super block's options.
    options: Vec<(String, Option<String>)>,
}

impl Mounted {
    fn find(directory: &Path) -> Result<Self, Error> {
        let missing = |source| Error::NoDirectory { path: directory.to_owned(), source };
        let path = fs::canonicalize(directory).map_err(missing)?;
        let metadata = fs::metadata(&path).map_err(missing)?;
        if !metadata.is_dir() {
            return Err(Error::NotADirectory { path });
        }
        let (major, minor) = (rustix::fs::major(metadata.dev()), rustix::fs::minor(metadata.dev()));
        let device = format!("{major}:{minor}");
        let mounts = MountInfos::from_file("/proc/self/mountinfo").map_err(Error::Mounts)?;
        let Some(mount) = find_mount(&mounts, &device, &path) else {
            return Err(Error::NoMount { path, device });
        };
        if mount.mount_options.contains_key("ro") || mount.super_options.contains_key("ro") {
            return Err(Error::ReadOnly { path });
        }
        let inside = path_inside(&mount.root, &unescape(&mount.mount_point.to_string_lossy()), &path)
            .ok_or_else(|| Error::NotUtf8 { path: path.clone() })?;
        let mut options: Vec<_> = mount.super_options.clone().into_iter().collect();
        options.sort();
        Ok(Self {
            path,
            device_number: metadata.dev(),
            fstype: mount.fs_type.clone(),
            source: unescape(mount.mount_source.as_deref().unwrap_or_default()),
            inside,
            options,
        })
    }

    fn option(&self, name: &str) -> Option<&str> {
        self.options.iter().find(|(key, _)| key == name)?.1.as_deref()
    }

    fn is_nfs(&self) -> bool {
        matches!(self.fstype.as_str(), "nfs" | "nfs4")
    }
}

impl Target {
    /// Finds file system, device and UUID of `directory`.
    ///
    /// # Errors
    /// [`Error`].
    pub fn resolve(directory: &Path) -> Result<Self, Error> {
        Self::of(Mounted::find(directory)?, "")
    }

    /// The same, of a mount that was found; with `more` mount options.
    fn of(mounted: Mounted, more: &str) -> Result<Self, Error> {
        let Some(kind) = Kind::of(&mounted.fstype) else {
            let Mounted { path, fstype, .. } = mounted;
            // Major 0: no block device (tmpfs, overlay).
            return Err(match rustix::fs::major(mounted.device_number) {
                0 => Error::NoDisk { path, fstype },
                _ => Error::Unsupported { path, fstype },
            });
        };
        let number = match kind {
            // Its subvolumes have numbers that are no device's.
            Kind::Btrfs => {
                let device = PathBuf::from(&mounted.source);
                fs::metadata(&device).map_err(|source| Error::Device { device, source })?.rdev()
            }
            _ => mounted.device_number,
        };
        let link = format!("/sys/dev/block/{}:{}", rustix::fs::major(number), rustix::fs::minor(number));
        let link = PathBuf::from(link);
        let sysfs = fs::canonicalize(&link).map_err(|source| Error::Device { device: link, source })?;
        let reached_by = check_transport(&sysfs, Path::new("/sys/devices"), &mounted.path)?;
        let device = find_device_node(&sysfs, number)
            .map_err(|source| Error::Device { device: sysfs.clone(), source })?;
        let superblock =
            superblock::read(&device).map_err(|source| Error::Device { device: device.clone(), source })?;
        let Some(superblock) = superblock.filter(|found| found.kind == kind) else {
            return Err(Error::NoUuid { device, kind: kind.name() });
        };
        if let Some(needs) = superblock.needs {
            return Err(Error::NeedsMore { path: mounted.path, device, needs });
        }
        let free_bytes =
            rustix::fs::statvfs(&mounted.path).map_or(0, |s| s.f_bfree.saturating_mul(s.f_frsize));
        Ok(Self {
            uuid: superblock.uuid,
            options: mount_options(kind, &mounted, more),
            directory: mounted.path,
            fstype: mounted.fstype,
            path: mounted.inside,
            device,
            sysfs: reached_by,
            free_bytes,
        })
    }
}

/// The options without which the file system would not be the same.
fn mount_options(kind: Kind, mounted: &Mounted, more: &str) -> String {
    let mut options: Vec<String> = Vec::new();
    match kind {
        // Paths begin at the top, whatever subvolume is mounted by default.
        Kind::Btrfs => options.push("subvolid=5".to_owned()),
        // Names in the same characters; readable to root alone, as there are no modes.
        Kind::Fat => {
            for name in ["codepage", "iocharset"] {
                options.extend(mounted.option(name).map(|value| format!("{name}={value}")));
            }
            options.push("umask=0077".to_owned());
        }
        Kind::Ext | Kind::Xfs => {}
    }
    options.extend(Some(more.to_owned()).filter(|more| !more.is_empty()));
    options.join(",")
}

/// The mount of this device whose mount point is the longest prefix of the path: bind mounts give
/// the same device several. Where no mount has the number, as with btrfs, the longest prefix alone counts.
fn find_mount<'a>(
    mounts: &'a MountInfos,
    device: &str,
    path: &Path,
) -> Option<&'a procfs::process::MountInfo> {
    let above =
        |m: &&procfs::process::MountInfo| path.starts_with(unescape(&m.mount_point.to_string_lossy()));
    // The last of equals lies on top.
    let depth = |m: &&procfs::process::MountInfo| m.mount_point.components().count();
    let of_device = mounts.iter().filter(|m| m.majmin == device).filter(above).max_by_key(depth);
    of_device.or_else(|| mounts.iter().filter(above).max_by_key(depth).filter(|m| m.fs_type == "btrfs"))
}

/// The directory's path inside its file system: the mount's root there, and what follows the mount point.
fn path_inside(mount_root: &str, mount_point: &str, path: &Path) -> Option<String> {
    let rest = path.strip_prefix(mount_point).ok()?;
    let mut inside = String::new();
    for part in Path::new(&unescape(mount_root)).join(rest).components() {
        if let Component::Normal(name) = part {
            inside.push('/');
            inside.push_str(name.to_str()?);
        }
    }
    Some(if inside.is_empty() { "/".to_owned() } else { inside })
}

/// Undoes the kernel's escapes of blanks: `\040` and the like. Source: fs/proc_namespace.c (`mangle`).
fn unescape(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) if code.is_ascii() => {
                plain.push(char::from(code));
                plain.push_str(&part[3..]);
            }
            _ => {
                plain.push('\\');
                plain.push_str(part);
            }
        }
    }
    plain
}

/// The directories whose drivers the capture kernel needs for the disk at `sysfs`, under `devices`.
///
/// # Errors
/// A device that needs more than drivers: [`Error::Stacked`], [`Error::Virtual`], [`Error::Network`].
fn check_transport(sysfs: &Path, devices: &Path, target: &Path) -> Result<Vec<PathBuf>, Error> {
    let path = target.to_owned();
    let device = sysfs.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let below = sysfs.strip_prefix(devices).unwrap_or(sysfs);
    let parts: Vec<_> = below.iter().map(|part| part.to_string_lossy()).collect();
    // Source: drivers/scsi/scsi_transport_iscsi.c (`session%u`), drivers/block/rbd.c (`rbd_root_dev`).
    if parts.iter().any(|part| is_numbered(part, "session")) {
        return Err(Error::Network { path, device, transport: "iSCSI" });
    }
    match parts.first().map(AsRef::as_ref) {
        Some("virtual") => {}
        Some("rbd") => return Err(Error::Network { path, device, transport: "Ceph" }),
        _ => return Ok(vec![sysfs.to_owned()]),
    }
    match parts.get(1).map(AsRef::as_ref) {
        Some("nvme-subsystem") => {}
        Some("nvme-fabrics") => {
            return Err(Error::Network { path, device, transport: "NVMe over fabrics" });
        }
        _ if has_slaves(sysfs) => return Err(Error::Stacked { path, device }),
        // A disk's own name says more than its class, which is "block": loop0, zram1, nbd2.
        kind => {
            let disk = parts.get(2).map(AsRef::as_ref).unwrap_or_default();
            let driver = disk.trim_end_matches(|c: char| c.is_ascii_digit());
            let kind = if driver.is_empty() { kind.unwrap_or("virtual") } else { driver };
            return Err(Error::Virtual { path, device, kind: kind.to_owned() });
        }
    }
    // One disk by several controllers: each has a link in the directory of the subsystem.
    // Source: drivers/nvme/host/core.c (`nvme_init_subsystem`).
    let subsystem: PathBuf = devices.iter().chain(below.iter().take(3)).collect();
    let links = fs::read_dir(&subsystem)
        .map_err(|source| Error::Device { device: subsystem.clone(), source })?
        .flatten()
        .filter(|entry| is_numbered(&entry.file_name().to_string_lossy(), "nvme"));
    let mut controllers = Vec::new();
    for link in links.map(|entry| entry.path()) {
        let found = fs::canonicalize(&link).map_err(|source| Error::Device { device: link, source })?;
        if found.starts_with(devices.join("virtual/nvme-fabrics")) {
            return Err(Error::Network { path, device, transport: "NVMe over fabrics" });
        }
        // The disk itself has a directory here, of the same name but for its namespace.
        if !found.starts_with(&subsystem) {
            controllers.push(found);
        }
    }
    controllers.sort_unstable();
    if controllers.is_empty() {
        return Err(Error::Virtual { path, device, kind: "NVMe without controllers".to_owned() });
    }
    Ok(controllers)
}

/// Whether `name` is `prefix` and a number.
fn is_numbered(name: &str, prefix: &str) -> bool {
    let number = name.strip_prefix(prefix).unwrap_or_default();
    !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())
}

fn has_slaves(sysfs: &Path) -> bool {
    fs::read_dir(sysfs.join("slaves")).is_ok_and(|mut d| d.next().is_some())
}

/// The device node: by the kernel's name of it, else any link of /dev/disk/by-uuid with its number.
fn find_device_node(sysfs: &Path, number: u64) -> io::Result<PathBuf> {
    let is_it = |node: &Path| fs::metadata(node).is_ok_and(|m| m.rdev() == number);
    let uevent = fs::read_to_string(sysfs.join("uevent"))?;
    let name = uevent.lines().find_map(|l| l.strip_prefix("DEVNAME="));
    let node = name.map(|n| Path::new("/dev").join(n));
    if let Some(node) = node.filter(|n| is_it(n)) {
        return Ok(node);
    }
    let links = fs::read_dir("/dev/disk/by-uuid")?.flatten().map(|e| e.path());
    links.into_iter().find(|l| is_it(l)).ok_or_else(|| {
        let text = format!("no node under /dev has the number of {}", name.unwrap_or("the device"));
        io::Error::new(io::ErrorKind::NotFound, text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mounts(text: &str) -> MountInfos {
        MountInfos::from_read(text.as_bytes()).unwrap()
    }

    /// A /sys/devices with these directories, and the answer for one of them.
    fn transport(dirs: &[&str], disk: &str) -> Result<Vec<String>, Error> {
        let root = tempfile::tempdir().unwrap();
        let devices = root.path().canonicalize().unwrap();
        for dir in dirs.iter().chain([&disk]) {
            fs::create_dir_all(devices.join(dir)).unwrap();
        }
        let subsystem = devices.join("virtual/nvme-subsystem/nvme-subsys0");
        for dir in dirs.iter().filter(|dir| subsystem.exists() && dir.contains("/nvme/")) {
            let name = Path::new(dir).file_name().unwrap();
            std::os::unix::fs::symlink(devices.join(dir), subsystem.join(name)).unwrap();
        }
        let found = check_transport(&devices.join(disk), &devices, Path::new("/var/crash"))?;
        let below = |p: PathBuf| p.strip_prefix(&devices).unwrap().to_str().unwrap().to_owned();
        Ok(found.into_iter().map(below).collect())
    }

    #[test]
    fn local_disks_are_reached_by_their_own_parents() {
        for disk in [
            "pci0000:00/0000:00:03.0/virtio1/block/vda/vda1",
            "pci0000:00/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0/block/sda/sda2",
            "pci0000:00/0000:01:00.0/nvme/nvme0/nvme0n1/nvme0n1p1",
            "vbd-51712/block/xvda",
        ] {
            assert_eq!(transport(&[], disk).unwrap(), [disk]);
        }
    }

    #[test]
    fn a_multipath_nvme_disk_is_reached_by_all_its_controllers() {
        let controllers = ["pci0000:00/0000:01:00.0/nvme/nvme0", "pci0000:00/0000:02:00.0/nvme/nvme1"];
        let disk = "virtual/nvme-subsystem/nvme-subsys0/nvme0n1/nvme0n1p1";
        assert_eq!(transport(&controllers, disk).unwrap(), controllers);
        assert!(matches!(transport(&[], disk), Err(Error::Virtual { .. })));
    }

    #[test]
    fn devices_without_hardware_are_refused_by_name() {
        for kind in ["loop", "zram", "nbd", "drbd", "ram"] {
            let disk = format!("virtual/block/{kind}0");
            let error = transport(&[], &disk).unwrap_err();
            assert!(matches!(&error, Error::Virtual { kind: k, .. } if k == kind), "{error}");
            assert!(error.to_string().contains(&format!("{kind}0")), "{error}");
        }
    }

    #[test]
    fn a_device_with_slaves_is_stacked() {
        let error = transport(&["virtual/block/dm-0/slaves/sda2"], "virtual/block/dm-0").unwrap_err();
        assert!(matches!(&error, Error::Stacked { device, .. } if device == "dm-0"), "{error}");
    }

    #[test]
    fn disks_behind_the_network_are_refused_as_such() {
        let fabrics = "virtual/nvme-fabrics/ctl/nvme/nvme0";
        for (dirs, disk) in [
            (vec![], "platform/host2/session1/target2:0:0/2:0:0:0/block/sdb/sdb1"),
            (vec![], "pci0000:00/0000:05:00.0/host3/session12/target3:0:0/3:0:0:0/block/sdc"),
            (vec![], "virtual/nvme-fabrics/ctl/nvme0/nvme0n1"),
            (vec![fabrics], "virtual/nvme-subsystem/nvme-subsys0/nvme0n1"),
            (vec![], "rbd/0/block/rbd0"),
        ] {
            let error = transport(&dirs, disk).unwrap_err();
            assert!(matches!(&error, Error::Network { .. }), "{disk}: {error}");
            assert!(error.to_string().contains("needs the network"), "{error}");
        }
    }

    #[test]
    fn the_longest_mount_point_of_the_device_wins() {
        let mounts = mounts(
            "22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n\
             30 22 254:1 /data/dumps /var/crash rw,relatime shared:1 - ext4 /dev/vda1 rw\n\
             31 22 0:25 / /run rw - tmpfs tmpfs rw\n",
        );
        let mount = find_mount(&mounts, "254:1", Path::new("/var/crash/a")).unwrap();
        assert_eq!(
            path_inside(&mount.root, "/var/crash", Path::new("/var/crash/a")).unwrap(),
            "/data/dumps/a"
        );
        let mount = find_mount(&mounts, "254:1", Path::new("/srv")).unwrap();
        assert_eq!(path_inside(&mount.root, "/", Path::new("/srv")).unwrap(), "/srv");
        assert!(find_mount(&mounts, "8:1", Path::new("/srv")).is_none());
    }

    #[test]
    fn the_root_of_a_file_system_is_a_slash() {
        assert_eq!(path_inside("/", "/mnt", Path::new("/mnt")).unwrap(), "/");
    }

    #[test]
    fn blanks_in_mount_points_are_unescaped() {
        assert_eq!(unescape(r"/mnt/a\040b\134c"), r"/mnt/a b\c");
        assert_eq!(unescape(r"/x\9"), r"/x\9");
    }

    #[test]
    fn proc_is_no_target() {
        assert!(matches!(Target::resolve(Path::new("/proc")), Err(Error::NoDisk { .. })));
        assert!(matches!(Target::resolve(Path::new("/proc/cmdline")), Err(Error::NotADirectory { .. })));
        assert!(matches!(Target::resolve(Path::new("/nonexistent")), Err(Error::NoDirectory { .. })));
    }
}

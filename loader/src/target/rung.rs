//! One rung of the ladder: a target that was looked at and can be used, of whatever kind.

use std::fs;
use std::io;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::wish::{Wish, WishedPlace};
use super::{Client, Error, Mounted, Server, Target, check_transport};
use crate::initramfs::TargetConfig;
use crate::network::Destination;
use crate::plan::size_text;
use crate::superblock::{Signature, read_signature};

/// Where NFS is served.
const PORT: u16 = 2049;

/// A target, and what it may take.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rung {
    /// Which.
    #[serde(flatten)]
    pub place: Place,
    /// Seconds that it may take, when not all the time there is.
    pub budget_s: Option<u64>,
}

/// A target of some kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Place {
    /// A directory on a local file system.
    Directory(Target),
    /// A partition that is written over.
    Raw(Raw),
    /// A directory of a server.
    Nfs(Nfs),
    /// A server that takes uploads.
    Url(Server),
}

/// A partition that takes a dump in the flattened format, from its beginning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Raw {
    /// Its device now.
    pub device: PathBuf,
    /// PARTUUID, by which it is found again; empty for a whole disk, which is found by its path.
    pub partuuid: String,
    /// Whether it is written over even when it holds a file system.
    pub overwrite_file_system: bool,
    /// Its bytes.
    pub bytes: u64,
    /// Directories under /sys/devices whose drivers reach it.
    #[serde(skip)]
    pub sysfs: Vec<PathBuf>,
}

/// A directory that a server exports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nfs {
    /// `SERVER:/DIRECTORY`, as mount(8) takes it.
    pub source: String,
    /// The server's address.
    pub address: String,
    /// `nfs4`, or `nfs` for version 3.
    pub fstype: String,
    /// The directory below the mount.
    pub path: String,
    /// Mount options beside the address.
    pub options: String,
}

impl Rung {
    /// Looks at what was asked for.
    ///
    /// # Errors
    /// [`Error`].
    pub fn resolve(wish: &Wish, client: Client) -> Result<Self, Error> {
        let place = match &wish.place {
            WishedPlace::Directory(path) => {
                let mounted = Mounted::find(path)?;
                if mounted.is_nfs() {
                    Place::Nfs(Nfs::of(&mounted, &wish.options))
                } else {
                    Place::Directory(Target::of(mounted, &wish.options)?)
                }
            }
            WishedPlace::Raw { device, overwrite, overwrite_file_system } => {
                if !overwrite {
                    return Err(Error::NotToBeOverwritten { device: device.clone() });
                }
                Place::Raw(Raw::resolve(device, *overwrite_file_system)?)
            }
            WishedPlace::Nfs(source) => Place::Nfs(Nfs::resolve(source, &wish.options)?),
            WishedPlace::Url(url) => Place::Url(Server::resolve(url, &wish.remote, client)?),
        };
        Ok(Self { place, budget_s: wish.budget.map(|budget| budget.as_secs()) })
    }

    /// Looks at all of a ladder; the first that cannot be used is the error, since it was asked for.
    ///
    /// # Errors
    /// [`Error`].
    pub fn resolve_all(wishes: &[Wish], client: Client) -> Result<Vec<Self>, Error> {
        wishes.iter().map(|wish| Self::resolve(wish, client)).collect()
    }

    /// The server that it is on, if it is on one.
    #[must_use]
    pub fn destination(&self) -> Option<Destination> {
        match &self.place {
            Place::Nfs(nfs) => Some(nfs.destination()),
            Place::Url(server) => Some(server.destination()),
            Place::Directory(_) | Place::Raw(_) => None,
        }
    }

    /// Directories under /sys/devices whose drivers reach it.
    #[must_use]
    pub fn sysfs(&self) -> &[PathBuf] {
        match &self.place {
            Place::Directory(target) => &target.sysfs,
            Place::Raw(raw) => &raw.sysfs,
            Place::Nfs(_) | Place::Url(_) => &[],
        }
    }

    /// Bytes that a dump finds room in; `None` where only the server knows.
    #[must_use]
    pub const fn free_bytes(&self) -> Option<u64> {
        match &self.place {
            Place::Directory(target) => Some(target.free_bytes),
            Place::Raw(raw) => Some(raw.bytes),
            Place::Nfs(_) | Place::Url(_) => None,
        }
    }

    /// Short, as it is named in messages: a directory, a device, a server.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.place {
            Place::Directory(target) => target.directory.display().to_string(),
            Place::Raw(raw) => format!("raw:{}", raw.device.display()),
            Place::Nfs(nfs) => format!("nfs:{}", nfs.source),
            Place::Url(server) => server.url.clone(),
        }
    }

    /// In words: what it is, how it is found, how much fits.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = match &self.place {
            Place::Directory(target) => format!(
                "{} on {} ({}, UUID {}), {} free",
                target.directory.display(),
                target.device.display(),
                target.fstype,
                target.uuid,
                size_text(target.free_bytes)
            ),
            Place::Raw(raw) if raw.partuuid.is_empty() => {
                format!("{}, written over, {}", raw.device.display(), size_text(raw.bytes))
            }
            Place::Raw(raw) => format!(
                "{} (PARTUUID {}), written over, {}",
                raw.device.display(),
                raw.partuuid,
                size_text(raw.bytes)
            ),
            Place::Nfs(nfs) => format!("{} ({}, {})", nfs.source, nfs.fstype, nfs.address),
            Place::Url(server) => server.describe(),
        };
        if let Some(seconds) = self.budget_s {
            text.push_str(&format!(", within {seconds} s"));
        }
        text
    }

    /// What kdump-init is told.
    #[must_use]
    pub fn config(&self) -> TargetConfig {
        let mut config = TargetConfig { budget: self.budget_s.unwrap_or(0), ..TargetConfig::default() };
        match &self.place {
            Place::Directory(target) => {
                config.kind = "directory".to_owned();
                config.uuid.clone_from(&target.uuid);
                config.fstype.clone_from(&target.fstype);
                config.path.clone_from(&target.path);
                config.options.clone_from(&target.options);
            }
            Place::Raw(raw) => {
                config.kind = "raw".to_owned();
                config.uuid.clone_from(&raw.partuuid);
                config.device = raw.device.display().to_string();
                config.bytes = raw.bytes;
                config.overwrite_file_system = raw.overwrite_file_system;
            }
            Place::Nfs(nfs) => {
                config.kind = "nfs".to_owned();
                config.device.clone_from(&nfs.source);
                config.fstype.clone_from(&nfs.fstype);
                config.path.clone_from(&nfs.path);
                config.options = nfs.mount_options();
            }
            Place::Url(server) => {
                config.kind = "url".to_owned();
                config.url.clone_from(&server.url);
                config.remote.clone_from(&server.options);
            }
        }
        config
    }

    /// What has become of it since, in words; `None` if a dump would still go there.
    #[must_use]
    pub fn change(&self) -> Option<String> {
        match &self.place {
            Place::Directory(armed) => match Target::resolve(&armed.directory) {
                Ok(now) if now.uuid != armed.uuid || now.path != armed.path => {
                    Some(format!("{} is another directory now", armed.directory.display()))
                }
                // Whoever may not read the disk cannot tell.
                Ok(_) | Err(Error::Device { .. }) => None,
                Err(error) => Some(error.to_string()),
            },
            Place::Raw(armed) => match Raw::resolve(&armed.name(), armed.overwrite_file_system) {
                Ok(now) if now.partuuid != armed.partuuid => {
                    Some(format!("{} is another partition now", armed.device.display()))
                }
                Ok(_) | Err(Error::Device { .. }) => None,
                Err(error) => Some(error.to_string()),
            },
            Place::Nfs(_) | Place::Url(_) => None,
        }
    }
}

impl Raw {
    fn resolve(named: &str, overwrite_file_system: bool) -> Result<Self, Error> {
        let device = match named.strip_prefix("PARTUUID=") {
            Some(uuid) => find_partition(uuid).ok_or_else(|| Error::NoPartition { uuid: uuid.to_owned() })?,
            None => PathBuf::from(named),
        };
        let failed = |source| Error::Device { device: device.clone(), source };
        let metadata = fs::metadata(&device).map_err(failed)?;
        if !metadata.file_type().is_block_device() {
            return Err(Error::NotADevice { device });
        }
        let (major, minor) = (rustix::fs::major(metadata.rdev()), rustix::fs::minor(metadata.rdev()));
        let sysfs = fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).map_err(failed)?;
        let reached_by = check_transport(&sysfs, Path::new("/sys/devices"), &device)?;
        if let Some(user) = in_use(&sysfs, &device, &format!("{major}:{minor}")) {
            return Err(Error::InUse { device, user });
        }
        match read_signature(&device).map_err(failed)? {
            None | Some(Signature::Dump) => {}
            Some(_) if overwrite_file_system => {}
            Some(found) => return Err(Error::HoldsSomething { device, what: found.name() }),
        }
        let sectors = fs::read_to_string(sysfs.join("size")).map_err(failed)?;
        let bytes = sectors.trim().parse::<u64>().unwrap_or(0).saturating_mul(512);
        let uevent = fs::read_to_string(sysfs.join("uevent")).map_err(failed)?;
        let partuuid = uevent.lines().find_map(|l| l.strip_prefix("PARTUUID=")).map(str::to_owned);
        // Kernels before 6.11 do not say it in uevent; udev does, where there is one.
        let partuuid = partuuid.or_else(|| partuuid_link(metadata.rdev())).unwrap_or_default();
        Ok(Self { device, partuuid, overwrite_file_system, bytes, sysfs: reached_by })
    }

    fn name(&self) -> String {
        if self.partuuid.is_empty() {
            self.device.display().to_string()
        } else {
            format!("PARTUUID={}", self.partuuid)
        }
    }
}

/// The device with this PARTUUID.
fn find_partition(uuid: &str) -> Option<PathBuf> {
    let link = Path::new("/dev/disk/by-partuuid").join(uuid.to_lowercase());
    link.canonicalize().ok().or_else(|| crate::partition::find(uuid))
}

fn partuuid_link(number: u64) -> Option<String> {
    let links = fs::read_dir("/dev/disk/by-partuuid").into_iter().flatten().flatten();
    let mut found = links.filter(|link| fs::metadata(link.path()).is_ok_and(|m| m.rdev() == number));
    let linked = found.next().and_then(|link| link.file_name().into_string().ok());
    linked.or_else(|| crate::partition::uuid_of(number))
}

/// Who uses a device now: a mount, swap, or a device made of it.
fn in_use(sysfs: &Path, device: &Path, number: &str) -> Option<String> {
    if let Some(holder) = fs::read_dir(sysfs.join("holders")).ok().and_then(|mut d| d.next()?.ok()) {
        return Some(holder.file_name().to_string_lossy().into_owned());
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mounted =
        mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>()).find(|f| f.get(2) == Some(&number));
    if let Some(at) = mounted.and_then(|fields| fields.get(4).map(|at| (*at).to_owned())) {
        return Some(at);
    }
    let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
    let path = device.canonicalize().unwrap_or_else(|_| device.to_owned());
    let is_swap =
        swaps.lines().any(|line| line.split_whitespace().next().is_some_and(|p| Path::new(p) == path));
    is_swap.then(|| "swap".to_owned())
}

impl Nfs {
    /// A directory on a mount: server and options are those of the mount.
    fn of(mounted: &Mounted, more: &str) -> Self {
        let kept = ["vers", "nfsvers", "proto", "port", "sec", "nolock"];
        let options =
            mounted.options.iter().filter(|(key, _)| kept.contains(&key.as_str())).map(|(key, value)| {
                value.as_ref().map_or_else(|| key.clone(), |value| format!("{key}={value}"))
            });
        let more = Some(more.to_owned()).filter(|more| !more.is_empty());
        Self {
            source: mounted.source.clone(),
            address: mounted.option("addr").unwrap_or_default().to_owned(),
            fstype: mounted.fstype.clone(),
            path: mounted.inside.clone(),
            options: options.chain(more).collect::<Vec<_>>().join(","),
        }
    }

    fn destination(&self) -> Destination {
        let (server, _) = self.source.split_once(":/").unwrap_or((&self.source, ""));
        let port = self.options.split(',').find_map(|option| option.strip_prefix("port=")?.parse().ok());
        Destination {
            host: server.trim_matches(['[', ']']).to_owned(),
            port: port.unwrap_or(PORT),
            addresses: self.address.parse().into_iter().collect(),
        }
    }

    /// What mount(2) is given.
    fn mount_options(&self) -> String {
        let mut options = format!("addr={}", self.address);
        let has_lock = self.options.split(',').any(|option| option.ends_with("lock"));
        // Version 3 has locks by a daemon of their own, and there is none.
        let lock = if self.fstype == "nfs" && !has_lock { "nolock" } else { "" };
        for more in [self.options.as_str(), lock].into_iter().filter(|more| !more.is_empty()) {
            options.push(',');
            options.push_str(more);
        }
        options
    }

    fn resolve(source: &str, options: &str) -> Result<Self, Error> {
        let unknown = |why: io::Error| Error::NoServer { server: source.to_owned(), source: why };
        let (server, _) =
            source.split_once(":/").ok_or_else(|| unknown(io::ErrorKind::InvalidInput.into()))?;
        let bare = server.trim_start_matches('[').trim_end_matches(']');
        let address = match bare.parse::<IpAddr>() {
            Ok(address) => address,
            // Resolved now: the capture kernel asks nobody.
            Err(_) => {
                let mut found = (bare, PORT).to_socket_addrs().map_err(unknown)?;
                found.next().ok_or_else(|| unknown(io::ErrorKind::NotFound.into()))?.ip()
            }
        };
        let is_3 = options.split(',').any(|o| matches!(o, "vers=3" | "nfsvers=3"));
        Ok(Self {
            source: source.to_owned(),
            address: address.to_string(),
            fstype: if is_3 { "nfs" } else { "nfs4" }.to_owned(),
            path: "/".to_owned(),
            options: options.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> Error {
        Rung::resolve(&text.parse().unwrap(), |_, _| Err("no client".into())).unwrap_err()
    }

    #[test]
    fn a_partition_is_written_over_only_when_told_so() {
        let error = refused("raw:/dev/null");
        assert!(matches!(&error, Error::NotToBeOverwritten { .. }), "{error}");
        assert!(error.to_string().contains(",overwrite"), "{error}");
        let error = refused("raw:/dev/null,overwrite");
        assert!(matches!(&error, Error::NotADevice { .. }), "{error}");
        let error = refused("raw:PARTUUID=00000000-dead,overwrite");
        assert!(error.to_string().contains("00000000-dead"), "{error}");
    }

    #[test]
    fn a_server_is_found_now_and_not_in_the_capture_kernel() {
        let nfs = Nfs::resolve("10.0.0.5:/export/crash", "").unwrap();
        assert_eq!((nfs.address.as_str(), nfs.fstype.as_str()), ("10.0.0.5", "nfs4"));
        let nfs = Nfs::resolve("[fd00::5]:/export", "vers=3,nolock").unwrap();
        assert_eq!((nfs.address.as_str(), nfs.fstype.as_str()), ("fd00::5", "nfs"));
        let rung = Rung { place: Place::Nfs(nfs), budget_s: Some(30) };
        assert_eq!(rung.config().options, "addr=fd00::5,vers=3,nolock");
        let to = rung.destination().unwrap();
        assert_eq!((to.host.as_str(), to.port, to.addresses.len()), ("fd00::5", 2049, 1));
        assert!(rung.describe().ends_with("within 30 s"), "{}", rung.describe());
    }

    #[test]
    fn a_state_file_gives_back_the_ladder() {
        let raw = Raw {
            device: "/dev/vdb1".into(),
            partuuid: "12".into(),
            overwrite_file_system: false,
            bytes: 1 << 30,
            sysfs: vec![],
        };
        let rung = Rung { place: Place::Raw(raw), budget_s: None };
        let text = serde_json::to_string(&rung).unwrap();
        assert!(text.contains("\"kind\":\"raw\""), "{text}");
        assert_eq!(serde_json::from_str::<Rung>(&text).unwrap(), rung);
    }
}

//! The file system the dump goes to, and the directory on it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use kdump_analyze::sys::utc;
use kdump_capture::config::TargetConfig;
use kdump_capture::durable::create_dir;
use kdump_loader::superblock::{self, Kind};
use rustix::mount::{MountFlags, UnmountFlags, unmount as umount};

use crate::console::say;
use crate::system::mount_at;

/// Disks behind slow controllers take this long to appear.
const WAIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);

/// The directory of a dump, and what to know of the file system it is on.
#[derive(Clone, Debug)]
pub struct DumpDir {
    /// The directory.
    pub path: PathBuf,
    /// Its name below [`DumpDir::above`].
    pub name: String,
    /// The directory that holds all dumps.
    pub above: PathBuf,
    /// The file system's type.
    pub fstype: String,
}

/// In words, for messages.
pub fn describe(target: &TargetConfig) -> String {
    let TargetConfig { kind, uuid, device, fstype, path, url, .. } = target;
    match (kind.as_str(), uuid.as_str()) {
        ("raw", "") => device.clone(),
        ("raw", uuid) => format!("partition {uuid}"),
        ("nfs", _) => device.clone(),
        ("url", _) => url.clone(),
        _ => format!("{path} on {fstype} {uuid}"),
    }
}

fn mount_point(number: usize) -> PathBuf {
    format!("/run/target{number}").into()
}

/// Waits for the target's device, and mounts it.
pub fn mount(number: usize, target: &TargetConfig) -> anyhow::Result<()> {
    let is_nfs = target.kind == "nfs";
    let device = if is_nfs {
        target.device.clone()
    } else {
        let kind =
            Kind::of(&target.fstype).with_context(|| format!("file system {} is unknown", target.fstype))?;
        anyhow::ensure!(!target.uuid.is_empty(), "the configuration names no file system");
        let found = wait_for(&format!("file system {}", target.uuid), || {
            let devices = block_devices().into_iter().map(|name| Path::new("/dev").join(name));
            devices.into_iter().find(|device| superblock::is_on(device, kind, &target.uuid))
        })?;
        found.display().to_string()
    };
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    mount_at(&device, &target.fstype, &mount_point(number), flags, &target.options)
        .with_context(|| format!("cannot mount {device} ({})", target.fstype))?;
    say!("mounted {device} ({})", [target.fstype.as_str(), &target.uuid].join(" ").trim_end());
    Ok(())
}

/// Whether the target is mounted.
pub fn is_mounted(number: usize) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let point = mount_point(number);
    mounts.lines().any(|line| line.split(' ').nth(1).is_some_and(|at| Path::new(at) == point))
}

/// Unmounts the target, or at least brings it to the disk.
pub fn unmount(number: usize) {
    if !is_mounted(number) {
        return;
    }
    let point = mount_point(number);
    if let Ok(dir) = std::fs::File::open(&point) {
        let _ = rustix::fs::syncfs(&dir);
    }
    if let Err(e) = umount(&point, UnmountFlags::empty()) {
        say!("cannot unmount the target: {e}");
        // Whoever holds it is being killed: it goes when they do.
        let _ = umount(&point, UnmountFlags::DETACH);
    }
}

/// Waits until `find` finds a device.
pub fn wait_for(what: &str, find: impl Fn() -> Option<PathBuf>) -> anyhow::Result<PathBuf> {
    let begin = Instant::now();
    let mut next_word = Duration::from_secs(5);
    loop {
        if let Some(path) = find() {
            return Ok(path);
        }
        let waited = begin.elapsed();
        anyhow::ensure!(
            waited < WAIT,
            "no block device holds {what} after {} s; there are: {}",
            WAIT.as_secs(),
            list(&block_devices())
        );
        if waited >= next_word {
            say!("waiting for {what}; block devices: {}", list(&block_devices()));
            next_word += Duration::from_secs(10);
        }
        std::thread::sleep(POLL);
    }
}

/// Names of the block devices, sorted. None where sysfs is not there.
fn block_devices() -> Vec<String> {
    let entries = std::fs::read_dir("/sys/class/block").into_iter().flatten();
    let mut names: Vec<String> = entries.filter_map(|e| e.ok()?.file_name().into_string().ok()).collect();
    names.sort();
    names
}

fn list(devices: &[String]) -> String {
    if devices.is_empty() { "none".into() } else { devices.join(", ") }
}

/// Makes the directory of this dump: `<path>/<UTC time>-<boot id, 8 hex>`.
pub fn make_dump_dir(number: usize, target: &TargetConfig, boot_id: &str) -> anyhow::Result<DumpDir> {
    let point = mount_point(number);
    let above = point.join(target.path.trim_start_matches('/'));
    if !above.is_dir() {
        create_dir(&above).with_context(|| format!("cannot make {}", above.display()))?;
    }
    let first = dump_name(now(), boot_id);
    // A clock that stands still must not send two dumps to one place.
    for attempt in 1..100 {
        let name = if attempt == 1 { first.clone() } else { format!("{first}-{attempt}") };
        let path = above.join(&name);
        match create_dir(&path) {
            Ok(()) => {
                say!("the dump goes to {}", path.strip_prefix(&point).unwrap_or(&path).display());
                return Ok(DumpDir { path, name, above, fstype: target.fstype.clone() });
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e).with_context(|| format!("cannot make {}", path.display())),
        }
    }
    anyhow::bail!("{} exists a hundred times over", above.join(first).display())
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// `YYYYMMDDTHHMMSSZ-` and the first eight digits of the boot id.
pub fn dump_name(seconds: u64, boot_id: &str) -> String {
    let time = utc(i64::try_from(seconds).unwrap_or(i64::MAX)).replace(['-', ':'], "").replace(' ', "T");
    let id: String = boot_id.chars().filter(char::is_ascii_hexdigit).take(8).collect();
    let id = if id.is_empty() { "unknown".into() } else { id };
    format!("{time}Z-{id}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_is_named_by_utc_time_and_boot_id() {
        let id = "b4bb3a2f-5b1c-4a52-a7a4-3b2f8e8e7c11";
        assert_eq!(dump_name(0, id), "19700101T000000Z-b4bb3a2f");
        assert_eq!(dump_name(951_827_696, id), "20000229T123456Z-b4bb3a2f");
        assert_eq!(dump_name(1_735_689_599, id), "20241231T235959Z-b4bb3a2f");
        assert_eq!(dump_name(4_107_542_400, ""), "21000301T000000Z-unknown");
    }

    #[test]
    fn each_kind_of_target_is_told_by_what_finds_it() {
        let target = |kind: &str, uuid: &str| TargetConfig {
            kind: kind.into(),
            uuid: uuid.into(),
            device: "/dev/vdb1".into(),
            path: "/var/crash".into(),
            ..TargetConfig::default()
        };
        assert_eq!(describe(&target("directory", "a0a1")), "/var/crash on ext4 a0a1");
        assert_eq!(describe(&target("raw", "12-34")), "partition 12-34");
        assert_eq!(describe(&target("raw", "")), "/dev/vdb1");
    }
}

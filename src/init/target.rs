//! The file system the dump goes to, and the directory on it.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use kdump_analyze::sys::utc;
use kdump_capture::config::{CaptureConfig, TargetConfig};
use kdump_loader::superblock::read_ext_uuid;
use rustix::mount::{MountFlags, UnmountFlags, unmount as umount};

use crate::console::say;
use crate::system::mount_at;

const MOUNT_POINT: &str = "/run/target";
/// Disks behind slow controllers take this long to appear.
const WAIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);

/// Waits for the target's device, and mounts it.
pub fn mount(target: &TargetConfig) -> anyhow::Result<()> {
    anyhow::ensure!(!target.uuid.is_empty(), "the configuration names no file system");
    let device = wait_for(&target.uuid)?;
    mount_at(&device, &target.fstype, MOUNT_POINT, MountFlags::NOSUID | MountFlags::NODEV)
        .with_context(|| format!("cannot mount {device} ({})", target.fstype))?;
    say!("mounted {device} ({} {})", target.fstype, target.uuid);
    Ok(())
}

/// Unmounts the target, or at least brings it to the disk.
pub fn unmount() {
    rustix::fs::sync();
    if let Err(e) = umount(MOUNT_POINT, UnmountFlags::empty()) {
        say!("cannot unmount the target: {e}");
    }
}

/// The device whose superblock has `uuid`, once it is there.
fn wait_for(uuid: &str) -> anyhow::Result<String> {
    let begin = Instant::now();
    let mut next_word = Duration::from_secs(5);
    loop {
        let devices = block_devices();
        let found = devices.iter().map(|name| format!("/dev/{name}")).find(|path| {
            let read = read_ext_uuid(Path::new(path)).ok().flatten();
            read.is_some_and(|u| u.eq_ignore_ascii_case(uuid))
        });
        if let Some(path) = found {
            return Ok(path);
        }
        let waited = begin.elapsed();
        anyhow::ensure!(
            waited < WAIT,
            "no block device holds file system {uuid} after {} s; there are: {}",
            WAIT.as_secs(),
            list(&devices)
        );
        if waited >= next_word {
            say!("waiting for file system {uuid}; block devices: {}", list(&devices));
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
pub fn make_dump_dir(config: &CaptureConfig) -> anyhow::Result<PathBuf> {
    let below = Path::new(MOUNT_POINT).join(config.target.path.trim_start_matches('/'));
    let private = |path: &Path, recursive| DirBuilder::new().recursive(recursive).mode(0o700).create(path);
    private(&below, true).with_context(|| format!("cannot make {}", below.display()))?;
    let name = dump_name(now(), &config.boot_id);
    // A clock that stands still must not send two dumps to one place.
    for attempt in 1..100 {
        let name = if attempt == 1 { name.clone() } else { format!("{name}-{attempt}") };
        let path = below.join(name);
        match private(&path, false) {
            Ok(()) => {
                say!("the dump goes to {}", path.strip_prefix(MOUNT_POINT).unwrap_or(&path).display());
                return Ok(path);
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e).with_context(|| format!("cannot make {}", path.display())),
        }
    }
    anyhow::bail!("{} exists a hundred times over", below.join(name).display())
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// `YYYYMMDDTHHMMSSZ-` and the first eight digits of the boot id.
fn dump_name(seconds: u64, boot_id: &str) -> String {
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
}

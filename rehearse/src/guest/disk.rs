//! Finding the guest's disk by its file system's UUID, and mounting it.

use std::ffi::CStr;
use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use kdump_loader::superblock::read_ext_uuid;
use rustix::mount::{MountFlags, mount};

use super::{Failure, because};
use crate::Mount;
use crate::disk::{DUMPS, MOUNT_POINT, UUID};

/// virtio-blk probes while its module loads; this is for slow emulation.
const LIMIT: Duration = Duration::from_secs(10);

pub(super) fn mount_by_uuid() -> Result<(), Failure> {
    let start = Instant::now();
    let device = loop {
        if let Some(device) = find() {
            break device;
        }
        if start.elapsed() > LIMIT {
            return Err(format!("no disk has a file system with UUID {UUID}"));
        }
        thread::sleep(Duration::from_millis(20));
    };
    let none: Option<&CStr> = None;
    mount(&device, MOUNT_POINT, "ext4", MountFlags::empty(), none)
        .map_err(because(&format!("cannot mount {} on {MOUNT_POINT}", device.display())))?;
    let dumps = PathBuf::from(MOUNT_POINT).join(DUMPS);
    fs::create_dir_all(&dumps).map_err(because(&format!("cannot create {}", dumps.display())))
}

/// Mounts what a scene has besides.
pub(super) fn mount_one(wanted: &Mount) -> Result<(), Failure> {
    let Mount { device, fstype, directory } = wanted;
    fs::create_dir_all(directory).map_err(because(&format!("cannot create {directory}")))?;
    let none: Option<&CStr> = None;
    mount(device, directory, fstype, MountFlags::empty(), none)
        .map_err(because(&format!("cannot mount {device} on {directory}")))
}

fn find() -> Option<PathBuf> {
    let devices = fs::read_dir("/sys/class/block").ok()?;
    devices
        .flatten()
        .map(|entry| PathBuf::from("/dev").join(entry.file_name()))
        .find(|device| matches!(read_ext_uuid(device), Ok(Some(uuid)) if uuid == UUID))
}

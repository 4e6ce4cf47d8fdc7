//! Finding the guest's disk by the UUID in its ext4 superblock, and mounting it.

use std::ffi::CStr;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, mount};

use super::{Failure, because};
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

fn find() -> Option<PathBuf> {
    let devices = fs::read_dir("/sys/class/block").ok()?;
    devices.flatten().map(|entry| PathBuf::from("/dev").join(entry.file_name())).find(|device| {
        let mut superblock = [0; 1024];
        let read = File::open(device).and_then(|f| f.read_exact_at(&mut superblock, 1024));
        read.is_ok() && uuid(&superblock).is_some_and(|found| found == UUID)
    })
}

/// The UUID in an ext4 superblock, or nothing when it is none.
///
/// Source: fs/ext4/ext4.h, `struct ext4_super_block`: `s_magic` at 0x38, `s_uuid` at 0x68.
fn uuid(superblock: &[u8; 1024]) -> Option<String> {
    if superblock[0x38..0x3a] != [0x53, 0xef] {
        return None;
    }
    let mut text = String::with_capacity(36);
    for (i, byte) in superblock[0x68..0x78].iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_uuid_is_read_from_ext4_superblocks_only() {
        let mut superblock = [0; 1024];
        superblock[0x68..0x78].copy_from_slice(b"kdump-rehearsal!");
        assert_eq!(uuid(&superblock), None);
        superblock[0x38..0x3a].copy_from_slice(&0xef53u16.to_le_bytes());
        assert_eq!(uuid(&superblock).as_deref(), Some(UUID));
    }
}

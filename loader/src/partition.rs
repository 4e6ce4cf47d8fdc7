//! PARTUUIDs: by what a partition is found again, whatever its disk is called then and without udev.
//!
//! Newer kernels say it in the partition's uevent file; for older ones the disk's own table is read.
//!
//! Source: block/partitions/efi.c (`struct _gpt_header`, `struct _gpt_entry`), block/partitions/msdos.c
//! (`set_info`), block/partitions/core.c (`part_uevent`).

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::superblock::uuid_text;

const BLOCK: &str = "/sys/class/block";
/// Entries of a GPT are 128 bytes, and rarely more than 128 of them.
const MAX_ENTRY: u64 = 4096;

/// The node of the partition with this PARTUUID.
#[must_use]
pub fn find(uuid: &str) -> Option<PathBuf> {
    let entries = fs::read_dir(BLOCK).ok()?.flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut partitions =
        names.filter(|name| uuid_of_name(name).is_some_and(|u| u.eq_ignore_ascii_case(uuid)));
    partitions.next().map(|name| Path::new("/dev").join(name))
}

/// The PARTUUID of the partition with this device number.
#[must_use]
pub fn uuid_of(number: u64) -> Option<String> {
    let link = format!("/sys/dev/block/{}:{}", rustix::fs::major(number), rustix::fs::minor(number));
    uuid_of_name(fs::canonicalize(link).ok()?.file_name()?.to_str()?)
}

fn uuid_of_name(name: &str) -> Option<String> {
    let dir = fs::canonicalize(Path::new(BLOCK).join(name)).ok()?;
    let uevent = fs::read_to_string(dir.join("uevent")).ok()?;
    if let Some(uuid) = uevent.lines().find_map(|line| line.strip_prefix("PARTUUID=")) {
        return Some(uuid.to_owned());
    }
    let number = fs::read_to_string(dir.join("partition")).ok()?.trim().parse().ok()?;
    let disk = dir.parent()?;
    let sector = fs::read_to_string(disk.join("queue/logical_block_size")).ok()?.trim().parse().ok()?;
    let file = File::open(Path::new("/dev").join(disk.file_name()?)).ok()?;
    read_uuid(&file, sector, number)
}

/// The PARTUUID of partition `number` of a disk, by its table.
fn read_uuid(disk: &File, sector: u64, number: u32) -> Option<String> {
    let mut header = [0; 92];
    disk.read_exact_at(&mut header, sector).ok()?;
    if header.starts_with(b"EFI PART") {
        let le32 = |at: usize| header.get(at..)?.first_chunk().copied().map(u32::from_le_bytes);
        let entries_at = u64::from_le_bytes(*header.get(72..)?.first_chunk()?);
        let (count, size) = (le32(80)?, u64::from(le32(84)?));
        if number == 0 || number > count || !(128..=MAX_ENTRY).contains(&size) {
            return None;
        }
        let at = entries_at.checked_mul(sector)?.checked_add(u64::from(number - 1) * size)?;
        let mut guid = [0; 16];
        disk.read_exact_at(&mut guid, at.checked_add(16)?).ok()?;
        return (guid != [0; 16]).then(|| guid_text(guid));
    }
    let mut sector = [0; 512];
    disk.read_exact_at(&mut sector, 0).ok()?;
    let signature = u32::from_le_bytes(*sector.get(440..)?.first_chunk()?);
    (sector[510..] == [0x55, 0xaa] && signature != 0).then(|| format!("{signature:08x}-{number:02x}"))
}

/// The first three fields of a GUID are little-endian.
fn guid_text(mut guid: [u8; 16]) -> String {
    guid[..4].reverse();
    guid[4..6].reverse();
    guid[6..8].reverse();
    uuid_text(guid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(edit: impl FnOnce(&mut Vec<u8>)) -> File {
        let mut bytes = vec![0; 40 << 10];
        edit(&mut bytes);
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&bytes, 0).unwrap();
        file
    }

    #[test]
    fn a_gpt_names_its_partitions() {
        let gpt = disk(|bytes| {
            bytes[512..520].copy_from_slice(b"EFI PART");
            bytes[512 + 72] = 2;
            bytes[512 + 80] = 128;
            bytes[512 + 84] = 128;
            for (i, byte) in bytes[1024 + 128 + 16..][..16].iter_mut().enumerate() {
                *byte = i as u8;
            }
        });
        assert_eq!(read_uuid(&gpt, 512, 2).as_deref(), Some("03020100-0504-0706-0809-0a0b0c0d0e0f"));
        for number in [0, 1, 129] {
            assert_eq!(read_uuid(&gpt, 512, number), None);
        }
    }

    #[test]
    fn an_mbr_counts_them() {
        let mbr = disk(|bytes| {
            bytes[440..444].copy_from_slice(&0x6b64_756d_u32.to_le_bytes());
            bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
        });
        assert_eq!(read_uuid(&mbr, 512, 3).as_deref(), Some("6b64756d-03"));
        assert_eq!(read_uuid(&disk(|_| ()), 512, 1), None);
    }
}

//! What a device holds, by the signatures that file systems, volume managers and partition tables put on it: so that a
//! raw dump is not written over something that is in use.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::{Kind, parse, read_head};

/// Something that was found on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signature {
    /// A dump in the flattened format, as a raw target leaves it.
    Dump,
    /// A file system that could be a target.
    FileSystem(Kind),
    /// Something else that is no dump, by name.
    Other(&'static str),
}

impl Signature {
    /// For people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dump => "a dump",
            Self::FileSystem(kind) => kind.name(),
            Self::Other(name) => name,
        }
    }
}

/// Signatures at a fixed place.
const FIXED: [(usize, &[u8], &str); 15] = [
    (0, b"LUKS\xba\xbe", "LUKS"),
    (512, b"EFI PART", "a GPT partition table"),
    (4096, b"EFI PART", "a GPT partition table"),
    (0, b"hsqs", "squashfs"),
    (3, b"NTFS    ", "NTFS"),
    (3, b"EXFAT   ", "exFAT"),
    (4086, b"SWAPSPACE2", "swap space"),
    (4086, b"SWAP-SPACE", "swap space"),
    (0x8001, b"CD001", "ISO 9660"),
    (1024, &[0x10, 0x20, 0xf5, 0xf2], "F2FS"),
    (1024, &[0xe2, 0xe1, 0xf5, 0xe0], "EROFS"),
    (4096, &[0xfc, 0x4e, 0x2b, 0xa9], "Linux RAID"),
    (0, &[0xfc, 0x4e, 0x2b, 0xa9], "Linux RAID"),
    (
        4096 + 24,
        &[0xc6, 0x85, 0x73, 0xf6, 0x4e, 0x1a, 0x45, 0xca, 0x82, 0x65, 0xf5, 0x7f, 0x48, 0xba, 0x6d, 0x81],
        "bcache",
    ),
    (0x10034, b"ReIsEr", "reiserfs"),
];

/// A flattened dump's signature. Source: makedumpfile's `struct makedumpfile_header`.
const FLATTENED: &[u8] = b"makedumpfile\0\0\0\0";
/// LVM2's label is in one of the first four sectors.
const LVM: &[u8] = b"LABELONE";
/// RAID superblocks of versions 0.90 and 1.0 lie near the end.
const RAID_MAGIC: [u8; 4] = [0xfc, 0x4e, 0x2b, 0xa9];

/// Reads what `device` holds; `None` if nothing is recognised.
///
/// # Errors
/// What opening or reading the device gave.
pub fn read_signature(device: &Path) -> io::Result<Option<Signature>> {
    let mut file = File::open(device)?;
    let head = read_head(&file)?;
    if let Some(found) = find(&head) {
        return Ok(Some(found));
    }
    let len = io::Seek::seek(&mut file, io::SeekFrom::End(0))?;
    let near_end = [(len & !0xffff).saturating_sub(64 << 10), (len & !0xfff).saturating_sub(8 << 10)];
    for at in near_end {
        let mut magic = [0; 4];
        if len > 128 << 10 && file.read_exact_at(&mut magic, at).is_ok() && magic == RAID_MAGIC {
            return Ok(Some(Signature::Other("Linux RAID")));
        }
    }
    Ok(None)
}

/// What the first bytes of a device tell.
fn find(head: &[u8]) -> Option<Signature> {
    if head.starts_with(FLATTENED) {
        return Some(Signature::Dump);
    }
    let is_at = |at: usize, magic: &[u8]| head.get(at..).is_some_and(|rest| rest.starts_with(magic));
    if let Some(found) = parse(head) {
        return Some(Signature::FileSystem(found.kind));
    }
    if let Some((_, _, name)) = FIXED.iter().find(|(at, magic, _)| is_at(*at, magic)) {
        return Some(Signature::Other(name));
    }
    if (0..4).any(|sector| is_at(sector * 512, LVM)) {
        return Some(Signature::Other("LVM"));
    }
    has_partitions(head).then_some(Signature::Other("a partition table"))
}

/// An MBR with at least one partition and nothing that cannot be in one.
fn has_partitions(head: &[u8]) -> bool {
    let Some(sector) = head.first_chunk::<512>() else { return false };
    let entries = sector[446..510].chunks_exact(16);
    let is_sane = entries.clone().all(|entry| matches!(entry[0], 0 | 0x80));
    let is_used = |entry: &[u8]| entry[4] != 0 && entry[12..16] != [0; 4];
    sector[510..] == [0x55, 0xaa] && is_sane && entries.clone().any(is_used)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{btrfs, ext, fat32, xfs};
    use super::*;

    #[test]
    fn what_is_in_use_is_told_by_name() {
        let with = |at: usize, magic: &[u8]| {
            let mut head = vec![0; super::super::HEAD];
            head[at..at + magic.len()].copy_from_slice(magic);
            find(&head).map(Signature::name)
        };
        for (at, magic, name) in FIXED {
            assert_eq!(with(at, magic), Some(name));
        }
        assert_eq!(with(1024, b"LABELONE"), Some("LVM"));
        assert_eq!(with(0, FLATTENED), Some("a dump"));
        assert_eq!(with(0, b"something else"), None);
        for (head, kind) in
            [(ext(), Kind::Ext), (xfs(), Kind::Xfs), (btrfs(), Kind::Btrfs), (fat32(), Kind::Fat)]
        {
            assert_eq!(find(&head), Some(Signature::FileSystem(kind)));
        }
    }

    #[test]
    fn a_partition_table_is_one_only_with_partitions() {
        let mut head = vec![0; 512];
        head[510..].copy_from_slice(&[0x55, 0xaa]);
        assert_eq!(find(&head), None);
        head[450] = 0x83;
        head[458] = 1;
        assert_eq!(find(&head), Some(Signature::Other("a partition table")));
        head[446] = 0x17;
        assert_eq!(find(&head), None);
    }

    #[test]
    fn a_raid_superblock_at_the_end_is_found() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut bytes = vec![0; 1 << 20];
        assert_eq!(
            read_signature({
                std::fs::write(file.path(), &bytes).unwrap();
                file.path()
            })
            .unwrap(),
            None
        );
        bytes[(1 << 20) - (64 << 10)..][..4].copy_from_slice(&RAID_MAGIC);
        std::fs::write(file.path(), &bytes).unwrap();
        assert_eq!(read_signature(file.path()).unwrap(), Some(Signature::Other("Linux RAID")));
    }
}

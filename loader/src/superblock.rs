//! The identity of a file system, from its superblock: what the capture kernel finds a target by. And what a device
//! holds at all, before anything is written over it.
//!
//! Device names change between kernels; and /dev/disk/by-uuid needs udev, which a small system has not. Of each kind, more
//! than the magic is looked at, so that what is left of an older file system is not taken for one.
//!
//! Source: fs/ext4/ext4.h (`struct ext4_super_block`), fs/xfs/libxfs/xfs_format.h (`struct xfs_dsb`),
//! include/uapi/linux/btrfs_tree.h (`struct btrfs_super_block`), include/uapi/linux/msdos_fs.h (`struct fat_boot_sector`).

mod signature;
#[cfg(test)]
pub(crate) mod tests;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

pub use signature::{Signature, read_signature};

/// Kinds of file system that can be targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// ext2, ext3 or ext4.
    Ext,
    /// xfs.
    Xfs,
    /// btrfs.
    Btrfs,
    /// FAT with long names, of any width.
    Fat,
}

impl Kind {
    /// The kind that a file system type of /proc/mounts is of.
    #[must_use]
    pub fn of(fstype: &str) -> Option<Self> {
        Some(match fstype {
            "ext2" | "ext3" | "ext4" => Self::Ext,
            "xfs" => Self::Xfs,
            "btrfs" => Self::Btrfs,
            "vfat" => Self::Fat,
            _ => return None,
        })
    }

    /// For people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ext => "ext2, ext3 or ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
            Self::Fat => "FAT",
        }
    }
}

/// What a superblock says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// Of what kind.
    pub kind: Kind,
    /// The UUID in lower case; of FAT the volume number, `1234-ABCD`.
    pub uuid: String,
    /// The device that it cannot be mounted without, in words, if it needs another one.
    pub needs: Option<&'static str>,
}

/// Where the superblock of ext2, ext3 and ext4 starts.
const EXT_AT: usize = 1024;
const EXT_MAGIC: u16 = 0xef53;
const EXT_HAS_JOURNAL: u32 = 0x4;
const EXT_JOURNAL_DEV: u32 = 0x8;
/// Where that of btrfs starts; a device has copies further on, which are not looked at.
const BTRFS_AT: usize = 64 << 10;
const BTRFS_MAGIC: &[u8; 8] = b"_BHRfS_M";
/// All that lies before the end of the last of them.
const HEAD: usize = BTRFS_AT + 4096;

/// Reads the superblock on `device`; `None` if it holds no file system of these kinds.
///
/// # Errors
/// What opening or reading the device gave.
pub fn read(device: &Path) -> io::Result<Option<Superblock>> {
    Ok(parse(&read_head(&File::open(device)?)?))
}

/// Whether `device` holds the file system of this kind and UUID.
#[must_use]
pub fn is_on(device: &Path, kind: Kind, uuid: &str) -> bool {
    let read = read(device).ok().flatten();
    read.is_some_and(|found| found.kind == kind && found.uuid.eq_ignore_ascii_case(uuid))
}

/// Reads the UUID of the ext2, ext3 or ext4 file system on `device`; `None` if it holds another.
///
/// # Errors
/// What opening or reading the device gave.
pub fn read_ext_uuid(device: &Path) -> io::Result<Option<String>> {
    Ok(read(device)?.filter(|found| found.kind == Kind::Ext).map(|found| found.uuid))
}

/// The first bytes of a device, zeros where it ends before.
fn read_head(device: &File) -> io::Result<Vec<u8>> {
    let mut head = vec![0; HEAD];
    let mut done = 0;
    while done < HEAD {
        match device.read_at(&mut head[done..], done as u64)? {
            0 => break,
            n => done += n,
        }
    }
    Ok(head)
}

/// The superblock in the first bytes of a device.
#[must_use]
pub fn parse(head: &[u8]) -> Option<Superblock> {
    // FAT last: its boot sector is the least particular, and other kinds leave room for one.
    ext(head).or_else(|| xfs(head)).or_else(|| btrfs(head)).or_else(|| fat(head))
}

fn ext(head: &[u8]) -> Option<Superblock> {
    let block = head.get(EXT_AT..EXT_AT + 1024)?;
    let uuid = array::<16>(block, 0x68)?;
    let (log_block_size, compat, incompat) = (le32(block, 0x18)?, le32(block, 0x5c)?, le32(block, 0x60)?);
    let is_ext = le16(block, 0x38)? == EXT_MAGIC
        && uuid != [0; 16]
        && log_block_size <= 6
        && le32(block, 0x00)? > 0 // s_inodes_count
        && incompat & EXT_JOURNAL_DEV == 0;
    let has_other_journal = compat & EXT_HAS_JOURNAL != 0 && le32(block, 0xe0)? == 0; // s_journal_inum
    let needs = has_other_journal.then_some("the device of its journal");
    is_ext.then(|| Superblock { kind: Kind::Ext, uuid: uuid_text(uuid), needs })
}

fn xfs(head: &[u8]) -> Option<Superblock> {
    let (block_size, sector_size) = (be32(head, 4)?, be16(head, 102)?);
    let is_xfs = head.starts_with(b"XFSB")
        && block_size.is_power_of_two()
        && (512..=65536).contains(&block_size)
        && sector_size.is_power_of_two()
        && (512..=32768).contains(&sector_size)
        && be16(head, 100)? & 0xf >= 4; // sb_versionnum
    let uuid = array::<16>(head, 32)?;
    // sb_logstart: 0 is a log elsewhere.
    let needs = (array::<8>(head, 48)? == [0; 8]).then_some("the device of its log");
    (is_xfs && uuid != [0; 16]).then(|| Superblock { kind: Kind::Xfs, uuid: uuid_text(uuid), needs })
}

fn btrfs(head: &[u8]) -> Option<Superblock> {
    let block = head.get(BTRFS_AT..BTRFS_AT + 4096)?;
    let uuid = array::<16>(block, 0x20)?; // fsid
    let (bytenr, devices, sector_size) = (le64(block, 0x30)?, le64(block, 0x88)?, le32(block, 0x90)?);
    let is_btrfs = block.get(0x40..0x48)? == BTRFS_MAGIC
        && bytenr == BTRFS_AT as u64
        && devices > 0
        && sector_size.is_power_of_two();
    let needs = (devices > 1).then_some("more devices than this one");
    (is_btrfs && uuid != [0; 16]).then(|| Superblock { kind: Kind::Btrfs, uuid: uuid_text(uuid), needs })
}

fn fat(head: &[u8]) -> Option<Superblock> {
    let (sector_size, fats) = (le16(head, 0x0b)?, *head.get(0x10)?);
    let is_fat = le16(head, 510)? == 0xaa55
        && matches!(*head.first()?, 0xeb | 0xe9)
        && sector_size.is_power_of_two()
        && (512..=4096).contains(&sector_size)
        && head.get(0x0d)?.is_power_of_two() // sec_per_clus
        && (1..=2).contains(&fats)
        && le16(head, 0x0e)? > 0 // reserved
        && *head.get(0x15)? >= 0xf0; // media
    // FAT32 has no fat_length here; its own fields follow, and then the same ones as of the others.
    let at = if le16(head, 0x16)? == 0 { 0x40 } else { 0x24 };
    let has_number = matches!(*head.get(at + 2)?, 0x28 | 0x29);
    let number = le32(head, at + 3)?;
    (is_fat && has_number && number != 0).then(|| Superblock {
        kind: Kind::Fat,
        uuid: format!("{:04X}-{:04X}", number >> 16, number & 0xffff),
        needs: None,
    })
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}
fn le16(bytes: &[u8], at: usize) -> Option<u16> {
    array(bytes, at).map(u16::from_le_bytes)
}
fn le32(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_le_bytes)
}
fn le64(bytes: &[u8], at: usize) -> Option<u64> {
    array(bytes, at).map(u64::from_le_bytes)
}
fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    array(bytes, at).map(u16::from_be_bytes)
}
fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_be_bytes)
}

pub(crate) fn uuid_text(uuid: [u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for (i, byte) in uuid.iter().enumerate() {
        if [4, 6, 8, 10].contains(&i) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

//! The UUID of a file system, from its superblock: what the capture kernel finds the target by.
//!
//! Device names change between kernels; and /dev/disk/by-uuid needs udev, which a small system has not.
//!
//! Source: fs/ext4/ext4.h (`struct ext4_super_block`).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// Where the superblock of ext2, ext3 and ext4 starts.
const EXT_SUPERBLOCK: u64 = 1024;
const EXT_MAGIC: u16 = 0xef53;

/// Reads the UUID of the ext2, ext3 or ext4 file system on `device`; `None` if it holds another.
///
/// # Errors
/// What opening or reading the device gave.
pub fn read_ext_uuid(device: &Path) -> io::Result<Option<String>> {
    let mut block = [0; 1024];
    File::open(device)?.read_exact_at(&mut block, EXT_SUPERBLOCK)?;
    Ok(parse_ext_uuid(&block))
}

/// The UUID in an ext superblock.
#[must_use]
pub fn parse_ext_uuid(block: &[u8; 1024]) -> Option<String> {
    let magic = u16::from_le_bytes([block[0x38], block[0x39]]);
    let uuid: [u8; 16] = block[0x68..0x78].try_into().ok()?;
    (magic == EXT_MAGIC && uuid != [0; 16]).then(|| uuid_text(uuid))
}

fn uuid_text(uuid: [u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for (i, byte) in uuid.iter().enumerate() {
        if [4, 6, 8, 10].contains(&i) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ext_superblock_gives_its_uuid() {
        let mut block = [0; 1024];
        block[0x38..0x3a].copy_from_slice(&EXT_MAGIC.to_le_bytes());
        for (i, byte) in block[0x68..0x78].iter_mut().enumerate() {
            *byte = 0xa0 + i as u8;
        }
        assert_eq!(parse_ext_uuid(&block).unwrap(), "a0a1a2a3-a4a5-a6a7-a8a9-aaabacadaeaf");
        block[0x38] = 0;
        assert_eq!(parse_ext_uuid(&block), None);
    }
}

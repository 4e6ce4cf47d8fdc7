//! How long a frame is and what it holds, from its headers alone: what is walked where there is no seek table.
//!
//! Source: RFC 8878, 3.1.1 (frame header, block headers) and 3.1.2 (skippable frames).

use super::FRAME_MAGIC;
use crate::file::DumpFile;
use crate::mem::ReadError;

/// What stands at an offset of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A frame of `packed` bytes.
    Frame {
        /// Bytes in the file.
        packed: u64,
        /// Bytes that it holds; `None` if it does not say.
        plain: Option<u64>,
    },
    /// A frame for others, of this many bytes.
    Skippable(u64),
    /// The beginning of a frame that the file ends in.
    Cut,
    /// Something else.
    Foreign,
}

/// Blocks of a frame that are followed: a gigabyte's.
const MAX_BLOCKS: u32 = 1 << 13;

/// Looks at the frame at `at`.
pub(super) fn find(file: &DumpFile, at: u64) -> Result<Found, ReadError> {
    let mut head = [0; 18];
    let have = file.len().saturating_sub(at).min(head.len() as u64) as usize;
    file.pread(at, &mut head[..have])?;
    let head = &head[..have];
    let Some((magic, rest)) = head.split_first_chunk() else { return Ok(Found::Cut) };
    match u32::from_le_bytes(*magic) {
        FRAME_MAGIC => {}
        n if n & !0xf == 0x184d_2a50 => {
            let Some(len) = rest.first_chunk() else { return Ok(Found::Cut) };
            let len = 8 + u64::from(u32::from_le_bytes(*len));
            return Ok(if at + len > file.len() { Found::Cut } else { Found::Skippable(len) });
        }
        _ => return Ok(Found::Foreign),
    }
    let Some((header_len, plain, has_checksum)) = header(rest) else { return Ok(Found::Cut) };
    let mut end = at + 4 + header_len;
    for _ in 0..MAX_BLOCKS {
        let mut block = [0; 4];
        if file.len() < end + 3 {
            return Ok(Found::Cut);
        }
        file.pread(end, &mut block[..3])?;
        let block = u32::from_le_bytes(block);
        // The second bit pair is the kind: a block of one repeated byte has that byte alone.
        let len = if block >> 1 & 3 == 1 { 1 } else { u64::from(block >> 3) };
        end += 3 + len;
        if block & 1 == 1 {
            end += if has_checksum { 4 } else { 0 };
            return Ok(if end > file.len() { Found::Cut } else { Found::Frame { packed: end - at, plain } });
        }
    }
    Ok(Found::Foreign)
}

/// Reads a frame header behind its magic number: its length, the content's if it is said, and whether a checksum
/// ends the frame. `None` if `bytes` end before it does.
fn header(bytes: &[u8]) -> Option<(u64, Option<u64>, bool)> {
    let (&descriptor, rest) = bytes.split_first()?;
    let is_single_segment = descriptor & 0x20 != 0;
    let window = usize::from(!is_single_segment);
    let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let content = match descriptor >> 6 {
        0 => usize::from(is_single_segment),
        1 => 2,
        2 => 4,
        _ => 8,
    };
    let field = rest.get(window + dictionary..)?.get(..content)?;
    let number = field.iter().rev().fold(0, |n, &b| n << 8 | u64::from(b));
    let plain = match content {
        0 => None,
        2 => Some(number + 256),
        _ => Some(number),
    };
    Some(((1 + window + dictionary + content) as u64, plain, descriptor & 4 != 0))
}

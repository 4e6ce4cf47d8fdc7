//! Writing the seekable zstd format in two pieces: threads compress frames, whoever puts them down collects their
//! sizes, and writes the table behind the last.

use std::io;
use std::vec::Vec;

use super::{FOOTER_MAGIC, FRAME_SIZE, MAX_FRAMES, TABLE_MAGIC};

/// Compresses frames, each of which can be decompressed alone. Kept from frame to frame: making one costs more than
/// that.
pub struct FrameCompressor(zstd::bulk::Compressor<'static>);

impl core::fmt::Debug for FrameCompressor {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("FrameCompressor")
    }
}

impl FrameCompressor {
    /// Sets up zstd at this level. Each frame says how much it holds and has a checksum, which `zstd -d` looks at.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub fn new(level: i32) -> io::Result<Self> {
        let mut zstd = zstd::bulk::Compressor::new(level)?;
        zstd.include_contentsize(true)?;
        zstd.include_checksum(true)?;
        Ok(Self(zstd))
    }

    /// Appends the frame of `plain`, usually [`frame_size`] bytes of it, to `out`. Returns its length.
    ///
    /// # Errors
    /// If zstd finds no memory.
    pub fn frame(&mut self, plain: &[u8], out: &mut Vec<u8>) -> io::Result<u32> {
        let before = out.len();
        out.resize(before + zstd::zstd_safe::compress_bound(plain.len()), 0);
        let n = self.0.compress_to_buffer(plain, &mut out[before..])?;
        out.truncate(before + n);
        u32::try_from(n).map_err(io::Error::other)
    }
}

/// Frames that a table is kept for: 8 MiB of sizes.
const FRAMES_KEPT: u64 = 1 << 21;

/// Bytes of a dump of `total` bytes to put into a frame: 64 KiB, doubled until there are not too many frames for the
/// memory that a table may take. That is 64 KiB up to 128 GiB, 8 MiB for 16 TiB.
#[must_use]
pub const fn frame_size(total: u64) -> usize {
    let mut size = FRAME_SIZE;
    while total.div_ceil(size as u64) > FRAMES_KEPT && size < 8 << 20 {
        size *= 2;
    }
    size
}

/// The sizes of the frames that were written.
#[derive(Clone, Debug, Default)]
pub struct SeekTable {
    packed: Vec<u32>,
    /// How much the frames hold: so many of them, so many bytes each.
    plain: Vec<(u32, u32)>,
    is_too_long: bool,
}

impl SeekTable {
    /// A table without frames.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the sizes of the next frame: in the file, and decompressed.
    pub fn push(&mut self, packed: u32, plain: u32) {
        if self.packed.len() as u64 >= FRAMES_KEPT.min(MAX_FRAMES as u64) {
            self.is_too_long = true;
            return;
        }
        self.packed.push(packed);
        match self.plain.last_mut() {
            Some((nr, size)) if *size == plain => *nr += 1,
            _ => self.plain.push((1, plain)),
        }
    }

    /// Writes the table to `out`, where the frames end. Returns how many bytes that took.
    ///
    /// Of a dump of more frames than can be kept, which [`frame_size`] prevents, nothing is written: a reader then
    /// walks over the frames.
    ///
    /// # Errors
    /// If writing fails.
    pub fn write(&self, out: &mut impl io::Write) -> io::Result<u64> {
        if self.is_too_long {
            return Ok(0);
        }
        let nr = self.packed.len() as u32; // at most FRAMES_KEPT
        let mut buf = TABLE_MAGIC.to_le_bytes().to_vec();
        buf.extend((nr * 8 + 9).to_le_bytes());
        let plain = self.plain.iter().flat_map(|&(nr, size)| core::iter::repeat_n(size, nr as usize));
        for (packed, plain) in self.packed.iter().zip(plain) {
            buf.extend(packed.to_le_bytes());
            buf.extend(plain.to_le_bytes());
            if buf.len() >= 64 << 10 {
                out.write_all(&buf)?;
                buf.clear();
            }
        }
        buf.extend(nr.to_le_bytes());
        buf.push(0);
        buf.extend(FOOTER_MAGIC.to_le_bytes());
        out.write_all(&buf)?;
        Ok(8 + u64::from(nr) * 8 + 9)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_grow_with_the_dump() {
        assert_eq!(frame_size(0), 64 << 10);
        assert_eq!(frame_size(128 << 30), 64 << 10);
        assert_eq!(frame_size((128 << 30) + 1), 128 << 10);
        assert_eq!(frame_size(16 << 40), 8 << 20);
        assert_eq!(frame_size(u64::MAX), 8 << 20);
    }

    #[test]
    fn a_table_is_laid_out_as_the_format_says() {
        let mut table = SeekTable::new();
        table.push(7, 100);
        table.push(8, 100);
        table.push(9, 50);
        let mut out = Vec::new();
        assert_eq!(table.write(&mut out).unwrap(), out.len() as u64);
        let numbers: Vec<u32> =
            out[..36].chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().unwrap())).collect();
        assert_eq!(numbers, [0x184d_2a5e, 33, 7, 100, 8, 100, 9, 50, 3]);
        assert_eq!(out[36..], [0, 0xb1, 0xea, 0x92, 0x8f]);
    }
}

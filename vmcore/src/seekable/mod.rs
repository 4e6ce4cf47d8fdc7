//! The seekable zstd format: a row of zstd frames, each of which can be decompressed alone, and behind them a table of
//! their sizes in a frame that other decompressors skip. `zstd -d` gives the whole.
//!
//! Source: zstd `contrib/seekable_format/zstd_seekable_compression_format.md`; RFC 8878 for the frames.

#[cfg(feature = "std")]
mod frame;
#[cfg(feature = "std")]
pub mod read;
#[cfg(feature = "std")]
pub mod write;

/// Magic number of a zstd frame, little-endian as all numbers here.
pub const FRAME_MAGIC: u32 = 0xfd2f_b528;
/// Magic number of the skippable frame that holds the table: one of the sixteen such.
pub const TABLE_MAGIC: u32 = 0x184d_2a5e;
/// Magic number that ends the file.
pub const FOOTER_MAGIC: u32 = 0x8f92_eab1;
/// Bytes of the footer: number of frames u32, flags u8, magic u32.
pub const FOOTER_LEN: u64 = 9;
/// Flag of the footer: each entry has a checksum behind its two sizes.
pub const HAS_CHECKSUMS: u8 = 0x80;
/// Flags of the footer that must be zero.
pub const RESERVED: u8 = 0x7c;
/// Frames that a table may have.
pub const MAX_FRAMES: u32 = 0x0800_0000;
/// Bytes of the dump in a frame, usually: where larger ones gain little.
pub const FRAME_SIZE: usize = 64 << 10;

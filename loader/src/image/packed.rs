//! Kernel images in a compressed file: which compression it is, and the file unpacked.
//!
//! Source: RFC 1952 (gzip), RFC 8878 (zstd), xz-file-format 1.2.1, lz4_Frame_format 1.6.4 with its legacy frame, which
//! the kernel's own build uses (scripts/Makefile.lib, `lz4 -l`); lib/decompress.c for the magics.

use std::fmt;
use std::io::{self, Read};

/// The largest image that is believed, unpacked.
pub const MAX_UNPACKED: u64 = 512 << 20;

/// What a legacy lz4 frame begins with.
const LEGACY_MAGIC: &[u8; 4] = b"\x02\x21\x4c\x18";
/// Bytes that a block of a legacy lz4 frame has, unpacked, but for the last one, which has fewer.
const LEGACY_BLOCK: usize = 8 << 20;

/// A compression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// gzip.
    Gzip,
    /// xz.
    Xz,
    /// zstd.
    Zstd,
    /// An lz4 frame.
    Lz4,
    /// An lz4 frame as `lz4 -l` writes it.
    Lz4Legacy,
    /// One that is not unpacked here.
    Other(&'static str),
}

/// What is wrong with a compressed image.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is damaged or cut.
    #[error("it is compressed with {packing}, and damaged after {unpacked} unpacked bytes")]
    Damaged {
        /// The compression.
        packing: Packing,
        /// Bytes before the damage.
        unpacked: usize,
        /// What the decompressor says.
        #[source]
        source: io::Error,
    },
    /// It is larger than any kernel.
    #[error(
        "it is compressed with {packing}, and unpacks to more than the {MAX_UNPACKED} bytes that an image may have"
    )]
    TooLarge {
        /// The compression.
        packing: Packing,
    },
    /// A compression that this program has not.
    #[error("it is compressed with {0}: only gzip, xz, zstd and lz4 are unpacked here, so unpack it first")]
    Unknown(&'static str),
}

impl Packing {
    /// By the first bytes of a file; `None` for one that is not compressed.
    #[must_use]
    pub fn of(file: &[u8]) -> Option<Self> {
        Some(match file {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            [0x04, 0x22, 0x4d, 0x18, ..] => Self::Lz4,
            [0x02, 0x21, 0x4c, 0x18, ..] => Self::Lz4Legacy,
            [b'B', b'Z', b'h', ..] => Self::Other("bzip2"),
            [0x5d, 0, 0, ..] => Self::Other("lzma"),
            [0x89, b'L', b'Z', b'O', ..] => Self::Other("lzo"),
            _ => return None,
        })
    }

    /// Unpacks a file that begins with its magic.
    ///
    /// # Errors
    /// [`Error`].
    pub fn unpack(self, file: &[u8]) -> Result<Vec<u8>, Error> {
        let mut plain = Vec::new();
        let result = match self {
            Self::Gzip => read(flate2::read::GzDecoder::new(file), &mut plain),
            Self::Xz => read(lzma_rust2::XzReader::new(file, true), &mut plain),
            Self::Zstd => {
                zstd::Decoder::with_buffer(file).and_then(|decoder| read(decoder.single_frame(), &mut plain))
            }
            Self::Lz4 => read(lz4_flex::frame::FrameDecoder::new(Endless(file)), &mut plain),
            Self::Lz4Legacy => read_legacy(file, &mut plain),
            Self::Other(name) => return Err(Error::Unknown(name)),
        };
        match result {
            Ok(()) if plain.len() as u64 > MAX_UNPACKED => Err(Error::TooLarge { packing: self }),
            Ok(()) => Ok(plain),
            Err(source) => Err(Error::Damaged { packing: self, unpacked: plain.len(), source }),
        }
    }
}

/// One byte more than is believed tells that there is more.
fn read(reader: impl Read, plain: &mut Vec<u8>) -> io::Result<()> {
    reader.take(MAX_UNPACKED + 1).read_to_end(plain).map(drop)
}

/// A file that has no end: the decoder of lz4 frames takes one between two blocks for the end of the frame, which
/// is a mark.
struct Endless<'a>(&'a [u8]);

impl Read for Endless<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 if !buffer.is_empty() => Err(io::Error::other("the file ends before the frame does")),
            len => Ok(len),
        }
    }
}

/// Blocks, each behind its packed length. What ends them is the file's end, a block that is not full, or the size
/// that the kernel's build puts behind them.
fn read_legacy(mut rest: &[u8], plain: &mut Vec<u8>) -> io::Result<()> {
    let mut block = vec![0; LEGACY_BLOCK];
    while plain.len() as u64 <= MAX_UNPACKED {
        let Some((len, behind)) = rest.split_first_chunk::<4>() else {
            return if rest.is_empty() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        };
        if len == LEGACY_MAGIC {
            // Another frame.
            rest = behind;
            continue;
        }
        let len = u32::from_le_bytes(*len) as usize;
        if !plain.is_empty() && behind.is_empty() {
            // The unpacked size, where a block's length would be.
            let is_size = len == plain.len();
            return if is_size { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
        let packed = behind.get(..len).ok_or(io::ErrorKind::UnexpectedEof)?;
        let filled = lz4_flex::block::decompress_into(packed, &mut block).map_err(io::Error::other)?;
        plain.extend_from_slice(&block[..filled]);
        rest = &behind[len..];
    }
    Ok(())
}

impl fmt::Display for Packing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gzip => "gzip",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
            Self::Lz4 => "lz4",
            Self::Lz4Legacy => "lz4 (legacy frame)",
            Self::Other(name) => name,
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::io::Write as _;

    pub(crate) fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    /// An lz4 block of literals alone, which is all that a test needs to write.
    fn literals(plain: &[u8]) -> Vec<u8> {
        let mut block = vec![0xf0];
        let mut rest = plain.len() - 15;
        while rest >= 255 {
            block.push(255);
            rest -= 255;
        }
        block.push(rest as u8);
        block.extend_from_slice(plain);
        block
    }

    fn legacy(blocks: &[&[u8]]) -> Vec<u8> {
        let mut file = LEGACY_MAGIC.to_vec();
        for block in blocks {
            let packed = literals(block);
            file.extend((packed.len() as u32).to_le_bytes());
            file.extend(packed);
        }
        file
    }

    /// A frame with its size and checksum, by lz4 1.9.4.
    const LZ4_FRAME: &[u8] =
        b"\x04\"M\x18l@0\0\0\0\0\0\0\0\x84\x10\0\0\0ohello \x06\0\x12Pello\n\0\0\0\0\x0eDq\xd0";
    /// The same by xz 5.4.1.
    const XZ: &[u8] =
        b"\xfd7zXZ\0\0\x04\xe6\xd6\xb4F\x02\0!\x01\x16\0\0\0t/\xe5\xa3\xe0\0/\0\x0d]\x004\x19I\xee\x8d\xe9W\
        \xd7\xf6\x09\x0c\x80\0\0\0\0\0\x14\x03#L\0\x8b\x09 \0\x01)0l\x1a\x19B\x1f\xb6\xf3}\x01\0\0\0\0\
        \x04YZ";
    const HELLO: &[u8] = b"hello hello hello hello hello hello hello hello\n";

    fn unpack(file: &[u8]) -> Result<Vec<u8>, Error> {
        Packing::of(file).unwrap().unpack(file)
    }

    #[test]
    fn every_compression_gives_the_same_bytes() {
        let zstd = zstd::bulk::compress(HELLO, 19).unwrap();
        for file in [gzip(HELLO).as_slice(), XZ, &zstd, LZ4_FRAME, &legacy(&[HELLO])] {
            assert_eq!(unpack(file).unwrap(), HELLO, "{:?}", Packing::of(file));
        }
    }

    #[test]
    fn a_legacy_frame_has_many_blocks_and_may_have_its_size_behind_them() {
        let full = vec![7; LEGACY_BLOCK];
        let plain = [full.as_slice(), HELLO].concat();
        assert_eq!(unpack(&[legacy(&[&full]), legacy(&[HELLO])].concat()).unwrap(), plain);
        let mut file = legacy(&[&full, HELLO]);
        assert_eq!(unpack(&file).unwrap(), plain);
        file.extend((plain.len() as u32).to_le_bytes());
        assert_eq!(unpack(&file).unwrap(), plain);
        file.truncate(file.len() - 1);
        assert!(matches!(unpack(&file), Err(Error::Damaged { .. })));
    }

    /// Check that no cut file is taken for a shorter one, but where nothing in it tells.
    #[test]
    fn a_cut_file_is_damaged() {
        let zstd = zstd::bulk::compress(HELLO, 19).unwrap();
        for file in [gzip(HELLO).as_slice(), XZ, &zstd, LZ4_FRAME, &legacy(&[HELLO])] {
            let packing = Packing::of(file).unwrap();
            for len in 6..file.len() {
                let error = packing.unpack(&file[..len]).unwrap_err();
                assert!(matches!(error, Error::Damaged { .. }), "{packing} {len}: {error}");
            }
        }
    }

    #[test]
    fn what_cannot_be_unpacked_is_named() {
        let error = unpack(b"BZh91AY&SY").unwrap_err().to_string();
        assert!(error.starts_with("it is compressed with bzip2"), "{error}");
        assert_eq!(Packing::of(b"\x7fELF"), None);
        assert_eq!(Packing::of(b""), None);
    }

    #[test]
    fn a_bomb_is_stopped_at_the_limit() {
        let mut packed = zstd::Encoder::new(Vec::new(), 1).unwrap();
        let zeros = vec![0; 1 << 20];
        for _ in 0..=MAX_UNPACKED >> 20 {
            packed.write_all(&zeros).unwrap();
        }
        let error = unpack(&packed.finish().unwrap()).unwrap_err();
        assert!(matches!(error, Error::TooLarge { packing: Packing::Zstd }), "{error}");
    }
}

//! Compressing one page at a time, as kdump-compressed files have it.

use std::io;

use kdump_vmcore::kdump::Compression;
use kdump_vmcore::kdump::lzo::LzoCompressor;

const PAGE: usize = 4096;

/// How hard a compressor tries, where it can be told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Level {
    /// The level that suits dumps: zstd 1, zlib 1.
    #[default]
    Usual,
    /// The codec's own number: for zstd -50 to 19, where those below 0 are faster than 1 and pack less; for zlib 1 to 9.
    Number(i32),
}

/// A level that a codec does not have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NoSuchLevel {
    /// It has others.
    #[error("{how} has levels {from} to {to}, not {level}")]
    Beyond {
        /// The codec.
        how: Compression,
        /// The level asked for.
        level: i32,
        /// The lowest there is.
        from: i32,
        /// The highest.
        to: i32,
    },
    /// It has none.
    #[error("{0} has no levels")]
    None(Compression),
}

impl Level {
    /// The number that `how` is given for it.
    ///
    /// # Errors
    /// If there is no such level.
    pub fn number(self, how: Compression) -> Result<i32, NoSuchLevel> {
        let levels = match how {
            Compression::Zstd => -50..=19,
            Compression::Zlib => 1..=9,
            Compression::None | Compression::Lzo | Compression::Snappy => match self {
                Self::Usual => return Ok(0),
                Self::Number(_) => return Err(NoSuchLevel::None(how)),
            },
        };
        match self {
            Self::Usual => Ok(1),
            Self::Number(n) if levels.contains(&n) && n != 0 => Ok(n),
            Self::Number(level) => {
                Err(NoSuchLevel::Beyond { how, level, from: *levels.start(), to: *levels.end() })
            }
        }
    }
}

/// A compressor kept from page to page: making one costs more than a page.
pub struct Compressor(Codec);

enum Codec {
    None,
    Zlib(Box<flate2::Compress>),
    Zstd(Box<zstd::bulk::Compressor<'static>>),
    Lzo(LzoCompressor),
    /// It wants room for a page that grows.
    Snappy(Box<snap::raw::Encoder>, Vec<u8>),
}

impl core::fmt::Debug for Compressor {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self.0 {
            Codec::None => "Compressor(none)",
            Codec::Zlib(_) => "Compressor(zlib)",
            Codec::Zstd(_) => "Compressor(zstd)",
            Codec::Lzo(_) => "Compressor(lzo)",
            Codec::Snappy(..) => "Compressor(snappy)",
        })
    }
}

impl Compressor {
    /// Sets up a codec.
    ///
    /// # Errors
    /// If it has no such level, or there is no memory for it.
    pub fn new(how: Compression, level: Level) -> io::Result<Self> {
        let number = level.number(how).map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
        Ok(Self(match how {
            Compression::None => Codec::None,
            Compression::Zlib => {
                let level = flate2::Compression::new(number.unsigned_abs());
                Codec::Zlib(Box::new(flate2::Compress::new(level, true)))
            }
            Compression::Zstd => {
                let mut z = zstd::bulk::Compressor::new(number)?;
                // Every page has 4096 bytes, and the descriptor says how many are its own.
                z.include_checksum(false)?;
                Codec::Zstd(Box::new(z))
            }
            Compression::Lzo => Codec::Lzo(LzoCompressor::new()),
            Compression::Snappy => {
                let room = vec![0; snap::raw::max_compress_len(PAGE)];
                Codec::Snappy(Box::new(snap::raw::Encoder::new()), room)
            }
        }))
    }

    /// Compresses `page` into the beginning of `out`. `None` if that does not make it smaller; what
    /// `out` holds then is of no use.
    pub fn page(&mut self, page: &[u8], out: &mut [u8]) -> Option<usize> {
        // A page that fills all but the last byte is worth storing compressed; one more is not.
        let out = out.get_mut(..PAGE - 1)?;
        match &mut self.0 {
            Codec::None => None,
            Codec::Zlib(z) => {
                z.reset();
                let status = z.compress(page, out, flate2::FlushCompress::Finish).ok()?;
                // Any other status means that the output was full.
                (status == flate2::Status::StreamEnd).then(|| usize::try_from(z.total_out()).ok())?
            }
            Codec::Zstd(z) => z.compress_to_buffer(page, out).ok(),
            Codec::Lzo(lzo) => lzo.page(page.try_into().ok()?, out),
            Codec::Snappy(snappy, room) => {
                let n = snappy.compress(page, room).ok()?;
                out.get_mut(..n)?.copy_from_slice(&room[..n]);
                Some(n)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODECS: [(Compression, Level); 7] = [
        (Compression::Zlib, Level::Usual),
        (Compression::Zlib, Level::Number(2)),
        (Compression::Zstd, Level::Usual),
        (Compression::Zstd, Level::Number(-50)),
        (Compression::Zstd, Level::Number(19)),
        (Compression::Lzo, Level::Usual),
        (Compression::Snappy, Level::Usual),
    ];

    #[test]
    fn what_does_not_shrink_stays() {
        let mut seed = 1u32;
        let noise: Vec<u8> = (0..PAGE)
            .map(|_| {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (seed >> 24) as u8
            })
            .collect();
        let text = b"struct page".repeat(400);
        let mut out = vec![0; PAGE];
        for (how, level) in CODECS {
            let mut c = Compressor::new(how, level).unwrap();
            assert_eq!(c.page(&noise, &mut out), None, "{how}");
            let n = c.page(&text[..PAGE], &mut out).unwrap();
            assert!(n < 300, "{how} {level:?}: {n}");
            assert_eq!(c.page(&text[..PAGE], &mut out), Some(n), "{how}: the second page is like the first");
        }
        assert_eq!(
            Compressor::new(Compression::None, Level::Usual).unwrap().page(&text[..PAGE], &mut out),
            None
        );
    }

    #[test]
    fn a_level_that_is_not_there_is_named() {
        let says = |how, n| Compressor::new(how, Level::Number(n)).unwrap_err().to_string();
        assert_eq!(says(Compression::Zstd, 20), "zstd has levels -50 to 19, not 20");
        assert_eq!(says(Compression::Zlib, 0), "zlib has levels 1 to 9, not 0");
        assert_eq!(says(Compression::Lzo, 1), "lzo has no levels");
    }
}

//! Compressing one page at a time, as kdump-compressed files have it.

use std::io;

use kdump_vmcore::kdump::Compression;

const PAGE: usize = 4096;

/// A compressor kept from page to page: making one costs more than a page.
pub(crate) enum Compressor {
    /// Pages as they are.
    None,
    /// zlib at its fastest level, which zlib-rs runs at zstd's speed.
    Zlib(Box<flate2::Compress>),
    /// zstd level 1.
    Zstd(Box<zstd::bulk::Compressor<'static>>),
}

impl Compressor {
    pub(crate) fn new(how: Compression) -> io::Result<Self> {
        Ok(match how {
            Compression::None => Self::None,
            Compression::Zlib => {
                Self::Zlib(Box::new(flate2::Compress::new(flate2::Compression::fast(), true)))
            }
            Compression::Zstd => {
                let mut z = zstd::bulk::Compressor::new(1)?;
                // Every page has 4096 bytes, and the descriptor says how many are its own.
                z.include_checksum(false)?;
                Self::Zstd(Box::new(z))
            }
            Compression::Lzo | Compression::Snappy => {
                return Err(io::Error::new(
                    io::ErrorKind::Unsupported,
                    format!("{how} is read but not written"),
                ));
            }
        })
    }

    /// Compresses `page` into the beginning of `out`. `None` if that does not make it smaller; what
    /// `out` holds then is of no use.
    pub(crate) fn page(&mut self, page: &[u8], out: &mut [u8]) -> Option<usize> {
        // A page that fills all but the last byte is worth storing compressed; one more is not.
        let out = out.get_mut(..PAGE - 1)?;
        match self {
            Self::None => None,
            Self::Zlib(z) => {
                z.reset();
                let status = z.compress(page, out, flate2::FlushCompress::Finish).ok()?;
                // Any other status means that the output was full.
                (status == flate2::Status::StreamEnd).then(|| usize::try_from(z.total_out()).ok())?
            }
            Self::Zstd(z) => z.compress_to_buffer(page, out).ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        for how in [Compression::Zlib, Compression::Zstd] {
            let mut c = Compressor::new(how).unwrap();
            assert_eq!(c.page(&noise, &mut out), None, "{how}");
            let n = c.page(&text[..PAGE], &mut out).unwrap();
            assert!(n < 200, "{how}: {n}");
            assert_eq!(c.page(&text[..PAGE], &mut out), Some(n), "{how}: the second page is like the first");
        }
        assert!(Compressor::new(Compression::Lzo).is_err());
    }
}

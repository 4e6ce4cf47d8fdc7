//! Decompression of module files: `.ko`, `.ko.xz`, `.ko.zst`, `.ko.gz`, told apart by their first bytes.

use std::io::{self, Read};
use std::path::Path;

use super::Error;

/// The largest module that is believed: several times the largest real one (debug builds of GPU drivers).
pub const MAX_MODULE_BYTES: u64 = 512 << 20;

/// Gives the module's ELF bytes.
pub(super) fn decompress(path: &Path, bytes: Vec<u8>) -> Result<Vec<u8>, Error> {
    match unpack(bytes, MAX_MODULE_BYTES) {
        Ok(Some(plain)) => Ok(plain),
        Ok(None) => Err(Error::TooLarge { path: path.to_owned() }),
        Err(source) => Err(Error::Decompress { path: path.to_owned(), source }),
    }
}

/// Unpacks what is packed and leaves the rest as it is; `None` if more than `max` bytes come out.
pub(super) fn unpack(bytes: Vec<u8>, max: u64) -> io::Result<Option<Vec<u8>>> {
    match bytes.as_slice() {
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => {
            read_bounded(lzma_rust2::XzReader::new(bytes.as_slice(), true), max)
        }
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            zstd::Decoder::new(bytes.as_slice()).and_then(|reader| read_bounded(reader, max))
        }
        [0x1f, 0x8b, ..] => read_bounded(flate2::read::MultiGzDecoder::new(bytes.as_slice()), max),
        _ => Ok((bytes.len() as u64 <= max).then_some(bytes)),
    }
}

fn read_bounded(reader: impl Read, max: u64) -> io::Result<Option<Vec<u8>>> {
    let mut plain = Vec::new();
    reader.take(max + 1).read_to_end(&mut plain)?;
    Ok((plain.len() as u64 <= max).then_some(plain))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn gzip_zstd_and_plain_modules_give_the_same_bytes() {
        let module = b"\x7fELF and the rest of it".repeat(100);
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(&module).unwrap();
        let zst = zstd::bulk::compress(&module, 1).unwrap();
        for packed in [gz.finish().unwrap(), zst, module.clone()] {
            assert_eq!(decompress(Path::new("m.ko"), packed).unwrap(), module);
        }
    }

    #[test]
    fn a_cut_module_is_an_error_not_a_short_module() {
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(&b"x".repeat(10_000)).unwrap();
        let mut packed = gz.finish().unwrap();
        packed.truncate(packed.len() - 9);
        assert!(matches!(decompress(Path::new("m.ko"), packed), Err(Error::Decompress { .. })));
        let xz = b"\xfd7zXZ\0\0\x04".to_vec();
        assert!(matches!(decompress(Path::new("m.ko"), xz), Err(Error::Decompress { .. })));
    }
}

//! Rearranging a flattened stream into the file that it describes, as it comes: nothing but one record's piece is kept.
//!
//! Source: makedumpfile `rearrange_dumpdata`.

use std::io::{self, Read as _};
use std::vec::Vec;

use super::{END, HEADER_LEN, RECORD_LEN, SIGNATURE, TYPE_VERSION};
use crate::sink::WriteAt;

/// Why a stream could not be rearranged. What it said before is in the file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is something else.
    #[error("is no flattened dump: it begins with {first:02x?}")]
    NotFlat {
        /// Its first bytes.
        first: Vec<u8>,
    },
    /// Another form of it.
    #[error("a flattened dump of type {kind}, version {version}; only type 1, version 1 is known")]
    Version {
        /// Its type.
        kind: i64,
        /// Its version.
        version: i64,
    },
    /// A record that no writer makes.
    #[error("record {nr} says {length} bytes at {at}")]
    Record {
        /// Its number, from 1 on.
        nr: u64,
        /// The place that it names.
        at: i64,
        /// Bytes that it would have.
        length: i64,
    },
    /// The stream ends before its end mark.
    #[error("the stream ends within record {nr}, before its end mark")]
    Cut {
        /// Its number, from 1 on.
        nr: u64,
    },
    /// Reading failed.
    #[error("cannot read the stream: {0}")]
    Read(#[source] io::Error),
    /// Writing failed.
    #[error("cannot write the dump: {0}")]
    Write(#[source] io::Error),
}

/// Bytes that are read at once.
const PIECE: usize = 1 << 20;

/// Copies all records of `stream` to their places in `out`. Returns the length of the file.
///
/// # Errors
/// [`Error`].
pub fn rearrange(stream: &mut impl io::Read, out: &mut impl WriteAt) -> Result<u64, Error> {
    check_header(stream)?;
    let mut piece = std::vec![0; PIECE];
    let mut file_len = 0;
    for nr in 1.. {
        let mut head = [0; RECORD_LEN as usize];
        read_all(stream, &mut head, nr)?;
        let [at, length] = [be(&head[..8]), be(&head[8..])];
        if (at, length) == (END, END) {
            break;
        }
        let (Ok(mut offset), Ok(mut left)) = (u64::try_from(at), u64::try_from(length)) else {
            return Err(Error::Record { nr, at, length });
        };
        let end = at.checked_add(length).ok_or(Error::Record { nr, at, length })?;
        file_len = file_len.max(end.unsigned_abs());
        while left > 0 {
            let n = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
            let bytes = &mut piece[..n];
            read_all(stream, bytes, nr)?;
            out.write_all_at(bytes, offset).map_err(Error::Write)?;
            offset += n as u64;
            left -= n as u64;
        }
    }
    Ok(file_len)
}

fn check_header(stream: &mut impl io::Read) -> Result<(), Error> {
    let mut header = Vec::with_capacity(HEADER_LEN as usize);
    stream.take(HEADER_LEN).read_to_end(&mut header).map_err(Error::Read)?;
    if header.len() < HEADER_LEN as usize || !header.starts_with(SIGNATURE) {
        header.truncate(SIGNATURE.len());
        return Err(Error::NotFlat { first: header });
    }
    let [kind, version] = [be(&header[16..24]), be(&header[24..32])];
    if (kind, version) == TYPE_VERSION { Ok(()) } else { Err(Error::Version { kind, version }) }
}

fn read_all(stream: &mut impl io::Read, bytes: &mut [u8], nr: u64) -> Result<(), Error> {
    stream.read_exact(bytes).map_err(|e| match e.kind() {
        io::ErrorKind::UnexpectedEof => Error::Cut { nr },
        _ => Error::Read(e),
    })
}

/// Eight bytes as a number.
fn be(bytes: &[u8]) -> i64 {
    bytes.iter().fold(0, |n, &b| n << 8 | i64::from(b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flat::write::Flattened;

    fn stream() -> Vec<u8> {
        let mut flat = Flattened::begin(Vec::new()).unwrap();
        flat.write_all_at(b"abcdef", 0).unwrap();
        flat.write_all_at(&[7; PIECE + 5], 100).unwrap();
        flat.write_all_at(b"X", 2).unwrap();
        flat.finish().unwrap()
    }

    #[test]
    fn records_go_to_their_places_and_the_last_one_counts() {
        let mut out = Vec::new();
        assert_eq!(rearrange(&mut stream().as_slice(), &mut out).unwrap(), 105 + PIECE as u64);
        assert_eq!((&out[..6], out[99], out[100], out.len()), (&b"abXdef"[..], 0, 7, 105 + PIECE));
    }

    #[test]
    fn what_is_no_stream_or_ends_early_is_said() {
        let says = |bytes: &[u8]| rearrange(&mut &*bytes, &mut Vec::new()).unwrap_err().to_string();
        assert!(says(b"").contains("no flattened dump"));
        assert!(says(&[0x7f; 8192]).contains("begins with [7f, 7f"));
        let whole = stream();
        let cut = says(&whole[..whole.len() - 16]);
        assert!(cut.contains("within record"), "{cut}");
        assert!(says(&whole[..5000]).contains("within record 2"));
        let mut other = whole.clone();
        other[31] = 2;
        assert!(says(&other).contains("version 2"));
        let mut hostile = whole;
        hostile[HEADER_LEN as usize] = 0x80;
        assert!(says(&hostile).contains("record 1 says 6 bytes at -"));
        hostile[HEADER_LEN as usize] = 0x7f;
        hostile[HEADER_LEN as usize + 8..][..8].fill(0x7f);
        assert!(says(&hostile).contains("record 1 says"));
    }
}

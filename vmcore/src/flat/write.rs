//! Writing a flattened stream: [`Flattened`] takes bytes at offsets and passes them on in order.
//!
//! What continues the bytes before it is gathered into one record, so that a reader's index stays small. One buffer
//! is all the memory that takes.

use std::io;
use std::vec::Vec;

use super::{END, HEADER_LEN, RECORD_LEN, SIGNATURE, TYPE_VERSION};
use crate::sink::WriteAt;

/// Bytes that are gathered into one record.
const RECORD_MAX: usize = 1 << 20;

/// A flattened stream being written.
///
/// Bytes may be given for any offset, also a second time: the last ones count. [`Flattened::finish`] must be called,
/// or the stream is cut.
#[derive(Debug)]
pub struct Flattened<W: io::Write> {
    out: W,
    /// Where the gathered bytes belong.
    at: u64,
    gathered: Vec<u8>,
}

impl<W: io::Write> Flattened<W> {
    /// Writes the header of the stream.
    ///
    /// # Errors
    /// If writing fails.
    pub fn begin(mut out: W) -> io::Result<Self> {
        let mut header = [0; HEADER_LEN as usize];
        header[..SIGNATURE.len()].copy_from_slice(SIGNATURE);
        header[16..24].copy_from_slice(&TYPE_VERSION.0.to_be_bytes());
        header[24..32].copy_from_slice(&TYPE_VERSION.1.to_be_bytes());
        out.write_all(&header)?;
        Ok(Self { out, at: 0, gathered: Vec::with_capacity(RECORD_MAX) })
    }

    /// Passes the gathered bytes on, and has the output do so too.
    ///
    /// # Errors
    /// If writing fails.
    pub fn flush(&mut self) -> io::Result<()> {
        self.end_record()?;
        self.out.flush()
    }

    /// Ends the stream. Returns the output.
    ///
    /// # Errors
    /// If writing fails.
    pub fn finish(mut self) -> io::Result<W> {
        self.end_record()?;
        self.out.write_all(&record_header(END, END))?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn end_record(&mut self) -> io::Result<()> {
        let len = self.gathered.len();
        if len > 0 {
            let header = record_header(signed(self.at)?, signed(len as u64)?);
            self.out.write_all(&header)?;
            self.out.write_all(&self.gathered)?;
            self.gathered.clear();
            self.at += len as u64;
        }
        Ok(())
    }
}

impl<W: io::Write> WriteAt for Flattened<W> {
    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if offset.checked_add(bytes.len() as u64).is_none_or(|end| end > i64::MAX as u64) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if offset != self.at + self.gathered.len() as u64 {
            self.end_record()?;
            self.at = offset;
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            let room = RECORD_MAX - self.gathered.len();
            let (here, later) = rest.split_at(room.min(rest.len()));
            self.gathered.extend_from_slice(here);
            rest = later;
            if self.gathered.len() == RECORD_MAX {
                self.end_record()?;
            }
        }
        Ok(())
    }
}

fn signed(n: u64) -> io::Result<i64> {
    i64::try_from(n).map_err(io::Error::other)
}

fn record_header(offset: i64, len: i64) -> [u8; RECORD_LEN as usize] {
    let mut out = [0; RECORD_LEN as usize];
    out[..8].copy_from_slice(&offset.to_be_bytes());
    out[8..].copy_from_slice(&len.to_be_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(stream: &[u8]) -> Vec<(i64, i64)> {
        let mut out = Vec::new();
        let mut rest = &stream[HEADER_LEN as usize..];
        while let Some((head, later)) = rest.split_at_checked(16) {
            let number = |b: &[u8]| i64::from_be_bytes(b.try_into().unwrap());
            let (at, len) = (number(&head[..8]), number(&head[8..]));
            out.push((at, len));
            rest = later.get(len.max(0) as usize..).unwrap();
        }
        assert!(rest.is_empty());
        out
    }

    #[test]
    fn what_continues_is_one_record_and_what_does_not_another() {
        let mut flat = Flattened::begin(Vec::new()).unwrap();
        flat.write_all_at(b"abc", 0).unwrap();
        flat.write_all_at(b"def", 3).unwrap();
        flat.write_all_at(b"xyz", 100).unwrap();
        flat.write_all_at(b"A", 0).unwrap();
        flat.write_all_at(&[7; RECORD_MAX + 5], 1).unwrap();
        let stream = flat.finish().unwrap();
        assert!(stream.starts_with(b"makedumpfile\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x01"));
        let max = RECORD_MAX as i64;
        assert_eq!(records(&stream), [(0, 6), (100, 3), (0, max), (max, 6), (-1, -1)]);
    }

    #[test]
    fn a_place_that_no_record_can_name_is_refused() {
        let mut flat = Flattened::begin(Vec::new()).unwrap();
        let e = flat.write_all_at(b"abc", i64::MAX as u64 - 1).unwrap_err();
        assert_eq!(e.kind(), io::ErrorKind::InvalidInput);
    }
}

//! Reading a flattened stream where it lies, without rearranging it first.
//!
//! One walk over the records' headers makes an index of spans. A span is a row of records that stand one behind the
//! other in the stream and in the dump: of equal size, so that the record is computed, or at most `WALKED` of
//! differing sizes, so that it is soon found. A later record overwrites an earlier one; the earlier one's span is cut.
//! A span takes 40 bytes and stands for megabytes in any real stream; more spans than one per 4 KiB of the file are
//! refused.
//!
//! Source: makedumpfile `write_buffer`, `rearrange_dumpdata`.

use std::boxed::Box;
use std::collections::BTreeMap;

use super::{END, HEADER_LEN, RECORD_LEN, SIGNATURE, TYPE_VERSION};
use crate::file::DumpFile;
use crate::mem::ReadError;

/// A flattened stream that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The stream ends within its header.
    #[error("a flattened dump cut within its header: {have} bytes of {HEADER_LEN}")]
    Short {
        /// Bytes in the file.
        have: u64,
    },
    /// Another form of it.
    #[error("a flattened dump of type {kind}, version {version}; only type 1, version 1 is known")]
    Version {
        /// Its type.
        kind: i64,
        /// Its version.
        version: i64,
    },
    /// No whole record in it.
    #[error("a flattened dump without a single record: its writing never got going")]
    NoRecords,
    /// More pieces than are kept.
    #[error(
        "a flattened dump in more than {0} scattered pieces; rearrange it with `makedumpfile -R vmcore < file` first"
    )]
    Scattered(usize),
    /// The operating system refused.
    #[error("the records of a flattened dump cannot be read: {0}")]
    Read(ReadError),
}

/// Records of differing sizes that one span may have: the headers that finding a byte looks at.
const WALKED: u32 = 64;
/// Spans that are kept of any file, and of one as large as can be.
const SPANS: (u64, u64) = (1 << 10, 1 << 20);

/// A row of records, or what later ones left of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    /// Bytes of the dump that it says, up to `end`.
    start: u64,
    end: u64,
    /// The dump's byte that the first record of the row begins with.
    base: u64,
    /// Where that record's header is in the file.
    header_at: u64,
    /// Bytes of each record but the last, which may have fewer; 0: they differ.
    size: u64,
}

/// A record's header.
#[derive(Clone, Copy, Debug)]
struct Record {
    at: u64,
    len: u64,
}

/// A flattened stream as the file that it describes.
#[derive(Debug)]
pub struct FlatFile {
    file: DumpFile,
    spans: Box<[Span]>,
    len: u64,
    is_cut: bool,
}

impl FlatFile {
    /// Walks over the records.
    ///
    /// # Errors
    /// If it is no such stream, or one without records or with too many scattered ones.
    pub fn open(file: DumpFile) -> Result<Self, Error> {
        if file.len() < HEADER_LEN {
            return Err(Error::Short { have: file.len() });
        }
        let mut head = [0; 32];
        file.pread(0, &mut head).map_err(Error::Read)?;
        let [kind, version] = [be(&head[16..24]), be(&head[24..32])];
        if (kind, version) != TYPE_VERSION || !head.starts_with(SIGNATURE) {
            return Err(Error::Version { kind, version });
        }
        let most = usize::try_from((file.len() / 4096).clamp(SPANS.0, SPANS.1)).unwrap_or(usize::MAX);
        let mut index = Index::default();
        let mut headers = Headers { file: &file, buf: [0; 4096], buf_at: 0, buf_len: 0 };
        let mut at = HEADER_LEN;
        let is_cut = loop {
            let Some((offset, len)) = headers.read(at).map_err(Error::Read)? else { break true };
            if (offset, len) == (END, END) {
                break false;
            }
            // Whatever else is negative or passes 2^63 was never written: the stream is damaged from here on.
            let (Ok(offset), Ok(len)) = (u64::try_from(offset), u64::try_from(len)) else { break true };
            if offset.checked_add(len).is_none_or(|end| end > i64::MAX as u64) {
                break true;
            }
            let have = len.min(file.len() - at - RECORD_LEN);
            index.push(Record { at: offset, len: have }, at);
            if index.spans.len() > most {
                return Err(Error::Scattered(most));
            }
            if have < len {
                break true;
            }
            at += RECORD_LEN + len;
        };
        let spans: Box<[Span]> = index.spans.into_values().collect();
        let len = spans.last().ok_or(Error::NoRecords)?.end;
        Ok(Self { file, spans, len, is_cut })
    }

    /// Bytes of the file that the stream describes.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Whether it describes none. It never does.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of the stream.
    #[must_use]
    pub const fn file_len(&self) -> u64 {
        self.file.len()
    }

    /// Whether the record that ends the stream is missing.
    #[must_use]
    pub const fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// Pieces of the dump that the index keeps apart.
    #[must_use]
    pub const fn nr_spans(&self) -> usize {
        self.spans.len()
    }

    /// Where the bytes from `offset` on are in the file, and how many of them there; no place for a gap.
    fn locate(&self, offset: u64) -> Result<(Option<u64>, u64), ReadError> {
        let after = self.spans.partition_point(|s| s.end <= offset);
        let Some(span) = self.spans.get(after) else { return Err(ReadError::Truncated { at: self.len }) };
        if offset < span.start {
            return Ok((None, span.start - offset));
        }
        let (header_at, inside, len) = match span.size {
            0 => self.walk(span, offset)?,
            size => {
                let nr = (offset - span.base) / size;
                let header_at = span.header_at + nr * (RECORD_LEN + size);
                (header_at, (offset - span.base) % size, size)
            }
        };
        Ok((Some(header_at + RECORD_LEN + inside), (len - inside).min(span.end - offset)))
    }

    /// Finds the record of a span of differing ones: its header's place, where in it `offset` is, its length.
    fn walk(&self, span: &Span, offset: u64) -> Result<(u64, u64, u64), ReadError> {
        let mut at = span.header_at;
        let mut inside = offset - span.base;
        for _ in 0..WALKED {
            let mut head = [0; RECORD_LEN as usize];
            self.file.read_at(at, &mut head)?;
            let len = be(&head[8..]) as u64;
            if inside < len {
                return Ok((at, inside, len));
            }
            inside -= len;
            at = at.saturating_add(RECORD_LEN).saturating_add(len);
        }
        Err(ReadError::Corrupt { what: "flattened record changed since the file was opened", at })
    }

    /// The bytes at `offset`, if the file is mapped and one record has them all.
    #[must_use]
    pub fn borrow(&self, offset: u64, len: usize) -> Option<&[u8]> {
        let (at, have) = self.locate(offset).ok()?;
        (have >= len as u64).then(|| self.file.borrow(at?, len))?
    }

    /// Fills `buf` from `offset`. What no record says is zeros, as in the file that would have been written.
    ///
    /// # Errors
    /// As [`DumpFile::read_at`].
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        if offset.checked_add(buf.len() as u64).is_none_or(|end| end > self.len) {
            return Err(ReadError::Truncated { at: self.len.max(offset) });
        }
        let mut done = 0;
        while done < buf.len() {
            let (at, have) = self.locate(offset + done as u64)?;
            let n = usize::try_from(have).unwrap_or(usize::MAX).min(buf.len() - done);
            let piece = &mut buf[done..done + n];
            match at {
                Some(at) => self.file.read_at(at, piece)?,
                None => piece.fill(0),
            }
            done += n;
        }
        Ok(())
    }
}

/// Eight bytes as a number.
fn be(bytes: &[u8]) -> i64 {
    bytes.iter().fold(0, |n, &b| n << 8 | i64::from(b))
}

/// Reads records' headers, several at once where they are close together.
struct Headers<'a> {
    file: &'a DumpFile,
    buf: [u8; 4096],
    buf_at: u64,
    buf_len: u64,
}

impl Headers<'_> {
    /// Place and length in the header at `at`; `None` where the file ends before.
    fn read(&mut self, at: u64) -> Result<Option<(i64, i64)>, ReadError> {
        if self.file.len().saturating_sub(at) < RECORD_LEN {
            return Ok(None);
        }
        if at < self.buf_at || at + RECORD_LEN > self.buf_at + self.buf_len {
            let len = (self.file.len() - at).min(self.buf.len() as u64);
            self.file.pread(at, &mut self.buf[..len as usize])?;
            (self.buf_at, self.buf_len) = (at, len);
        }
        let head = &self.buf[(at - self.buf_at) as usize..][..RECORD_LEN as usize];
        Ok(Some((be(&head[..8]), be(&head[8..]))))
    }
}

/// The row that the record before belongs to.
#[derive(Clone, Copy)]
struct Row {
    /// Where its span starts.
    start: u64,
    /// Where its last record ends.
    end: u64,
    nr: u32,
    /// Whether all of its records have the size of the first.
    is_even: bool,
}

/// Spans by their start, being collected.
#[derive(Default)]
struct Index {
    spans: BTreeMap<u64, Span>,
    last: Option<Row>,
}

impl Index {
    /// Takes the next record, whose header is at `header_at`.
    fn push(&mut self, record: Record, header_at: u64) {
        if record.len == 0 {
            self.last = None; // the next record's header is not where the row would have it
            return;
        }
        let end = record.at + record.len;
        self.carve(record.at, end);
        if let Some(row) = self.last.filter(|row| row.end == record.at)
            && let Some(span) = self.spans.get_mut(&row.start)
            && (row.nr < WALKED || row.is_even && record.len <= span.size)
        {
            if !(row.is_even && record.len <= span.size) {
                span.size = 0;
            }
            span.end = end;
            let is_even = row.is_even && record.len == span.size;
            self.last = Some(Row { end, nr: row.nr.saturating_add(1), is_even, ..row });
            return;
        }
        let span = Span { start: record.at, end, base: record.at, header_at, size: record.len };
        self.spans.insert(span.start, span);
        self.last = Some(Row { start: span.start, end, nr: 1, is_even: true });
    }

    /// Takes `start..end` away from the spans that are there.
    fn carve(&mut self, start: u64, end: u64) {
        if let Some((_, before)) = self.spans.range_mut(..start).next_back().filter(|(_, s)| s.end > start) {
            let old = *before;
            before.end = start;
            if old.end > end {
                self.spans.insert(end, Span { start: end, ..old });
            }
        }
        while let Some((&at, &old)) = self.spans.range(start..end).next() {
            self.spans.remove(&at);
            if old.end > end {
                self.spans.insert(end, Span { start: end, ..old });
            }
        }
    }
}

#[cfg(test)]
mod tests;

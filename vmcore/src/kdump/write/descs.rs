//! Page descriptors on their way to the file.
//!
//! Pages come in order of worth, descriptors stand by frame number: neighbours arrive at different times. A table that is
//! small is kept whole and written piece by piece; of a large one, only the runs that came last are.

use std::io;
use std::ops::Range;
use std::vec::Vec;

use zerocopy::IntoBytes;

use crate::kdump::defs::PageDesc;
use crate::sink::WriteAt;

const SIZE: usize = size_of::<PageDesc>();
/// A table of 350,000 descriptors, 1.3 GiB of pages, is kept whole.
const WHOLE_MAX: u64 = 8 << 20;
/// Descriptors of a large table are written when they fill this many bytes.
const RUNS_MAX: usize = 256 << 10;
/// A table that is kept whole is written when so many descriptors are new: what a cut dump loses at most.
const NEW_MAX: u64 = 16 << 10;

pub(super) struct DescTable {
    /// Offset in the file.
    at: u64,
    is_whole: bool,
    /// The whole table, or the runs, one behind the other.
    bytes: Vec<u8>,
    /// Index of each run's first descriptor, and where in `bytes` it begins.
    runs: Vec<(u64, usize)>,
    /// What of a whole table the file does not have.
    dirty: Range<usize>,
    nr_new: u64,
}

impl DescTable {
    pub(super) fn new(at: u64, nr: u64) -> Self {
        let len = nr.saturating_mul(SIZE as u64);
        let is_whole = len <= WHOLE_MAX;
        let bytes = if is_whole { std::vec![0; len as usize] } else { Vec::with_capacity(RUNS_MAX + SIZE) };
        Self { at, is_whole, bytes, runs: Vec::new(), dirty: 0..0, nr_new: 0 }
    }

    /// Takes the descriptor that stands at `index`.
    ///
    /// # Panics
    /// If the table has no such place.
    pub(super) fn put(&mut self, out: &mut impl WriteAt, index: u64, desc: &PageDesc) -> io::Result<()> {
        if !self.is_whole {
            if self.bytes.len() >= RUNS_MAX {
                self.flush(out)?;
            }
            let next = self.runs.last().map(|&(first, at)| first + ((self.bytes.len() - at) / SIZE) as u64);
            if next != Some(index) {
                self.runs.push((index, self.bytes.len()));
            }
            self.bytes.extend_from_slice(desc.as_bytes());
            return Ok(());
        }
        let start = index as usize * SIZE;
        self.bytes[start..start + SIZE].copy_from_slice(desc.as_bytes());
        self.dirty = if self.dirty.is_empty() {
            start..start + SIZE
        } else {
            self.dirty.start.min(start)..self.dirty.end.max(start + SIZE)
        };
        self.nr_new += 1;
        if self.nr_new >= NEW_MAX { self.flush(out) } else { Ok(()) }
    }

    /// Writes what the file does not have. The bytes that it points at get there first: after a power cut, a descriptor
    /// must not promise what is not on the disk.
    pub(super) fn flush(&mut self, out: &mut impl WriteAt) -> io::Result<()> {
        if self.is_whole {
            let dirty = self.dirty.clone();
            if dirty.is_empty() {
                return Ok(());
            }
            out.barrier()?;
            out.write_all_at(&self.bytes[dirty.clone()], self.at + dirty.start as u64)?;
            (self.dirty, self.nr_new) = (0..0, 0);
        } else if !self.bytes.is_empty() {
            out.barrier()?;
            let ends = self.runs.iter().skip(1).map(|&(_, at)| at).chain([self.bytes.len()]);
            for (&(first, start), end) in self.runs.iter().zip(ends) {
                out.write_all_at(&self.bytes[start..end], self.at + first * SIZE as u64)?;
            }
            self.bytes.clear();
            self.runs.clear();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn desc(n: u64) -> PageDesc {
        PageDesc { offset: n.into(), size: 0.into(), flags: 0.into(), page_flags: 0.into() }
    }

    /// Check both kinds of table with descriptors that come in three sweeps, as phases of a capture bring them.
    #[test]
    fn descriptors_stand_by_index_in_whatever_order_they_come() {
        for nr in [1000, WHOLE_MAX / SIZE as u64 + 50_000] {
            let mut out = Vec::new();
            let mut table = DescTable::new(100, nr);
            assert_eq!(table.is_whole, nr == 1000);
            for sweep in 0..3 {
                for index in (0..nr).filter(|i| i / 7 % 3 == sweep) {
                    table.put(&mut out, index, &desc(index + 1)).unwrap();
                }
            }
            table.flush(&mut out).unwrap();
            assert_eq!(out.len(), 100 + nr as usize * SIZE);
            for (i, d) in out[100..].chunks_exact(SIZE).enumerate() {
                assert_eq!(d, desc(i as u64 + 1).as_bytes());
            }
        }
    }
}

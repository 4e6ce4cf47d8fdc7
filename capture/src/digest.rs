//! Digests: of a written file, piece by piece, and of the pages a dump holds, whatever its format.

use std::num::NonZeroUsize;

use kdump_arch_x86::PAGE_SIZE;
use kdump_vmcore::Dump;
use kdump_vmcore::kdump::Compression;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::capture::Error;
use crate::compress::Level;
use crate::decide::WINDOW;
use crate::pipeline::{Coding, Pipeline, Source};
use crate::source::SourceMap;

/// SHA-256 of one piece of a file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Piece {
    /// Where it begins.
    pub offset: u64,
    /// Its bytes.
    pub length: u64,
    /// The digest, in hexadecimal.
    pub sha256: String,
}

/// Bytes of a piece, but for the last of headers and tables and the last of all.
const PIECE: u64 = 64 << 20;

/// Digests a file that is written from `start` on without gaps.
pub(crate) struct PieceDigests {
    done: Vec<Piece>,
    current: Sha256,
    offset: u64,
    length: u64,
}

impl PieceDigests {
    pub(crate) fn new(start: u64) -> Self {
        Self { done: Vec::new(), current: Sha256::new(), offset: start, length: 0 }
    }

    pub(crate) fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = usize::try_from(PIECE - self.length).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at(bytes.len().min(room));
            self.current.update(now);
            self.length += now.len() as u64;
            bytes = later;
            if self.length == PIECE {
                self.close();
            }
        }
    }

    fn close(&mut self) {
        let digest = std::mem::take(&mut self.current).finalize();
        self.done.push(Piece { offset: self.offset, length: self.length, sha256: hex(&digest) });
        self.offset += self.length;
        self.length = 0;
    }

    /// The pieces.
    pub(crate) fn finish(mut self) -> Vec<Piece> {
        if self.length > 0 {
            self.close();
        }
        self.done
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut out, b| {
        // Writing to a string cannot fail.
        let _ = write!(out, "{b:02x}");
        out
    })
}

/// What a dump holds, independent of its format.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogicalDigest {
    /// Pages that could be read.
    pub pages: u64,
    /// SHA-256 over them by ascending frame number: the number as u64, little-endian, then the bytes.
    pub sha256: String,
    /// Pages that the dump should hold and that cannot be read.
    pub lost: u64,
}

/// Digests the pages that `dump` holds.
///
/// # Errors
/// If the dump describes memory at addresses that no machine has, or no thread can be started.
pub fn logical_digest(dump: &Dump) -> Result<LogicalDigest, Error> {
    let map = SourceMap::new(dump);
    let mut sha = Sha256::new();
    let (mut pages, mut lost) = (0, 0);
    let coding =
        Coding { compression: Compression::None, find_zero: false, level: Level::Usual, frames: None };
    // The digest of a page depends on all before it, so only reading runs beside it.
    let mut pipeline = Pipeline::new(coding, NonZeroUsize::MIN).map_err(Error::Start)?;
    let mut from = 0;
    while let Some(pfn) = map.next(from) {
        let first = pfn / WINDOW * WINDOW;
        from = first.saturating_add(WINDOW);
        let held = map.window(first, from).map_err(|e| Error::Start(std::io::Error::other(e)))?.held;
        let source = Source { mem: dump, ram: dump.ram(), pages: &held };
        pipeline
            .run(source, |chunk| {
                let lost_here: Vec<u64> = chunk.lost.iter().map(|(pfn, _)| *pfn).collect();
                lost += lost_here.len() as u64;
                let readable = chunk.pfns(&held).filter(|pfn| !lost_here.contains(pfn));
                for (pfn, page) in readable.zip(chunk.data.chunks_exact(PAGE_SIZE as usize)) {
                    sha.update(pfn.to_le_bytes());
                    sha.update(page);
                    pages += 1;
                }
                Ok(())
            })
            .map_err(Error::Start)?;
    }
    Ok(LogicalDigest { pages, sha256: hex(&sha.finalize()), lost })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_the_file_without_gaps() {
        let mut d = PieceDigests::new(100);
        let block = vec![3; 1 << 20];
        for _ in 0..65 {
            d.update(&block);
        }
        let pieces = d.finish();
        let spans: Vec<_> = pieces.iter().map(|p| (p.offset, p.length)).collect();
        assert_eq!(spans, [(100, PIECE), (100 + PIECE, 1 << 20)]);
        assert_eq!(pieces[1].sha256, hex(&Sha256::digest(&block)));
    }
}

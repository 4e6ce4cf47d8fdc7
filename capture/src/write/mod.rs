//! Writing what was decided, in one format or another.

mod elf;
mod kdump;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use kdump_vmcore::ReadError;
use kdump_vmcore::kdump::write::Page;

pub(crate) use elf::write as write_elf;
pub(crate) use kdump::write as write_kdump;

use crate::capture::Progress;
use crate::digest::{Piece, PieceDigests};
use crate::pipeline::Chunk;

/// Lost pages are named up to this number, and counted beyond.
const LOST_NAMED: usize = 64;

/// Counts on the way.
pub(crate) struct Tally<'a> {
    pub(crate) progress: &'a mut dyn FnMut(Progress),
    pub(crate) done: u64,
    pub(crate) total: u64,
    pub(crate) zero: u64,
    pub(crate) nr_lost: u64,
    pub(crate) lost: Vec<(u64, ReadError)>,
    pub(crate) is_source_incomplete: bool,
}

impl Tally<'_> {
    /// Whether the dump is to keep its incomplete mark.
    const fn has_gaps(&self) -> bool {
        self.nr_lost > 0 || self.is_source_incomplete
    }

    fn take(&mut self, chunk: &Chunk, bytes: u64) {
        self.done += chunk.pages.len() as u64;
        self.zero += chunk.pages.iter().filter(|p| **p == Page::Zero).count() as u64;
        self.nr_lost += chunk.lost.len() as u64;
        let room = LOST_NAMED.saturating_sub(self.lost.len());
        self.lost.extend(chunk.lost.iter().take(room).copied());
        (self.progress)(Progress { done: self.done, total: self.total, bytes });
    }
}

/// Reads back what lies before the pages, which is final only now, and digests it, too.
fn finish_digests(digests: Option<PieceDigests>, out: &File, data_at: u64) -> io::Result<Vec<Piece>> {
    const BUFFER: u64 = 1 << 20;
    let Some(digests) = digests else { return Ok(Vec::new()) };
    let mut head = PieceDigests::new(0);
    let mut buffer = vec![0; data_at.min(BUFFER) as usize];
    let mut at = 0;
    while at < data_at {
        let len = (data_at - at).min(BUFFER) as usize;
        // A dump without any page ends within its padding.
        match out.read_at(&mut buffer[..len], at)? {
            0 => break,
            n => {
                head.update(&buffer[..n]);
                at += n as u64;
            }
        }
    }
    Ok(head.finish().into_iter().chain(digests.finish()).collect())
}

//! Output that goes in order, and what is known of it when it is through.

use std::io;

use crate::digest::{Piece, PieceDigests};

/// Passes bytes on, counts them, and digests them if they are to be.
pub(super) struct Counted<'a> {
    out: &'a mut dyn io::Write,
    bytes: u64,
    digests: Option<PieceDigests>,
}

impl<'a> Counted<'a> {
    pub(super) fn new(out: &'a mut dyn io::Write, is_digested: bool) -> Self {
        Self { out, bytes: 0, digests: is_digested.then(|| PieceDigests::new(0)) }
    }

    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn finish(self) -> (u64, Vec<Piece>) {
        (self.bytes, self.digests.map(PieceDigests::finish).unwrap_or_default())
    }
}

impl io::Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.out.write(bytes)?;
        let taken = bytes.get(..n).unwrap_or(bytes);
        self.bytes += taken.len() as u64;
        if let Some(digests) = &mut self.digests {
            digests.update(taken);
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

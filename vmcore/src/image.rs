//! The bytes of a dump, whatever its file wraps them in: nothing, a flattened stream, or zstd frames.

use std::boxed::Box;
use std::ops::Range;
use std::vec::Vec;

use crate::file::{DumpFile, Piece};
use crate::flat::read::FlatFile;
use crate::mem::ReadError;
use crate::seekable::read::SeekableFile;

/// What a dump's bytes are wrapped in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wrapping {
    /// Nothing.
    Plain,
    /// makedumpfile's flattened stream.
    Flattened,
    /// zstd frames, with a seek table or without.
    SeekableZstd,
}

impl core::fmt::Display for Wrapping {
    /// What to say behind the format, nothing of nothing.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Plain => "",
            Self::Flattened => ", flattened",
            Self::SeekableZstd => ", in zstd frames",
        })
    }
}

/// A dump's bytes, to read at offsets from any number of threads.
#[derive(Debug)]
pub enum Image {
    /// The file as it is.
    Plain(DumpFile),
    /// What a flattened stream says.
    Flat(Box<FlatFile>),
    /// What zstd frames hold.
    Zstd(Box<SeekableFile>),
}

impl From<DumpFile> for Image {
    fn from(file: DumpFile) -> Self {
        Self::Plain(file)
    }
}

impl Image {
    /// This much is read in one piece whatever the length of the file.
    const ALWAYS: u64 = 64 << 20;

    /// Bytes of the dump.
    #[must_use]
    pub const fn len(&self) -> u64 {
        match self {
            Self::Plain(file) => file.len(),
            Self::Flat(flat) => flat.len(),
            Self::Zstd(zstd) => zstd.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What they are wrapped in.
    #[must_use]
    pub const fn wrapping(&self) -> Wrapping {
        match self {
            Self::Plain(_) => Wrapping::Plain,
            Self::Flat(_) => Wrapping::Flattened,
            Self::Zstd(_) => Wrapping::SeekableZstd,
        }
    }

    /// Whether the wrapping ends too early, whatever the dump inside says of itself.
    #[must_use]
    pub const fn is_cut(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Flat(flat) => flat.is_cut(),
            Self::Zstd(zstd) => zstd.is_cut(),
        }
    }

    /// Bytes of the file on the disk.
    const fn file_len(&self) -> u64 {
        match self {
            Self::Plain(file) => file.len(),
            Self::Flat(flat) => flat.file_len(),
            Self::Zstd(zstd) => zstd.file_len(),
        }
    }

    /// The bytes at `offset`, if they lie in memory in one piece.
    #[must_use]
    pub fn borrow(&self, offset: u64, len: usize) -> Option<&[u8]> {
        match self {
            Self::Plain(file) => file.borrow(offset, len),
            Self::Flat(flat) => flat.borrow(offset, len),
            Self::Zstd(_) => None,
        }
    }

    /// The same, mapping them first if need be; see [`DumpFile::window`].
    #[must_use]
    pub fn window(&self, offset: u64, len: usize) -> Option<&[u8]> {
        match self {
            Self::Plain(file) => file.window(offset, len),
            Self::Flat(_) | Self::Zstd(_) => self.borrow(offset, len),
        }
    }

    /// A mapped stretch; see [`DumpFile::piece`].
    #[must_use]
    pub fn piece(&self, offset: u64, len: usize) -> Option<Piece> {
        match self {
            Self::Plain(file) => file.piece(offset, len),
            Self::Flat(_) | Self::Zstd(_) => None,
        }
    }

    /// Gives up what is mapped as a whole; see [`DumpFile::unmap`].
    pub fn unmap(&mut self) {
        if let Self::Plain(file) = self {
            file.unmap();
        }
    }

    /// Fills `buf` from `offset`.
    ///
    /// # Errors
    /// `Truncated` where the dump ends before; `Corrupt` where its wrapping is damaged; `Io` where reading fails.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        match self {
            Self::Plain(file) => file.read_at(offset, buf),
            Self::Flat(flat) => flat.read_at(offset, buf),
            Self::Zstd(zstd) => zstd.read_at(offset, buf),
        }
    }

    /// Fills `buf` from `offset` in passing; see [`DumpFile::pread`].
    ///
    /// # Errors
    /// As [`Self::read_at`].
    pub fn pread(&self, offset: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        match self {
            Self::Plain(file) => file.pread(offset, buf),
            Self::Flat(_) | Self::Zstd(_) => self.read_at(offset, buf),
        }
    }

    /// The next stretch of bytes that are not a hole of the file; see [`DumpFile::next_data`].
    #[must_use]
    pub fn next_data(&self, offset: u64) -> Range<u64> {
        match self {
            Self::Plain(file) => file.next_data(offset),
            Self::Flat(_) | Self::Zstd(_) => offset..self.len(),
        }
    }

    /// Reads `len` bytes into a vector. Nothing is allocated that is out of proportion to the file.
    ///
    /// # Errors
    /// As [`Self::read_at`].
    pub fn read_vec(&self, offset: u64, len: u64) -> Result<Vec<u8>, ReadError> {
        if let Self::Plain(file) = self {
            return file.read_vec(offset, len);
        }
        let end =
            offset.checked_add(len).ok_or(ReadError::Corrupt { what: "offset passes 2^64", at: offset })?;
        if end > self.len() {
            return Err(ReadError::Truncated { at: self.len() });
        }
        // Gaps of a flattened stream and frames of zeros take no room in the file.
        if len > self.file_len().max(Self::ALWAYS) {
            return Err(ReadError::Corrupt { what: "length out of proportion", at: offset });
        }
        let n = usize::try_from(len)
            .map_err(|_| ReadError::Corrupt { what: "length passes memory", at: offset })?;
        let mut out = std::vec![0; n];
        self.read_at(offset, &mut out)?;
        Ok(out)
    }
}

//! Reading at offsets of what zstd frames hold.
//!
//! Where a frame begins is known of every so many frames, at most `Marks::MOST` of them; from there the table's
//! entries are followed, or, in a file that was cut before its table was written, the frames' own headers. The frames
//! that were used last stay decompressed.

use std::boxed::Box;
use std::sync::{Mutex, PoisonError};
use std::vec::Vec;

use super::frame::{Found, find};
use super::{FOOTER_LEN, FOOTER_MAGIC, HAS_CHECKSUMS, MAX_FRAMES, RESERVED, TABLE_MAGIC};
use crate::file::DumpFile;
use crate::mem::ReadError;

/// A zstd file that cannot be read at offsets.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Frames as other programs make them, one for all.
    #[error(
        "a zstd file whose frame at {at:#x} holds {} bytes; only frames of up to {LARGEST} are read. Decompress it \
         with `zstd -d` first", plain.map_or("an unknown number of".into(), |n| std::format!("{n}"))
    )]
    Frame {
        /// Offset of the frame.
        at: u64,
        /// Bytes that it holds, if it says.
        plain: Option<u64>,
    },
    /// Not one whole frame.
    #[error("a zstd file without a single whole frame")]
    NoFrames,
    /// The operating system refused.
    #[error("its zstd frames cannot be read: {0}")]
    Read(ReadError),
}

/// Bytes that a frame may hold: one is decompressed for whatever is read of it.
const LARGEST: u64 = 16 << 20;

/// Where some of the frames begin.
#[derive(Debug)]
struct Marks {
    /// Offset in the file and in the dump, of every `step`th frame.
    marks: Vec<(u64, u64)>,
    step: u64,
    nr_frames: u64,
}

impl Marks {
    /// 1 MiB of them.
    const MOST: usize = 1 << 16;

    const fn new() -> Self {
        Self { marks: Vec::new(), step: 64, nr_frames: 0 }
    }

    /// Takes the next frame's place.
    fn push(&mut self, at: u64, plain_at: u64) {
        if self.nr_frames.is_multiple_of(self.step) {
            if self.marks.len() == Self::MOST {
                let mut nr = 0;
                self.marks.retain(|_| {
                    nr += 1;
                    nr % 2 == 1
                });
                self.step *= 2;
            }
            // Still due after the step was doubled: the number was a multiple of MOST steps.
            self.marks.push((at, plain_at));
        }
        self.nr_frames += 1;
    }
}

/// The seek table of a file.
#[derive(Clone, Copy, Debug)]
struct Table {
    /// Offset of the first entry.
    at: u64,
    /// Bytes of an entry.
    entry: u64,
    nr_frames: u64,
}

/// A frame's place.
#[derive(Clone, Copy, Debug)]
struct Frame {
    nr: u64,
    at: u64,
    packed: u64,
    plain_at: u64,
    plain: u64,
}

/// A frame that is decompressed.
#[derive(Default)]
struct Slot {
    nr: Option<u64>,
    plain: Vec<u8>,
}

/// What zstd frames hold, as a file.
pub struct SeekableFile {
    file: DumpFile,
    table: Option<Table>,
    marks: Marks,
    len: u64,
    is_cut: bool,
    slots: Box<[Mutex<Slot>]>,
    idle: Mutex<Vec<zstd::bulk::Decompressor<'static>>>,
}

impl core::fmt::Debug for SeekableFile {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "SeekableFile({} frames, {} bytes)", self.marks.nr_frames, self.len)
    }
}

impl SeekableFile {
    /// Decompressed bytes that are kept.
    const CACHE: u64 = 8 << 20;

    /// Finds the frames by the table at the end, or by walking over them.
    ///
    /// # Errors
    /// If there is none, or one too large to be read at offsets.
    pub fn open(file: DumpFile) -> Result<Self, Error> {
        let table = find_table(&file).map_err(Error::Read)?;
        let by_table = match table {
            Some(table) => follow(&file, table).map_err(Error::Read)?,
            None => None,
        };
        let (table, (marks, len, largest), is_cut) = match by_table {
            Some(found) => (table, found, false),
            None => (None, walk(&file)?, true),
        };
        if largest > LARGEST {
            return Err(Error::Frame { at: 0, plain: Some(largest) });
        }
        if marks.nr_frames == 0 {
            return Err(Error::NoFrames);
        }
        let nr_slots = (Self::CACHE / largest.max(1)).clamp(2, 128);
        let slots = (0..nr_slots).map(|_| Mutex::default()).collect();
        Ok(Self { file, table, marks, len, is_cut, slots, idle: Mutex::default() })
    }

    /// Bytes that the frames hold.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Whether they hold none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of the file.
    #[must_use]
    pub const fn file_len(&self) -> u64 {
        self.file.len()
    }

    /// Whether there is no seek table: the file was cut, or another program made it.
    #[must_use]
    pub const fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// The frame that holds the byte at `offset`.
    fn frame_at(&self, offset: u64) -> Result<Frame, ReadError> {
        if offset >= self.len {
            return Err(ReadError::Truncated { at: self.len });
        }
        let mark = self.marks.marks.partition_point(|&(_, plain_at)| plain_at <= offset).saturating_sub(1);
        let (mut at, mut plain_at) =
            self.marks.marks.get(mark).copied().ok_or(ReadError::Truncated { at: 0 })?;
        let first = mark as u64 * self.marks.step;
        for nr in first..self.marks.nr_frames.min(first + self.marks.step) {
            let (packed, plain) = match self.table {
                Some(table) => self.entry(table, nr)?,
                None => self.next_frame(&mut at)?,
            };
            if offset < plain_at + plain {
                return Ok(Frame { nr, at, packed, plain_at, plain });
            }
            at += packed;
            plain_at += plain;
        }
        Err(ReadError::Corrupt { what: "zstd frames changed since the file was opened", at })
    }

    fn entry(&self, table: Table, nr: u64) -> Result<(u64, u64), ReadError> {
        let mut entry = [0; 8];
        self.file.read_at(table.at + nr * table.entry, &mut entry)?;
        Ok(sizes(&entry))
    }

    /// Sizes of the frame at `at` or behind what is skipped there.
    fn next_frame(&self, at: &mut u64) -> Result<(u64, u64), ReadError> {
        loop {
            match find(&self.file, *at)? {
                Found::Frame { packed, plain: Some(plain) } => return Ok((packed, plain)),
                Found::Skippable(len) => *at += len,
                _ => return Err(ReadError::Corrupt { what: "zstd frames changed", at: *at }),
            }
        }
    }

    fn decompress(&self, frame: Frame, plain: &mut Vec<u8>) -> Result<(), ReadError> {
        let corrupt = |what| ReadError::Corrupt { what, at: frame.at };
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut zstd = match idle {
            Some(zstd) => zstd,
            None => zstd::bulk::Decompressor::new().map_err(|_| corrupt("no memory for a zstd context"))?,
        };
        // Both were checked on opening: sizes of a frame that lies within the file.
        let (packed, size) = (frame.packed as usize, frame.plain as usize);
        plain.clear();
        plain.reserve_exact(size);
        let result = match self.file.borrow(frame.at, packed) {
            Some(bytes) => zstd.decompress_to_buffer(bytes, plain),
            None => zstd.decompress_to_buffer(&self.file.read_vec(frame.at, frame.packed)?, plain),
        };
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(zstd);
        match result {
            Ok(n) if n == size => Ok(()),
            Ok(_) => Err(corrupt("zstd frame holds less than it should")),
            Err(_) => Err(corrupt("damaged zstd frame")),
        }
    }

    /// Fills `buf` from `offset`.
    ///
    /// # Errors
    /// `Corrupt` where a frame is damaged; else as [`DumpFile::read_at`].
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        if offset.checked_add(buf.len() as u64).is_none_or(|end| end > self.len) {
            return Err(ReadError::Truncated { at: self.len.max(offset) });
        }
        let mut done = 0;
        while done < buf.len() {
            let here = offset + done as u64;
            let frame = self.frame_at(here)?;
            let slot = (frame.nr % self.slots.len() as u64) as usize;
            let mut slot = self.slots[slot].lock().unwrap_or_else(PoisonError::into_inner);
            if slot.nr != Some(frame.nr) {
                slot.nr = None;
                self.decompress(frame, &mut slot.plain)?;
                slot.nr = Some(frame.nr);
            }
            let inside = &slot.plain[(here - frame.plain_at) as usize..];
            let n = inside.len().min(buf.len() - done);
            buf[done..done + n].copy_from_slice(&inside[..n]);
            done += n;
        }
        Ok(())
    }
}

/// The two sizes of a table's entry, in the file and decompressed.
fn sizes(entry: &[u8; 8]) -> (u64, u64) {
    let entry = u64::from_le_bytes(*entry);
    (entry & 0xffff_ffff, entry >> 32)
}

/// Finds the table by the file's last bytes; `None` if there is none, or it is not as it must be.
fn find_table(file: &DumpFile) -> Result<Option<Table>, ReadError> {
    let Some(footer_at) = file.len().checked_sub(FOOTER_LEN) else { return Ok(None) };
    let mut footer = [0; FOOTER_LEN as usize];
    file.pread(footer_at, &mut footer)?;
    let [n0, n1, n2, n3, flags, magic @ ..] = footer;
    let nr_frames = u32::from_le_bytes([n0, n1, n2, n3]);
    if u32::from_le_bytes(magic) != FOOTER_MAGIC || flags & RESERVED != 0 || nr_frames > MAX_FRAMES {
        return Ok(None);
    }
    let entry = if flags & HAS_CHECKSUMS != 0 { 12 } else { 8 };
    let len = u64::from(nr_frames) * entry;
    let Some(at) = footer_at.checked_sub(len + 8) else { return Ok(None) };
    let mut head = [0; 8];
    file.pread(at, &mut head)?;
    let (magic, size) = sizes(&head);
    let is_table = magic == u64::from(TABLE_MAGIC) && size == len + FOOTER_LEN;
    Ok(is_table.then_some(Table { at: at + 8, entry, nr_frames: nr_frames.into() }))
}

/// The marks of a file, how much it holds, and how much its largest frame does.
type Walked = (Marks, u64, u64);

/// Reads the table once; `None` if its frames do not end where it begins.
fn follow(file: &DumpFile, table: Table) -> Result<Option<Walked>, ReadError> {
    let mut marks = Marks::new();
    let (mut at, mut plain_at, mut largest) = (0, 0, 0);
    let mut buf = std::vec![0; 12 << 10];
    let per_read = buf.len() as u64 / table.entry;
    let mut nr = 0;
    while nr < table.nr_frames {
        let here = per_read.min(table.nr_frames - nr);
        let bytes = &mut buf[..(here * table.entry) as usize];
        file.pread(table.at + nr * table.entry, bytes)?;
        for entry in bytes.chunks_exact(table.entry as usize) {
            let (packed, plain) = entry.first_chunk().map_or((0, 0), sizes);
            marks.push(at, plain_at);
            // Sums of 2^27 numbers of 32 bits.
            at += packed;
            plain_at += plain;
            largest = largest.max(plain);
        }
        nr += here;
    }
    Ok((at + 8 == table.at).then_some((marks, plain_at, largest)))
}

/// Walks over the frames, up to the first that is not whole.
fn walk(file: &DumpFile) -> Result<Walked, Error> {
    let mut marks = Marks::new();
    let (mut at, mut plain_at, mut largest) = (0, 0u64, 0);
    while at < file.len() {
        match find(file, at).map_err(Error::Read)? {
            Found::Frame { packed, plain: Some(plain) } if plain <= LARGEST => {
                marks.push(at, plain_at);
                at += packed;
                plain_at += plain;
                largest = largest.max(plain);
            }
            Found::Frame { plain, .. } => return Err(Error::Frame { at, plain }),
            Found::Skippable(len) => at += len,
            Found::Cut | Found::Foreign => break,
        }
    }
    Ok((marks, plain_at, largest))
}

#[cfg(test)]
mod tests;

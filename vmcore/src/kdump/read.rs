//! Reading a kdump-compressed file, or the several of a split set.
//!
//! Where a page is takes three steps: its bit in the second bitmap says that the file has it, the
//! number of set bits before it says which descriptor is its, the descriptor says where its bytes
//! are and how they are compressed. A file cut at any byte opens, as long as its two headers are
//! there; what was lost is an error of the pages that were lost.
//!
//! The bitmaps stay in the file: memory does not grow with the machine.
//!
//! Source: makedumpfile `IMPLEMENTATION`; crash `diskdump.c`.

use std::ops::Range;
use std::sync::OnceLock;
use std::vec::Vec;

use kdump_arch_x86::{PAGE_SIZE, PhysAddr, PhysRange};
use zerocopy::FromBytes;

use super::Compression;
use super::bitmap::PageBitmap;
use super::defs::{BLOCK_SIZE, PageDesc, flags};
use super::filemap::{FileBitmap, FileRank};
use super::header::Headers;
pub use super::header::Info;
use super::inflate::PageCache;
use crate::image::Image;
use crate::mem::{PhysMem, ReadError, page_pieces};

/// A kdump-compressed file that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file ends within its headers.
    #[error("a kdump-compressed file cut within its headers: {have} bytes, the headers take {need}")]
    Short {
        /// Bytes in the file.
        have: u64,
        /// Bytes of both headers.
        need: u64,
    },
    /// It does not begin with a signature.
    #[error("no kdump-compressed file: its signature is {0:02x?}")]
    Signature([u8; 8]),
    /// Another machine's, or damaged.
    #[error("a kdump-compressed file with blocks of {0} bytes; x86-64 has 4096")]
    BlockSize(i32),
    /// A header field has a value that cannot be.
    #[error("a damaged kdump-compressed file: {field} is {value}")]
    Field {
        /// Its name.
        field: &'static str,
        /// Its value.
        value: i64,
    },
    /// Several files that do not belong together.
    #[error("file {0} is no part of the same split dump as the first: {1}")]
    Set(usize, &'static str),
    /// The headers cannot be read.
    #[error("its headers cannot be read: {0}")]
    Read(ReadError),
}

impl From<ReadError> for Error {
    fn from(e: ReadError) -> Self {
        Self::Read(e)
    }
}

/// A kdump-compressed file's memory.
#[derive(Debug)]
pub struct KdumpFile {
    info: Info,
    notes: Vec<u8>,
    /// The files of a split set, by ascending frames; else one.
    parts: Vec<Part>,
    /// The bitmaps, in the first of them: all have the same.
    ram: FileBitmap,
    dumped: FileBitmap,
    rank: FileRank,
    whole_ram: OnceLock<PageBitmap>,
    whole_dumped: OnceLock<PageBitmap>,
    cache: PageCache,
}

/// One file.
#[derive(Debug)]
struct Part {
    image: Image,
    /// Frames that it describes.
    frames: Range<u64>,
    /// Set bits of the second bitmap before the first of them.
    first_rank: u64,
    descs_at: u64,
}

impl KdumpFile {
    /// Reads headers and notes, and goes through the bitmaps once.
    ///
    /// # Errors
    /// If the two headers are not there or contradict themselves.
    pub fn open(image: impl Into<Image>) -> Result<Self, Error> {
        Self::open_set(std::vec![image.into()])
    }

    /// Opens the files that `makedumpfile --split` wrote of one dump, in any order. Pages of a file that is not
    /// among them are not there.
    ///
    /// # Errors
    /// If one of several cannot be opened, is no part of a set, or of another, or comes twice; if there is none.
    pub fn open_set(images: Vec<Image>) -> Result<Self, Error> {
        let is_set = images.len() > 1;
        let mut files: Vec<(Headers, Image)> = Vec::with_capacity(images.len());
        for (nr, image) in images.into_iter().enumerate() {
            let headers = Headers::read(&image)?;
            if is_set && headers.info.split.is_none() {
                return Err(Error::Set(nr + 1, "it is a whole dump"));
            }
            if files.first().is_some_and(|(first, _)| !first.is_of_one_set_with(&headers)) {
                return Err(Error::Set(nr + 1, "it is of another machine or moment"));
            }
            if files.iter().any(|(h, _)| overlap(&h.frames(), &headers.frames())) {
                return Err(Error::Set(nr + 1, "another one has the same pages"));
            }
            files.push((headers, image));
        }
        files.sort_by_key(|(h, _)| h.frames().start);
        let Some((first, image)) = files.first() else {
            return Err(Error::Short { have: 0, need: BLOCK_SIZE });
        };
        let (ram, dumped) = (first.ram, first.dumped);
        let rank = FileRank::new(image, &dumped)?;
        let notes = first.notes(image);
        let mut info = first.info.clone();
        let firsts: Vec<u64> = files
            .iter()
            .map(|(h, _)| rank.rank(image, &dumped, h.frames().start))
            .collect::<Result<_, _>>()?;
        let mut parts = Vec::with_capacity(files.len());
        for ((headers, image), first_rank) in files.into_iter().zip(firsts) {
            info.is_incomplete |= headers.info.is_incomplete;
            parts.push(Part { frames: headers.frames(), first_rank, descs_at: headers.descs_at, image });
        }
        if is_set {
            let start = parts.first().map_or(0, |p| p.frames.start);
            let end = parts.last().map_or(0, |p| p.frames.end);
            info.split = (start > 0 || end < info.max_mapnr).then_some((start, end));
            // Part of the dump is missing where a file of the set is.
            info.is_incomplete |=
                info.split.is_some() || parts.windows(2).any(|p| p[0].frames.end != p[1].frames.start);
        }
        Ok(Self {
            info,
            notes,
            parts,
            ram,
            dumped,
            rank,
            whole_ram: OnceLock::new(),
            whole_dumped: OnceLock::new(),
            cache: PageCache::new(),
        })
    }

    /// The file that the bitmaps are read from.
    fn image(&self) -> &Image {
        &self.parts[0].image // there is always one
    }

    /// What the headers say.
    #[must_use]
    pub const fn info(&self) -> &Info {
        &self.info
    }

    /// The ELF notes. A file too old to have them yields its VMCOREINFO as one.
    #[must_use]
    pub fn notes(&self) -> &[u8] {
        &self.notes
    }

    /// Where there was memory, from the first bitmap. Of more than 65536 ranges, which no real machine has, those
    /// closest together are joined.
    ///
    /// # Errors
    /// If the bitmap cannot be read.
    pub fn read_ram_ranges(&self) -> Result<Vec<PhysRange>, ReadError> {
        self.ram.ranges(self.image())
    }

    /// Which of `frames` were memory, from the first bitmap.
    ///
    /// # Errors
    /// If the bitmap cannot be read.
    pub fn read_ram(&self, frames: Range<u64>) -> Result<PageBitmap, ReadError> {
        self.ram.window(self.image(), frames)
    }

    /// Which of `frames` the dump stores, from the second bitmap. Of a split dump, what lies outside the files that were
    /// opened is not stored.
    ///
    /// # Errors
    /// If the bitmap cannot be read.
    pub fn read_dumped(&self, frames: Range<u64>) -> Result<PageBitmap, ReadError> {
        let mut window = self.dumped.window(self.image(), frames)?;
        if let Some((start, end)) = self.info.split {
            window.remove(0, start);
            window.remove(end, u64::MAX);
        }
        Ok(window)
    }

    /// One past the highest frame that the bitmaps can name.
    #[must_use]
    pub const fn frames(&self) -> u64 {
        self.ram.bits
    }

    /// The whole first bitmap: frames that were memory. See [`Self::read_ram`] for a window of it.
    #[must_use]
    pub fn ram(&self) -> &PageBitmap {
        self.whole_ram.get_or_init(|| self.whole(self.ram))
    }

    /// The whole second bitmap: frames the dump stores. See [`Self::read_dumped`] for a window of it.
    #[must_use]
    pub fn dumped(&self) -> &PageBitmap {
        self.whole_dumped.get_or_init(|| self.whole(self.dumped))
    }

    /// Opening has gone through the bitmap already: a device that fails now leaves nothing to read.
    fn whole(&self, map: FileBitmap) -> PageBitmap {
        map.window(self.image(), 0..map.bits).unwrap_or_default()
    }

    /// The file that has the descriptor of a frame, where one should.
    fn part_of(&self, pfn: u64) -> Option<&Part> {
        let at = self.parts.partition_point(|p| p.frames.end <= pfn);
        self.parts.get(at).filter(|p| p.frames.contains(&pfn))
    }

    /// Whether the file ends before the data of its last page: it was cut, whatever its header says.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.parts.iter().any(|p| p.image.is_cut() || self.is_part_cut(p).unwrap_or(true))
    }

    fn is_part_cut(&self, part: &Part) -> Result<bool, ReadError> {
        let file = &part.image;
        if file.len() < part.descs_at {
            return Ok(true); // within the bitmaps: which page would be the last is not known
        }
        let Some(last) = self.dumped.last_in(self.image(), part.frames.clone())? else { return Ok(false) };
        // Zero-filled pages share one, which is where the pages' bytes begin: they say nothing of the end.
        const LOOKED_AT: u64 = 1 << 16;
        let desc_size = size_of::<PageDesc>() as u64;
        let nr = self.rank.rank(self.image(), &self.dumped, last)?.saturating_sub(part.first_rank) + 1;
        let from = nr.saturating_sub(LOOKED_AT);
        // The numbers are as small as in `desc`.
        let Ok(raw) = file.read_vec(part.descs_at + from * desc_size, (nr - from) * desc_size) else {
            return Ok(true);
        };
        let shared = part.descs_at + nr * desc_size;
        let ends = raw.chunks_exact(size_of::<PageDesc>()).rev().filter_map(|b| {
            let d = PageDesc::read_from_bytes(b).ok()?;
            Some((d.offset.get(), d.offset.get().checked_add(d.size.get().into())))
        });
        let is_beyond = |(at, end): (u64, Option<u64>)| at == 0 || end.is_none_or(|e| e > file.len());
        let mut unshared = ends.clone().filter(|(at, _)| *at != shared);
        Ok(unshared.next().or_else(|| ends.clone().next()).is_some_and(is_beyond))
    }

    /// The descriptor of a frame, and the file that has it.
    fn desc(&self, pfn: u64) -> Result<(PageDesc, &Image), ReadError> {
        let at = PhysAddr(pfn.saturating_mul(PAGE_SIZE));
        let is_dumped = self.dumped.get(self.image(), pfn)?;
        let Some(part) = self.part_of(pfn).filter(|_| is_dumped) else {
            return Err(match !is_dumped && self.ram.get(self.image(), pfn)? {
                true => ReadError::Excluded { pfn: at.pfn() },
                false => ReadError::NotInDump { phys: at },
            });
        };
        let file = &part.image;
        let index = self.rank.rank(self.image(), &self.dumped, pfn)?.saturating_sub(part.first_rank);
        // An index is at most 2^34, the table's start at most 2^45.
        let desc_at = part.descs_at + index * size_of::<PageDesc>() as u64;
        let mut raw = [0; size_of::<PageDesc>()];
        file.read_at(desc_at, &mut raw)?;
        let desc: PageDesc = zerocopy::transmute!(raw);
        if desc.offset.get() == 0 {
            // Written before its page, and never completed.
            return Err(ReadError::Truncated { at: file.len() });
        }
        if desc.flags.get() & flags::COMPRESSION == 0 && u64::from(desc.size.get()) != BLOCK_SIZE {
            return Err(ReadError::Corrupt { what: "raw page of another size than a page", at: desc_at });
        }
        if u64::from(desc.size.get()) > BLOCK_SIZE {
            return Err(ReadError::Corrupt { what: "compressed page larger than a page", at: desc_at });
        }
        Ok((desc, file))
    }

    fn read_piece(&self, at: PhysAddr, buf: &mut [u8]) -> Result<(), ReadError> {
        let pfn = at.pfn().0;
        let (desc, file) = self.desc(pfn)?;
        let offset = desc.offset.get();
        let inside = at.page_offset();
        let how = Compression::from_flags(desc.flags.get())
            .ok_or(ReadError::Corrupt { what: "page compressed in several ways", at: offset })?;
        if how == Compression::None {
            let from = offset
                .checked_add(inside)
                .ok_or(ReadError::Corrupt { what: "page offset passes 2^64", at: offset })?;
            return file.read_at(from, buf);
        }
        let size = desc.size.get() as usize;
        self.cache
            .read::<CacheError>(pfn, inside as usize, buf, |inflate| match file.borrow(offset, size) {
                Some(bytes) => inflate(how, bytes),
                None => inflate(how, &file.read_vec(offset, size as u64)?),
            })
            .map_err(|e| match e {
                CacheError::Read(e) => e,
                CacheError::Data(what) => ReadError::Corrupt { what, at: offset },
            })
    }
}

enum CacheError {
    Read(ReadError),
    Data(&'static str),
}

impl From<&'static str> for CacheError {
    fn from(what: &'static str) -> Self {
        Self::Data(what)
    }
}

impl From<ReadError> for CacheError {
    fn from(e: ReadError) -> Self {
        Self::Read(e)
    }
}

impl PhysMem for KdumpFile {
    fn read(&self, at: PhysAddr, buf: &mut [u8]) -> Result<(), ReadError> {
        if at.checked_add(buf.len() as u64).is_none() {
            return Err(ReadError::NotInDump { phys: at });
        }
        for (done, here, n) in page_pieces(at.0, buf.len()) {
            self.read_piece(PhysAddr(here), &mut buf[done..done + n])?;
        }
        Ok(())
    }

    /// Only pages stored as they are lie in the file in one piece, and only one at a time.
    fn borrow(&self, at: PhysAddr, len: usize) -> Option<&[u8]> {
        if at.page_offset().checked_add(len as u64)? > PAGE_SIZE {
            return None;
        }
        let (desc, file) = self.desc(at.pfn().0).ok()?;
        let from = desc.offset.get().checked_add(at.page_offset())?;
        (desc.flags.get() & flags::COMPRESSION == 0).then(|| file.borrow(from, len))?
    }
}

/// Whether two ranges of frames have any in common. An empty one has none.
fn overlap(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start.max(b.start) < a.end.min(b.end)
}

//! Reading a kdump-compressed file.
//!
//! Where a page is takes three steps: its bit in the second bitmap says that the file has it, the
//! number of set bits before it says which descriptor is its, the descriptor says where its bytes
//! are and how they are compressed. A file cut at any byte opens, as long as its two headers are
//! there; what was lost is an error of the pages that were lost.
//!
//! Source: makedumpfile `IMPLEMENTATION`; crash `diskdump.c`.

use std::string::String;
use std::vec::Vec;

use kdump_arch_x86::{PAGE_SIZE, PhysAddr, PhysRange};
use zerocopy::FromBytes;

use super::Compression;
use super::bitmap::{PageBitmap, RankIndex};
use super::defs::{
    BLOCK_SIZE, DISKDUMP_SIGNATURE, DiskDumpHeader, KDUMP_SIGNATURE, KdumpSubHeader, PageDesc, Utsname, flags,
};
use super::inflate::PageCache;
use crate::file::DumpFile;
use crate::mem::{PhysMem, ReadError, page_pieces};
use crate::notes::{Notes, append_note};

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
    /// The headers cannot be read.
    #[error("its headers cannot be read: {0}")]
    Read(ReadError),
}

impl From<ReadError> for Error {
    fn from(e: ReadError) -> Self {
        Self::Read(e)
    }
}

/// Frames beyond this (64 TiB of address space) are not believed: a bitmap of 2 GiB.
const MAX_FRAMES: u64 = 1 << 34;
/// Notes larger than this are not read, as in ELF cores.
const NOTES_MAX: u64 = 256 << 20;

/// What the headers say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// Version of the header, 0 to 6.
    pub version: i32,
    /// The crashed machine's name and kernel.
    pub utsname: Utsname,
    /// When the dump was written, seconds since 1970; 0 where the writer did not say.
    pub timestamp: i64,
    /// Which pages were left out: bits of the dump level. `None` before header version 1.
    pub dump_level: Option<i32>,
    /// How pages are compressed; `None` if `status` names several ways. Each page says it again.
    pub compression: Option<Compression>,
    /// Whether the file was never finished.
    pub is_incomplete: bool,
    /// Whether struct pages of excluded pages were left out as well.
    pub is_vmemmap_excluded: bool,
    /// One past the highest frame number.
    pub max_mapnr: u64,
    /// Frames `start..end` that this file of a split set describes; `None` for a whole dump.
    pub split: Option<(u64, u64)>,
    /// CPUs of the crashed machine, as the writer counted them.
    pub nr_cpus: i32,
}

impl Info {
    /// `utsname.release`.
    #[must_use]
    pub fn release(&self) -> String {
        uts_field(&self.utsname.release)
    }

    /// `utsname.nodename`.
    #[must_use]
    pub fn nodename(&self) -> String {
        uts_field(&self.utsname.nodename)
    }
}

fn uts_field(field: &[u8]) -> String {
    let end = field.iter().position(|&b| b == 0).unwrap_or(field.len());
    String::from_utf8_lossy(&field[..end]).into_owned()
}

/// A kdump-compressed file's memory.
#[derive(Debug)]
pub struct KdumpFile {
    file: DumpFile,
    info: Info,
    notes: Vec<u8>,
    /// Frames that were memory.
    ram: PageBitmap,
    /// Frames that have a descriptor; `None`: all of `ram`, the file having one bitmap.
    dumped: Option<PageBitmap>,
    rank: RankIndex,
    /// Set bits of `dumped` before the first frame this file describes.
    first_rank: u64,
    descs_at: u64,
    cache: PageCache,
}

impl KdumpFile {
    /// Reads headers, notes and bitmaps.
    ///
    /// # Errors
    /// If the two headers are not there or contradict themselves.
    pub fn open(file: DumpFile) -> Result<Self, Error> {
        let need = BLOCK_SIZE + size_of::<KdumpSubHeader>() as u64;
        if file.len() < need {
            return Err(Error::Short { have: file.len(), need });
        }
        let header: DiskDumpHeader = read_struct(&file, 0)?;
        let sub: KdumpSubHeader = read_struct(&file, BLOCK_SIZE)?;
        if header.signature != KDUMP_SIGNATURE && header.signature != DISKDUMP_SIGNATURE {
            return Err(Error::Signature(header.signature));
        }
        if i64::from(header.block_size.get()) != BLOCK_SIZE as i64 {
            return Err(Error::BlockSize(header.block_size.get()));
        }
        let version = header.header_version.get();
        let field = |field, value: i32| Error::Field { field, value: i64::from(value) };
        if !(0..=64).contains(&version) {
            return Err(field("header_version", version));
        }
        let sub_blocks = u64::try_from(header.sub_hdr_size.get())
            .map_err(|_| field("sub_hdr_size", header.sub_hdr_size.get()))?;

        // None of these can pass 2^64: 32-bit block counts times 4096.
        let bitmap_at = (1 + sub_blocks) * BLOCK_SIZE;
        let bitmap_bytes = u64::from(header.bitmap_blocks.get()) * BLOCK_SIZE;
        let max_mapnr = if version >= 6 { sub.max_mapnr_64.get() } else { header.max_mapnr.get().into() };
        // A file with one bitmap stores every frame that is memory; one with two says which it stores.
        let has_two = bitmap_bytes / 2 >= max_mapnr.div_ceil(8).next_multiple_of(BLOCK_SIZE);
        let map_bytes = if has_two { bitmap_bytes / 2 } else { bitmap_bytes };
        let frames = max_mapnr.min(map_bytes.saturating_mul(8));
        if frames > MAX_FRAMES {
            return Err(Error::Field { field: "max_mapnr", value: max_mapnr as i64 });
        }
        // What a short file cannot say takes no memory, whatever its header claims.
        let frames = frames.min(file.len().saturating_sub(bitmap_at).saturating_mul(8));
        let ram = read_bitmap(&file, bitmap_at, frames)?;
        let dumped = match has_two {
            true => Some(read_bitmap(&file, bitmap_at + map_bytes, frames)?),
            false => None,
        };
        let rank = RankIndex::new(dumped.as_ref().unwrap_or(&ram));

        let split = (version >= 2 && sub.split.get() != 0).then(|| match version {
            6.. => (sub.start_pfn_64.get(), sub.end_pfn_64.get()),
            _ => (sub.start_pfn.get(), sub.end_pfn.get()),
        });
        let status = header.status.get();
        let info = Info {
            version,
            utsname: header.utsname,
            timestamp: header.timestamp_sec.get(),
            dump_level: (version >= 1).then(|| sub.dump_level.get()),
            compression: Compression::from_flags(status),
            is_incomplete: status & flags::INCOMPLETE != 0,
            is_vmemmap_excluded: status & flags::EXCLUDED_VMEMMAP != 0,
            max_mapnr,
            split,
            nr_cpus: header.nr_cpus.get(),
        };
        Ok(Self {
            notes: read_notes(&file, version, &sub),
            first_rank: split.map_or(0, |(start, _)| rank.rank(dumped.as_ref().unwrap_or(&ram), start)),
            descs_at: bitmap_at + bitmap_bytes,
            cache: PageCache::new(),
            file,
            info,
            ram,
            dumped,
            rank,
        })
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

    /// Where there was memory, from the first bitmap.
    #[must_use]
    pub fn ram_ranges(&self) -> Vec<PhysRange> {
        self.ram.ranges().collect()
    }

    /// The first bitmap: frames that were memory.
    #[must_use]
    pub const fn ram(&self) -> &PageBitmap {
        &self.ram
    }

    /// The second bitmap: frames the dump stores.
    #[must_use]
    pub const fn dumped(&self) -> &PageBitmap {
        match &self.dumped {
            Some(map) => map,
            None => &self.ram,
        }
    }

    /// Whether the file says that it holds this frame.
    #[must_use]
    pub fn is_dumped(&self, pfn: u64) -> bool {
        self.dumped().get(pfn) && self.info.split.is_none_or(|(start, end)| (start..end).contains(&pfn))
    }

    /// Whether the file ends before the data of its last page: it was cut, whatever its header says.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        if self.file.len() < self.descs_at {
            return true; // within the bitmaps: which page would be the last is not known
        }
        let Some(last) = self.dumped().ranges().last().map(|r| r.end().pfn().0 - 1) else { return false };
        if self.info.split.is_some_and(|(start, end)| !(start..end).contains(&last)) {
            return false; // another file of the set has it
        }
        // Zero-filled pages share one, which is where the pages' bytes begin: they say nothing of the end.
        const LOOKED_AT: u64 = 1 << 16;
        let desc_size = size_of::<PageDesc>() as u64;
        let nr = self.rank.rank(self.dumped(), last).saturating_sub(self.first_rank) + 1;
        let from = nr.saturating_sub(LOOKED_AT);
        // The numbers are as small as in `desc`.
        let Ok(raw) = self.file.read_vec(self.descs_at + from * desc_size, (nr - from) * desc_size) else {
            return true;
        };
        let shared = self.descs_at + nr * desc_size;
        let ends = raw.chunks_exact(size_of::<PageDesc>()).rev().filter_map(|b| {
            let d = PageDesc::read_from_bytes(b).ok()?;
            Some((d.offset.get(), d.offset.get().checked_add(d.size.get().into())))
        });
        let is_beyond = |(at, end): (u64, Option<u64>)| at == 0 || end.is_none_or(|e| e > self.file.len());
        let mut unshared = ends.clone().filter(|(at, _)| *at != shared);
        unshared.next().or_else(|| ends.clone().next()).is_some_and(is_beyond)
    }

    /// The descriptor of a frame.
    fn desc(&self, pfn: u64) -> Result<PageDesc, ReadError> {
        let at = PhysAddr(pfn.saturating_mul(PAGE_SIZE));
        if !self.is_dumped(pfn) {
            return Err(match self.ram.get(pfn) && !self.dumped().get(pfn) {
                true => ReadError::Excluded { pfn: at.pfn() },
                false => ReadError::NotInDump { phys: at },
            });
        }
        let index = self.rank.rank(self.dumped(), pfn).saturating_sub(self.first_rank);
        // An index is at most 2^34, the table's start at most 2^45.
        let desc_at = self.descs_at + index * size_of::<PageDesc>() as u64;
        let mut raw = [0; size_of::<PageDesc>()];
        self.file.read_at(desc_at, &mut raw)?;
        let desc: PageDesc = zerocopy::transmute!(raw);
        if desc.offset.get() == 0 {
            // Written before its page, and never completed.
            return Err(ReadError::Truncated { at: self.file.len() });
        }
        if desc.flags.get() & flags::COMPRESSION == 0 && u64::from(desc.size.get()) != BLOCK_SIZE {
            return Err(ReadError::Corrupt { what: "raw page of another size than a page", at: desc_at });
        }
        if u64::from(desc.size.get()) > BLOCK_SIZE {
            return Err(ReadError::Corrupt { what: "compressed page larger than a page", at: desc_at });
        }
        Ok(desc)
    }

    fn read_piece(&self, at: PhysAddr, buf: &mut [u8]) -> Result<(), ReadError> {
        let pfn = at.pfn().0;
        let desc = self.desc(pfn)?;
        let offset = desc.offset.get();
        let inside = at.page_offset();
        let how = Compression::from_flags(desc.flags.get())
            .ok_or(ReadError::Corrupt { what: "page compressed in several ways", at: offset })?;
        if how == Compression::None {
            let from = offset
                .checked_add(inside)
                .ok_or(ReadError::Corrupt { what: "page offset passes 2^64", at: offset })?;
            return self.file.read_at(from, buf);
        }
        let size = desc.size.get() as usize;
        self.cache
            .read::<CacheError>(pfn, inside as usize, buf, |inflate| match self.file.borrow(offset, size) {
                Some(bytes) => inflate(how, bytes),
                None => inflate(how, &self.file.read_vec(offset, size as u64)?),
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
        let desc = self.desc(at.pfn().0).ok()?;
        let from = desc.offset.get().checked_add(at.page_offset())?;
        (desc.flags.get() & flags::COMPRESSION == 0).then(|| self.file.borrow(from, len))?
    }
}

fn read_struct<T: FromBytes>(file: &DumpFile, at: u64) -> Result<T, ReadError> {
    let raw = file.read_vec(at, size_of::<T>() as u64)?;
    T::read_from_bytes(&raw).map_err(|_| ReadError::Corrupt { what: "header", at })
}

/// Reads a bitmap of `frames` bits; what a cut file does not have is zero.
fn read_bitmap(file: &DumpFile, at: u64, frames: u64) -> Result<PageBitmap, ReadError> {
    let len = frames.div_ceil(8).min(file.len().saturating_sub(at));
    if len == 0 {
        return Ok(PageBitmap::new(frames));
    }
    match usize::try_from(len).ok().and_then(|n| file.borrow(at, n)) {
        Some(bytes) => Ok(PageBitmap::from_bytes(bytes, frames)),
        None => Ok(PageBitmap::from_bytes(&file.read_vec(at, len)?, frames)),
    }
}

/// The note blob, as much of it as the file has.
fn read_notes(file: &DumpFile, version: i32, sub: &KdumpSubHeader) -> Vec<u8> {
    let read = |at: u64, len: u64| match (at, len) {
        (0, _) | (_, 0) => Vec::new(),
        _ if len > NOTES_MAX => Vec::new(),
        _ => file.read_vec(at, len.min(file.len().saturating_sub(at))).unwrap_or_default(),
    };
    let mut notes = if version >= 4 { read(sub.offset_note.get(), sub.size_note.get()) } else { Vec::new() };
    if version >= 3 && !Notes::new(&notes).any(|n| n.name == b"VMCOREINFO" && n.kind == 0) {
        let text = read(sub.offset_vmcoreinfo.get(), sub.size_vmcoreinfo.get());
        if !text.is_empty() {
            append_note(&mut notes, "VMCOREINFO", 0, &text);
        }
    }
    notes
}

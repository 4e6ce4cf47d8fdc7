//! Writing a kdump-compressed file, version 6.
//!
//! [`Layout`] says where everything goes, from the headers' contents alone. [`KdumpWriter`] then
//! puts headers and bitmaps down at once, marked as incomplete, and takes pages in whatever order is
//! best: descriptors go by frame number, and point at bytes anywhere. A file whose writing ends early
//! is opened by every reader with the pages that made it; the mark goes when the last one is there.
//!
//! What other readers insist on: crash(8) wants `nr_cpus` above 0 and `machine` to begin with
//! `x86_64`; libkdumpfile takes VMCOREINFO only from the notes, makedumpfile only from
//! `offset_vmcoreinfo`. So both point at the same text.

mod descs;

use std::io;
use std::vec::Vec;

use zerocopy::{FromZeros, IntoBytes};

use super::Compression;
use super::bitmap::PageBitmap;
use super::defs::{
    BLOCK_SIZE, DiskDumpHeader, HEADER_VERSION, KDUMP_SIGNATURE, KdumpSubHeader, PageDesc, Utsname, flags,
};
use crate::notes::Notes;
use crate::sink::WriteAt;

use descs::DescTable;

/// What goes into the headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The crashed kernel's names.
    pub utsname: Utsname,
    /// When it crashed, seconds since 1970; 0 if unknown.
    pub timestamp: i64,
    /// How pages are compressed that shrink.
    pub compression: Compression,
    /// Dump level, for readers to show.
    pub dump_level: u32,
    /// Physical minus link address of the kernel image.
    pub phys_base: u64,
    /// CPUs; written as at least 1.
    pub nr_cpus: u32,
    /// Frames `start..end` whose pages this file of a split set holds; `None` for a whole dump.
    pub split: Option<(u64, u64)>,
    /// ELF notes, as they came with the source.
    pub notes: Vec<u8>,
}

/// Where the parts of the file begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Blocks of sub header and notes.
    pub sub_blocks: u64,
    /// Bytes of each bitmap.
    pub map_bytes: u64,
    /// One past the highest frame.
    pub max_mapnr: u64,
    /// Page descriptors.
    pub nr_descs: u64,
}

impl Layout {
    /// Lays out a dump of `nr_descs` frames below `max_mapnr`.
    #[must_use]
    pub const fn plan(notes_len: u64, max_mapnr: u64, nr_descs: u64) -> Self {
        Self {
            sub_blocks: (size_of::<KdumpSubHeader>() as u64 + notes_len).div_ceil(BLOCK_SIZE),
            map_bytes: max_mapnr.div_ceil(8).next_multiple_of(BLOCK_SIZE),
            max_mapnr,
            nr_descs,
        }
    }

    /// Offset of the notes.
    #[must_use]
    pub const fn notes_at(&self) -> u64 {
        BLOCK_SIZE + size_of::<KdumpSubHeader>() as u64
    }
    /// Offset of the first bitmap.
    #[must_use]
    pub const fn bitmap_at(&self) -> u64 {
        (1 + self.sub_blocks) * BLOCK_SIZE
    }
    /// Offset of the page descriptors.
    #[must_use]
    pub const fn descs_at(&self) -> u64 {
        self.bitmap_at() + 2 * self.map_bytes
    }
    /// Offset of the pages' bytes.
    #[must_use]
    pub const fn data_at(&self) -> u64 {
        self.descs_at() + self.nr_descs * size_of::<PageDesc>() as u64
    }
}

/// A page handed to the writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// All bytes zero: it points at the one zero-filled page of the file.
    Zero,
    /// Its bytes are the next `size` of the data handed over with it.
    Stored {
        /// Bytes in the file.
        size: u32,
        /// [`Compression::flag`], 0 for a page stored as it is.
        flags: u32,
    },
    /// It could not be read; readers are told so when they ask for it.
    Lost,
}

/// A kdump-compressed file being written.
pub struct KdumpWriter<W: WriteAt> {
    out: W,
    layout: Layout,
    header: DiskDumpHeader,
    /// Offset of the shared zero-filled page, if there is one.
    zero_at: Option<u64>,
    data_at: u64,
    descs: DescTable,
    taken: u64,
}

impl<W: WriteAt> KdumpWriter<W> {
    /// Writes headers and notes of a dump of `nr_descs` frames below `max_mapnr`, in a file of a split set of those that
    /// are its own. With `share_zero_page` a
    /// zero-filled page is put where the pages' bytes begin, for [`Page::Zero`] to point at. The bitmaps follow by
    /// [`Self::put_bitmaps`].
    ///
    /// # Errors
    /// If writing fails.
    pub fn begin(
        mut out: W,
        head: &Head,
        max_mapnr: u64,
        nr_descs: u64,
        share_zero_page: bool,
    ) -> io::Result<Self> {
        let layout = Layout::plan(head.notes.len() as u64, max_mapnr, nr_descs);
        let header = main_header(head, &layout)?;
        let sub = sub_header(head, &layout);

        // A full disk must cost pages, not the descriptors of those that made it.
        out.reserve(layout.data_at())?;
        out.write_all_at(&block_of(&header), 0)?;
        out.write_all_at(sub.as_bytes(), BLOCK_SIZE)?;
        out.write_all_at(&head.notes, layout.notes_at())?;

        let mut data_at = layout.data_at();
        let mut zero_at = None;
        if share_zero_page {
            out.write_all_at(&[0; BLOCK_SIZE as usize], data_at)?;
            zero_at = Some(data_at);
            data_at += BLOCK_SIZE;
        }
        let descs = DescTable::new(layout.descs_at(), nr_descs);
        Ok(Self { out, layout, header, zero_at, data_at, descs, taken: 0 })
    }

    /// Writes what two bitmaps say of the frames that they cover: which were memory, and which are in the file. What
    /// is never written says that there is none.
    ///
    /// # Errors
    /// If writing fails.
    pub fn put_bitmaps(&mut self, ram: &PageBitmap, dumped: &PageBitmap) -> io::Result<()> {
        for (map, at) in [(ram, 0), (dumped, self.layout.map_bytes)] {
            // A bitmap's words are those of the file.
            let bytes = map.to_bytes(0);
            self.out.write_all_at(&bytes, self.layout.bitmap_at() + at + map.first() / 8)?;
        }
        Ok(())
    }

    /// Where the parts of the file begin.
    #[must_use]
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// What is written to.
    pub const fn out_mut(&mut self) -> &mut W {
        &mut self.out
    }

    /// Offset at which the next page's bytes will be.
    #[must_use]
    pub const fn position(&self) -> u64 {
        self.data_at
    }

    /// Takes pages, in any order, but each once. `at` is the index of each one's descriptor: how many frames of the
    /// second bitmap come before its own. `data` holds the bytes of the [`Page::Stored`] ones, one behind the other.
    ///
    /// # Errors
    /// If writing fails. What was taken before stays readable.
    ///
    /// # Panics
    /// If `data` is not as long as the pages say, or a zero page comes though none is shared:
    /// mistakes of the caller.
    pub fn push(&mut self, pages: &[Page], at: impl IntoIterator<Item = u64>, data: &[u8]) -> io::Result<()> {
        // Descriptors of pages that are not there must not reach the file.
        self.out.write_all_at(data, self.data_at)?;
        let mut used = 0;
        for (&page, index) in pages.iter().zip(at) {
            let desc = match page {
                Page::Zero => {
                    let at = self.zero_at.expect("a zero-filled page is shared");
                    desc(at, BLOCK_SIZE as u32, 0)
                }
                Page::Stored { size, flags } => {
                    let at = self.data_at + used;
                    used += u64::from(size);
                    desc(at, size, flags)
                }
                Page::Lost => PageDesc::default(),
            };
            self.descs.put(&mut self.out, index, &desc)?;
        }
        assert_eq!(used, data.len() as u64, "data is what the pages say");
        self.taken += pages.len() as u64;
        self.data_at += used;
        Ok(())
    }

    /// Writes the descriptors taken so far, so that what was written can be read.
    ///
    /// # Errors
    /// If writing fails.
    pub fn flush_descs(&mut self) -> io::Result<()> {
        self.descs.flush(&mut self.out)
    }

    /// Ends the file: descriptors, then the header without the incomplete mark, unless `mark_incomplete`.
    /// Returns the output and the file's length.
    ///
    /// # Errors
    /// If writing fails, or fewer or more pages were taken than the second bitmap has.
    pub fn finish(mut self, mark_incomplete: bool) -> io::Result<(W, u64)> {
        self.flush_descs()?;
        if self.taken != self.layout.nr_descs {
            return Err(io::Error::other(std::format!(
                "{} pages were written where the bitmap has {}",
                self.taken,
                self.layout.nr_descs
            )));
        }
        if !mark_incomplete {
            let status = self.header.status.get() & !flags::INCOMPLETE;
            self.header.status = status.into();
            self.out.write_all_at(self.header.as_bytes(), 0)?;
        }
        Ok((self.out, self.data_at))
    }
}

fn desc(offset: u64, size: u32, flags: u32) -> PageDesc {
    PageDesc { offset: offset.into(), size: size.into(), flags: flags.into(), page_flags: 0.into() }
}

fn block_of(header: &DiskDumpHeader) -> [u8; BLOCK_SIZE as usize] {
    let mut block = [0; BLOCK_SIZE as usize];
    block[..size_of::<DiskDumpHeader>()].copy_from_slice(header.as_bytes());
    block
}

fn main_header(head: &Head, layout: &Layout) -> io::Result<DiskDumpHeader> {
    let mut h = DiskDumpHeader::new_zeroed();
    h.signature = KDUMP_SIGNATURE;
    h.header_version = HEADER_VERSION.into();
    h.utsname = head.utsname;
    h.timestamp_sec = head.timestamp.into();
    h.status = (head.compression.flag() | flags::INCOMPLETE).into();
    h.block_size = (BLOCK_SIZE as i32).into();
    h.sub_hdr_size = i32::try_from(layout.sub_blocks).map_err(io::Error::other)?.into();
    h.bitmap_blocks = u32::try_from(2 * layout.map_bytes / BLOCK_SIZE).map_err(io::Error::other)?.into();
    h.max_mapnr = u32::try_from(layout.max_mapnr).unwrap_or(u32::MAX).into();
    h.nr_cpus = i32::try_from(head.nr_cpus.max(1)).unwrap_or(i32::MAX).into();
    Ok(h)
}

fn sub_header(head: &Head, layout: &Layout) -> KdumpSubHeader {
    let mut s = KdumpSubHeader::new_zeroed();
    s.phys_base = head.phys_base.into();
    s.dump_level = i32::try_from(head.dump_level).unwrap_or(i32::MAX).into();
    if !head.notes.is_empty() {
        s.offset_note = layout.notes_at().into();
        s.size_note = (head.notes.len() as u64).into();
    }
    if let Some((at, len)) = vmcoreinfo_in(&head.notes) {
        s.offset_vmcoreinfo = (layout.notes_at() + at).into();
        s.size_vmcoreinfo = len.into();
    }
    let (start, end) = head.split.unwrap_or((0, layout.max_mapnr));
    s.split = i32::from(head.split.is_some()).into();
    s.start_pfn_64 = start.into();
    s.end_pfn_64 = end.into();
    s.max_mapnr_64 = layout.max_mapnr.into();
    s
}

/// Offset and length of VMCOREINFO's text within the notes.
fn vmcoreinfo_in(notes: &[u8]) -> Option<(u64, u64)> {
    let desc = Notes::new(notes).find(|n| n.name == b"VMCOREINFO" && n.kind == 0)?.desc;
    let at = desc.as_ptr().addr().checked_sub(notes.as_ptr().addr())?;
    Some((at as u64, desc.len() as u64))
}

#[cfg(test)]
mod tests;

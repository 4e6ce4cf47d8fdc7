//! Writes kdump-compressed files ("diskdump", header versions 0 to 6), and the flattened form of any dump.
//!
//! Source: makedumpfile `diskdump_mod.h`, `IMPLEMENTATION`.

use std::collections::BTreeSet;
use std::io::Write;

use crate::{Memory, Notes, PAGE_SIZE};

/// How pages are stored; a page that does not shrink is stored raw under any of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Raw.
    None,
    /// A zlib stream.
    Zlib,
    /// One zstd frame.
    Zstd,
}

impl Compression {
    /// Returns the flag of header and page descriptor.
    pub fn flag(self) -> u32 {
        match self {
            Self::None => 0,
            Self::Zlib => 0x1,
            Self::Zstd => 0x20,
        }
    }

    fn compress(self, page: &[u8]) -> Option<Vec<u8>> {
        let packed = match self {
            Self::None => return None,
            Self::Zlib => {
                let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(page).expect("writing to a vector");
                encoder.finish().expect("writing to a vector")
            }
            Self::Zstd => zstd::bulk::compress(page, 1).expect("compressing a page"),
        };
        (packed.len() < page.len()).then_some(packed)
    }
}

/// Builds a kdump-compressed file.
#[derive(Clone, Debug)]
pub struct KdumpFile<'a> {
    memory: &'a Memory,
    notes: Notes,
    utsname: Vec<u8>,
    ram: BTreeSet<u64>,
    stored: BTreeSet<u64>,
    compression: Compression,
    is_zero_page_shared: bool,
    dump_level: i32,
    phys_base: i64,
    nr_cpus: u32,
    keep_pages: Option<usize>,
    signature: &'static [u8; 8],
    version: u32,
    part: Option<(u64, u64)>,
}

/// What stands where a file of an older version has no field, or another one.
const NO_FIELD: u8 = 0xa5;

impl<'a> KdumpFile<'a> {
    /// Status bit of a file that was not finished.
    pub const INCOMPLETE: u32 = 0x8;

    /// Starts a file without pages, zlib, of a machine with one CPU. `utsname` is the 390 bytes of `new_utsname`.
    pub fn new(memory: &'a Memory, notes: Notes, utsname: &[u8]) -> Self {
        assert_eq!(utsname.len(), 390, "new_utsname has 390 bytes");
        Self {
            memory,
            notes,
            utsname: utsname.to_vec(),
            ram: BTreeSet::new(),
            stored: BTreeSet::new(),
            compression: Compression::Zlib,
            is_zero_page_shared: true,
            dump_level: 0,
            phys_base: 0,
            nr_cpus: 1,
            keep_pages: None,
            signature: b"KDUMP   ",
            version: 6,
            part: None,
        }
    }

    /// Declares `phys..phys + len` to be RAM and stores all of it.
    pub fn ram(mut self, phys: u64, len: u64) -> Self {
        let pfns = phys / PAGE_SIZE..(phys + len) / PAGE_SIZE;
        self.ram.extend(pfns.clone());
        self.stored.extend(pfns);
        self
    }

    /// Drops the pages for which `excluded(pfn)` holds; they stay RAM in the first bitmap.
    pub fn exclude(mut self, dump_level: i32, excluded: impl Fn(u64) -> bool) -> Self {
        self.stored.retain(|&pfn| !excluded(pfn));
        self.dump_level = dump_level;
        self
    }

    /// Chooses the compression.
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// Gives each zero-filled page its own compressed copy instead of one shared raw page.
    pub fn own_zero_pages(mut self) -> Self {
        self.is_zero_page_shared = false;
        self
    }

    /// Sets the sub-header's phys_base.
    pub fn phys_base(mut self, phys_base: i64) -> Self {
        self.phys_base = phys_base;
        self
    }

    /// Sets the number of CPUs.
    pub fn cpus(mut self, nr_cpus: u32) -> Self {
        self.nr_cpus = nr_cpus;
        self
    }

    /// Writes only the first `pages` pages, as if the disk had been full: the other descriptors are zero.
    pub fn incomplete_after(mut self, pages: usize) -> Self {
        self.keep_pages = Some(pages);
        self
    }

    /// Writes an older header version, 0 to 5: the sub header is garbage where that version has no field yet.
    pub fn version(mut self, version: u32) -> Self {
        self.version = version;
        self
    }

    /// Writes the older format, diskdump proper: its sub header holds registers, here garbage, and no notes.
    pub fn diskdump(mut self) -> Self {
        self.signature = b"DISKDUMP";
        self.version = 0;
        self
    }

    /// Writes one file of a split set: the bitmaps of all, the pages of frames `start..end`.
    pub fn part(mut self, start: u64, end: u64) -> Self {
        self.part = Some((start, end));
        self
    }

    /// Returns the frames that are stored.
    pub fn stored(&self) -> &BTreeSet<u64> {
        &self.stored
    }

    /// Returns the file.
    pub fn bytes(&self) -> Vec<u8> {
        let block = PAGE_SIZE;
        let max_mapnr = self.ram.last().map_or(0, |pfn| pfn + 1);
        let sub_hdr_blocks = (104 + self.notes.bytes().len() as u64).div_ceil(block);
        let bitmap_len = max_mapnr.div_ceil(8).next_multiple_of(block);
        let bitmaps_at = (1 + sub_hdr_blocks) * block;
        let descs_at = bitmaps_at + 2 * bitmap_len;
        let data_at = descs_at + 24 * self.here().count() as u64;

        let mut out = self.header(sub_hdr_blocks, 2 * bitmap_len / block, max_mapnr);
        out.resize(block as usize, 0);
        let fields = [8, 12, 32, 48, 64, 80, 104][self.version as usize];
        out.extend(&self.sub_header(max_mapnr)[..fields]);
        out.resize(block as usize + 104, NO_FIELD);
        if self.signature == b"DISKDUMP" {
            out[block as usize..].fill(NO_FIELD);
        }
        out.extend(self.notes.bytes());
        out.resize(bitmaps_at as usize, 0);
        out.extend(bitmap(&self.ram, bitmap_len));
        out.extend(bitmap(&self.stored, bitmap_len));

        let (descs, data) = self.pages(data_at);
        out.extend(descs);
        out.extend(data);
        out
    }

    /// Frames whose pages are in this file.
    fn here(&self) -> impl Iterator<Item = u64> {
        let (start, end) = self.part.unwrap_or((0, u64::MAX));
        self.stored.range(start..end).copied()
    }

    fn pages(&self, data_at: u64) -> (Vec<u8>, Vec<u8>) {
        let zeros = [0; PAGE_SIZE as usize];
        let mut descs = Vec::new();
        let mut data = Vec::new();
        if self.is_zero_page_shared {
            data.extend(zeros);
        }
        for (index, pfn) in self.here().enumerate() {
            if self.keep_pages.is_some_and(|keep| index >= keep) {
                descs.extend([0; 24]);
                continue;
            }
            let page = self.memory.page(pfn).unwrap_or(&zeros);
            if self.is_zero_page_shared && page == &zeros {
                descs.extend(page_desc(data_at, PAGE_SIZE, 0));
                continue;
            }
            let offset = data_at + data.len() as u64;
            match self.compression.compress(page) {
                Some(packed) => {
                    descs.extend(page_desc(offset, packed.len() as u64, self.compression.flag()));
                    data.extend(packed);
                }
                None => {
                    descs.extend(page_desc(offset, PAGE_SIZE, 0));
                    data.extend(page);
                }
            }
        }
        (descs, data)
    }

    fn header(&self, sub_hdr_blocks: u64, bitmap_blocks: u64, max_mapnr: u64) -> Vec<u8> {
        let status = self.compression.flag() | if self.keep_pages.is_some() { Self::INCOMPLETE } else { 0 };
        let mut out = self.signature.to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend(&self.utsname);
        out.extend([0; 6]);
        out.extend([0; 16]); // timestamp
        for word in [
            status,
            PAGE_SIZE as u32,
            sub_hdr_blocks as u32,
            bitmap_blocks as u32,
            max_mapnr.min(0xffff_ffff) as u32,
            0, // total_ram_blocks
            0, // device_blocks
            0, // written_blocks
            0, // current_cpu
            self.nr_cpus,
        ] {
            out.extend(word.to_le_bytes());
        }
        out
    }

    fn sub_header(&self, max_mapnr: u64) -> Vec<u8> {
        let notes_at = PAGE_SIZE + 104;
        let (vmcoreinfo, vmcoreinfo_len) = self.notes.vmcoreinfo_range().unwrap_or((0, 0));
        let vmcoreinfo_at = if vmcoreinfo_len == 0 { 0 } else { notes_at + vmcoreinfo as u64 };
        let level = self.dump_level as u32;
        let (start, end) = self.part.unwrap_or((0, 0));
        let split = u64::from(self.part.is_some());
        [
            self.phys_base as u64,
            u64::from(level) | split << 32,
            start,
            end,
            vmcoreinfo_at,
            vmcoreinfo_len as u64,
            notes_at,
            self.notes.bytes().len() as u64,
            0, // offset_eraseinfo
            0, // size_eraseinfo
            start,
            end,
            max_mapnr,
        ]
        .into_iter()
        .flat_map(u64::to_le_bytes)
        .collect()
    }
}

fn page_desc(offset: u64, size: u64, flags: u32) -> Vec<u8> {
    let mut out = offset.to_le_bytes().to_vec();
    out.extend((size as u32).to_le_bytes());
    out.extend(flags.to_le_bytes());
    out.extend([0; 8]);
    out
}

fn bitmap(pfns: &BTreeSet<u64>, len: u64) -> Vec<u8> {
    let mut out = vec![0; len as usize];
    for pfn in pfns {
        out[(pfn / 8) as usize] |= 1 << (pfn % 8);
    }
    out
}

/// Returns `file` in makedumpfile's flattened form: records of up to `chunk` bytes, each with its place. The first
/// record is a lie that a later one overwrites, and the second half of the file comes before the first.
pub fn flatten(file: &[u8], chunk: usize) -> Vec<u8> {
    let mut out = b"makedumpfile\0\0\0\0".to_vec();
    out.extend(1i64.to_be_bytes());
    out.extend(1i64.to_be_bytes());
    out.resize(4096, 0);
    let mut record = |offset: i64, data: &[u8]| {
        out.extend(offset.to_be_bytes());
        out.extend((data.len() as i64).to_be_bytes());
        out.extend(data);
    };
    record(0, &[0xee; 16]);
    let pieces: Vec<_> = file.chunks(chunk).enumerate().collect();
    let (first, second) = pieces.split_at(pieces.len() / 2);
    for (index, data) in second.iter().chain(first) {
        record((index * chunk) as i64, data);
    }
    out.extend((-1i64).to_be_bytes());
    out.extend((-1i64).to_be_bytes());
    out
}

#[cfg(test)]
mod tests;

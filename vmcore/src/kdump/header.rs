//! The two headers of a kdump-compressed file: what they say, and where they say that the rest is.

use std::ops::Range;
use std::string::String;
use std::vec::Vec;

use zerocopy::FromBytes;

use super::Compression;
use super::defs::{
    BLOCK_SIZE, DISKDUMP_SIGNATURE, DiskDumpHeader, KDUMP_SIGNATURE, KdumpSubHeader, Utsname, flags,
};
use super::filemap::FileBitmap;
use super::read::Error;
use crate::image::Image;
use crate::mem::ReadError;
use crate::notes::{Notes, append_note};

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

/// What the headers say, and where the rest is.
#[derive(Debug)]
pub(super) struct Headers {
    pub(super) info: Info,
    /// The sub header, as far as the file's version has it; all zero in a DISKDUMP file.
    sub: KdumpSubHeader,
    /// Version of the sub header: each appended fields.
    sub_version: i32,
    /// Frames that were memory.
    pub(super) ram: FileBitmap,
    /// Frames that have a descriptor: the same bitmap in a file that has but one.
    pub(super) dumped: FileBitmap,
    /// Offset of the page descriptors.
    pub(super) descs_at: u64,
}

impl Headers {
    /// Reads both headers.
    pub(super) fn read(image: &Image) -> Result<Self, Error> {
        let need = BLOCK_SIZE + size_of::<KdumpSubHeader>() as u64;
        if image.len() < need {
            return Err(Error::Short { have: image.len(), need });
        }
        let header: DiskDumpHeader = read_struct(image, 0)?;
        let sub: KdumpSubHeader = read_struct(image, BLOCK_SIZE)?;
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
        // The older format has registers there, and its versions are its own.
        let sub_version = if header.signature == KDUMP_SIGNATURE { version } else { 0 };

        // None of these can pass 2^64: 32-bit block counts times 4096.
        let bitmap_at = (1 + sub_blocks) * BLOCK_SIZE;
        let bitmap_bytes = u64::from(header.bitmap_blocks.get()) * BLOCK_SIZE;
        let max_mapnr = if sub_version >= 6 { sub.max_mapnr_64.get() } else { header.max_mapnr.get().into() };
        // A file with one bitmap stores every frame that is memory; one with two says which it stores.
        let has_two = bitmap_bytes / 2 >= max_mapnr.div_ceil(8).next_multiple_of(BLOCK_SIZE);
        let map_bytes = if has_two { bitmap_bytes / 2 } else { bitmap_bytes };
        let frames = max_mapnr.min(map_bytes.saturating_mul(8));
        if frames > MAX_FRAMES {
            return Err(Error::Field { field: "max_mapnr", value: max_mapnr as i64 });
        }
        // What a short file cannot say is not looked for, whatever its header claims.
        let frames = frames.min(image.len().saturating_sub(bitmap_at).saturating_mul(8));
        let ram = FileBitmap { at: bitmap_at, bits: frames };
        let dumped = if has_two { FileBitmap { at: bitmap_at + map_bytes, bits: frames } } else { ram };

        let split = (sub_version >= 2 && sub.split.get() != 0).then(|| match sub_version {
            6.. => (sub.start_pfn_64.get(), sub.end_pfn_64.get()),
            _ => (sub.start_pfn.get(), sub.end_pfn.get()),
        });
        let status = header.status.get();
        let info = Info {
            version,
            utsname: header.utsname,
            timestamp: header.timestamp_sec.get(),
            dump_level: (sub_version >= 1).then(|| sub.dump_level.get()),
            compression: Compression::from_flags(status),
            is_incomplete: status & flags::INCOMPLETE != 0,
            is_vmemmap_excluded: status & flags::EXCLUDED_VMEMMAP != 0,
            max_mapnr,
            split,
            nr_cpus: header.nr_cpus.get(),
        };
        Ok(Self { info, sub, sub_version, ram, dumped, descs_at: bitmap_at + bitmap_bytes })
    }

    /// The note blob, as much of it as the file has.
    pub(super) fn notes(&self, image: &Image) -> Vec<u8> {
        let read = |at: u64, len: u64| match (at, len) {
            (0, _) | (_, 0) => Vec::new(),
            _ if len > NOTES_MAX => Vec::new(),
            _ => image.read_vec(at, len.min(image.len().saturating_sub(at))).unwrap_or_default(),
        };
        let (sub, version) = (&self.sub, self.sub_version);
        let mut notes =
            if version >= 4 { read(sub.offset_note.get(), sub.size_note.get()) } else { Vec::new() };
        if version >= 3 && !Notes::new(&notes).any(|n| n.name == b"VMCOREINFO" && n.kind == 0) {
            let text = read(sub.offset_vmcoreinfo.get(), sub.size_vmcoreinfo.get());
            if !text.is_empty() {
                append_note(&mut notes, "VMCOREINFO", 0, &text);
            }
        }
        notes
    }

    /// Frames that the file has descriptors for, where their bits are set.
    pub(super) fn frames(&self) -> Range<u64> {
        self.info.split.map_or(0..self.info.max_mapnr, |(start, end)| start..end)
    }

    /// Whether both describe the same memory of the same machine, laid out alike.
    pub(super) fn is_of_one_set_with(&self, other: &Self) -> bool {
        let fixed = |h: &Self| {
            (h.info.version, h.info.utsname, h.info.max_mapnr, h.info.dump_level, h.dumped.at - h.ram.at)
        };
        fixed(self) == fixed(other)
    }
}

fn read_struct<T: FromBytes>(image: &Image, at: u64) -> Result<T, ReadError> {
    let raw = image.read_vec(at, size_of::<T>() as u64)?;
    T::read_from_bytes(&raw).map_err(|_| ReadError::Corrupt { what: "header", at })
}

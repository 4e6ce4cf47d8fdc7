//! Writing an ELF core: one PT_NOTE, then PT_LOADs by ascending physical address.
//!
//! A segment whose file size is below its memory size ends in pages that were excluded, as
//! makedumpfile writes it and as readers take it. The file is marked by bit 0 of `e_flags` until its
//! last byte is there, makedumpfile's mark for a cut ELF dump.
//!
//! Source: System V gABI chapters 4 and 5; include/uapi/linux/elf.h on `PN_XNUM`; makedumpfile
//! `elf_info.h`, `DUMP_ELF_INCOMPLETE`.

use std::io;
use std::vec::Vec;

use kdump_arch_x86::{PAGE_SIZE, PhysRange, VirtAddr};
use zerocopy::IntoBytes;

use super::defs::{DUMP_ELF_INCOMPLETE, Ehdr, PF_RWX, PN_XNUM, PT_LOAD, PT_NOTE, Phdr};
use crate::sink::WriteAt;

/// Bytes of a section header; only the first exists, and only for its `sh_info`.
const SHDR_SIZE: u64 = 64;

/// One PT_LOAD to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Physical addresses it describes.
    pub phys: PhysRange,
    /// Kernel virtual address of its first byte.
    pub virt: VirtAddr,
    /// Bytes in the file, from the first address on; the rest of `phys` is excluded.
    pub file_size: u64,
}

/// Where everything goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    nr_segments: u64,
    notes_len: u64,
}

impl Layout {
    /// Lays out a core.
    #[must_use]
    pub const fn plan(notes_len: u64, nr_segments: u64) -> Self {
        Self { nr_segments, notes_len }
    }

    /// Program headers: the notes and every segment.
    const fn nr_phdrs(&self) -> u64 {
        self.nr_segments + 1
    }

    /// Whether their number does not fit `e_phnum`.
    const fn is_extended(&self) -> bool {
        self.nr_phdrs() >= PN_XNUM as u64
    }

    /// Offset of the section header that holds the number of program headers.
    const fn shdr_at(&self) -> u64 {
        size_of::<Ehdr>() as u64 + self.nr_phdrs() * size_of::<Phdr>() as u64
    }

    /// Offset of the notes.
    #[must_use]
    pub const fn notes_at(&self) -> u64 {
        self.shdr_at() + if self.is_extended() { SHDR_SIZE } else { 0 }
    }

    /// Offset of the first segment's bytes.
    #[must_use]
    pub const fn data_at(&self) -> u64 {
        (self.notes_at() + self.notes_len).next_multiple_of(PAGE_SIZE)
    }

    /// The ELF header, without a mark.
    fn ehdr(&self) -> Ehdr {
        let mut ehdr = Ehdr::core(u16::try_from(self.nr_phdrs()).unwrap_or(PN_XNUM));
        if self.is_extended() {
            ehdr.e_shoff = self.shdr_at().into();
            ehdr.e_shentsize = (SHDR_SIZE as u16).into();
            ehdr.e_shnum = 1.into();
        }
        ehdr
    }

    fn note(&self) -> Phdr {
        Phdr {
            p_type: PT_NOTE.into(),
            p_flags: 0.into(),
            p_offset: self.notes_at().into(),
            p_vaddr: 0.into(),
            p_paddr: 0.into(),
            p_filesz: self.notes_len.into(),
            p_memsz: self.notes_len.into(),
            p_align: 4.into(),
        }
    }

    /// The section header, if one is needed.
    fn shdr(&self) -> Option<[u8; SHDR_SIZE as usize]> {
        self.is_extended().then(|| {
            let mut shdr = [0; SHDR_SIZE as usize];
            shdr[32..40].copy_from_slice(&1u64.to_le_bytes()); // sh_size: the number of section headers
            shdr[44..48].copy_from_slice(&(self.nr_phdrs() as u32).to_le_bytes()); // sh_info
            shdr
        })
    }
}

/// An ELF core being written, from its first byte to its last but for the mark in its header.
pub struct ElfWriter<W: WriteAt> {
    out: W,
    layout: Layout,
    ehdr: Ehdr,
    /// Program headers that were not written yet, and where they go.
    phdrs: Vec<u8>,
    phdrs_at: u64,
    nr_segments: u64,
    /// Offset of the next byte of the segments that were named, and of the bytes taken.
    end: u64,
    position: u64,
    /// Whether the file would end too early if it ended here.
    has_hole_at_end: bool,
}

/// Program headers are written when they fill this many bytes.
const PHDRS_BUFFER: usize = 64 << 10;

impl<W: WriteAt> ElfWriter<W> {
    /// Writes the header. What is `is_marked` says that it is incomplete until [`Self::finish`]; an output that cannot
    /// go back to its first bytes has no such mark. The segments are named next, by [`Self::segment`].
    ///
    /// # Errors
    /// If writing fails, or there are more segments than `PN_XNUM` can count.
    pub fn begin(mut out: W, layout: Layout, is_marked: bool) -> io::Result<Self> {
        u32::try_from(layout.nr_phdrs()).map_err(io::Error::other)?;
        let mut ehdr = layout.ehdr();
        if is_marked {
            ehdr.e_flags = DUMP_ELF_INCOMPLETE.into();
        }
        out.write_all_at(ehdr.as_bytes(), 0)?;
        let data_at = layout.data_at();
        Ok(Self {
            out,
            layout,
            ehdr,
            phdrs: layout.note().as_bytes().to_vec(),
            phdrs_at: size_of::<Ehdr>() as u64,
            nr_segments: 0,
            end: data_at,
            position: data_at,
            has_hole_at_end: false,
        })
    }

    /// Names the next segment.
    ///
    /// # Errors
    /// If writing fails.
    pub fn segment(&mut self, s: &Segment) -> io::Result<()> {
        let load = Phdr {
            p_type: PT_LOAD.into(),
            p_flags: PF_RWX.into(),
            p_offset: self.end.into(),
            p_vaddr: s.virt.0.into(),
            p_paddr: s.phys.start().0.into(),
            p_filesz: s.file_size.into(),
            p_memsz: s.phys.len().into(),
            p_align: 0.into(),
        };
        self.phdrs.extend_from_slice(load.as_bytes());
        self.end = self.end.saturating_add(s.file_size);
        self.nr_segments += 1;
        if self.phdrs.len() >= PHDRS_BUFFER { self.flush_phdrs() } else { Ok(()) }
    }

    fn flush_phdrs(&mut self) -> io::Result<()> {
        self.out.write_all_at(&self.phdrs, self.phdrs_at)?;
        self.phdrs_at += self.phdrs.len() as u64;
        self.phdrs.clear();
        Ok(())
    }

    /// Ends the headers, writes the notes. The segments' bytes follow.
    ///
    /// # Errors
    /// If writing fails, or fewer or more segments were named than laid out.
    ///
    /// # Panics
    /// If `notes` are not as long as the layout was told: a mistake of the caller.
    pub fn end_headers(&mut self, notes: &[u8]) -> io::Result<()> {
        assert_eq!(notes.len() as u64, self.layout.notes_len, "notes are what was laid out");
        if self.nr_segments != self.layout.nr_segments {
            return Err(io::Error::other(std::format!(
                "{} segments were named where {} were laid out",
                self.nr_segments,
                self.layout.nr_segments
            )));
        }
        self.flush_phdrs()?;
        if let Some(shdr) = self.layout.shdr() {
            self.out.write_all_at(&shdr, self.layout.shdr_at())?;
        }
        self.out.write_all_at(notes, self.layout.notes_at())
    }

    /// Offset of the next byte.
    #[must_use]
    pub const fn position(&self) -> u64 {
        self.position
    }

    /// Takes the next bytes of the segments, in their order.
    ///
    /// # Errors
    /// If writing fails.
    pub fn push(&mut self, data: &[u8]) -> io::Result<()> {
        self.out.write_all_at(data, self.position)?;
        self.position += data.len() as u64;
        self.has_hole_at_end = false;
        Ok(())
    }

    /// Takes the next bytes to be zeros, and leaves a hole for them.
    pub const fn skip(&mut self, len: u64) {
        self.position = self.position.saturating_add(len);
        self.has_hole_at_end = true;
    }

    /// Ends the file: takes the incomplete mark off, unless told to leave it. Returns the output and the
    /// file's length.
    ///
    /// # Errors
    /// If writing fails, or fewer or more bytes were taken than the segments have.
    pub fn finish(mut self, mark_incomplete: bool) -> io::Result<(W, u64)> {
        if self.position != self.end {
            return Err(io::Error::other(std::format!(
                "the segments' bytes end at {:#x}, not at {:#x}",
                self.position,
                self.end
            )));
        }
        if let Some(last) = self.end.checked_sub(1).filter(|_| self.has_hole_at_end) {
            self.out.write_all_at(&[0], last)?;
        }
        if !mark_incomplete && self.ehdr.e_flags.get() != 0 {
            self.ehdr.e_flags = 0.into();
            self.out.write_all_at(self.ehdr.as_bytes(), 0)?;
        }
        Ok((self.out, self.end))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use kdump_arch_x86::PhysAddr;

    use super::*;
    use crate::elf::read::ElfCore;
    use crate::file::DumpFile;
    use crate::mem::{PhysMem, ReadError};

    fn begin(segments: &[Segment]) -> ElfWriter<Vec<u8>> {
        let layout = Layout::plan(5, segments.len() as u64);
        let mut w = ElfWriter::begin(Vec::new(), layout, true).unwrap();
        segments.iter().for_each(|s| w.segment(s).unwrap());
        w.end_headers(b"notes").unwrap();
        w
    }

    fn write(segments: &[Segment]) -> ElfCore {
        let mut w = begin(segments);
        for (i, s) in segments.iter().enumerate() {
            w.push(&std::vec![(i as u8).wrapping_add(1); s.file_size as usize]).unwrap();
        }
        let (bytes, len) = w.finish(false).unwrap();
        // A core of nothing but excluded pages ends before its first page would.
        assert!(bytes.len() as u64 <= len);
        open(&bytes)
    }

    fn open(bytes: &[u8]) -> ElfCore {
        let path = std::env::temp_dir().join(std::format!("elf-write-{}-{bytes:p}", std::process::id()));
        std::fs::File::create(&path).unwrap().write_all(bytes).unwrap();
        let file = DumpFile::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        ElfCore::open(file).unwrap()
    }

    #[test]
    fn an_unfinished_core_says_so() {
        let segment =
            Segment { phys: PhysRange::new(0x1000, 0x2000), virt: VirtAddr(0x1000), file_size: 0x1000 };
        for unfinished in [true, false] {
            let mut w = begin(&[segment]);
            w.push(&[7; 0x1000]).unwrap();
            let core = open(&w.finish(unfinished).unwrap().0);
            assert_eq!((core.is_marked_incomplete(), core.is_cut()), (unfinished, false));
        }
    }

    #[test]
    fn segments_that_were_not_named_are_no_core() {
        let mut w = ElfWriter::begin(Vec::new(), Layout::plan(5, 1), true).unwrap();
        assert!(w.end_headers(b"notes").unwrap_err().to_string().contains("0 segments"));
    }

    #[test]
    fn a_hole_reads_as_zeros_at_the_end_too() {
        let segment =
            Segment { phys: PhysRange::new(0x1000, 0x4000), virt: VirtAddr(0x1000), file_size: 0x3000 };
        let mut w = begin(&[segment]);
        w.skip(0x1000);
        w.push(&[7; 0x1000]).unwrap();
        w.skip(0x1000);
        let (bytes, len) = w.finish(false).unwrap();
        assert_eq!(bytes.len() as u64, len);
        let core = open(&bytes);
        let words = [0x1000, 0x2000, 0x3ff8].map(|at| core.read_u64(PhysAddr(at)).unwrap());
        assert_eq!(words, [0, 0x0707_0707_0707_0707, 0]);
    }

    #[test]
    fn held_and_excluded_pages_read_back() {
        let s = |start, end, file_size| Segment {
            phys: PhysRange::new(start, end),
            virt: VirtAddr(start),
            file_size,
        };
        let core = write(&[s(0x1000, 0x3000, 0x1000), s(0x3000, 0x5000, 0x2000)]);
        assert_eq!(core.notes(), b"notes");
        assert_eq!(core.read_u64(PhysAddr(0x1ff8)), Ok(0x0101_0101_0101_0101));
        assert!(matches!(core.read_u64(PhysAddr(0x2000)), Err(ReadError::Excluded { .. })));
        assert_eq!(core.read_u64(PhysAddr(0x4000)), Ok(0x0202_0202_0202_0202));
    }

    /// Check that more segments than e_phnum can count are read back all.
    #[test]
    fn seventy_thousand_segments_use_pn_xnum() {
        let segments: Vec<_> = (0..70_000u64)
            .map(|i| Segment {
                phys: PhysRange::new(i * 0x2000, i * 0x2000 + 0x2000),
                virt: VirtAddr(0),
                file_size: 8,
            })
            .collect();
        let core = write(&segments);
        assert_eq!(core.ranges().count(), 70_000);
        assert_eq!(core.read_u64(PhysAddr(69_999 * 0x2000)).map(|v| v as u8), Ok((70_000u32) as u8));
    }
}

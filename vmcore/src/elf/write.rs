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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    segments: Vec<Segment>,
    notes_len: u64,
}

impl Layout {
    /// Lays out a core.
    #[must_use]
    pub const fn plan(notes_len: u64, segments: Vec<Segment>) -> Self {
        Self { segments, notes_len }
    }

    /// Program headers: the notes and every segment.
    const fn nr_phdrs(&self) -> u64 {
        self.segments.len() as u64 + 1
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

    fn headers(&self) -> Vec<u8> {
        let phnum = u16::try_from(self.nr_phdrs()).unwrap_or(PN_XNUM);
        let mut ehdr = Ehdr::core(phnum);
        ehdr.e_flags = DUMP_ELF_INCOMPLETE.into();
        if self.is_extended() {
            ehdr.e_shoff = self.shdr_at().into();
            ehdr.e_shentsize = (SHDR_SIZE as u16).into();
            ehdr.e_shnum = 1.into();
        }
        let mut out = ehdr.as_bytes().to_vec();
        let note = Phdr {
            p_type: PT_NOTE.into(),
            p_flags: 0.into(),
            p_offset: self.notes_at().into(),
            p_vaddr: 0.into(),
            p_paddr: 0.into(),
            p_filesz: self.notes_len.into(),
            p_memsz: self.notes_len.into(),
            p_align: 4.into(),
        };
        out.extend_from_slice(note.as_bytes());
        let mut offset = self.data_at();
        for s in &self.segments {
            let load = Phdr {
                p_type: PT_LOAD.into(),
                p_flags: PF_RWX.into(),
                p_offset: offset.into(),
                p_vaddr: s.virt.0.into(),
                p_paddr: s.phys.start().0.into(),
                p_filesz: s.file_size.into(),
                p_memsz: s.phys.len().into(),
                p_align: 0.into(),
            };
            out.extend_from_slice(load.as_bytes());
            offset += s.file_size;
        }
        if self.is_extended() {
            let mut shdr = [0; SHDR_SIZE as usize];
            shdr[32..40].copy_from_slice(&1u64.to_le_bytes()); // sh_size: the number of section headers
            shdr[44..48].copy_from_slice(&(self.nr_phdrs() as u32).to_le_bytes()); // sh_info
            out.extend_from_slice(&shdr);
        }
        out
    }
}

/// An ELF core being written.
pub struct ElfWriter<W: WriteAt> {
    out: W,
    /// First bytes of the file, to be written again without the mark.
    ehdr: Vec<u8>,
    position: u64,
    end: u64,
    /// Whether the file would end too early if it ended here.
    has_hole_at_end: bool,
}

impl<W: WriteAt> ElfWriter<W> {
    /// Writes headers and notes.
    ///
    /// # Errors
    /// If writing fails, or there are more segments than `PN_XNUM` can count.
    ///
    /// # Panics
    /// If `notes` are not as long as `layout` was told: a mistake of the caller.
    pub fn begin(mut out: W, notes: &[u8], layout: &Layout) -> io::Result<Self> {
        assert_eq!(notes.len() as u64, layout.notes_len, "notes are what was laid out");
        u32::try_from(layout.nr_phdrs()).map_err(io::Error::other)?;
        let headers = layout.headers();
        out.write_all_at(&headers, 0)?;
        out.write_all_at(notes, layout.notes_at())?;
        let held: u64 = layout.segments.iter().map(|s| s.file_size).sum();
        let position = layout.data_at();
        Ok(Self {
            out,
            ehdr: headers[..size_of::<Ehdr>()].to_vec(),
            position,
            end: position + held,
            has_hole_at_end: false,
        })
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
        if !mark_incomplete {
            self.ehdr[48..52].copy_from_slice(&0u32.to_le_bytes()); // e_flags
            self.out.write_all_at(&self.ehdr, 0)?;
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

    fn write(segments: Vec<Segment>) -> ElfCore {
        let layout = Layout::plan(5, segments);
        let mut w = ElfWriter::begin(Vec::new(), b"notes", &layout).unwrap();
        for (i, s) in layout.segments.iter().enumerate() {
            w.push(&std::vec![(i as u8).wrapping_add(1); s.file_size as usize]).unwrap();
        }
        let (bytes, len) = w.finish(false).unwrap();
        // A core of nothing but excluded pages ends before its first page would.
        assert!(bytes.len() as u64 <= len);
        open(&bytes, &layout)
    }

    #[test]
    fn an_unfinished_core_says_so() {
        let segment =
            Segment { phys: PhysRange::new(0x1000, 0x2000), virt: VirtAddr(0x1000), file_size: 0x1000 };
        for unfinished in [true, false] {
            let layout = Layout::plan(5, std::vec![segment]);
            let mut w = ElfWriter::begin(Vec::new(), b"notes", &layout).unwrap();
            w.push(&[7; 0x1000]).unwrap();
            let core = open(&w.finish(unfinished).unwrap().0, &layout);
            assert_eq!((core.is_marked_incomplete(), core.is_cut()), (unfinished, false));
        }
    }

    fn open(bytes: &[u8], unique: &Layout) -> ElfCore {
        let path = std::env::temp_dir().join(std::format!("elf-write-{}-{unique:p}", std::process::id()));
        std::fs::File::create(&path).unwrap().write_all(bytes).unwrap();
        let file = DumpFile::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        ElfCore::open(file).unwrap()
    }

    #[test]
    fn a_hole_reads_as_zeros_at_the_end_too() {
        let segment =
            Segment { phys: PhysRange::new(0x1000, 0x4000), virt: VirtAddr(0x1000), file_size: 0x3000 };
        let layout = Layout::plan(5, std::vec![segment]);
        let mut w = ElfWriter::begin(Vec::new(), b"notes", &layout).unwrap();
        w.skip(0x1000);
        w.push(&[7; 0x1000]).unwrap();
        w.skip(0x1000);
        let (bytes, len) = w.finish(false).unwrap();
        assert_eq!(bytes.len() as u64, len);
        let core = open(&bytes, &layout);
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
        let core = write(std::vec![s(0x1000, 0x3000, 0x1000), s(0x3000, 0x5000, 0x2000)]);
        assert_eq!(core.notes(), b"notes");
        assert_eq!(core.read_u64(PhysAddr(0x1ff8)), Ok(0x0101_0101_0101_0101));
        assert!(matches!(core.read_u64(PhysAddr(0x2000)), Err(ReadError::Excluded { .. })));
        assert_eq!(core.read_u64(PhysAddr(0x4000)), Ok(0x0202_0202_0202_0202));
    }

    /// Check that more segments than e_phnum can count are read back all.
    #[test]
    fn seventy_thousand_segments_use_pn_xnum() {
        let segments = (0..70_000u64)
            .map(|i| Segment {
                phys: PhysRange::new(i * 0x2000, i * 0x2000 + 0x2000),
                virt: VirtAddr(0),
                file_size: 8,
            })
            .collect();
        let core = write(segments);
        assert_eq!(core.ranges().count(), 70_000);
        assert_eq!(core.read_u64(PhysAddr(69_999 * 0x2000)).map(|v| v as u8), Ok((70_000u32) as u8));
    }
}

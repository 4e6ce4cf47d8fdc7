//! Reading an ELF core: which bytes of the file are which physical memory.
//!
//! Source: System V gABI chapter 5; fs/proc/vmcore.c for the kernel's, and makedumpfile's habits
//! for filtered ones (`p_filesz < p_memsz`: the rest was excluded).

use std::vec::Vec;

use goblin::container::{Container, Ctx};
use goblin::elf::{Elf, ProgramHeader};
use goblin::error::Error as GoblinError;
use kdump_arch_x86::{PhysAddr, PhysRange, VirtAddr};

use crate::elf::defs::{DUMP_ELF_INCOMPLETE, EM_X86_64, ET_CORE, PN_XNUM, PT_LOAD, PT_NOTE};
use crate::file::Piece;
use crate::image::Image;
use crate::mem::{PhysMem, ReadError};
use crate::notes::Notes;

/// A file that looks like ELF but is not a core this program reads.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file ends inside the ELF header.
    #[error("an ELF file of only {have} bytes: its header alone has 64")]
    Short {
        /// Bytes in the file.
        have: u64,
    },
    /// The ELF header does not parse.
    #[error("damaged ELF header: {0}")]
    Header(GoblinError),
    /// Another kind of ELF file.
    #[error("an ELF file, but not a core: e_type is {e_type} ({}), not 4", goblin::elf::header::et_to_str(*e_type))]
    NotACore {
        /// What it says it is.
        e_type: u16,
    },
    /// Another machine's core.
    #[error(
        "a core of another machine: class {class}, e_machine {e_machine}; only x86-64 (class 2, 62) is read"
    )]
    WrongMachine {
        /// 1 for 32 bits, 2 for 64.
        class: u8,
        /// Number of the machine.
        e_machine: u16,
    },
    /// No memory in it.
    #[error("an ELF core without any PT_LOAD: it holds no memory")]
    NoMemory,
    /// The headers themselves cannot be read.
    #[error("its program headers cannot be read: {0}")]
    Read(ReadError),
}

/// One PT_LOAD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Physical addresses it describes.
    pub phys: PhysRange,
    /// Kernel virtual address of its first byte, as whoever wrote the dump believed.
    pub virt: VirtAddr,
    /// Where its bytes are in the file.
    pub offset: u64,
    /// How many bytes the file holds; the rest of `phys` was excluded.
    pub file_size: u64,
}

/// An ELF core's memory.
#[derive(Debug)]
pub struct ElfCore {
    file: Image,
    /// Sorted by physical address, without overlap.
    loads: Vec<Load>,
    /// The PT_LOADs as the file has them.
    headers: Vec<Load>,
    notes: Vec<u8>,
    is_marked_incomplete: bool,
}

/// Notes larger than this, all segments together, are not read: 8192 CPUs' registers and VMCOREINFO are 3 MB, device dumps
/// come first and can be larger.
const NOTES_MAX: u64 = 256 << 20;

impl ElfCore {
    /// Reads the headers and notes.
    ///
    /// # Errors
    /// If it is not an x86-64 core with memory in it.
    pub fn open(file: impl Into<Image>) -> Result<Self, Error> {
        let file = file.into();
        if file.len() < 64 {
            return Err(Error::Short { have: file.len() });
        }
        let mut head = [0; 64];
        file.read_at(0, &mut head).map_err(Error::Read)?;
        let header = Elf::parse_header(&head).map_err(Error::Header)?;
        if header.e_type != ET_CORE {
            return Err(Error::NotACore { e_type: header.e_type });
        }
        let class = header.e_ident[4];
        if header.e_machine != EM_X86_64 || class != 2 || header.e_ident[5] != 1 {
            return Err(Error::WrongMachine { class, e_machine: header.e_machine });
        }
        let count = match header.e_phnum {
            PN_XNUM => extended_phnum(&file, header.e_shoff)?,
            n => u64::from(n),
        };
        // QEMU 7.2 writes e_ehsize 8; e_phentsize is right, and 56 is what any reader can parse.
        let table = file.read_vec(header.e_phoff, count * 56).map_err(Error::Read)?;
        let ctx = Ctx::new(Container::Big, goblin::container::Endian::Little);
        let phdrs = ProgramHeader::parse(&table, 0, table.len() / 56, ctx).map_err(Error::Header)?;

        let mut notes = Vec::new();
        let mut last_notes = 0;
        let mut room = NOTES_MAX;
        let mut headers = Vec::new();
        for ph in phdrs {
            match ph.p_type {
                PT_NOTE => {
                    // A cut note segment still begins with whole notes.
                    let have = ph.p_filesz.min(file.len().saturating_sub(ph.p_offset));
                    // Any number of segments can name the same bytes.
                    let Some(left) = room.checked_sub(have).filter(|_| have > 0) else { continue };
                    room = left;
                    // What pads the segment before would end the walk ahead of this one.
                    let whole = last_notes + Notes::whole_len(&notes[last_notes..]);
                    notes.truncate(whole);
                    notes.resize(whole.next_multiple_of(4), 0);
                    last_notes = notes.len();
                    notes.extend(file.read_vec(ph.p_offset, have).unwrap_or_default());
                }
                // QEMU marks a memory block that is not in the file by offset -1.
                PT_LOAD if ph.p_offset != u64::MAX => {
                    let Some(phys) = PhysRange::from_len(ph.p_paddr, ph.p_memsz.max(ph.p_filesz)) else {
                        continue;
                    };
                    headers.push(Load {
                        phys,
                        virt: VirtAddr(ph.p_vaddr),
                        offset: ph.p_offset,
                        file_size: ph.p_filesz,
                    });
                }
                _ => {}
            }
        }
        let loads = without_overlaps(&headers);
        if loads.is_empty() {
            return Err(Error::NoMemory);
        }
        let is_marked_incomplete = header.e_flags & DUMP_ELF_INCOMPLETE != 0;
        Ok(Self { file, loads, headers, notes, is_marked_incomplete })
    }

    /// The PT_LOADs as the file has them, in file order.
    #[must_use]
    pub fn headers(&self) -> &[Load] {
        &self.headers
    }

    /// The bytes of all PT_NOTE segments.
    #[must_use]
    pub fn notes(&self) -> &[u8] {
        &self.notes
    }

    /// Whether its writer said that it was never finished.
    #[must_use]
    pub const fn is_marked_incomplete(&self) -> bool {
        self.is_marked_incomplete
    }

    /// Whether the file ends before its last segment does: it was cut.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.file.is_cut()
            || self
                .loads
                .iter()
                .any(|l| l.offset.checked_add(l.file_size).is_none_or(|end| end > self.file.len()))
    }

    /// The PT_LOAD that a physical address is read from, if any.
    #[must_use]
    pub fn load_at(&self, at: PhysAddr) -> Option<&Load> {
        let i = self.loads.partition_point(|l| l.phys.end() <= at);
        self.loads.get(i).filter(|l| l.phys.contains(at))
    }

    /// Physical ranges the core describes, sorted, without overlap.
    pub fn ranges(&self) -> impl Iterator<Item = PhysRange> {
        self.loads.iter().map(|l| l.phys)
    }

    /// Finds the load and how many bytes the file holds from `at` on.
    fn locate(&self, at: PhysAddr) -> Result<(u64, u64), ReadError> {
        let load = self.load_at(at).ok_or(ReadError::NotInDump { phys: at })?;
        let inside = at.0 - load.phys.start().0;
        if inside >= load.file_size {
            return Err(ReadError::Excluded { pfn: at.pfn() });
        }
        let offset = load
            .offset
            .checked_add(inside)
            .ok_or(ReadError::Corrupt { what: "PT_LOAD passes 2^64", at: load.offset })?;
        Ok((offset, load.file_size - inside))
    }
}

impl ElfCore {
    /// Gives up what is mapped as a whole.
    pub(crate) fn unmap(&mut self) {
        self.file.unmap();
    }
}

impl PhysMem for ElfCore {
    fn read(&self, at: PhysAddr, buf: &mut [u8]) -> Result<(), ReadError> {
        let mut done = 0;
        while done < buf.len() {
            let here = at.checked_add(done as u64).ok_or(ReadError::NotInDump { phys: at })?;
            let (offset, have) = self.locate(here)?;
            let n = usize::try_from(have).unwrap_or(usize::MAX).min(buf.len() - done);
            self.file.read_at(offset, &mut buf[done..done + n])?;
            done += n;
        }
        Ok(())
    }

    fn borrow(&self, at: PhysAddr, len: usize) -> Option<&[u8]> {
        let (offset, have) = self.locate(at).ok()?;
        (have >= len as u64).then(|| self.file.borrow(offset, len))?
    }

    fn window(&self, at: PhysAddr, len: usize) -> Option<&[u8]> {
        let (offset, have) = self.locate(at).ok()?;
        (have >= len as u64).then(|| self.file.window(offset, len))?
    }

    fn piece(&self, at: PhysAddr, len: usize) -> Option<Piece> {
        let (offset, have) = self.locate(at).ok()?;
        (have >= len as u64).then(|| self.file.piece(offset, len))?
    }
}

/// With 65535 or more segments the count is `sh_info` of section header 0 (bytes 44 to 47).
fn extended_phnum(file: &Image, e_shoff: u64) -> Result<u64, Error> {
    let at =
        e_shoff.checked_add(44).ok_or(Error::Read(ReadError::Corrupt { what: "e_shoff", at: e_shoff }))?;
    let mut b = [0; 4];
    file.read_at(at, &mut b).map_err(Error::Read)?;
    Ok(u64::from(u32::from_le_bytes(b)))
}

/// The kernel text's PT_LOAD repeats a piece of a RAM range: each byte is kept once.
fn without_overlaps(headers: &[Load]) -> Vec<Load> {
    let mut sorted: Vec<Load> = headers.iter().copied().filter(|l| !l.phys.is_empty()).collect();
    sorted.sort_by_key(|l| (l.phys.start(), core::cmp::Reverse(l.phys.end())));
    let mut out: Vec<Load> = Vec::with_capacity(sorted.len());
    for mut load in sorted {
        if let Some(covered) = out.last().map(|l| l.phys.end()).filter(|&end| end > load.phys.start()) {
            let Some(rest) = PhysRange::try_new(covered.0, load.phys.end().0).filter(|r| !r.is_empty())
            else {
                continue;
            };
            let skipped = covered.0 - load.phys.start().0;
            load = Load {
                phys: rest,
                virt: load.virt.wrapping_add(skipped),
                offset: load.offset.saturating_add(skipped),
                file_size: load.file_size.saturating_sub(skipped),
            };
        }
        out.push(load);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::DumpFile;

    fn load(start: u64, end: u64, offset: u64, file_size: u64) -> Load {
        Load { phys: PhysRange::new(start, end), virt: VirtAddr(0), offset, file_size }
    }

    #[test]
    fn the_text_segment_repeats_ram_and_is_dropped() {
        let ram = load(0x10_0000, 0x20_0000, 0x1000, 0x10_0000);
        let text = load(0x12_0000, 0x13_0000, 0x90_0000, 0x1_0000);
        assert_eq!(without_overlaps(&[text, ram]), [ram]);
    }

    /// An ELF core of these note segments, given as ranges of `notes`, and one page.
    fn with_notes(notes: &[u8], segments: &[(u64, u64)]) -> ElfCore {
        use crate::elf::defs::{Ehdr, Phdr};
        use zerocopy::{FromZeros, IntoBytes};

        let mut bytes = Ehdr::core(segments.len() as u16 + 1).as_bytes().to_vec();
        let at = 64 + 56 * (segments.len() as u64 + 1);
        let mut ph = Phdr::new_zeroed();
        ph.p_type = PT_NOTE.into();
        for (offset, len) in segments {
            (ph.p_offset, ph.p_filesz) = ((at + offset).into(), (*len).into());
            bytes.extend(ph.as_bytes());
        }
        (ph.p_type, ph.p_filesz, ph.p_memsz) = (PT_LOAD.into(), 0.into(), 4096.into());
        bytes.extend(ph.as_bytes());
        bytes.extend(notes);
        let path = std::env::temp_dir().join(std::format!("elf-notes-{}-{notes:p}", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        let file = DumpFile::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        ElfCore::open(file).unwrap()
    }

    #[test]
    fn a_padded_note_segment_does_not_hide_the_next() {
        let mut notes = Vec::new();
        crate::notes::append_note(&mut notes, "CORE", 1, &[7; 5]);
        let first = notes.len() as u64;
        notes.extend([0; 24]);
        let second_at = notes.len() as u64;
        crate::notes::append_note(&mut notes, "VMCOREINFO", 0, b"x=y\n");
        let second = (second_at, notes.len() as u64 - second_at);
        // Padded; without even the padding of its last note.
        for first in [(0, first + 24), (0, first - 3)] {
            let core = with_notes(&notes, &[first, second]);
            assert_eq!(Notes::new(core.notes()).count(), 2);
        }
    }

    #[test]
    fn notes_named_again_and_again_are_bounded() {
        let notes = std::vec![1; 64 << 20];
        let core = with_notes(&notes, &[(0, notes.len() as u64); 9]);
        assert!(core.notes().len() as u64 <= NOTES_MAX);
    }

    #[test]
    fn a_partial_overlap_keeps_its_tail() {
        let a = load(0, 0x2000, 0, 0x2000);
        let b = load(0x1000, 0x4000, 0x8000, 0x2000);
        let kept = without_overlaps(&[a, b]);
        assert_eq!(
            (kept[1].phys, kept[1].offset, kept[1].file_size),
            (PhysRange::new(0x2000, 0x4000), 0x9000, 0x1000)
        );
    }
}

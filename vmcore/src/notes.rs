//! ELF notes: a walk that ends at the first contradiction.
//!
//! Source: System V gABI chapter 5, "Note Section"; fs/proc/vmcore.c for how the kernel merges
//! its notes; kernel/vmcore_info.c, `append_elf_note`.

use alloc::vec::Vec;
use zerocopy::FromBytes;

use kdump_arch_x86::regs::ElfPrstatus;

use crate::elf::defs::{NT_PRSTATUS, Nhdr};
use crate::vmcoreinfo::VmcoreInfo;

/// One note.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note<'a> {
    /// Its name without the NUL.
    pub name: &'a [u8],
    /// Its type, which has a meaning only together with the name.
    pub kind: u32,
    /// Its payload.
    pub desc: &'a [u8],
}

/// Walks the notes in a PT_NOTE segment. Stops at a zero name size, which ends the kernel's note
/// buffers, and at a note that does not fit.
#[derive(Clone, Debug)]
pub struct Notes<'a> {
    rest: &'a [u8],
}

impl<'a> Notes<'a> {
    /// Starts at the segment's first byte.
    #[must_use]
    pub const fn new(segment: &'a [u8]) -> Self {
        Self { rest: segment }
    }

    /// Bytes of `segment` that whole notes take; what is behind them is padding, or cut.
    #[must_use]
    pub fn whole_len(segment: &'a [u8]) -> usize {
        let mut notes = Self::new(segment);
        let mut len = 0;
        while notes.next().is_some() {
            len = segment.len() - notes.rest.len();
        }
        len
    }
}

impl<'a> Iterator for Notes<'a> {
    type Item = Note<'a>;

    fn next(&mut self) -> Option<Note<'a>> {
        let rest = core::mem::take(&mut self.rest);
        let (header, body) = Nhdr::read_from_prefix(rest).ok()?;
        let name_len = header.n_namesz.get() as usize;
        let desc_len = header.n_descsz.get() as usize;
        if name_len == 0 {
            return None;
        }
        let desc_at = name_len.checked_next_multiple_of(4)?;
        let desc = body.get(desc_at..desc_at.checked_add(desc_len)?)?;
        let name = body.get(..name_len)?;
        let name = name.split(|&b| b == 0).next().unwrap_or_default();
        // The last note's padding may be cut off.
        let next = desc_at + desc_len.next_multiple_of(4);
        self.rest = body.get(next..).unwrap_or_default();
        Some(Note { name, kind: header.n_type.get(), desc })
    }
}

/// What the notes of a kernel core hold.
#[derive(Clone, Debug, Default)]
pub struct KernelNotes {
    /// Registers, one per CPU that answered at the crash. The index is *not* the CPU number: a CPU
    /// that never answered leaves no note.
    pub prstatus: Vec<ElfPrstatus>,
    /// The kernel's VMCOREINFO.
    pub vmcoreinfo: Option<VmcoreInfo>,
}

impl KernelNotes {
    /// Sorts out a PT_NOTE segment.
    #[must_use]
    pub fn parse(segment: &[u8]) -> Self {
        let mut out = Self::default();
        for note in Notes::new(segment) {
            match (note.name, note.kind) {
                (b"CORE", NT_PRSTATUS) => {
                    out.prstatus.extend(ElfPrstatus::read_from_prefix(note.desc).ok().map(|(s, _)| s));
                }
                // The first of several, as wherever else one is looked for.
                (b"VMCOREINFO", 0) if out.vmcoreinfo.is_none() => {
                    out.vmcoreinfo = Some(VmcoreInfo::parse(note.desc));
                }
                _ => {}
            }
        }
        out
    }
}

/// Appends a note: header, name with its NUL, payload, each padded to 4 bytes.
///
/// # Panics
/// If the payload is longer than a note can say (4 GiB).
pub fn append_note(out: &mut Vec<u8>, name: &str, kind: u32, desc: &[u8]) {
    let desc_len = u32::try_from(desc.len()).expect("a note's payload is below 4 GiB");
    let name_len = u32::try_from(name.len() + 1).expect("a note's name is short");
    out.extend_from_slice(&name_len.to_le_bytes());
    out.extend_from_slice(&desc_len.to_le_bytes());
    out.extend_from_slice(&kind.to_le_bytes());
    for bytes in [name.as_bytes(), &[0][..]] {
        out.extend_from_slice(bytes);
    }
    out.resize(out.len().next_multiple_of(4), 0);
    out.extend_from_slice(desc);
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_round_trip_with_padding() {
        let mut seg = Vec::new();
        append_note(&mut seg, "CORE", 1, &[7; 3]);
        append_note(&mut seg, "VMCOREINFO", 0, b"OSRELEASE=x\n");
        let names: Vec<_> = Notes::new(&seg).map(|n| (n.name, n.kind, n.desc.len())).collect();
        assert_eq!(names, [(&b"CORE"[..], 1, 3), (&b"VMCOREINFO"[..], 0, 12)]);
        assert_eq!(KernelNotes::parse(&seg).vmcoreinfo.unwrap().osrelease(), Some("x"));
    }

    #[test]
    fn the_first_of_two_vmcoreinfo_notes_counts() {
        let mut seg = Vec::new();
        append_note(&mut seg, "VMCOREINFO", 0, b"OSRELEASE=first\n");
        append_note(&mut seg, "VMCOREINFO", 0, b"OSRELEASE=second\n");
        assert_eq!(KernelNotes::parse(&seg).vmcoreinfo.unwrap().osrelease(), Some("first"));
    }

    #[test]
    fn padding_and_cut_notes_are_not_among_the_whole_ones() {
        let mut seg = Vec::new();
        append_note(&mut seg, "CORE", 1, &[7; 5]);
        let whole = seg.len();
        assert_eq!(Notes::whole_len(&seg[..whole - 1]), whole - 1); // only its padding is cut
        seg.extend([0; 30]);
        assert_eq!(Notes::whole_len(&seg), whole);
        assert_eq!(Notes::whole_len(&[1; 20]), 0);
    }

    #[test]
    fn a_note_longer_than_its_segment_ends_the_walk() {
        let mut seg = Vec::new();
        append_note(&mut seg, "CORE", 1, &[7; 64]);
        assert_eq!(Notes::new(&seg[..40]).count(), 0);
        let huge = [0xff; 40];
        assert_eq!(Notes::new(&huge).count(), 0);
    }
}

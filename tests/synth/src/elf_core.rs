//! Writes ELF cores, laid out as /proc/vmcore lays them out.
//!
//! Source: ELF gABI ch. 4–5; Linux `fs/proc/vmcore.c`, `kernel/crash_core.c`.

use crate::{Memory, Notes, PAGE_SIZE};

/// One PT_LOAD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// `p_vaddr`.
    pub virt: u64,
    /// `p_paddr`.
    pub phys: u64,
    /// `p_filesz`: less than `mem_size` where the tail was excluded.
    pub file_size: u64,
    /// `p_memsz`.
    pub mem_size: u64,
}

/// Builds an ELF core from a memory, notes, and the list of segments to store.
#[derive(Clone, Debug)]
pub struct ElfCore<'a> {
    memory: &'a Memory,
    notes: Notes,
    loads: Vec<Load>,
    flags: u32,
}

impl<'a> ElfCore<'a> {
    /// Starts a core without segments.
    pub fn new(memory: &'a Memory, notes: Notes) -> Self {
        Self { memory, notes, loads: Vec::new(), flags: 0 }
    }

    /// Appends a PT_LOAD that stores all of `phys..phys + len`.
    pub fn load(self, virt: u64, phys: u64, len: u64) -> Self {
        self.load_partial(virt, phys, len, len)
    }

    /// Appends a PT_LOAD whose bytes past `file_size` are not in the file: excluded pages, in makedumpfile's cores.
    pub fn load_partial(mut self, virt: u64, phys: u64, file_size: u64, mem_size: u64) -> Self {
        self.loads.push(Load { virt, phys, file_size, mem_size });
        self
    }

    /// Drops the pages for which `excluded(pfn)` holds, splitting segments as makedumpfile does: each run of kept
    /// pages becomes a segment whose p_memsz goes on over the excluded pages behind it.
    pub fn exclude(mut self, excluded: impl Fn(u64) -> bool) -> Self {
        let mut loads = Vec::new();
        for load in &self.loads {
            let mut at = 0;
            while at < load.mem_size {
                let is_excluded =
                    |offset: u64| offset >= load.file_size || excluded((load.phys + offset) / PAGE_SIZE);
                let run = |from: u64, wanted: bool| {
                    let mut end = from;
                    while end < load.mem_size && is_excluded(end) == wanted {
                        end += PAGE_SIZE;
                    }
                    end.min(load.mem_size)
                };
                let kept = run(at, false);
                let end = run(kept, true);
                loads.push(Load {
                    virt: load.virt.wrapping_add(at),
                    phys: load.phys + at,
                    file_size: kept - at,
                    mem_size: end - at,
                });
                at = end;
            }
        }
        self.loads = loads;
        self
    }

    /// Sets bit 0 of e_flags: makedumpfile's mark on a core it could not finish.
    pub fn incomplete(mut self) -> Self {
        self.flags |= 1;
        self
    }

    /// Returns the segments in file order.
    pub fn loads(&self) -> &[Load] {
        &self.loads
    }

    /// Returns the notes.
    pub fn notes(&self) -> &Notes {
        &self.notes
    }

    /// Returns the file: header, PT_NOTE, PT_LOADs; then notes and segments, each from a page boundary.
    pub fn bytes(&self) -> Vec<u8> {
        let headers = 64 + 56 * (1 + self.loads.len() as u64);
        let notes_at = headers.next_multiple_of(PAGE_SIZE);
        let notes_len = self.notes.bytes().len() as u64;
        let mut out = Vec::new();
        self.elf_header(&mut out);
        program_header(&mut out, 4, 0, notes_at, 0, 0, notes_len, notes_len, 4);
        let mut at = (notes_at + notes_len).next_multiple_of(PAGE_SIZE);
        let mut places = Vec::new();
        for load in &self.loads {
            at += load.phys % PAGE_SIZE;
            program_header(&mut out, 1, 7, at, load.virt, load.phys, load.file_size, load.mem_size, 0);
            places.push(at);
            at = (at + load.file_size).next_multiple_of(PAGE_SIZE);
        }
        out.resize(notes_at as usize, 0);
        out.extend(self.notes.bytes());
        out.resize(at as usize, 0);
        for (load, place) in self.loads.iter().zip(places) {
            self.memory.read_into(load.phys, &mut out[place as usize..][..load.file_size as usize]);
        }
        out
    }

    fn elf_header(&self, out: &mut Vec<u8>) {
        out.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
        out.extend(4u16.to_le_bytes()); // e_type ET_CORE
        out.extend(62u16.to_le_bytes()); // e_machine EM_X86_64
        out.extend(1u32.to_le_bytes()); // e_version
        out.extend(0u64.to_le_bytes()); // e_entry
        out.extend(64u64.to_le_bytes()); // e_phoff
        out.extend(0u64.to_le_bytes()); // e_shoff
        out.extend(self.flags.to_le_bytes());
        let phnum = u16::try_from(1 + self.loads.len()).expect("more segments than e_phnum can count");
        for half in [64, 56, phnum, 0, 0, 0] {
            out.extend(half.to_le_bytes()); // e_ehsize e_phentsize e_phnum e_shentsize e_shnum e_shstrndx
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "they are the fields of Elf64_Phdr, in order")]
fn program_header(
    out: &mut Vec<u8>,
    p_type: u32,
    p_flags: u32,
    p_offset: u64,
    p_vaddr: u64,
    p_paddr: u64,
    p_filesz: u64,
    p_memsz: u64,
    p_align: u64,
) {
    out.extend(p_type.to_le_bytes());
    out.extend(p_flags.to_le_bytes());
    for value in [p_offset, p_vaddr, p_paddr, p_filesz, p_memsz, p_align] {
        out.extend(value.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> Memory {
        let mut memory = Memory::new();
        for pfn in 0x10..0x18 {
            memory.write(pfn * PAGE_SIZE, &[pfn as u8; 16]);
        }
        memory
    }

    fn u64_at(bytes: &[u8], offset: usize) -> u64 {
        u64::from_le_bytes(bytes[offset..offset + 8].try_into().unwrap())
    }

    #[test]
    fn a_segment_lies_where_its_header_says() {
        let memory = memory();
        let core = ElfCore::new(&memory, Notes::new()).load(0xffff_8880_0001_0000, 0x10000, 0x2000).bytes();
        let load = 64 + 56;
        assert_eq!(u64_at(&core, load + 16), 0xffff_8880_0001_0000);
        let offset = u64_at(&core, load + 8) as usize;
        assert_eq!(core[offset], 0x10);
        assert_eq!(core[offset + 0x1000], 0x11);
        assert_eq!(core.len(), offset + 0x2000);
    }

    #[test]
    fn excluded_pages_become_memory_without_file() {
        let memory = memory();
        let core = ElfCore::new(&memory, Notes::new())
            .load(0, 0x10000, 0x8000)
            .exclude(|pfn| [0x12, 0x13, 0x17].contains(&pfn));
        let shape: Vec<_> = core.loads().iter().map(|l| (l.phys, l.file_size, l.mem_size)).collect();
        assert_eq!(shape, [(0x10000, 0x2000, 0x4000), (0x14000, 0x3000, 0x4000)]);
    }
}

//! Programs that are no Linux kernel: static ELF executables, Multiboot 1 and 2 images.
//!
//! All are linked for one physical address. What tells them apart is the mode they are entered in, and what
//! they are given: nothing but the registers asked for, or Multiboot information.
//!
//! Source: ELF-32 and ELF-64 object file formats; Multiboot Specification 0.6.96, 3.1; Multiboot2 Specification
//! 2.0, 3.1.

use goblin::elf::header::{EM_386, EM_X86_64, ET_EXEC};
use goblin::elf::program_header::PT_LOAD;
use goblin::elf::{Elf, ProgramHeader};
use kdump_arch_x86::PAGE_SIZE;

mod info;
mod multiboot;

pub use info::{Info, MULTIBOOT1_EAX, MULTIBOOT2_EAX, info_room, multiboot1, multiboot2};

/// More than any program takes in memory; a bound for what is allocated on a file's word.
const MAX_SIZE: u64 = 1 << 30;
/// Physical addresses beyond this are refused: no machine has RAM there.
const ADDRESS_LIMIT: u64 = 1 << 46;

/// How a program is entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// As an executable: in the mode of its class, with the registers asked for.
    Elf {
        /// 64-bit mode; else 32-bit protected mode without paging.
        is_64_bit: bool,
    },
    /// 32-bit, EAX magic, EBX information.
    Multiboot1,
    /// 32-bit, EAX magic, EBX information of the second kind.
    Multiboot2,
}

impl Protocol {
    /// Its name for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Elf { is_64_bit: true } => "ELF64 executable",
            Self::Elf { is_64_bit: false } => "ELF32 executable",
            Self::Multiboot1 => "Multiboot image",
            Self::Multiboot2 => "Multiboot2 image",
        }
    }
}

/// A program as it lies in memory.
#[derive(Clone, PartialEq, Eq)]
pub struct Program {
    /// How it is entered.
    pub protocol: Protocol,
    /// Physical address of its first page.
    pub start: u64,
    /// Bytes from there on that it takes, whole pages.
    pub size: u64,
    /// The first of them; zeros follow.
    pub memory: Vec<u8>,
    /// Physical address of its first instruction.
    pub entry: u64,
}

/// What is wrong with a program.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Not an ELF file that can be read.
    #[error("it is no whole ELF file")]
    Elf(#[from] goblin::error::Error),
    /// A header field that does not fit.
    #[error("header field {field} is {value:#x}: {problem}")]
    Field {
        /// The field.
        field: &'static str,
        /// Its value.
        value: u64,
        /// What is wrong with that.
        problem: &'static str,
    },
    /// A segment that cannot be loaded.
    #[error(
        "segment at {paddr:#x} of {filesz:#x} bytes in the file and {memsz:#x} in memory cannot be loaded"
    )]
    Segment {
        /// `p_paddr`.
        paddr: u64,
        /// `p_filesz`.
        filesz: u64,
        /// `p_memsz`.
        memsz: u64,
    },
    /// The entry lies elsewhere.
    #[error("the entry {entry:#x} lies in no segment")]
    Entry {
        /// The entry.
        entry: u64,
    },
    /// A Multiboot2 tag that must be understood.
    #[error("the Multiboot2 header demands tag {tag} ({name}), which is not provided")]
    Demand {
        /// Its type.
        tag: u32,
        /// What it is about.
        name: &'static str,
    },
}

impl Program {
    /// Reads a file: Multiboot 2 or 1 where it has their header, else an ELF executable.
    ///
    /// # Errors
    /// [`Error`].
    pub fn parse(file: &[u8]) -> Result<Self, Error> {
        if let Some(header) = multiboot::find2(file)? {
            return from_multiboot(file, header, Protocol::Multiboot2);
        }
        if let Some(header) = multiboot::find1(file)? {
            return from_multiboot(file, header, Protocol::Multiboot1);
        }
        let elf = Elf::parse(file)?;
        parse_elf(&elf, file, Protocol::Elf { is_64_bit: elf.is_64 })
    }
}

/// A Multiboot image lies where its header says, or is an ELF file.
fn from_multiboot(file: &[u8], header: multiboot::Header, protocol: Protocol) -> Result<Program, Error> {
    let mut program = match header.addresses {
        Some(addresses) => addresses.load(file, protocol)?,
        None => parse_elf(&Elf::parse(file)?, file, protocol)?,
    };
    if let Some(entry) = header.entry {
        program.entry = entry;
    }
    let is_inside = |at: u64| at.checked_sub(program.start).is_some_and(|o| o < program.memory.len() as u64);
    if !is_inside(program.entry) {
        return Err(Error::Entry { entry: program.entry });
    }
    Ok(program)
}

fn parse_elf(elf: &Elf<'_>, file: &[u8], protocol: Protocol) -> Result<Program, Error> {
    let field = |is_good: bool, field, value: u64, problem| {
        if is_good { Ok(()) } else { Err(Error::Field { field, value, problem }) }
    };
    let header = &elf.header;
    field(elf.little_endian, "EI_DATA", 2, "not little-endian")?;
    field(header.e_type == ET_EXEC, "e_type", header.e_type.into(), "no static executable (ET_EXEC)")?;
    let machine = if elf.is_64 { EM_X86_64 } else { EM_386 };
    // A 32-bit file for x86-64 is x32 or a kernel's 32-bit part: the same instructions.
    let is_known = header.e_machine == machine || header.e_machine == EM_X86_64;
    field(is_known, "e_machine", header.e_machine.into(), "not for this machine")?;

    let loads = || elf.program_headers.iter().filter(|p| p.p_type == PT_LOAD && p.p_memsz > 0);
    for load in loads() {
        let end = load.p_paddr.checked_add(load.p_memsz).filter(|end| *end <= ADDRESS_LIMIT);
        if end.is_none() || load.p_filesz > load.p_memsz || bytes_of(load, file).is_none() {
            return Err(segment_error(load));
        }
    }
    let first = loads().next().ok_or(Error::Entry { entry: elf.entry })?;
    let start = loads().map(|p| p.p_paddr).min().unwrap_or_default() & !(PAGE_SIZE - 1);
    let end = loads().map(|p| p.p_paddr + p.p_memsz).max().unwrap_or_default();
    let filled = loads().map(|p| p.p_paddr + p.p_filesz).max().unwrap_or_default();
    let size = (end - start).next_multiple_of(PAGE_SIZE);
    if size > MAX_SIZE || start == 0 {
        return Err(segment_error(first));
    }
    // The entry is virtual, except in images linked with the physical one.
    let physical = |p: &ProgramHeader| {
        let offset = elf.entry.checked_sub(p.p_vaddr).filter(|offset| *offset < p.p_memsz)?;
        Some(p.p_paddr + offset)
    };
    let is_physical = loads().any(|p| elf.entry.checked_sub(p.p_paddr).is_some_and(|o| o < p.p_memsz));
    let entry = loads().find_map(physical).or(is_physical.then_some(elf.entry));
    let entry = entry.ok_or(Error::Entry { entry: elf.entry })?;

    let mut memory = vec![0; (filled - start) as usize];
    for load in loads() {
        let at = (load.p_paddr - start) as usize;
        let bytes = bytes_of(load, file).unwrap_or_default();
        if let Some(slot) = memory.get_mut(at..at + bytes.len()) {
            slot.copy_from_slice(bytes);
        }
    }
    Ok(Program { protocol, start, size, memory, entry })
}

fn bytes_of<'a>(load: &ProgramHeader, file: &'a [u8]) -> Option<&'a [u8]> {
    let start = usize::try_from(load.p_offset).ok()?;
    file.get(start..start.checked_add(usize::try_from(load.p_filesz).ok()?)?)
}

fn segment_error(load: &ProgramHeader) -> Error {
    Error::Segment { paddr: load.p_paddr, filesz: load.p_filesz, memsz: load.p_memsz }
}

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at {:#x}, {:#x} bytes", self.protocol.name(), self.start, self.size)
    }
}

#[cfg(test)]
mod tests;

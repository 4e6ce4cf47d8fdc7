//! The panic-path program, linked to where it will lie.
//!
//! The program comes as a position-independent ELF file inside `kdump-panic-kernel`. The loader asks for
//! its size, finds a hole in the crashkernel region and gets the bytes for that address. The handoff block
//! goes on the page behind them; together they make one kexec segment of [`PanicImage::mem_size`] bytes. Two
//! placed programs are [paired](Placed::pair), so that each knows its own sum and where the other takes over.
//!
//! Source: ELF-64 object file format; x86-64 psABI, 4.4 (`R_X86_64_RELATIVE`: base + addend).

use goblin::elf::program_header::PT_LOAD;
use goblin::elf::reloc::R_X86_64_RELATIVE;
use goblin::elf::{Elf, header};
use kdump_panic_kernel::handoff::HANDOFF_SIZE;
use kdump_panic_kernel::image::{HANDOFF_SYMBOL, MUTABLE_SYMBOL};

mod twin;

use twin::Words;

const PAGE_SIZE: u64 = 4096;

/// More than the program will ever take; a bound for what is allocated on its word.
const MAX_IMAGE_SIZE: u64 = 1 << 20;

/// Why the program cannot be used or placed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Not an ELF file at all.
    #[error("the panic-path program is no ELF file")]
    Elf(#[from] goblin::error::Error),
    /// Some other ELF file.
    #[error(
        "the panic-path program has ELF type {e_type} for machine {e_machine}, expected {} for {}",
        header::ET_DYN,
        header::EM_X86_64
    )]
    WrongKind {
        /// `e_type` of the file.
        e_type: u16,
        /// `e_machine` of the file.
        e_machine: u16,
    },
    /// No such symbol.
    #[error("the panic-path program has no symbol {name}")]
    NoSymbol {
        /// Its name.
        name: &'static str,
    },
    /// The symbols contradict the program headers or each other.
    #[error(
        "the panic-path program has {name} at {value:#x}, which cannot be in an image of at most {MAX_IMAGE_SIZE:#x} bytes"
    )]
    BadSymbol {
        /// Its name.
        name: &'static str,
        /// Its value.
        value: u64,
    },
    /// A segment outside the image or the file.
    #[error(
        "segment at {vaddr:#x} of {memsz:#x} bytes lies outside the panic-path program's image of {image_size:#x} bytes or its file"
    )]
    BadSegment {
        /// Its address.
        vaddr: u64,
        /// Its size in memory.
        memsz: u64,
        /// The size of the image.
        image_size: u64,
    },
    /// A relocation that needs a dynamic linker.
    #[error(
        "relocation of type {r_type} at {offset:#x} of the panic-path program, expected only {R_X86_64_RELATIVE} (R_X86_64_RELATIVE)"
    )]
    UnexpectedRelocation {
        /// Its type.
        r_type: u32,
        /// Where it applies.
        offset: u64,
    },
    /// A relocation outside the image.
    #[error("relocation at {offset:#x} lies outside the panic-path program's image of {image_size:#x} bytes")]
    BadRelocation {
        /// Where it applies.
        offset: u64,
        /// The size of the image.
        image_size: u64,
    },
    /// An address it cannot lie at.
    #[error("the panic-path program cannot lie at {base:#x}: not page aligned, at 0, or too high")]
    BadBase {
        /// The address.
        base: u64,
    },
}

/// The program, not yet placed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PanicImage {
    /// As linked at 0, `.bss` included.
    bytes: Vec<u8>,
    /// Where 64-bit addresses stand, and what is added to the base there.
    relocations: Vec<(usize, u64)>,
    entry: u64,
    constant_len: u64,
    words: Words,
}

/// The program at its address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The image relocated to its address, `.bss` zero-filled, without the handoff block.
    pub bytes: Vec<u8>,
    /// Physical address of its first instruction, the entry of the kexec image.
    pub entry: u64,
    /// Physical address where the handoff block goes: the page behind the image.
    pub handoff: u64,
    /// How many of the first bytes do not change while it runs, and so may be a region it checks itself.
    pub constant_len: u64,
    /// Physical address of its first byte.
    base: u64,
    words: Words,
}

impl PanicImage {
    /// Reads the program this build carries.
    ///
    /// # Errors
    /// If the build produced something unexpected; its tests would have noticed.
    pub fn embedded() -> Result<Self, Error> {
        Self::parse(kdump_panic_kernel::IMAGE)
    }

    /// Reads the probe this build carries: a program of the same form.
    ///
    /// # Errors
    /// As [`embedded`](Self::embedded).
    pub fn probe() -> Result<Self, Error> {
        Self::parse(kdump_panic_kernel::image::PROBE)
    }

    /// Reads a program from its ELF file.
    fn parse(file: &[u8]) -> Result<Self, Error> {
        let elf = Elf::parse(file)?;
        let (e_type, e_machine) = (elf.header.e_type, elf.header.e_machine);
        if !elf.is_64 || !elf.little_endian || e_type != header::ET_DYN || e_machine != header::EM_X86_64 {
            return Err(Error::WrongKind { e_type, e_machine });
        }
        let image_size = page_symbol(&elf, HANDOFF_SYMBOL, MAX_IMAGE_SIZE)?;
        let constant_len = page_symbol(&elf, MUTABLE_SYMBOL, image_size)?;
        if elf.entry >= constant_len {
            return Err(Error::BadSymbol { name: "the entry", value: elf.entry });
        }
        Ok(Self {
            bytes: collect_segments(&elf, file, image_size)?,
            relocations: collect_relocations(&elf, image_size)?,
            entry: elf.entry,
            constant_len,
            words: Words::find(&elf, constant_len)?,
        })
    }

    /// Bytes the program takes in the crashkernel region, handoff block included: a multiple of the page size.
    pub fn mem_size(&self) -> u64 {
        self.bytes.len() as u64 + HANDOFF_SIZE as u64
    }

    /// Links the program at a physical address, where it will run on an identity map.
    ///
    /// # Errors
    /// If it cannot lie there.
    pub fn place(&self, base: u64) -> Result<Placed, Error> {
        // 2^52: physical addresses end there on every x86-64 CPU.
        let is_reachable = base.checked_add(self.mem_size()).is_some_and(|end| end <= 1 << 52);
        if base == 0 || !base.is_multiple_of(PAGE_SIZE) || !is_reachable {
            return Err(Error::BadBase { base });
        }
        let mut bytes = self.bytes.clone();
        let image_size = bytes.len() as u64;
        for &(offset, addend) in &self.relocations {
            let outside = Error::BadRelocation { offset: offset as u64, image_size };
            let word = bytes.get_mut(offset..).and_then(|rest| rest.first_chunk_mut()).ok_or(outside)?;
            *word = (base + addend).to_le_bytes();
        }
        Ok(Placed {
            bytes,
            entry: base + self.entry,
            handoff: base + image_size,
            constant_len: self.constant_len,
            base,
            words: self.words,
        })
    }
}

fn symbol(elf: &Elf<'_>, name: &'static str) -> Result<u64, Error> {
    let symbol = elf.syms.iter().find(|symbol| elf.strtab.get_at(symbol.st_name) == Some(name));
    Ok(symbol.ok_or(Error::NoSymbol { name })?.st_value)
}

/// Finds a symbol that must be the address of a page, at most `max`.
fn page_symbol(elf: &Elf<'_>, name: &'static str, max: u64) -> Result<u64, Error> {
    let value = symbol(elf, name)?;
    if value == 0 || !value.is_multiple_of(PAGE_SIZE) || value > max {
        return Err(Error::BadSymbol { name, value });
    }
    Ok(value)
}

fn collect_segments(elf: &Elf<'_>, file: &[u8], image_size: u64) -> Result<Vec<u8>, Error> {
    let mut image = vec![0; image_size as usize];
    for phdr in elf.program_headers.iter().filter(|phdr| phdr.p_type == PT_LOAD) {
        let outside = || Error::BadSegment { vaddr: phdr.p_vaddr, memsz: phdr.p_memsz, image_size };
        let mem = slice_range(phdr.p_vaddr, phdr.p_memsz).ok_or_else(outside)?;
        let target = image.get_mut(mem).ok_or_else(outside)?;
        let source = slice_range(phdr.p_offset, phdr.p_filesz)
            .and_then(|range| file.get(range))
            .ok_or_else(outside)?;
        target.get_mut(..source.len()).ok_or_else(outside)?.copy_from_slice(source);
    }
    Ok(image)
}

fn collect_relocations(elf: &Elf<'_>, image_size: u64) -> Result<Vec<(usize, u64)>, Error> {
    let mut relocations = Vec::new();
    for reloc in elf.dynrelas.iter().chain(elf.dynrels.iter()).chain(elf.pltrelocs.iter()) {
        let offset = reloc.r_offset;
        let addend = match (reloc.r_type, reloc.r_addend.map(u64::try_from)) {
            (R_X86_64_RELATIVE, Some(Ok(addend))) if addend <= image_size => addend,
            (R_X86_64_RELATIVE, _) => return Err(Error::BadRelocation { offset, image_size }),
            (r_type, _) => return Err(Error::UnexpectedRelocation { r_type, offset }),
        };
        let word = slice_range(offset, 8).filter(|word| word.end as u64 <= image_size);
        relocations.push((word.ok_or(Error::BadRelocation { offset, image_size })?.start, addend));
    }
    Ok(relocations)
}

fn slice_range(start: u64, len: u64) -> Option<std::ops::Range<usize>> {
    let end = start.checked_add(len)?;
    Some(usize::try_from(start).ok()?..usize::try_from(end).ok()?)
}

#[cfg(test)]
mod tests;

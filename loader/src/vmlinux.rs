//! Reading a vmlinux: a kernel linked for one physical address, without the decompressor around it.
//!
//! It lies and runs at its `p_paddr`s and is entered by the 64-bit protocol at its first instruction, on an
//! identity map, with boot_params in RSI; `e_entry` is a physical address. Having no setup header, it gets
//! one that says what a loader has to know.
//!
//! Source: arch/x86/kernel/vmlinux.lds.S (`phys_startup_64`), arch/x86/kernel/head_64.S.

use goblin::elf::header::{EM_X86_64, ET_EXEC};
use goblin::elf::program_header::PT_LOAD;
use goblin::elf::{Elf, ProgramHeader};
use kdump_arch_x86::bootparam::{SetupHeader, XLF_KERNEL_64};
use kdump_arch_x86::{PAGE_SIZE, PhysAddr};
use zerocopy::FromZeros as _;

use crate::bzimage::{BzImage, Fixed};
use crate::program::Program;

/// `__START_KERNEL_map`: where kernels are linked.
const KERNEL_MAP: u64 = 0xffff_ffff_8000_0000;
/// More than any kernel takes in memory; a bound for what is allocated on a file's word.
const MAX_SIZE: u64 = 1 << 30;
/// `COMMAND_LINE_SIZE` - 1, arch/x86/include/asm/setup.h.
const CMDLINE_SIZE: u32 = 2047;
/// `MIN_KERNEL_ALIGN`.
const ALIGNMENT: u32 = 2 << 20;
const BOOT_FLAG: u16 = 0xaa55;
const HEADER_MAGIC: u32 = 0x5372_6448;
const PROTOCOL_VERSION: u16 = 0x020f;
const LOADED_HIGH: u8 = 1;
/// Before the version in every kernel.
const BANNER: &[u8] = b"Linux version ";

/// What is wrong with a vmlinux.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Not an ELF file that can be read.
    #[error("it is no whole ELF file")]
    Elf(#[from] goblin::error::Error),
    /// Some other ELF file.
    #[error("ELF header field {field} is {value:#x}, expected {expected:#x}: no x86-64 vmlinux")]
    Field {
        /// The field.
        field: &'static str,
        /// Its value.
        value: u64,
        /// What a vmlinux has there.
        expected: u64,
    },
    /// An ELF executable, but no kernel.
    #[error("no segment is linked at {KERNEL_MAP:#x} or above: an executable, but no Linux kernel")]
    NoKernel,
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
    #[error("e_entry {entry:#x} lies in no segment by its physical address")]
    Entry {
        /// `e_entry`.
        entry: u64,
    },
}

/// Reads a vmlinux into the kernel it is in memory.
///
/// # Errors
/// [`Error`].
pub fn parse(file: &[u8]) -> Result<BzImage, Error> {
    let elf = Elf::parse(file)?;
    let header = &elf.header;
    let is = |field, value: u64, expected: u64| {
        if value == expected { Ok(()) } else { Err(Error::Field { field, value, expected }) }
    };
    is("EI_CLASS", if elf.is_64 { 2 } else { 1 }, 2)?;
    is("EI_DATA", if elf.little_endian { 1 } else { 2 }, 1)?;
    is("e_type", header.e_type.into(), ET_EXEC.into())?;
    is("e_machine", header.e_machine.into(), EM_X86_64.into())?;
    let loads = || elf.program_headers.iter().filter(|p| p.p_type == PT_LOAD && p.p_memsz > 0);
    if !loads().any(|p| p.p_vaddr >= KERNEL_MAP) {
        return Err(Error::NoKernel);
    }
    for load in loads() {
        let end = load.p_paddr.checked_add(load.p_memsz).filter(|end| *end <= 1 << 40);
        if end.is_none() || load.p_filesz > load.p_memsz || bytes_of(load, file).is_none() {
            return Err(segment_error(load));
        }
    }
    let start = loads().map(|p| p.p_paddr).min().unwrap_or_default() & !(PAGE_SIZE - 1);
    let end = loads().map(|p| p.p_paddr + p.p_memsz).max().unwrap_or_default();
    let filled = loads().map(|p| p.p_paddr + p.p_filesz).max().unwrap_or_default();
    let size = (end - start).next_multiple_of(PAGE_SIZE);
    if size > MAX_SIZE || start == 0 {
        return Err(loads().next().map_or(Error::NoKernel, segment_error));
    }
    let entry = elf.entry;
    if !loads().any(|p| entry.checked_sub(p.p_paddr).is_some_and(|offset| offset < p.p_filesz)) {
        return Err(Error::Entry { entry });
    }

    let mut memory = vec![0; (filled - start) as usize];
    for load in loads() {
        let at = (load.p_paddr - start) as usize;
        let bytes = bytes_of(load, file).unwrap_or_default();
        if let Some(slot) = memory.get_mut(at..at + bytes.len()) {
            slot.copy_from_slice(bytes);
        }
    }
    let version = banner(&memory);
    let fixed = Fixed { start: PhysAddr(start), entry: PhysAddr(entry) };
    Ok(BzImage::linked(setup_header(start, size), memory, version, fixed))
}

/// A program that is no kernel, in the form of one: the parts that do not care about the difference.
pub(crate) fn stand_in(program: &Program) -> BzImage {
    let fixed = Fixed { start: PhysAddr(program.start), entry: PhysAddr(program.entry) };
    let header = setup_header(program.start, program.size);
    BzImage::linked(header, program.memory.clone(), None, fixed)
}

/// What a loader has to know of a kernel that cannot say so itself.
fn setup_header(start: u64, size: u64) -> SetupHeader {
    SetupHeader {
        boot_flag: BOOT_FLAG.into(),
        header: HEADER_MAGIC.into(),
        version: PROTOCOL_VERSION.into(),
        loadflags: LOADED_HIGH,
        xloadflags: XLF_KERNEL_64.into(),
        initrd_addr_max: u32::MAX.into(),
        kernel_alignment: ALIGNMENT.into(),
        cmdline_size: CMDLINE_SIZE.into(),
        pref_address: start.into(),
        init_size: u32::try_from(size).unwrap_or(u32::MAX).into(),
        ..SetupHeader::new_zeroed()
    }
}

fn bytes_of<'a>(load: &ProgramHeader, file: &'a [u8]) -> Option<&'a [u8]> {
    let start = usize::try_from(load.p_offset).ok()?;
    file.get(start..start.checked_add(usize::try_from(load.p_filesz).ok()?)?)
}

fn segment_error(load: &ProgramHeader) -> Error {
    Error::Segment { paddr: load.p_paddr, filesz: load.p_filesz, memsz: load.p_memsz }
}

/// `uname -r` and build line, up to the line's end, from the banner in the image.
fn banner(memory: &[u8]) -> Option<String> {
    let found = memory.windows(BANNER.len()).enumerate().filter(|(_, w)| *w == BANNER);
    found.into_iter().find_map(|(at, _)| {
        let text = memory.get(at + BANNER.len()..)?.split(|b| !(b' '..=b'~').contains(b)).next()?;
        // A format string has the banner, too.
        let text = std::str::from_utf8(text).ok().filter(|t| t.starts_with(|c: char| c.is_ascii_digit()))?;
        Some(text.chars().take(256).collect())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF file with a segment of text and one of data and bss, as a vmlinux has them.
    fn vmlinux(change: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
        let mut file = vec![0u8; 0x1400];
        let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, b"\x7fELF\x02\x01\x01");
        put(0x10, &[2, 0, 62, 0, 1]);
        put(0x18, &0x100_0040u64.to_le_bytes());
        put(0x20, &64u64.to_le_bytes());
        put(0x34, &[64, 0, 56, 0, 2, 0]);
        let segments = [
            [0x5_0000_0001u64, 0x1000, KERNEL_MAP + 0x100_0000, 0x100_0000, 0x200, 0x200, 0x1000],
            [0x6_0000_0001, 0x1200, KERNEL_MAP + 0x120_0000, 0x120_0000, 0x100, 0x9000, 0x1000],
        ];
        for (i, segment) in segments.iter().enumerate() {
            for (j, word) in segment.iter().enumerate() {
                put(64 + i * 56 + j * 8, &word.to_le_bytes());
            }
        }
        put(0x1080, b"Linux version %s (%s)\0Linux version 6.12.1-test (x) #1 SMP\nmore");
        put(0x1200, b"data");
        change(&mut file);
        file
    }

    #[test]
    fn a_vmlinux_is_the_memory_it_takes() {
        let image = parse(&vmlinux(|_| ())).unwrap();
        let fixed = Fixed { start: PhysAddr(0x100_0000), entry: PhysAddr(0x100_0040) };
        assert_eq!(image.fixed(), Some(fixed));
        assert_eq!(image.kernel().len(), 0x20_0100);
        assert_eq!(&image.kernel()[0x20_0000..0x20_0004], b"data");
        assert_eq!(image.init_size(), 0x20_9000);
        assert_eq!(image.version(), Some("6.12.1-test (x) #1 SMP"));
        assert_eq!((image.alignment(), image.cmdline_size()), (2 << 20, 2047));
    }

    #[test]
    fn what_is_no_vmlinux_is_refused_with_field_and_value() {
        let error = |at: usize, bytes: &[u8]| {
            parse(&vmlinux(|file| file[at..at + bytes.len()].copy_from_slice(bytes)))
                .err()
                .unwrap()
                .to_string()
        };
        assert_eq!(error(0x10, &[3]), "ELF header field e_type is 0x3, expected 0x2: no x86-64 vmlinux");
        assert!(error(0x12, &[183]).contains("e_machine is 0xb7"));
        assert!(error(0x18, &[0; 8]).contains("e_entry 0x0"));
        assert!(error(64 + 32, &[0xff; 8]).contains("cannot be loaded"));
        assert!(error(64 + 40, &[0xff; 8]).contains("cannot be loaded"));
        let user = parse(&vmlinux(|file| {
            file[64 + 16..64 + 24].fill(0);
            file[64 + 56 + 16..64 + 56 + 24].fill(0);
        }));
        assert!(matches!(user, Err(Error::NoKernel)));
        assert!(parse(b"\x7fELF").is_err());
    }

    /// Check that no cut and no changed byte of the headers makes the reader fail otherwise than by an error.
    #[test]
    fn hostile_files_are_refused_or_read() {
        let good = vmlinux(|_| ());
        for len in 0..good.len() {
            let _ = parse(&good[..len]);
        }
        for at in 0..64 + 2 * 56 {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let _ = parse(&vmlinux(|file| file[at] = value));
            }
        }
    }
}

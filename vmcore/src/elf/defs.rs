//! ELF64 structures of a core file, byte-exact.
//!
//! Source: System V gABI, chapters 4 and 5; include/uapi/linux/elf.h.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// `e_ident` of a 64-bit little-endian ELF, version 1, no OS ABI.
pub const IDENT: [u8; 16] = [0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// `e_type`: core file.
pub const ET_CORE: u16 = 4;
/// `e_machine`: x86-64.
pub const EM_X86_64: u16 = 62;
/// `p_type`: memory.
pub const PT_LOAD: u32 = 1;
/// `p_type`: notes.
pub const PT_NOTE: u32 = 4;
/// `p_flags`: readable, writable, executable.
pub const PF_RWX: u32 = 7;
/// `e_phnum` escape: the real count is `sh_info` of section header 0.
pub const PN_XNUM: u16 = 0xffff;
/// `e_flags` of a core that was never finished, as makedumpfile marks it (`elf_info.h`).
pub const DUMP_ELF_INCOMPLETE: u32 = 1;
/// `n_type` of a CPU's registers.
pub const NT_PRSTATUS: u32 = 1;

/// `Elf64_Ehdr`, 64 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[doc(alias = "Elf64_Ehdr")]
#[allow(missing_docs)]
pub struct Ehdr {
    pub e_ident: [u8; 16],
    pub e_type: U16,
    pub e_machine: U16,
    pub e_version: U32,
    pub e_entry: U64,
    pub e_phoff: U64,
    pub e_shoff: U64,
    pub e_flags: U32,
    pub e_ehsize: U16,
    pub e_phentsize: U16,
    pub e_phnum: U16,
    pub e_shentsize: U16,
    pub e_shnum: U16,
    pub e_shstrndx: U16,
}
const _: () = assert!(size_of::<Ehdr>() == 64);

impl Ehdr {
    /// The header of an x86-64 core whose `phnum` program headers follow it directly.
    #[must_use]
    pub fn core(phnum: u16) -> Self {
        Self {
            e_ident: IDENT,
            e_type: ET_CORE.into(),
            e_machine: EM_X86_64.into(),
            e_version: 1.into(),
            e_entry: 0.into(),
            e_phoff: 64.into(),
            e_shoff: 0.into(),
            e_flags: 0.into(),
            e_ehsize: 64.into(),
            e_phentsize: 56.into(),
            e_phnum: phnum.into(),
            e_shentsize: 0.into(),
            e_shnum: 0.into(),
            e_shstrndx: 0.into(),
        }
    }
}

/// `Elf64_Phdr`, 56 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[doc(alias = "Elf64_Phdr")]
#[allow(missing_docs)]
pub struct Phdr {
    pub p_type: U32,
    pub p_flags: U32,
    pub p_offset: U64,
    pub p_vaddr: U64,
    pub p_paddr: U64,
    pub p_filesz: U64,
    pub p_memsz: U64,
    pub p_align: U64,
}
const _: () = assert!(size_of::<Phdr>() == 56);

/// `Elf64_Nhdr`, 12 bytes; name and descriptor follow, each padded to 4 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[doc(alias = "Elf64_Nhdr")]
#[allow(missing_docs)]
pub struct Nhdr {
    pub n_namesz: U32,
    pub n_descsz: U32,
    pub n_type: U32,
}
const _: () = assert!(size_of::<Nhdr>() == 12);

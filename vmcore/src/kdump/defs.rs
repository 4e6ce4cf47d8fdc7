//! Structures of kdump-compressed files, byte-exact.
//!
//! File map, in blocks of `block_size` (the page size): main header; sub header with the notes
//! behind it, `sub_hdr_size` blocks; first bitmap; second bitmap; then, no longer in blocks, one
//! page descriptor per stored page by ascending frame number, and the pages' bytes.
//!
//! Source: makedumpfile `diskdump_mod.h`, `IMPLEMENTATION`; the same structures in crash
//! `diskdump.h` and libkdumpfile `diskdump.c`.

use zerocopy::little_endian::{I32, I64, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// `signature` of kdump-compressed files.
pub const KDUMP_SIGNATURE: [u8; 8] = *b"KDUMP   ";
/// `signature` of the older diskdump, laid out alike.
pub const DISKDUMP_SIGNATURE: [u8; 8] = *b"DISKDUMP";
/// The header version written here: 64-bit frame numbers.
pub const HEADER_VERSION: i32 = 6;
/// The only block size there is on x86-64.
pub const BLOCK_SIZE: u64 = 4096;

/// Flags of a page descriptor, and of `status` in the main header.
pub mod flags {
    /// zlib stream.
    pub const ZLIB: u32 = 0x1;
    /// LZO1X block.
    pub const LZO: u32 = 0x2;
    /// Snappy block, not framed.
    pub const SNAPPY: u32 = 0x4;
    /// `status` only: the file was never finished.
    pub const INCOMPLETE: u32 = 0x8;
    /// `status` only: struct pages of excluded pages were left out as well.
    pub const EXCLUDED_VMEMMAP: u32 = 0x10;
    /// One zstd frame.
    pub const ZSTD: u32 = 0x20;
    /// Every way of compression.
    pub const COMPRESSION: u32 = ZLIB | LZO | SNAPPY | ZSTD;
}

/// `struct new_utsname`: six strings, each 64 characters and a NUL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[doc(alias = "new_utsname")]
#[allow(missing_docs)]
pub struct Utsname {
    pub sysname: [u8; 65],    // 0x00
    pub nodename: [u8; 65],   // 0x41
    pub release: [u8; 65],    // 0x82
    pub version: [u8; 65],    // 0xc3
    pub machine: [u8; 65],    // 0x104
    pub domainname: [u8; 65], // 0x145
}
const _: () = assert!(size_of::<Utsname>() == 390);
const _: () = assert!(core::mem::offset_of!(Utsname, machine) == 260);

/// Main header, block 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[doc(alias = "disk_dump_header")]
#[allow(missing_docs)]
pub struct DiskDumpHeader {
    pub signature: [u8; 8],
    pub header_version: I32,   // 0x008
    pub utsname: Utsname,      // 0x00c
    pub _pad: [u8; 6],         // 0x192
    pub timestamp_sec: I64,    // 0x198
    pub timestamp_usec: I64,   // 0x1a0
    pub status: U32,           // 0x1a8
    pub block_size: I32,       // 0x1ac
    pub sub_hdr_size: I32,     // 0x1b0, in blocks
    pub bitmap_blocks: U32,    // 0x1b4, both bitmaps together
    pub max_mapnr: U32,        // 0x1b8, cut to 32 bits
    pub total_ram_blocks: U32, // 0x1bc
    pub device_blocks: U32,    // 0x1c0
    pub written_blocks: U32,   // 0x1c4
    pub current_cpu: U32,      // 0x1c8
    pub nr_cpus: I32,          // 0x1cc, must be positive for crash(8)
}
const _: () = assert!(size_of::<DiskDumpHeader>() == 464);
const _: () = assert!(core::mem::offset_of!(DiskDumpHeader, timestamp_sec) == 0x198);
const _: () = assert!(core::mem::offset_of!(DiskDumpHeader, nr_cpus) == 0x1cc);

/// Sub header, block 1. Each header version appended fields; what an older file does not have is
/// not to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[doc(alias = "kdump_sub_header")]
#[allow(missing_docs)]
pub struct KdumpSubHeader {
    pub phys_base: U64,
    pub dump_level: I32,        // 0x08, version 1
    pub split: I32,             // 0x0c, version 2
    pub start_pfn: U64,         // 0x10, version 2; obsolete in 6
    pub end_pfn: U64,           // 0x18, version 2; obsolete in 6
    pub offset_vmcoreinfo: U64, // 0x20, version 3
    pub size_vmcoreinfo: U64,   // 0x28
    pub offset_note: U64,       // 0x30, version 4
    pub size_note: U64,         // 0x38
    pub offset_eraseinfo: U64,  // 0x40, version 5
    pub size_eraseinfo: U64,    // 0x48
    pub start_pfn_64: U64,      // 0x50, version 6
    pub end_pfn_64: U64,        // 0x58, exclusive
    pub max_mapnr_64: U64,      // 0x60
}
const _: () = assert!(size_of::<KdumpSubHeader>() == 104);
const _: () = assert!(core::mem::offset_of!(KdumpSubHeader, max_mapnr_64) == 0x60);

/// Page descriptor.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
#[doc(alias = "page_desc")]
#[allow(missing_docs)]
pub struct PageDesc {
    pub offset: U64,     // 0x00, of the page's bytes in the file; 0: the page was lost
    pub size: U32,       // 0x08, of those bytes
    pub flags: U32,      // 0x0c, compression; 0: the page as it is
    pub page_flags: U64, // 0x10, of struct page; nobody fills it
}
const _: () = assert!(size_of::<PageDesc>() == 24);

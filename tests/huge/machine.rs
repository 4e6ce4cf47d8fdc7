//! A dump of a machine with terabytes of memory, in a file of some megabytes: what is large in it is said over and over.
//!
//! All sections share one array of struct pages, since every entry of the page tables below vmemmap points at the same
//! table, and every entry of that at the same 2 MiB; all PT_LOADs of a terabyte share the same bytes of the file, which
//! is sparse behind its beginning. To a reader it is a machine like any other.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

const TIB: u64 = 1 << 40;
const PAGE: u64 = 4096;
const PAGES_PER_SECTION: u64 = 1 << 15;
const STRUCT_PAGE: u64 = 64;
const VMEMMAP: u64 = 0xffff_ea00_0000_0000;
const IMAGE: u64 = 0xffff_ffff_8000_0000;

/// Where things are, physically: tables in pages of their own, and struct pages from 2 MiB on.
const PGD: u64 = 0x1000;
const DIRECT_PUD: u64 = 0x2000;
const VMEMMAP_PUD: u64 = 0x3000;
const VMEMMAP_PMD: u64 = 0x4000;
const ROOTS: u64 = 0x5000;
const SECTIONS: u64 = 0x10_000;
const STRUCT_PAGES: u64 = 2 << 20;

/// Present, writable, and for the last of a walk: large.
const TABLE: u64 = 0b11;
const LARGE: u64 = 0b1000_0011;

/// Kinds of frames in each section, and how many of each there are.
pub const KERNEL: u64 = 64;
/// Of one page each.
pub const SLABS: u64 = 64;
const FREE_ORDER: u64 = 10;
/// Blocks of free memory.
const FREE_BLOCKS: u64 = 8;

/// Pages of a section that level 31 keeps.
pub const KEPT: u64 = KERNEL + SLABS;

/// Writes a core of `tib` TiB.
pub fn write(path: &Path, tib: u64) -> io::Result<()> {
    let file = File::options().write(true).create(true).truncate(true).open(path)?;
    let notes = notes();
    let phdrs = 1 + tib;
    let notes_at = 64 + 56 * phdrs;
    let data_at = (notes_at + notes.len() as u64).next_multiple_of(PAGE);
    let mut head = Vec::new();
    head.extend(*b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    head.extend([4u16, 62].into_iter().flat_map(u16::to_le_bytes)); // ET_CORE, EM_X86_64
    head.extend(1u32.to_le_bytes());
    head.extend([0u64, 64, 0].into_iter().flat_map(u64::to_le_bytes));
    head.extend(0u32.to_le_bytes());
    head.extend([64u16, 56, phdrs as u16, 0, 0, 0].into_iter().flat_map(u16::to_le_bytes));
    let mut phdr = |kind: u32, offset: u64, virt: u64, phys: u64, len: u64| {
        head.extend(kind.to_le_bytes());
        head.extend(7u32.to_le_bytes());
        head.extend([offset, virt, phys, len, len, 0].into_iter().flat_map(u64::to_le_bytes));
    };
    phdr(4, notes_at, 0, 0, notes.len() as u64);
    for nr in 0..tib {
        phdr(1, data_at, 0xffff_8880_0000_0000 + nr * TIB, nr * TIB, TIB);
    }
    file.write_all_at(&head, 0)?;
    file.write_all_at(&notes, notes_at)?;
    file.set_len(data_at + TIB)?;
    let put = |phys: u64, bytes: &[u8]| file.write_all_at(bytes, data_at + phys);
    let word = |phys: u64, value: u64| put(phys, &value.to_le_bytes());

    // The direct map from physical 0 on: one entry of a gigabyte is what its beginning is found by.
    word(PGD + 273 * 8, DIRECT_PUD | TABLE)?;
    word(DIRECT_PUD, LARGE)?;
    // vmemmap: 16 GiB of struct pages for each TiB.
    word(PGD + (VMEMMAP >> 39 & 511) * 8, VMEMMAP_PUD | TABLE)?;
    put(VMEMMAP_PUD, &repeated(VMEMMAP_PMD | TABLE))?;
    put(VMEMMAP_PMD, &repeated(STRUCT_PAGES | LARGE))?;
    // mem_section: 2048 roots, each the same 256 sections; of these one word matters.
    for root in 0..2048 {
        word(ROOTS + root * 8, IMAGE + SECTIONS)?;
    }
    let section: Vec<u8> = [VMEMMAP | 0b11, 0].into_iter().flat_map(u64::to_le_bytes).collect();
    put(SECTIONS, &section.repeat(256))?;
    put(STRUCT_PAGES, &struct_pages())
}

fn repeated(entry: u64) -> Vec<u8> {
    entry.to_le_bytes().repeat(512)
}

/// The struct pages of a section: some of the kernel, some slabs, some free blocks, anonymous memory, page cache.
fn struct_pages() -> Vec<u8> {
    const LRU: u64 = 1 << 5;
    let page = |flags: u64, mapping: u64, private: u64, kind: u32, references: u32| {
        let mut b = [0; STRUCT_PAGE as usize];
        b[0..8].copy_from_slice(&flags.to_le_bytes());
        b[24..32].copy_from_slice(&mapping.to_le_bytes());
        b[40..48].copy_from_slice(&private.to_le_bytes());
        b[48..52].copy_from_slice(&kind.to_le_bytes());
        b[52..56].copy_from_slice(&references.to_le_bytes());
        b
    };
    let kernel = page(0, 0, 0, u32::MAX, 1);
    let slab = page(0, 0, 0, 0xf500_0000, 1);
    let free_head = page(0, 0, FREE_ORDER, 0xf000_0000, 0);
    let free = page(0, 0, 0, u32::MAX, 0);
    let anon = page(LRU, 0xffff_8880_0000_0001, 0, 0, 1);
    let cache = page(LRU, 0xffff_8880_0000_0000, 0, u32::MAX, 1);
    let mut out = Vec::new();
    for nr in 0..PAGES_PER_SECTION {
        let in_blocks = nr < FREE_BLOCKS << FREE_ORDER;
        let after = nr.wrapping_sub(FREE_BLOCKS << FREE_ORDER);
        out.extend(match nr {
            _ if in_blocks && nr.is_multiple_of(1 << FREE_ORDER) => free_head,
            _ if in_blocks => free,
            _ if after < KERNEL => kernel,
            // One here, one there: as they are on a machine that has been up for long.
            _ if after % 200 == 0 && after / 200 <= SLABS => slab,
            _ if nr % 2 == 0 => anon,
            _ => cache,
        });
    }
    out
}

fn notes() -> Vec<u8> {
    let text = format!(
        "OSRELEASE=6.12.0-synthetic\nPAGESIZE=4096\nSYMBOL(swapper_pg_dir)={:x}\nNUMBER(phys_base)=0\n\
         NUMBER(pgtable_l5_enabled)=0\nSYMBOL(mem_section)={:x}\nLENGTH(mem_section)=2048\nSIZE(mem_section)=16\n\
         OFFSET(mem_section.section_mem_map)=0\nNUMBER(SECTION_SIZE_BITS)=27\nNUMBER(MAX_PHYSMEM_BITS)=46\n\
         SIZE(page)=64\nOFFSET(page.flags)=0\nOFFSET(page._refcount)=52\nOFFSET(page.mapping)=24\n\
         OFFSET(page._mapcount)=48\nOFFSET(page.private)=40\nOFFSET(page.compound_head)=8\n\
         LENGTH(zone.free_area)=11\nNUMBER(PG_lru)=5\nNUMBER(PG_private)=14\nNUMBER(PG_swapcache)=10\n\
         NUMBER(PG_swapbacked)=17\nNUMBER(PG_hwpoison)=20\nNUMBER(PAGE_SLAB_MAPCOUNT_VALUE)=-184549376\n\
         NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)=-268435456\nNUMBER(PAGE_HUGETLB_MAPCOUNT_VALUE)=-201326592\n\
         NUMBER(PAGE_OFFLINE_MAPCOUNT_VALUE)=-251658240\nNUMBER(PAGE_UNACCEPTED_MAPCOUNT_VALUE)=-134217728\n\
         CRASHTIME=1700000000\n",
        IMAGE + PGD,
        IMAGE + ROOTS,
    );
    let mut out = Vec::new();
    out.extend([11u32, text.len() as u32, 0].into_iter().flat_map(u32::to_le_bytes));
    out.extend(b"VMCOREINFO\0\0");
    out.extend(text.as_bytes());
    out.resize(out.len().next_multiple_of(4), 0);
    out
}

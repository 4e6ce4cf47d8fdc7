//! The documented places of headers, bitmaps and descriptors.

use super::*;

fn file(memory: &Memory) -> KdumpFile<'_> {
    let mut notes = Notes::new();
    notes.vmcoreinfo(b"OSRELEASE=6.12\n");
    KdumpFile::new(memory, notes, &[0; 390]).ram(0x10000, 0x4000)
}

fn memory() -> Memory {
    let mut memory = Memory::new();
    memory.write(0x10000, &[7; 4096]);
    memory.write(0x12000, &[9; 4096]);
    memory
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

#[test]
fn headers_have_the_documented_sizes_and_offsets() {
    let memory = memory();
    let file = file(&memory).bytes();
    assert_eq!(&file[..12], b"KDUMP   \x06\0\0\0");
    assert_eq!(file[428..432], 4096u32.to_le_bytes()); // block_size
    assert_eq!(file[436..440], 2u32.to_le_bytes()); // bitmap_blocks
    assert_eq!(file[460..464], 1u32.to_le_bytes()); // nr_cpus
    assert_eq!(u64_at(&file, 4096 + 96), 0x14); // max_mapnr_64
    let info = u64_at(&file, 4096 + 32) as usize;
    assert_eq!(&file[info..info + 10], b"OSRELEASE=");
    assert_eq!(file[2 * 4096 + 2], 0x0f); // bitmap1: pfn 16..20
}

#[test]
fn zero_filled_pages_share_one_raw_page() {
    let memory = memory();
    let file = file(&memory).compression(Compression::None).bytes();
    let descs = 4 * 4096;
    let offsets: Vec<_> = (0..4).map(|i| u64_at(&file, descs + 24 * i) as usize).collect();
    assert_eq!(offsets[1], offsets[3]);
    assert_eq!((file[offsets[0]], file[offsets[1]], file[offsets[2]]), (7, 0, 9));
    assert_eq!(file.len(), descs + 4 * 24 + 3 * 4096);
}

#[test]
fn compressed_pages_are_smaller_and_carry_their_flag() {
    let memory = memory();
    for compression in [Compression::Zlib, Compression::Zstd] {
        let file = file(&memory).compression(compression).bytes();
        let desc = &file[4 * 4096..][..24];
        assert_eq!(desc[12..16], compression.flag().to_le_bytes());
        assert!(u32::from_le_bytes(desc[8..12].try_into().unwrap()) < 100);
    }
}

#[test]
fn an_unfinished_file_says_so_and_has_empty_descriptors() {
    let memory = memory();
    let file = file(&memory).incomplete_after(1).bytes();
    assert_eq!(file[424] & 8, 8);
    assert_ne!(u64_at(&file, 4 * 4096), 0);
    assert_eq!(u64_at(&file, 4 * 4096 + 24), 0);
}

#[test]
fn an_excluded_page_leaves_the_second_bitmap_only() {
    let memory = memory();
    let file = file(&memory).exclude(31, |pfn| pfn == 0x11).bytes();
    assert_eq!((file[2 * 4096 + 2], file[3 * 4096 + 2]), (0x0f, 0x0d));
    assert_eq!(file[4096 + 8], 31);
}

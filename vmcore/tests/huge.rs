//! A dump of a machine with 16 TiB: two bitmaps of 512 MiB, in a file that is all holes but for a few pages.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::Instant;

use kdump_arch_x86::{PAGE_SIZE, PhysAddr};
use kdump_vmcore::kdump::defs::{DiskDumpHeader, KDUMP_SIGNATURE, KdumpSubHeader, PageDesc};
use kdump_vmcore::{Dump, PhysMem as _, ReadError};
use zerocopy::{FromZeros as _, IntoBytes as _};

const FRAMES: u64 = 1 << 32;
const MAP_BYTES: u64 = FRAMES / 8;
const RAM_AT: u64 = 2 * PAGE_SIZE;
const DUMPED_AT: u64 = RAM_AT + MAP_BYTES;
const DESCS_AT: u64 = DUMPED_AT + MAP_BYTES;
/// Frames that are in the dump, at the beginning, around the middle and at the end.
const HELD: [u64; 5] = [5, 1 << 31, (1 << 31) + 1, 3_333_333_333, FRAMES - 1];

fn write(file: &File) {
    let mut header = DiskDumpHeader::new_zeroed();
    header.signature = KDUMP_SIGNATURE;
    header.header_version = 6.into();
    header.block_size = 4096.into();
    header.sub_hdr_size = 1.into();
    header.bitmap_blocks = ((2 * MAP_BYTES / PAGE_SIZE) as u32).into();
    header.max_mapnr = u32::MAX.into();
    file.write_all_at(header.as_bytes(), 0).unwrap();
    let mut sub = KdumpSubHeader::new_zeroed();
    sub.max_mapnr_64 = FRAMES.into();
    file.write_all_at(sub.as_bytes(), PAGE_SIZE).unwrap();
    let data_at = DESCS_AT + (HELD.len() * size_of::<PageDesc>()) as u64;
    for (nr, pfn) in (0..).zip(HELD) {
        for map in [RAM_AT, DUMPED_AT] {
            let mut byte = [0];
            file.read_at(&mut byte, map + pfn / 8).unwrap();
            file.write_all_at(&[byte[0] | 1 << (pfn % 8)], map + pfn / 8).unwrap();
        }
        let at = data_at + nr * PAGE_SIZE;
        let desc = PageDesc { offset: at.into(), size: 4096.into(), ..PageDesc::default() };
        file.write_all_at(desc.as_bytes(), DESCS_AT + nr * size_of::<PageDesc>() as u64).unwrap();
        file.write_all_at(&[nr as u8 + 1; PAGE_SIZE as usize], at).unwrap();
    }
    // Memory that was left out.
    file.write_all_at(&[0xff; 64], RAM_AT + MAP_BYTES / 4).unwrap();
}

/// This process's own memory in KiB, without the pages of files: all of it, and the most there ever was with them.
fn memory() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    };
    (field("RssAnon:"), field("VmHWM:"))
}

/// Check that neither opening it nor reading from it takes memory that grows with the machine.
#[test]
fn a_dump_of_16_tib_is_opened_in_little_memory() {
    let path = std::env::temp_dir().join(format!("kdump-huge-{}", std::process::id()));
    let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    write(&file);
    let (before, highest_before) = memory();
    let begin = Instant::now();
    let dump = Dump::open(&path).unwrap();
    let took = begin.elapsed();
    std::fs::remove_file(&path).unwrap();

    for (nr, pfn) in (1..).zip(HELD) {
        let mut byte = [0];
        dump.read(PhysAddr(pfn * PAGE_SIZE + 7), &mut byte).unwrap();
        assert_eq!(byte[0], nr, "{pfn}");
        assert!(dump.read(PhysAddr((pfn - 1) * PAGE_SIZE), &mut byte).is_err() || HELD.contains(&(pfn - 1)));
    }
    let left_out = PhysAddr((1 << 30) * PAGE_SIZE);
    assert!(matches!(dump.read(left_out, &mut [0]), Err(ReadError::Excluded { .. })));
    let kdump = dump.kdump().unwrap();
    let window = kdump.read_dumped((1 << 31) - 100..(1 << 31) + 100).unwrap();
    assert_eq!(window.runs().collect::<Vec<_>>(), [(1 << 31, (1 << 31) + 2)]);
    assert!(!dump.is_incomplete());
    assert_eq!(dump.ram().len(), 5);

    let (after, highest) = memory();
    eprintln!(
        "opened in {took:?}: {} KiB more, at most {} with the file",
        after - before,
        highest - highest_before
    );
    assert!(after - before < 2048, "{before} to {after} KiB");
    assert!(highest - highest_before < 4096, "{highest_before} to {highest} KiB with the file's pages");
}

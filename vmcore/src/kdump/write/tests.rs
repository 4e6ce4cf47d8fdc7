//! What the writer writes, the reader reads.

use std::io::Write as _;
use std::vec;

use kdump_arch_x86::PhysAddr;

use super::*;
use crate::file::DumpFile;
use crate::kdump::read::{Error, KdumpFile};
use crate::mem::{PhysMem, ReadError};
use crate::notes::append_note;

fn head(compression: Compression) -> Head {
    let mut notes = Vec::new();
    append_note(&mut notes, "CORE", 1, &[9; 336]);
    append_note(&mut notes, "VMCOREINFO", 0, b"OSRELEASE=6.12.0\n");
    let mut utsname = Utsname::new_zeroed();
    utsname.machine[..6].copy_from_slice(b"x86_64");
    utsname.release[..6].copy_from_slice(b"6.12.0");
    Head { utsname, timestamp: 7, compression, dump_level: 31, phys_base: 0, nr_cpus: 0, split: None, notes }
}

fn open(bytes: &[u8]) -> Result<KdumpFile, Error> {
    let path = std::env::temp_dir().join(std::format!("kdump-write-{}-{:p}", std::process::id(), bytes));
    std::fs::File::create(&path).unwrap().write_all(bytes).unwrap();
    let file = DumpFile::open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    KdumpFile::open(file)
}

/// Frames 2, 3 and 70 are memory; 3 is excluded; 70 is zero-filled.
fn small(compression: Compression) -> Vec<u8> {
    let mut ram = PageBitmap::new(71);
    ram.insert(2, 4);
    ram.insert(70, 71);
    let mut dumped = ram.clone();
    dumped.remove(3, 4);
    let mut w = KdumpWriter::begin(Vec::new(), &head(compression), 71, 2, true).unwrap();
    w.put_bitmaps(&ram, &dumped).unwrap();
    let page = [b'a'; 4096];
    let data = match compression {
        Compression::Zstd => zstd::bulk::compress(&page, 1).unwrap(),
        Compression::Zlib => {
            let mut e = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
            e.write_all(&page).unwrap();
            e.finish().unwrap()
        }
        _ => page.to_vec(),
    };
    let stored = Page::Stored { size: data.len() as u32, flags: compression.flag() };
    w.push(&[stored, Page::Zero], 0..2, &data).unwrap();
    let (out, len) = w.finish(false).unwrap();
    assert_eq!(out.len() as u64, len);
    out
}

#[test]
fn every_compression_round_trips() {
    for how in [Compression::None, Compression::Zlib, Compression::Zstd] {
        let k = open(&small(how)).unwrap();
        let mut b = [0; 3];
        k.read(PhysAddr(0x2ffd), &mut b).unwrap();
        assert_eq!(&b, b"aaa", "{how}");
        k.read(PhysAddr(70 * 4096), &mut b).unwrap();
        assert_eq!(b, [0; 3]);
        assert_eq!(k.info().compression, Some(how));
        assert_eq!((k.info().release(), k.info().nr_cpus), ("6.12.0".into(), 1));
        assert!(!k.info().is_incomplete);
        assert_eq!(k.notes(), head(how).notes);
    }
}

#[test]
fn excluded_and_absent_are_told_apart() {
    let k = open(&small(Compression::Zlib)).unwrap();
    let at = |pfn: u64| k.read_u64(PhysAddr(pfn * 4096));
    assert!(matches!(at(3), Err(ReadError::Excluded { .. })));
    assert!(matches!(at(4), Err(ReadError::NotInDump { .. })));
    assert!(matches!(at(1 << 50), Err(ReadError::NotInDump { .. })));
    assert_eq!(k.read_ram_ranges().unwrap().len(), 2);
}

/// Check that a file cut anywhere opens with what it has, or says that its headers are cut.
#[test]
fn a_cut_file_yields_its_pages_or_an_error() {
    let whole = small(Compression::Zstd);
    for cut in (0..whole.len()).step_by(997).chain([whole.len() - 1]) {
        match open(&whole[..cut]) {
            Err(e) => assert!(cut < 4096 + 104, "{cut}: {e}"),
            Ok(k) => {
                let _ = k.read_u64(PhysAddr(0x2000));
                let _ = k.read_u64(PhysAddr(70 * 4096));
                assert!(k.is_cut(), "{cut}");
            }
        }
    }
    assert!(!open(&whole).unwrap().is_cut());
    let k = open(&whole[..whole.len() - 1]).unwrap();
    assert!(matches!(k.read_u64(PhysAddr(0x2000)), Err(ReadError::Truncated { .. })));
}

#[test]
fn an_unfinished_file_says_so_and_its_lost_pages_are_truncated() {
    let mut all = PageBitmap::new(3);
    all.insert(0, 3);
    let mut out = Vec::new();
    let mut w = KdumpWriter::begin(&mut out, &head(Compression::None), 3, 3, false).unwrap();
    w.put_bitmaps(&all, &all).unwrap();
    w.push(&[Page::Stored { size: 4096, flags: 0 }], [0], &[5; 4096]).unwrap();
    w.flush_descs().unwrap();
    drop(w);
    let k = open(&out).unwrap();
    assert!(k.info().is_incomplete);
    assert_eq!(k.read_u64(PhysAddr(0)), Ok(0x0505_0505_0505_0505));
    assert!(matches!(k.read_u64(PhysAddr(4096)), Err(ReadError::Truncated { .. })));
}

/// A disk that is full from an offset on.
struct Full(Vec<u8>, u64);

impl WriteAt for Full {
    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        match offset + bytes.len() as u64 > self.1 {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => self.0.write_all_at(bytes, offset),
        }
    }
}

#[test]
fn pages_that_did_not_fit_the_disk_get_no_descriptor() {
    let mut all = PageBitmap::new(3);
    all.insert(0, 3);
    let head = head(Compression::None);
    let data_at = Layout::plan(head.notes.len() as u64, 3, 3).data_at();
    let mut out = Full(Vec::new(), data_at + 4096 + 100);
    let mut w = KdumpWriter::begin(&mut out, &head, 3, 3, false).unwrap();
    w.put_bitmaps(&all, &all).unwrap();
    let page = Page::Stored { size: 4096, flags: 0 };
    w.push(&[page], [0], &[5; 4096]).unwrap();
    assert!(w.push(&[page, page], [1, 2], &[6; 8192]).is_err());
    w.flush_descs().unwrap();
    drop(w);
    let descs_at = data_at as usize - 3 * 24;
    assert!(out.0[descs_at..descs_at + 24] != [0; 24]);
    assert_eq!(out.0.get(descs_at + 24..data_at as usize).map(|d| d.iter().all(|b| *b == 0)), Some(true));
    assert_eq!(open(&out.0).unwrap().read_u64(PhysAddr(0)), Ok(0x0505_0505_0505_0505));
}

/// Check that the order in which pages come changes nothing of what is read, and that each window's bitmaps have
/// their place.
#[test]
fn pages_come_in_any_order_and_bitmaps_window_by_window() {
    let page = |byte: u8| (Page::Stored { size: 4096, flags: 0 }, [byte; 4096]);
    let mut out = Vec::new();
    let mut w = KdumpWriter::begin(&mut out, &head(Compression::None), 200, 3, false).unwrap();
    for (first, end, pfns) in [(0, 128, vec![5, 100]), (128, 200, vec![199])] {
        let mut map = PageBitmap::window(first, end);
        pfns.iter().for_each(|&pfn| map.insert(pfn, pfn + 1));
        w.put_bitmaps(&map, &map).unwrap();
    }
    for (index, byte) in [(2, 3), (0, 1), (1, 2)] {
        let (page, data) = page(byte);
        w.push(&[page], [index], &data).unwrap();
    }
    w.finish(false).unwrap();
    let k = open(&out).unwrap();
    assert_eq!(k.dumped().runs().collect::<Vec<_>>(), [(5, 6), (100, 101), (199, 200)]);
    for (pfn, byte) in [(5, 1), (100, 2), (199, 3)] {
        assert_eq!(k.read_u64(PhysAddr(pfn * 4096)).map(|v| v as u8), Ok(byte));
    }
}

/// Check that a file of a few pages cannot make the reader set memory aside for terabytes of frames.
#[test]
fn a_bitmap_that_the_file_cannot_have_takes_no_memory() {
    let mut bytes = small(Compression::None);
    bytes[0x1b4..0x1b8].copy_from_slice(&(1u32 << 20).to_le_bytes());
    bytes[4096 + 0x60..4096 + 0x68].copy_from_slice(&(1u64 << 34).to_le_bytes());
    let k = open(&bytes).unwrap();
    assert!(k.ram().bits() <= 8 * bytes.len() as u64 && k.is_cut());
    assert_eq!(k.info().max_mapnr, 1 << 34);
}

/// Check that no damaged byte in headers or descriptors makes the reader panic.
#[test]
fn damaged_headers_never_panic() {
    let whole = small(Compression::Zlib);
    for at in (0..464).chain(4096..4200).chain(8192..whole.len()).filter(|at| *at < 4200 || at % 7 == 0) {
        for value in [0, 0x7f, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] = value;
            if let Ok(k) = open(&bytes) {
                for pfn in [0, 2, 3, 70, 71, 1 << 33] {
                    let _ = k.read_u64(PhysAddr(pfn * 4096));
                }
                let _ = k.read_ram_ranges();
            }
        }
    }
}

//! Every format and wrapping of a dump that is read, of the same synthetic machine: the pages are the same.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs::File;
use std::path::{Path, PathBuf};

use kdump_arch_x86::{PAGE_SIZE, PhysAddr};
use kdump_capture::digest::{LogicalDigest, logical_digest};
use kdump_capture::encrypt::Recipients;
use kdump_capture::{DumpLevel, Encryption, Options, Output, OutputFormat, Wanted, capture};
use kdump_synth::{Machine, flatten};
use kdump_vmcore::flat::write::Flattened;
use kdump_vmcore::image::Wrapping;
use kdump_vmcore::kdump::Compression;
use kdump_vmcore::seekable::write::{FrameCompressor, SeekTable, frame_size};
use kdump_vmcore::sink::WriteAt as _;
use kdump_vmcore::{Dump, Format, PhysMem as _, ReadError};
use tempfile::TempDir;

fn write(dir: &TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

fn digest(path: &Path) -> LogicalDigest {
    let digest = logical_digest(&Dump::open(path).unwrap()).unwrap();
    assert_eq!(digest.lost, 0, "{}", path.display());
    digest
}

/// An ELF core in the seekable zstd format.
fn seekable(elf: &[u8]) -> Vec<u8> {
    let (mut out, mut table) = (Vec::new(), SeekTable::new());
    let mut zstd = FrameCompressor::new(1).unwrap();
    for piece in elf.chunks(frame_size(elf.len() as u64)) {
        let packed = zstd.frame(piece, &mut out).unwrap();
        table.push(packed, piece.len() as u32);
    }
    table.write(&mut out).unwrap();
    out
}

#[test]
fn a_flattened_dump_reads_as_the_dump() {
    let dir = tempfile::tempdir().unwrap();
    let machine = Machine::linux_6_12();
    for (plain, format) in
        [(machine.elf_core().bytes(), Format::Elf), (machine.kdump_at_level(31).bytes(), Format::Kdump)]
    {
        let expect = digest(&write(&dir, "plain", &plain));
        for chunk in [1000, 4096, 1 << 16] {
            let flat = write(&dir, "flat", &flatten(&plain, chunk));
            let dump = Dump::open(&flat).unwrap();
            assert_eq!((dump.format(), dump.wrapping()), (format, Wrapping::Flattened));
            assert!(!dump.is_incomplete());
            assert_eq!(digest(&flat), expect, "{format}, records of {chunk}");
        }
        // By our own writer: page data, then the headers once more.
        let mut flat = Flattened::begin(Vec::new()).unwrap();
        flat.write_all_at(&plain[..100], 0).unwrap();
        plain.chunks(777).enumerate().for_each(|(nr, b)| flat.write_all_at(b, nr as u64 * 777).unwrap());
        flat.write_all_at(&plain[..4096], 0).unwrap();
        let stream = flat.finish().unwrap();
        assert_eq!(digest(&write(&dir, "ours", &stream)), expect);

        // Cut: what is there is read, and that it is not all is said.
        let cut = write(&dir, "cut", &stream[..stream.len() * 3 / 4]);
        let dump = Dump::open(&cut).unwrap();
        assert!(dump.is_incomplete());
        let had = logical_digest(&dump).unwrap();
        assert!(had.pages < expect.pages && had.pages + had.lost <= expect.pages);
    }
}

#[test]
fn older_headers_are_read_as_far_as_they_go() {
    let dir = tempfile::tempdir().unwrap();
    let machine = Machine::linux_6_12();
    let expect = digest(&write(&dir, "new", &machine.kdump_at_level(31).bytes()));
    for version in 0..6 {
        let path = write(&dir, "old", &machine.kdump_at_level(31).version(version).bytes());
        let dump = Dump::open(&path).unwrap();
        let info = dump.kdump().unwrap().info();
        assert_eq!((info.version, info.split), (version as i32, None));
        assert_eq!(info.dump_level, (version >= 1).then_some(31));
        // VMCOREINFO came with version 3, all notes with 4.
        assert_eq!(dump.vmcoreinfo().is_some(), version >= 3, "version {version}");
        assert_eq!(dump.prstatus().is_empty(), version < 4, "version {version}");
        assert_eq!(digest(&path), expect, "version {version}");
    }
    let path = write(&dir, "disk", &machine.kdump_at_level(31).diskdump().bytes());
    let dump = Dump::open(&path).unwrap();
    assert_eq!(dump.kdump().unwrap().info().dump_level, None);
    assert!(dump.notes().is_empty());
    assert_eq!(digest(&path), expect);
}

/// Three files of a machine, split at odd places.
fn parts(machine: &Machine, version: u32) -> Vec<Vec<u8>> {
    let file = || machine.kdump_at_level(31).version(version);
    let frames: Vec<u64> = file().stored().iter().copied().collect();
    let end = machine.spec.ram.iter().map(|&(_, end)| end / PAGE_SIZE).max().unwrap();
    let (a, b) = (frames[frames.len() / 5] + 1, frames[frames.len() / 2]);
    [(0, a), (a, b), (b, end)].map(|(from, to)| file().part(from, to).bytes()).to_vec()
}

#[test]
fn the_files_of_a_split_dump_are_one_dump() {
    let dir = tempfile::tempdir().unwrap();
    let machine = Machine::linux_6_12();
    let whole = digest(&write(&dir, "whole", &machine.kdump_at_level(31).bytes()));
    for version in [2, 5, 6] {
        let files = parts(&machine, version);
        let paths: Vec<PathBuf> =
            files.iter().zip(["c", "a", "b"]).map(|(bytes, name)| write(&dir, name, bytes)).collect();
        let [first, second, third] = [0, 1, 2].map(|i| &paths[i]);
        for order in [[third, first, second], [first, second, third]] {
            let set = Dump::open_set(&order).unwrap();
            assert!(!set.is_incomplete());
            assert_eq!(set.kdump().unwrap().info().split, None);
            assert_eq!(logical_digest(&set).unwrap(), whole, "version {version}");
        }
        // Each alone has its own pages; two of three say that they are not all.
        let alone: u64 = paths.iter().map(|p| digest(p).pages).sum();
        assert_eq!(alone, whole.pages);
        let some = Dump::open_set(&[first, third]).unwrap();
        assert!(some.is_incomplete());
        let had = logical_digest(&some).unwrap();
        assert_eq!(had.pages + digest(second).pages, whole.pages);
        let frame = digest_frame(second);
        assert!(matches!(some.read(frame, &mut [0; 8]), Err(ReadError::NotInDump { .. })));

        let refused = |set: &[&PathBuf]| Dump::open_set(set).err().unwrap().to_string();
        assert!(refused(&[first, first]).contains("file 2 is no part of the same split dump"));
        assert!(refused(&[first, &dir.path().join("whole")]).contains("whole dump"));
        let other = write(&dir, "other", &Machine::linux_6_1().kdump().part(0, 5).version(version).bytes());
        assert!(refused(&[second, &other]).contains("another machine"));
        let elf = write(&dir, "elf", &machine.elf_core().bytes());
        assert!(refused(&[first, &elf]).contains("file 2 is no kdump-compressed file"));
        assert!(refused(&[first, &dir.path().join("none")]).contains("file 2: cannot open"));
    }
}

/// Address of a page that a file of a set holds.
fn digest_frame(path: &Path) -> PhysAddr {
    let dump = Dump::open(path).unwrap();
    let kdump = dump.kdump().unwrap();
    let held = kdump.read_dumped(0..kdump.frames()).unwrap();
    PhysAddr(held.runs().next().unwrap().0 * PAGE_SIZE)
}

#[test]
fn an_elf_core_in_zstd_frames_reads_as_the_core_whole_and_cut() {
    let dir = tempfile::tempdir().unwrap();
    let elf = Machine::linux_7_3().elf_core().bytes();
    let expect = digest(&write(&dir, "elf", &elf));
    let packed = seekable(&elf);
    assert!(packed.len() < elf.len() / 2);
    let path = write(&dir, "elf.zst", &packed);
    let dump = Dump::open(&path).unwrap();
    assert_eq!((dump.format(), dump.wrapping()), (Format::Elf, Wrapping::SeekableZstd));
    assert!(!dump.is_incomplete());
    assert_eq!(digest(&path), expect);

    for part in [packed.len() - 10, packed.len() / 2, packed.len() / 4] {
        let dump = Dump::open(&write(&dir, "cut", &packed[..part])).unwrap();
        assert!(dump.is_incomplete(), "cut at {part}");
        let had = logical_digest(&dump).unwrap();
        assert_eq!(had.pages + had.lost, expect.pages, "cut at {part}");
    }
}

#[test]
fn windows_of_the_bitmaps_are_the_bitmaps() {
    let dir = tempfile::tempdir().unwrap();
    let dump = Dump::open(&write(&dir, "kdump", &Machine::linux_6_12().kdump_at_level(31).bytes())).unwrap();
    let kdump = dump.kdump().unwrap();
    let frames = kdump.frames();
    for start in (0..frames).step_by(1013) {
        let end = start + 1013;
        for (whole, window) in
            [(kdump.ram(), kdump.read_ram(start..end)), (kdump.dumped(), kdump.read_dumped(start..end))]
        {
            assert!(window.unwrap().runs().eq(whole.runs_in(start, end)), "{start}");
        }
    }
}

/// Check each codec, and that what one wrote, another's file gives the same pages.
#[test]
fn every_codec_writes_what_reads_back() {
    let dir = tempfile::tempdir().unwrap();
    let source = write(&dir, "source", &Machine::linux_6_12().kdump_at_level(31).bytes());
    let expect = digest(&source);
    let mut from = source;
    for how in
        [Compression::Lzo, Compression::Snappy, Compression::Zstd, Compression::Zlib, Compression::None]
    {
        let to = dir.path().join(how.name());
        let options = Options {
            wanted: Wanted { selection: DumpLevel::new(1).unwrap().into(), ..Wanted::default() },
            format: OutputFormat::Kdump,
            compression: how,
            ..Options::default()
        };
        let out = File::options().read(true).write(true).create_new(true).open(&to).unwrap();
        capture(&Dump::open(&from).unwrap(), &options, Output::File(&out), &mut |_| ()).unwrap();
        let info = Dump::open(&to).unwrap().kdump().unwrap().info().clone();
        assert_eq!(info.compression, Some(how));
        assert_eq!(digest(&to), expect, "{how}");
        if how != Compression::None {
            let size = to.metadata().unwrap().len();
            assert!(size < expect.pages * PAGE_SIZE / 4, "{how}: {size} bytes");
        }
        from = to;
    }
}

/// Check that a stream holds what a file would, in each format, and that the formats hold the same pages.
#[test]
fn streams_hold_what_files_do() {
    let dir = tempfile::tempdir().unwrap();
    for machine in [Machine::linux_5_10(), Machine::linux_6_1(), Machine::linux_6_12(), Machine::linux_7_3()]
    {
        let source = Dump::open(&write(&dir, "source", &machine.elf_core().bytes())).unwrap();
        let mut digests = Vec::new();
        for format in [OutputFormat::Kdump, OutputFormat::Elf, OutputFormat::ElfZstd] {
            let wanted = Wanted { selection: DumpLevel::new(30).unwrap().into(), ..Wanted::default() };
            let options = Options { format, wanted, digests: true, ..Options::default() };
            let mut stream = Vec::new();
            let summary = capture(&source, &options, Output::Stream(&mut stream), &mut |_| ()).unwrap();
            assert_eq!(summary.bytes, stream.len() as u64);
            assert_eq!(summary.digests.iter().map(|d| d.length).sum::<u64>(), summary.bytes);
            let path = write(&dir, format.name(), &stream);
            digests.push(digest(&path));
            let opened = Dump::open(&path).unwrap();
            assert!(!opened.is_incomplete(), "{}", format.name());
            assert_eq!(opened.notes(), source.notes());

            let to = dir.path().join("file");
            let out = File::options().read(true).write(true).create(true).truncate(true).open(&to).unwrap();
            capture(&source, &options, Output::File(&out), &mut |_| ()).unwrap();
            digests.push(digest(&to));
            if format == OutputFormat::ElfZstd {
                assert!(std::fs::read(&to).unwrap() == stream);
            }
        }
        assert!(digests.iter().all(|d| *d == digests[0]), "{digests:?}");
    }
}

/// Check that an encrypted file is an encrypted stream, digested as it lies there, and that padding ends a chunk. That it
/// opens, tests/targets shows by age(1).
#[test]
fn what_is_encrypted_is_digested_as_it_is_stored() {
    const CHUNK: usize = 64 << 10;
    const TAG: usize = 16;
    let dir = tempfile::tempdir().unwrap();
    let source = Dump::open(&write(&dir, "source", &Machine::linux_6_12().elf_core().bytes())).unwrap();
    let owner = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p".to_owned();
    let recipients = Recipients::parse(&[owner]).unwrap();
    let mut plain = Vec::new();
    capture(&source, &Options::default(), Output::Stream(&mut plain), &mut |_| ()).unwrap();
    for is_padded in [false, true] {
        let encryption = Some(Encryption { recipients: recipients.clone(), is_padded });
        let options = Options { encryption, digests: true, ..Options::default() };
        assert_eq!(options.file_name(false), "vmcore.flat.age");
        let to = dir.path().join("sealed");
        let out = File::options().read(true).write(true).create(true).truncate(true).open(&to).unwrap();
        let summary = capture(&source, &options, Output::File(&out), &mut |_| ()).unwrap();
        let mut stream = Vec::new();
        capture(&source, &options, Output::Stream(&mut stream), &mut |_| ()).unwrap();
        let file = std::fs::read(&to).unwrap();
        assert_eq!((file.len(), summary.bytes), (stream.len(), stream.len() as u64));
        assert_eq!(summary.digests.iter().map(|d| d.length).sum::<u64>(), summary.bytes);
        assert!(file.starts_with(b"age-encryption.org/v1\n-> X25519 "));
        // After the line with the header's MAC, and the nonce.
        let payload = file.windows(5).position(|w| w == b"\n--- ").unwrap() + 5 + 43 + 1 + 16;
        let sealed = file.len() - payload;
        if is_padded {
            assert_eq!(sealed % (CHUNK + TAG), 0);
        } else {
            assert_eq!(sealed, plain.len() + plain.len().div_ceil(CHUNK) * TAG);
        }
    }
}

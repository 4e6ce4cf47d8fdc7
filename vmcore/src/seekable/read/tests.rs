//! Files of our own writer, whole, cut and damaged.

use std::io::Write as _;
use std::vec::Vec;

use super::*;
use crate::seekable::write::{FrameCompressor, SeekTable};

fn open(bytes: &[u8]) -> Result<SeekableFile, Error> {
    let path = std::env::temp_dir().join(std::format!("kdump-zstd-{}-{bytes:p}", std::process::id()));
    std::fs::write(&path, bytes).unwrap();
    let file = DumpFile::open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    SeekableFile::open(file)
}

fn text(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i / 7 % 251) as u8 ^ (i / 1000) as u8).collect()
}

/// The frames of `plain`, where each ends, and the table.
fn packed(plain: &[u8], size: usize) -> (Vec<u8>, Vec<usize>, Vec<u8>) {
    let (mut out, mut ends, mut table) = (Vec::new(), Vec::new(), SeekTable::new());
    let mut zstd = FrameCompressor::new(1).unwrap();
    for piece in plain.chunks(size) {
        let n = zstd.frame(piece, &mut out).unwrap();
        table.push(n, piece.len() as u32);
        ends.push(out.len());
    }
    let mut tail = Vec::new();
    table.write(&mut tail).unwrap();
    (out, ends, tail)
}

fn contents(file: &SeekableFile) -> Vec<u8> {
    let mut out = std::vec![0; file.len() as usize];
    file.read_at(0, &mut out).unwrap();
    out
}

#[test]
fn frames_are_read_by_the_table_and_without_it() {
    let plain = text(1_000_003);
    let (frames, _, table) = packed(&plain, 5000);
    let whole = open(&[frames.clone(), table].concat()).unwrap();
    let cut = open(&frames).unwrap();
    assert!(!whole.is_cut() && cut.is_cut());
    for file in [whole, cut] {
        assert_eq!(contents(&file), plain);
        for from in [0, 4999, 5000, 123_456, 1_000_000] {
            let mut three = [0; 3];
            file.read_at(from as u64, &mut three).unwrap();
            assert_eq!(three, plain[from..from + 3]);
        }
        assert_eq!(file.read_at(1_000_001, &mut [0; 3]), Err(ReadError::Truncated { at: 1_000_003 }));
        assert!(file.read_at(u64::MAX, &mut [0; 3]).is_err());
    }
}

/// Check that the stock decoder reads the whole, table and all.
#[test]
fn any_zstd_decoder_gives_the_whole() {
    let plain = text(300_000);
    let (frames, _, table) = packed(&plain, 64 << 10);
    assert_eq!(zstd::decode_all([frames, table].concat().as_slice()).unwrap(), plain);
}

#[test]
fn a_file_cut_anywhere_has_the_frames_before_the_cut() {
    let plain = text(2000);
    let (frames, ends, table) = packed(&plain, 300);
    let whole = [frames, table].concat();
    for cut in 0..whole.len() {
        let nr = ends.iter().filter(|&&end| end <= cut).count();
        match open(&whole[..cut]) {
            Ok(file) => {
                assert_eq!(contents(&file), plain[..(nr * 300).min(2000)], "cut at {cut}");
                assert!(file.is_cut());
            }
            Err(e) => assert!(matches!(e, Error::NoFrames) && nr == 0, "cut at {cut}: {e}"),
        }
    }
}

#[test]
fn a_table_that_lies_is_not_believed() {
    let plain = text(2000);
    let (frames, _, table) = packed(&plain, 300);
    for (at, bit) in [(8, 1), (9, 0x10), (table.len() - 9, 1), (table.len() - 5, 4), (4, 1)] {
        let mut bad = table.clone();
        bad[at] ^= bit;
        let file = open(&[frames.clone(), bad].concat()).unwrap();
        assert!(file.is_cut());
        assert_eq!(contents(&file), plain, "byte {at} of the table changed");
    }
    // A size that only the frame itself contradicts.
    let mut bad = table;
    bad[12] ^= 1;
    let file = open(&[frames, bad].concat()).unwrap();
    assert!(matches!(file.read_at(0, &mut [0; 10]), Err(ReadError::Corrupt { .. })));
}

#[test]
fn a_damaged_frame_costs_itself() {
    let plain = text(3000);
    let (mut frames, ends, table) = packed(&plain, 1000);
    frames[ends[0] + 20] ^= 0x55;
    let file = open(&[frames, table].concat()).unwrap();
    let mut part = [0; 1000];
    file.read_at(0, &mut part).unwrap();
    assert_eq!(part, plain[..1000]);
    assert!(matches!(file.read_at(1500, &mut part[..1]), Err(ReadError::Corrupt { .. })));
    file.read_at(2000, &mut part).unwrap();
    assert_eq!(part, plain[2000..]);
}

/// Check what the zstd command writes: one frame, too large to be read at offsets, or of a size it does not say.
#[test]
fn a_file_that_is_one_large_frame_is_refused_with_a_remedy() {
    let one = zstd::bulk::compress(&std::vec![0; 17 << 20], 1).unwrap();
    let e = open(&one).unwrap_err();
    assert!(e.to_string().contains("17825792") && e.to_string().contains("zstd -d"), "{e}");
    let mut piped = zstd::Encoder::new(Vec::new(), 1).unwrap();
    (0..9).for_each(|_| piped.write_all(&[1; 100_000]).unwrap());
    let unsaid = piped.finish().unwrap();
    assert!(open(&unsaid).unwrap_err().to_string().contains("unknown number"));
    let small = open(&zstd::bulk::compress(&text(100_000), 1).unwrap()).unwrap();
    assert_eq!(contents(&small), text(100_000));
}

#[test]
fn marks_stay_few_and_right() {
    let mut marks = Marks::new();
    let nr = 64 * Marks::MOST as u64 * 5;
    (0..nr).for_each(|i| marks.push(i * 10, i * 100));
    assert!(marks.marks.len() <= Marks::MOST, "{}", marks.marks.len());
    assert_eq!(marks.marks.len() as u64, nr.div_ceil(marks.step));
    for (i, &mark) in marks.marks.iter().enumerate() {
        let frame = i as u64 * marks.step;
        assert_eq!(mark, (frame * 10, frame * 100));
    }
}

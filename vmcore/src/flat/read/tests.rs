//! Streams of our own writer and hostile ones.

use std::vec::Vec;

use super::*;
use crate::flat::write::Flattened;
use crate::sink::WriteAt as _;

fn open(stream: &[u8]) -> Result<FlatFile, Error> {
    let path = std::env::temp_dir().join(std::format!("kdump-flat-{}-{stream:p}", std::process::id()));
    std::fs::write(&path, stream).unwrap();
    let file = DumpFile::open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    FlatFile::open(file)
}

fn stream(records: &[(u64, &[u8])], ended: bool) -> Vec<u8> {
    let mut out = Flattened::begin(Vec::new()).unwrap().finish().unwrap();
    out.truncate(HEADER_LEN as usize);
    for (at, bytes) in records {
        out.extend(at.to_be_bytes());
        out.extend((bytes.len() as u64).to_be_bytes());
        out.extend(*bytes);
    }
    if ended {
        out.extend([0xff; 16]);
    }
    out
}

fn contents(flat: &FlatFile) -> Vec<u8> {
    let mut out = std::vec![0xaa; flat.len() as usize];
    flat.read_at(0, &mut out).unwrap();
    out
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % n
    }
}

#[test]
fn later_records_win_and_gaps_are_zeros() {
    let flat = open(&stream(&[(0, b"abcdef"), (8, b"xyz"), (2, b"CD"), (5, b"F")], true)).unwrap();
    assert_eq!(contents(&flat), b"abCDeF\0\0xyz");
    assert!(!flat.is_cut());
    assert_eq!(flat.borrow(8, 3), Some(&b"xyz"[..]));
    assert_eq!(flat.borrow(4, 2), None, "two records");
    assert_eq!(flat.read_at(8, &mut [0; 4]), Err(ReadError::Truncated { at: 11 }));
    assert!(flat.read_at(u64::MAX, &mut [0; 4]).is_err());
}

/// Check against a plain file in memory, for records of every size and order.
#[test]
fn a_stream_reads_as_the_file_that_was_written() {
    let mut random = Random(11);
    for round in 0..300 {
        let size = 1 + random.below(40);
        let mut model = Vec::new();
        let mut pieces = Vec::new();
        let mut at = 0;
        for nr in 0..random.below(400) {
            if random.below(10) == 0 {
                at = random.below(3000);
            }
            // Rounds of equal records, rounds of unequal ones, and mixed ones.
            let len = if round % 3 == 0 || random.below(20) > 0 && round % 3 == 1 {
                size
            } else {
                random.below(size)
            };
            let bytes: Vec<u8> = (0..len).map(|i| (nr * 7 + i) as u8).collect();
            model.write_all_at(&bytes, at).unwrap();
            pieces.push((at, bytes));
            at += len;
        }
        let records: Vec<(u64, &[u8])> = pieces.iter().map(|(at, b)| (*at, b.as_slice())).collect();
        match open(&stream(&records, true)) {
            Ok(flat) => {
                while model.len() > flat.len() as usize {
                    assert_eq!(model.pop(), Some(0), "only zeros that an empty record wrote may be missing");
                }
                assert!(contents(&flat) == model, "round {round}");
                for _ in 0..50 {
                    let from = random.below(flat.len());
                    let mut byte = [0];
                    flat.read_at(from, &mut byte).unwrap();
                    assert_eq!(byte[0], model[from as usize]);
                }
            }
            Err(Error::NoRecords) => assert!(pieces.iter().all(|(_, b)| b.is_empty())),
            Err(e) => panic!("round {round}: {e}"),
        }
    }
}

#[test]
fn a_cut_stream_has_what_came_before_the_cut() {
    let whole = stream(&[(0, b"abcdef"), (6, b"ghijkl")], true);
    let header = HEADER_LEN as usize;
    for cut in header..whole.len() {
        match open(&whole[..cut]) {
            Ok(flat) => {
                assert!(flat.is_cut());
                let had = (cut - header).saturating_sub(16).min(6) + (cut - header).saturating_sub(38).min(6);
                assert_eq!(contents(&flat), b"abcdefghijkl"[..had], "cut at {cut}");
            }
            Err(e) => assert!(matches!(e, Error::NoRecords) && cut < header + 17, "cut at {cut}: {e}"),
        }
    }
    assert!(matches!(open(&whole[..header - 1]), Err(Error::Short { have: 4095 })));
}

#[test]
fn even_records_are_one_span_and_uneven_ones_a_few() {
    let even: Vec<(u64, &[u8])> = (0..5000).map(|i| (i * 4, &b"abcd"[..])).collect();
    assert_eq!(open(&stream(&even, true)).unwrap().nr_spans(), 1);
    let uneven: Vec<(u64, &[u8])> = (0..5000u64)
        .map(|i| (i / 2 * 7 + i % 2 * 4, if i % 2 == 0 { &b"abcd"[..] } else { b"efg" }))
        .collect();
    let flat = open(&stream(&uneven, true)).unwrap();
    assert_eq!(flat.nr_spans(), 5000usize.div_ceil(WALKED as usize));
    assert_eq!(contents(&flat), b"abcdefg".repeat(2500));
}

#[test]
fn a_flood_of_scattered_bytes_is_refused_before_it_takes_memory() {
    let flood: Vec<(u64, &[u8])> = (0..100_000).map(|i| (i * 2, &b"x"[..])).collect();
    assert!(matches!(open(&stream(&flood, true)), Err(Error::Scattered(1024))));
    // The same bytes where each continues the one before are a single span.
    let row: Vec<(u64, &[u8])> = (0..100_000).map(|i| (i, &b"x"[..])).collect();
    assert_eq!(open(&stream(&row, true)).unwrap().nr_spans(), 1);
}

#[test]
fn numbers_that_cannot_be_end_the_stream() {
    for (at, len) in [(-2i64, 4i64), (4, -1), (-1, 0), (i64::MAX, 2), (0, i64::MIN)] {
        let mut s = stream(&[(0, b"abcd")], false);
        s.extend(at.to_be_bytes());
        s.extend(len.to_be_bytes());
        s.extend(b"efgh");
        let flat = open(&s).unwrap();
        assert!(flat.is_cut(), "{at} {len}");
        assert_eq!(contents(&flat), b"abcd");
    }
    let mut other = stream(&[(0, b"abcd")], true);
    other[31] = 2;
    assert!(matches!(open(&other), Err(Error::Version { kind: 1, version: 2 })));
}

//! Reads rings back with the kernel's rules, written again here.

use super::*;

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// Returns (sequence number, text) of each readable record.
fn read(ring: &PrintkRing) -> Vec<(u64, String)> {
    let mut out = Vec::new();
    let mut id = ring.tail_id;
    loop {
        let slot = (id & ((1 << ring.count_bits) - 1)) as usize;
        let state = u64_at(&ring.descs, slot * 24);
        let (begin, next) = (u64_at(&ring.descs, slot * 24 + 8), u64_at(&ring.descs, slot * 24 + 16));
        if state & ID_MASK == id && matches!(state >> 62, 1 | 2) {
            let info = slot * ring.info_size;
            let len = usize::from(u16::from_le_bytes(ring.infos[info + 16..info + 18].try_into().unwrap()));
            let mask = (1u64 << ring.size_bits) - 1;
            let text = if begin & 1 == 1 {
                String::new()
            } else {
                let is_wrapped = begin >> ring.size_bits != next.wrapping_sub(1) >> ring.size_bits;
                let at = if is_wrapped { 0 } else { (begin & mask) as usize };
                assert_eq!(u64_at(&ring.data, at), id);
                String::from_utf8(ring.data[at + 8..at + 8 + len].to_vec()).unwrap()
            };
            out.push((u64_at(&ring.infos, info), text));
        }
        if id == ring.head_id {
            return out;
        }
        id = (id + 1) & ID_MASK;
    }
}

fn numbered(ring: &mut PrintkRing, count: u64) {
    for n in 0..count {
        ring.push(&Record::new(n, &format!("line {n}")));
    }
}

#[test]
fn records_come_back_in_order_with_their_numbers() {
    let mut ring = PrintkRing::new(4, 10, 88, false);
    numbered(&mut ring, 5);
    let expected: Vec<_> = (0..5).map(|n| (n, format!("line {n}"))).collect();
    assert_eq!(read(&ring), expected);
}

#[test]
fn a_ring_that_went_round_keeps_the_newest_and_counts_on() {
    for info_size in [88, 112] {
        let mut ring = PrintkRing::new(4, 10, info_size, true);
        numbered(&mut ring, 40);
        let expected: Vec<_> = (24..40).map(|n| (n, format!("line {n}"))).collect();
        assert_eq!(read(&ring), expected);
    }
}

#[test]
fn a_record_that_crosses_the_end_starts_again_at_the_front() {
    let mut ring = PrintkRing::new(6, 8, 88, false);
    numbered(&mut ring, 15); // 15 × 16 bytes
    assert_eq!(ring.room_before_wrap(), 16);
    ring.push(&Record::new(99, "a text longer than what is left"));
    assert_eq!(&ring.data()[8..14], b"a text");
    assert_eq!(read(&ring).last().unwrap().1, "a text longer than what is left");
    // The room it took at the front cost the oldest records.
    assert!(read(&ring)[0].0 > 0);
}

#[test]
fn a_perfect_fit_ends_at_the_ring_s_end_only_since_7_0() {
    for is_perfect_fit in [false, true] {
        let mut ring = PrintkRing::new(6, 8, 88, is_perfect_fit);
        numbered(&mut ring, 15);
        ring.push(&Record::new(99, "12345678"));
        let at = if is_perfect_fit { 256 - 8 } else { 8 };
        assert_eq!(&ring.data()[at..at + 8], b"12345678");
        assert_eq!(read(&ring).last().unwrap().1, "12345678");
    }
}

#[test]
fn reserved_and_lost_records_do_not_hide_their_neighbours() {
    let mut ring = PrintkRing::new(4, 10, 88, true);
    ring.push(&Record::new(0, "first")).push_as(&Record::new(1, "unfinished"), DescState::Reserved);
    ring.push_lost(&Record::new(2, "lost")).push(&Record::new(3, "")).push(&Record::new(4, "last"));
    let expected = [(0, "first"), (2, ""), (3, ""), (4, "last")].map(|(n, s)| (n, s.to_owned()));
    assert_eq!(read(&ring), expected);
}

#[test]
fn the_header_has_the_sizes_of_5_10_and_of_5_18() {
    let ring = PrintkRing::new(4, 10, 88, true);
    assert_eq!((ring.header(0, 0, 0, false).len(), ring.header(0, 0, 0, true).len()), (80, 88));
}

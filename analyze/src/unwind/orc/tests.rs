use kdump_arch_x86::PhysAddr;
use kdump_vmcore::mem::LiteralMem;

use crate::unwind::TEST_SPACE;

use super::*;

fn raw(sp_offset: i16, bp_offset: i16, bits: u16) -> [u8; ENTRY_SIZE] {
    let mut e = [0; ENTRY_SIZE];
    e[..2].copy_from_slice(&sp_offset.to_le_bytes());
    e[2..4].copy_from_slice(&bp_offset.to_le_bytes());
    e[4..].copy_from_slice(&bits.to_le_bytes());
    e
}

/// Check that an ordinary function's entry (caller at SP+16, frame pointer saved at -16) reads the
/// same in every encoding.
#[test]
fn an_ordinary_entry_is_the_same_in_all_formats() {
    let expect = Entry {
        sp_offset: 16,
        bp_offset: -16,
        sp_reg: Reg::Sp,
        bp_reg: Reg::PrevSp,
        kind: Kind::Call,
        signal: false,
    };
    assert_eq!(Entry::decode(raw(16, -16, 0x0015), Format::V1), expect);
    assert_eq!(Entry::decode(raw(16, -16, 0x0015), Format::V2), expect);
    assert_eq!(Entry::decode(raw(16, -16, 0x0215), Format::V3), expect);
    assert_eq!(Entry::decode(raw(16, -16, 0x0283), Format::V4), expect);
}

#[test]
fn the_end_of_a_stack_moved_from_a_bit_to_a_type() {
    let kind = |bits, format| Entry::decode(raw(0, 0, bits), format).kind;
    assert_eq!(kind(0x0400, Format::V1), Kind::EndOfStack);
    assert_eq!(kind(0x0800, Format::V2), Kind::EndOfStack);
    assert_eq!(kind(0x0100, Format::V3), Kind::EndOfStack);
    assert_eq!(kind(0x0100, Format::V4), Kind::EndOfStack);
    for format in [Format::V1, Format::V2, Format::V3, Format::V4] {
        assert_eq!(kind(0, format), Kind::Undefined);
    }
}

/// Check that interrupt frames are signal frames where no bit says so.
#[test]
fn the_first_format_tells_signal_frames_by_their_type() {
    let signal = |bits, format| Entry::decode(raw(0, 0, bits), format).signal;
    assert!(signal(0x0105, Format::V1) && signal(0x0205, Format::V1) && !signal(0x0005, Format::V1));
    assert!(signal(0x0505, Format::V2) && !signal(0x0105, Format::V2));
    assert!(signal(0x0b05, Format::V3) && !signal(0x0305, Format::V3));
}

#[test]
fn register_numbers_changed_in_the_fourth_format() {
    let sp = |n: u16, format| Entry::decode(raw(0, 0, 0x0200 | n), format).sp_reg;
    let all = |format| (0..11).map(|n| sp(n, format)).collect::<Vec<_>>();
    use Reg::*;
    assert_eq!(
        all(Format::V3),
        [Undefined, PrevSp, Dx, Di, Bp, Sp, R10, R13, BpIndirect, SpIndirect, Unknown(10)]
    );
    assert_eq!(all(Format::V4), [Undefined, Ax, Dx, Sp, Bp, Di, R10, R13, PrevSp, SpIndirect, BpIndirect]);
}

#[test]
fn without_a_hash_the_majority_votes() {
    let table = |common: u16, rare: u16| {
        let entries = [common, common, common, common, rare, 0];
        entries.iter().flat_map(|&b| raw(8, 0, b)).collect::<Vec<u8>>()
    };
    assert_eq!(Format::guess_from_entries(&table(0x0005, 0x0400)), Some(Format::V1));
    assert_eq!(Format::guess_from_entries(&table(0x0005, 0x0800)), Some(Format::V2));
    assert_eq!(Format::guess_from_entries(&table(0x0205, 0x0100)), Some(Format::V3));
    assert_eq!(Format::guess_from_entries(&table(0x0203, 0x0100)), Some(Format::V4));
    assert_eq!(Format::guess_from_entries(&table(0x0f0f, 0)), None);
    assert_eq!(Format::guess_from_entries(&[]), None);
}

/// Check the rule of search: the last entry whose address is not above the one asked for.
#[test]
fn an_entry_covers_up_to_the_next() {
    const BASE: u64 = 0xffff_ffff_8200_0000;
    let text: [u64; 3] = [0xffff_ffff_8100_0000, 0xffff_ffff_8100_0010, 0xffff_ffff_8100_0020];
    let ips = text
        .iter()
        .enumerate()
        .flat_map(|(i, t)| i32::try_from(*t as i64 - (BASE + i as u64 * 4) as i64).unwrap().to_le_bytes());
    let entries = [8i16, 16, 24].iter().flat_map(|&o| raw(o, 0, 0x0205));
    let mem =
        LiteralMem(vec![(PhysAddr(0x200_0000), ips.collect()), (PhysAddr(0x201_0000), entries.collect())]);
    let mem = KernelMem::new(&mem, TEST_SPACE);
    let table = Table::read(&mem, VirtAddr(BASE), VirtAddr(BASE + 0x1_0000), 3).unwrap();
    let offset = |ip| table.find(ip, Format::V3).map(|e| e.sp_offset);
    assert_eq!(offset(text[0] - 1), None);
    assert_eq!(offset(text[0]), Some(8));
    assert_eq!(offset(text[1] - 1), Some(8));
    assert_eq!(offset(text[1]), Some(16));
    assert_eq!(offset(text[2] + 0x1000), Some(24));

    let absurd = Table::read(&mem, VirtAddr(BASE), VirtAddr(BASE), u64::from(u32::MAX));
    assert!(matches!(absurd, Err(ReadError::Corrupt { .. })));
}

use std::collections::BTreeMap;

use super::*;

const IP: u64 = 0xffff_ffff_8100_0100;
const CALLER: u64 = 0xffff_ffff_8100_0200;

/// A stack as a literal: words by address.
fn stack(words: &[(u64, u64)]) -> impl Fn(u64) -> Result<u64, Why> {
    let words: BTreeMap<u64, u64> = words.iter().copied().collect();
    move |at| words.get(&at).copied().ok_or(Why::OffStack(VirtAddr(at)))
}

fn cursor() -> Cursor {
    Cursor { ip: IP, sp: 0x1000, bp: 0x1100, regs: None, signal: false }
}

fn call(sp_reg: Reg, sp_offset: i16, bp_reg: Reg, bp_offset: i16) -> Entry {
    Entry { sp_offset, bp_offset, sp_reg, bp_reg, kind: Kind::Call, signal: false }
}

fn step(c: &Cursor, e: &Entry, words: &[(u64, u64)]) -> Result<Found, Why> {
    orc_step(c, e, SpIndirect::AfterRead, &stack(words))
}

fn caller(found: Result<Found, Why>) -> Cursor {
    match found {
        Ok(Found::Caller(c)) => c,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_call_frame_is_found_from_the_stack_pointer() {
    let e = call(Reg::Sp, 0x20, Reg::Undefined, 0);
    let c = caller(step(&cursor(), &e, &[(0x1018, CALLER)]));
    assert_eq!((c.ip, c.sp, c.bp, c.signal), (CALLER, 0x1020, 0x1100, false));
}

#[test]
fn a_call_frame_is_found_from_the_frame_pointer() {
    let e = call(Reg::Bp, 16, Reg::PrevSp, -16);
    let c = caller(step(&cursor(), &e, &[(0x1108, CALLER), (0x1100, 0x1200)]));
    assert_eq!((c.ip, c.sp, c.bp), (CALLER, 0x1110, 0x1200));
}

/// Check the frame pointer's own base register: its save slot, not the caller's frame.
#[test]
fn the_frame_pointer_may_be_saved_relative_to_itself() {
    let e = call(Reg::Sp, 8, Reg::Bp, 0);
    let c = caller(step(&cursor(), &e, &[(0x1000, CALLER), (0x1100, 0x1300)]));
    assert_eq!(c.bp, 0x1300);
}

/// Check the switch from an interrupt stack: the word at the stack pointer is the old one.
#[test]
fn sp_indirect_adds_its_offset_to_what_it_reads() {
    let e = call(Reg::SpIndirect, 8, Reg::Undefined, 0);
    let c = caller(step(&cursor(), &e, &[(0x1000, 0x9000), (0x9000, CALLER)]));
    assert_eq!((c.ip, c.sp), (CALLER, 0x9008));
}

#[test]
fn sp_indirect_added_its_offset_to_the_address_before_5_12() {
    let e = call(Reg::SpIndirect, 8, Reg::Undefined, 0);
    let read = stack(&[(0x1008, 0x9008), (0x9000, CALLER)]);
    let c = caller(orc_step(&cursor(), &e, SpIndirect::BeforeRead, &read));
    assert_eq!((c.ip, c.sp), (CALLER, 0x9008));
}

#[test]
fn bp_indirect_adds_its_offset_to_the_address() {
    let e = call(Reg::BpIndirect, -8, Reg::Undefined, 0);
    let c = caller(step(&cursor(), &e, &[(0x10f8, 0x2000), (0x1ff8, CALLER)]));
    assert_eq!((c.ip, c.sp), (CALLER, 0x2000));
}

/// Check that a realigned stack (GCC's DRAP in r10) needs registers, and adds no offset.
#[test]
fn a_register_base_needs_saved_registers() {
    let e = call(Reg::R10, 8, Reg::Undefined, 0);
    assert_eq!(step(&cursor(), &e, &[]), Err(Why::RegisterLost("r10")));
    let mut regs = PtRegs::default();
    regs.r10.set(0x3000);
    regs.bp.set(0x77);
    let c = Cursor { regs: Some(regs), ..cursor() };
    let c = caller(step(&c, &e, &[(0x2ff8, CALLER)]));
    assert_eq!((c.ip, c.sp, c.regs), (CALLER, 0x3000, None));
}

fn pt_regs_words(at: u64, ip: u64, cs: u64, sp: u64, bp: u64) -> Vec<(u64, u64)> {
    let mut words: Vec<_> = (0..21).map(|i| (at + i * 8, 0x1000 + i)).collect();
    for (offset, v) in [(32, bp), (128, ip), (136, cs), (152, sp)] {
        words[offset / 8].1 = v;
    }
    words
}

#[test]
fn saved_registers_carry_on_where_the_interrupt_struck() {
    let e = Entry { kind: Kind::Regs, signal: true, ..call(Reg::Sp, 0, Reg::Undefined, 0) };
    let c = caller(step(&cursor(), &e, &pt_regs_words(0x1000, CALLER, 0x10, 0x8000, 0x8100)));
    assert_eq!((c.ip, c.sp, c.bp, c.signal), (CALLER, 0x8000, 0x8100, true));
    let regs = c.regs.unwrap();
    assert_eq!((regs.r15.get(), regs.di.get(), regs.ss.get()), (0x1000, 0x100e, 0x1014));
    assert_eq!(c.lookup_ip(), CALLER);
}

#[test]
fn user_mode_registers_end_the_stack() {
    let e = Entry { kind: Kind::Regs, signal: true, ..call(Reg::Sp, 0, Reg::Undefined, 0) };
    let found = step(&cursor(), &e, &pt_regs_words(0x1000, 0x40_1000, 0x33, 0x7ffe_0000, 0));
    assert!(matches!(found, Ok(Found::User { ip: 0x40_1000, sp: 0x7ffe_0000, regs: Some(_) })), "{found:?}");

    let e = Entry { kind: Kind::RegsPartial, ..e };
    let words: Vec<_> = [0x40_1000, 0x33, 0x202, 0x7ffe_0000, 0x2b].into_iter().enumerate().collect();
    let words: Vec<_> = words.iter().map(|&(i, w)| (0x1000 + i as u64 * 8, w)).collect();
    let found = step(&cursor(), &e, &words);
    assert_eq!(found, Ok(Found::User { ip: 0x40_1000, sp: 0x7ffe_0000, regs: None }));
}

/// Check that FRED's event data above the 16 bits of CS does not look like user mode.
#[test]
fn event_data_above_cs_is_not_user_mode() {
    let e = Entry { kind: Kind::Regs, signal: true, ..call(Reg::Sp, 0, Reg::Undefined, 0) };
    let words = pt_regs_words(0x1000, CALLER, 0x0003_0003_0000_0010, 0x8000, 0);
    assert!(matches!(step(&cursor(), &e, &words), Ok(Found::Caller(_))));
}

/// Check that an interrupt's own five words keep the registers that were saved before them.
#[test]
fn a_partial_frame_keeps_earlier_registers() {
    let mut regs = PtRegs::default();
    regs.bp.set(0x4444);
    let c = Cursor { regs: Some(regs), ..cursor() };
    let e = Entry { kind: Kind::RegsPartial, signal: true, ..call(Reg::Sp, 0, Reg::Undefined, 0) };
    let words = [(0x1000, CALLER), (0x1008, 0x10), (0x1018, 0x5000)];
    let c = caller(step(&c, &e, &words));
    assert_eq!((c.ip, c.sp, c.bp, c.regs), (CALLER, 0x5000, 0x4444, Some(regs)));
}

#[test]
fn an_undefined_entry_is_no_end() {
    let kind = |kind| step(&cursor(), &Entry { kind, ..call(Reg::Sp, 8, Reg::Undefined, 0) }, &[]);
    assert_eq!(kind(Kind::EndOfStack), Ok(Found::End));
    assert_eq!(kind(Kind::Undefined), Err(Why::Undefined(VirtAddr(IP - 1))));
    assert_eq!(kind(Kind::Unknown(7)), Err(Why::Undefined(VirtAddr(IP - 1))));
}

#[test]
fn memory_off_the_stack_is_refused_not_guessed() {
    let e = call(Reg::Sp, 0x20, Reg::PrevSp, -16);
    assert_eq!(step(&cursor(), &e, &[]), Err(Why::OffStack(VirtAddr(0x1018))));
    assert_eq!(step(&cursor(), &e, &[(0x1018, CALLER)]), Err(Why::OffStack(VirtAddr(0x1010))));
}

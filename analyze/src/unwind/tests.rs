//! The driver, over literal memory: image linear from physical 0, stacks in the direct map.

use kdump_arch_x86::PhysAddr;
use kdump_vmcore::mem::LiteralMem;

use kdump_vmcore::KernelMem;

use super::orc::{Format, Table};
use super::step::SpIndirect;
use super::*;

const TEXT: u64 = 0xffff_ffff_8100_0000;
const ORC_IP: u64 = 0xffff_ffff_8200_0000;
const ORC: u64 = 0xffff_ffff_8201_0000;
const DIRECT: u64 = 0xffff_8880_0000_0000;
const TASK: u64 = DIRECT + 0x10_0000;
const IRQ: u64 = DIRECT + 0x20_0000;
const NMI: u64 = DIRECT + 0x30_0000;

/// A return address in a function: each is 0x100 bytes and begins with ten calls.
const fn ret(function: u64) -> u64 {
    TEXT + function * 0x100 + 50
}

/// Entries of functions 0..: v3 encoding.
fn orc(entries: &[(i16, i16, u16)]) -> Vec<(PhysAddr, Vec<u8>)> {
    let mut ips = Vec::new();
    let mut raw = Vec::new();
    for (i, &(sp, bp, bits)) in entries.iter().enumerate() {
        let target = TEXT + i as u64 * 0x100;
        let here = ORC_IP + i as u64 * 4;
        ips.extend(i32::try_from(target as i64 - here as i64).unwrap().to_le_bytes());
        raw.extend([sp.to_le_bytes(), bp.to_le_bytes(), bits.to_le_bytes()].concat());
    }
    vec![(PhysAddr(0x200_0000), ips), (PhysAddr(0x201_0000), raw)]
}

fn words(at: u64, values: &[(u64, u64)], size: usize) -> (PhysAddr, Vec<u8>) {
    let mut bytes = vec![0; size];
    for &(offset, v) in values {
        let o = usize::try_from(offset).unwrap();
        bytes[o..o + 8].copy_from_slice(&v.to_le_bytes());
    }
    (PhysAddr(at - DIRECT), bytes)
}

const CALL8: (i16, i16, u16) = (8, 0, 0x0205);
const CALL16: (i16, i16, u16) = (16, 0, 0x0205);
const END: (i16, i16, u16) = (0, 0, 0x0100);
const REGS: (i16, i16, u16) = (0, 0, 0x0b05);
const UNDEFINED: (i16, i16, u16) = (0, 0, 0);
/// As an interrupt stack is left.
const SP_INDIRECT: (i16, i16, u16) = (8, 0, 0x0209);

fn unwind(
    table: Option<&[(i16, i16, u16)]>,
    stacks: Vec<(PhysAddr, Vec<u8>)>,
    start: Start,
    trampolines: Vec<(u64, &'static str)>,
) -> Stack {
    // The first piece that holds an address wins.
    let mut pieces = stacks;
    pieces.extend(table.map(orc).unwrap_or_default());
    let mut function = [0xe8, 0, 0, 0, 0].repeat(10);
    function.resize(0x100, 0xcc);
    pieces.push((PhysAddr(0x100_0000), function.repeat(16)));
    let phys = LiteralMem(pieces);
    let mem = KernelMem::new(&phys, TEST_SPACE);
    let tables = table.map(|t| {
        let image = Table::read(&mem, VirtAddr(ORC_IP), VirtAddr(ORC), t.len() as u64).unwrap();
        Tables::new(Format::V3, SpIndirect::AfterRead, image, Vec::new())
    });
    let text = Text::new(TEXT..TEXT + 0x1000, 0..0, Vec::new(), 1 << 30);
    let mut tracers = Tracers::default();
    tracers.trampolines = trampolines;
    let function = Box::new(|ip| Some(ip & !0xff));
    let ladder = Ladder { mem: &mem, text, tables, fork: Some(TEXT + 0x500), tracers, function };
    let area = |kind, start: u64| Area { kind, range: start..start + 0x1000 };
    let areas = Areas(vec![area(Kind::Task, TASK), area(Kind::Irq, IRQ), area(Kind::Nmi, NMI)]);
    ladder.unwind(start, &areas, None)
}

fn regs(ip: u64, sp: u64) -> PtRegs {
    let mut regs = PtRegs::default();
    regs.ip.set(ip);
    regs.sp.set(sp);
    regs.cs.set(0x10);
    regs
}

fn path(stack: &Stack) -> Vec<(u64, Trust)> {
    stack.frames.iter().map(|f| (f.ip.0, f.trust)).collect()
}

#[test]
fn a_sleeping_task_unwinds_to_the_end_of_its_stack() {
    let stack = words(TASK, &[(0xe00 + 48, ret(0)), (0xe38, ret(1)), (0xe48, ret(2))], 0x1000);
    let s = unwind(
        Some(&[CALL8, CALL16, END]),
        vec![stack],
        Start::Sleeping { sp: VirtAddr(TASK + 0xe00) },
        vec![],
    );
    assert_eq!(path(&s), [(ret(0), Trust::Regs), (ret(1), Trust::Orc), (ret(2), Trust::Orc)]);
    assert_eq!(s.stop, Stop::EndOfStack);
    assert!(s.is_reliable() && s.frames.iter().all(|f| f.is_return_address));
}

/// Check that the address of a task that never ran is not taken for a return address: the
/// instruction before it belongs to another function.
#[test]
fn a_task_that_never_ran_ends_at_once() {
    let stack = words(TASK, &[(0xe00 + 48, TEXT + 0x500)], 0x1000);
    let table = [CALL8, CALL8, CALL8, CALL8, UNDEFINED, END];
    let s = unwind(Some(&table), vec![stack], Start::Sleeping { sp: VirtAddr(TASK + 0xe00) }, vec![]);
    assert_eq!((s.frames.len(), s.stop), (1, Stop::EndOfStack));
    assert!(!s.frames[0].is_return_address);
}

/// Check the whole way out: NMI stack, interrupt stack, task stack, user mode.
#[test]
fn stacks_are_left_in_order_up_to_user_mode() {
    let mut nmi = vec![(0x500, ret(1))];
    // pt_regs of what the NMI interrupted, on the interrupt stack.
    let saved = 0x508;
    nmi.extend([(saved + 128, TEXT + 0x230), (saved + 136, 0x10), (saved + 152, IRQ + 0xfe8)]);
    let irq = vec![(0xff0 - 8, ret(3)), (0xff0, TASK + 0x700)];
    // pt_regs of user mode.
    let user = 0x710;
    let task = vec![(0x700, ret(4)), (user + 128, 0x40_1000), (user + 136, 0x33), (user + 152, 0x7ffe_0000)];
    let s = unwind(
        Some(&[CALL8, REGS, CALL8, SP_INDIRECT, (8, 0, 0x0b05)]),
        vec![words(NMI, &nmi, 0x1000), words(IRQ, &irq, 0x1000), words(TASK, &task, 0x1000)],
        Start::Regs(regs(TEXT + 0x40, NMI + 0x500)),
        vec![],
    );
    let expect = [TEXT + 0x40, ret(1), TEXT + 0x230, ret(3), ret(4)];
    assert_eq!(s.frames.iter().map(|f| f.ip.0).collect::<Vec<_>>(), expect, "{}", s.stop);
    assert!(matches!(s.stop, Stop::UserMode { ip: VirtAddr(0x40_1000), regs: Some(_), .. }), "{}", s.stop);
    let interrupted = s.frames[2];
    assert!(!interrupted.is_return_address && interrupted.regs.is_some());
    assert!(s.frames[3].regs.is_none() && s.is_reliable());
}

#[test]
fn a_task_stack_is_never_left_for_an_interrupt_stack() {
    let task = vec![(0x500, IRQ + 0x800)];
    let s = unwind(
        Some(&[SP_INDIRECT]),
        vec![words(TASK, &task, 0x1000), words(IRQ, &[(0x800, ret(1))], 0x1000)],
        Start::Regs(regs(TEXT + 0x40, TASK + 0x500)),
        vec![],
    );
    let why = Why::IllegalHop { from: Kind::Task, to: Kind::Irq };
    assert_eq!((s.frames.len(), s.stop), (1, Stop::Lost { ip: VirtAddr(TEXT + 0x40), why }));
}

/// Check that a table which would go round in circles ends in a scan, and the scan at the top.
#[test]
fn the_stack_pointer_must_move() {
    let task = vec![(0x4f8, ret(0)), (0x800, ret(0))];
    let s = unwind(
        Some(&[(0, 0, 0x0205)]),
        vec![words(TASK, &task, 0x1000)],
        Start::Regs(regs(TEXT + 0x40, TASK + 0x500)),
        vec![],
    );
    assert_eq!(path(&s), [(TEXT + 0x40, Trust::Regs), (ret(0), Trust::Scan)]);
    let at = VirtAddr(TASK + 0x808);
    assert_eq!(s.stop, Stop::Lost { ip: VirtAddr(ret(0)), why: Why::Stuck { from: at, to: at } });
    assert!(!s.is_reliable());
}

/// Check that endless recursion is followed from the guard page that stopped it to its outer end.
#[test]
fn an_overflowed_stack_is_followed_to_its_end() {
    let mut task: Vec<_> = (0..511).map(|i| (i * 8, ret(0))).collect();
    task.push((511 * 8, ret(1)));
    let s = unwind(
        Some(&[CALL16, END]),
        vec![words(TASK, &task, 0x1000)],
        Start::Regs(regs(TEXT + 0x40, TASK - 8)),
        vec![],
    );
    assert!(s.has_overflowed);
    assert_eq!((s.frames.len(), s.stop), (258, Stop::EndOfStack));
}

/// Check that a scan passes over addresses that no call precedes, and that the tables take over
/// again from what it finds.
#[test]
fn a_scan_finds_only_what_follows_a_call_and_hands_back_to_the_tables() {
    let task = vec![(0xe08, TEXT + 0x121), (0xe20, ret(1)), (0xe28, ret(2))];
    let s = unwind(
        Some(&[UNDEFINED, CALL8, END]),
        vec![words(TASK, &task, 0x1000)],
        Start::Regs(regs(TEXT + 0x40, TASK + 0xe00)),
        vec![],
    );
    assert_eq!(path(&s), [(TEXT + 0x40, Trust::Regs), (ret(1), Trust::Scan), (ret(2), Trust::Orc)]);
    assert_eq!(s.stop, Stop::EndOfStack);
    assert!(s.stop.is_clean() && !s.is_reliable());
}

#[test]
fn a_call_to_nowhere_is_unwound_from_the_top_of_the_stack() {
    for nowhere in [0, 0xdead_beef, DIRECT + 0x5000] {
        let s = unwind(
            Some(&[CALL8, END]),
            vec![words(TASK, &[(0xf00, ret(1))], 0x1000)],
            Start::Regs(regs(nowhere, TASK + 0xf00)),
            vec![],
        );
        assert_eq!(path(&s), [(nowhere, Trust::Regs), (ret(1), Trust::Orc)]);
        assert_eq!(s.stop, Stop::EndOfStack);
    }
}

/// Check that assembly without a known stack, an end in old tables, is no end but at the top.
#[test]
fn an_end_of_stack_in_the_middle_is_not_believed() {
    let s = unwind(
        Some(&[END, CALL8, END]),
        vec![words(TASK, &[(0x520, ret(1)), (0xf00, ret(2))], 0x1000)],
        Start::Regs(regs(TEXT + 0x40, TASK + 0x500)),
        vec![],
    );
    assert_eq!(path(&s), [(TEXT + 0x40, Trust::Regs), (ret(1), Trust::Scan), (ret(2), Trust::Scan)]);
    assert_eq!((s.stop, s.nr_guessed), (Stop::EndOfStack, 2));
}

/// Check that leftovers of an earlier task's outermost function do not end a stack.
#[test]
fn an_end_of_stack_in_the_middle_is_not_believed_after_a_scan() {
    let s = unwind(
        Some(&[UNDEFINED, END]),
        vec![words(TASK, &[(0x520, ret(1))], 0x1000)],
        Start::Regs(regs(TEXT + 0x40, TASK + 0x500)),
        vec![],
    );
    assert_eq!(s.stop, Stop::Lost { ip: VirtAddr(ret(1)), why: Why::FalseEnd });
}

/// Check that among leftovers the call of the very function below is preferred.
#[test]
fn a_scan_prefers_the_call_of_the_function_below() {
    // Function 2 begins with a call of function 0.
    let mut call = vec![0xe8];
    call.extend((-0x205i32).to_le_bytes());
    let code = (PhysAddr(0x100_0200), call);
    let task = vec![(0xe10, ret(3)), (0xe20, TEXT + 0x205), (0xe28, ret(1))];
    let s = unwind(
        Some(&[UNDEFINED, END, CALL8, CALL8]),
        vec![code, words(TASK, &task, 0x1000)],
        Start::Regs(regs(TEXT + 0x40, TASK + 0xe00)),
        vec![],
    );
    assert_eq!(path(&s), [(TEXT + 0x40, Trust::Regs), (TEXT + 0x205, Trust::Scan), (ret(1), Trust::Orc)]);
    // The scanned frame is confirmed by its call, the one after it is not.
    assert_eq!(s.nr_guessed, 1);
}

/// Check that a frame whose return address a tracer replaced is shown, and what follows is marked.

#[test]
fn a_trampoline_lowers_the_trust_of_what_follows() {
    let task = vec![(0x500, TEXT + 0x300), (0x520, ret(1))];
    let s = unwind(
        Some(&[CALL8, END, CALL8, CALL8]),
        vec![words(TASK, &task, 0x1000)],
        Start::Regs(regs(TEXT + 0x40, TASK + 0x500)),
        vec![(TEXT + 0x300, "return_to_handler")],
    );
    assert_eq!(path(&s), [(TEXT + 0x40, Trust::Regs), (TEXT + 0x300, Trust::Orc), (ret(1), Trust::Scan)]);
}

#[test]
fn user_mode_registers_have_no_kernel_frames() {
    let mut user = regs(0x40_1000, 0x7ffe_0000);
    user.cs.set(0x33);
    let s = unwind(Some(&[CALL8]), vec![], Start::Regs(user), vec![]);
    assert!(s.frames.is_empty() && s.stop.is_clean());
}

#[test]
fn a_stack_pointer_on_no_stack_is_said() {
    let s = unwind(Some(&[CALL8]), vec![], Start::Regs(regs(TEXT + 0x40, 0x1234)), vec![]);
    assert_eq!(s.frames.len(), 1);
    let why = Why::OffStack(VirtAddr(0x1234));
    assert_eq!(s.stop, Stop::Lost { ip: VirtAddr(TEXT + 0x40), why });
}

/// Check a kernel without tables: the chain of frame pointers, through registers that entry code
/// marked with bit 0, to a cleared frame pointer.
#[test]
fn frame_pointers_are_followed_where_there_are_no_tables() {
    let (frame, saved) = (TASK + 0x520, 0x600);
    let task = vec![
        (0x520, (TASK + saved) | 1),
        (0x528, ret(1)),
        (saved + 32, TASK + 0xf00),
        (saved + 128, TEXT + 0x233),
        (saved + 136, 0x10),
        (saved + 152, TASK + 0x700),
        (0xf00, 0),
        (0xf08, ret(3)),
    ];
    let mut start = regs(TEXT + 0x42, TASK + 0x500);
    start.bp.set(frame);
    let s = unwind(None, vec![words(TASK, &task, 0x1000)], Start::Regs(start), vec![]);
    let expect = [
        (TEXT + 0x42, Trust::Regs),
        (ret(1), Trust::FramePointer),
        (TEXT + 0x233, Trust::FramePointer),
        (ret(3), Trust::FramePointer),
    ];
    assert_eq!((path(&s), s.stop), (expect.to_vec(), Stop::EndOfStack));
    assert!(s.frames[2].regs.is_some());
}

/// Check that no content of stack, registers or tables makes an unwind panic or run on.
#[test]
fn any_garbage_ends() {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..100 {
        let mut word = || {
            let r = random();
            match r % 8 {
                0 | 1 => ret(r >> 8 & 7),
                2 => TEXT + (r >> 8 & 0xfff),
                3 => TASK + (r >> 8 & 0x1fff),
                4 => [IRQ, NMI][(r >> 8 & 1) as usize] + (r >> 16 & 0xfff),
                5 => u64::MAX - (r >> 8 & 0xff),
                6 => r >> 8 & 0x33,
                _ => r,
            }
        };
        let mut stack = |at| words(at, &(0..512).map(|i| (i * 8, word())).collect::<Vec<_>>(), 0x1000);
        let stacks = vec![stack(TASK), stack(IRQ), stack(NMI)];
        let table: Vec<_> = (0..8)
            .map(|_| {
                let r = word();
                ((r & 0x7f) as i16 - 32, (r >> 8 & 0x7f) as i16 - 64, (r >> 16) as u16)
            })
            .collect();
        let mut start = regs(word(), TASK + (word() & 0xfff));
        start.bp.set(word());
        let table = (word() % 4 != 0).then_some(table);
        let s = unwind(table.as_deref(), stacks, Start::Regs(start), vec![(ret(3), "return_to_handler")]);
        assert!(s.frames.len() <= 3 * 513, "{}", s.stop);
    }
}

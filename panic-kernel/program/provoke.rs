//! Failures on purpose, so that the handling of each can be seen under a real panic.
//!
//! The loader asks for one by `TestHook`, only when told to (`arm --panic-test`).

// UNSAFETY: instructions that fault.
#![expect(unsafe_code)]

use core::arch::asm;

use kdump_panic_kernel::handoff::TestHook;
use kdump_panic_kernel::line::Sink;
use kdump_panic_kernel::messages;

use crate::state;

/// A non-canonical address with any number of levels.
const NON_CANONICAL: u64 = 0x8000_0000_0000_0000;
/// An address in the upper half, which no identity map has.
const UNMAPPED: u64 = 0xffff_ffff_dead_0000;

/// Brings the failure about, after the console is open and before the regions are checked.
pub fn early<S: Sink>(hook: TestHook, sink: &mut S) {
    if hook == TestHook::NONE {
        return;
    }
    sink.line(&messages::provoking(hook.0));
    match hook {
        TestHook::UD2 | TestHook::NESTED | TestHook::TRIPLE => undefined(),
        // SAFETY: reads through addresses that fault; nothing comes of the value.
        TestHook::GP => unsafe { asm!("mov {0}, [{0}]", inout(reg) NON_CANONICAL => _) },
        // SAFETY: as above.
        TestHook::PF => unsafe { asm!("mov {0}, [{0}]", inout(reg) UNMAPPED => _) },
        // SAFETY: the handler has a stack of its own, and this one is never used again.
        TestHook::STACK => unsafe { asm!("mov rsp, {}", "push rax", in(reg) UNMAPPED, options(noreturn)) },
        // SAFETY: divides by zero in registers.
        TestHook::DIV => unsafe {
            asm!("div {0}", in(reg) 0u64, inout("rax") 1u64 => _, inout("rdx") 0u64 => _);
        },
        TestHook::BUG => panic!(),
        // SAFETY: takes the NMI's gate, whose stub returns.
        TestHook::NMI => unsafe { asm!("int 2") },
        _ => {}
    }
}

/// A fault while the first one is reported.
pub fn in_report() {
    if state::handoff().is_some_and(|h| matches!(h.test_hook, TestHook::NESTED | TestHook::TRIPLE)) {
        undefined();
    }
}

/// A fault while a silent reset is tried.
pub fn in_reset() {
    if state::handoff().is_some_and(|h| h.test_hook == TestHook::TRIPLE) {
        undefined();
    }
}

fn undefined() {
    // SAFETY: faults, and is handled.
    unsafe { asm!("ud2") }
}

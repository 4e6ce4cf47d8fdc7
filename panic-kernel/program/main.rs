//! The panic-path program: from the crashed kernel's last jump to the capture kernel's first instruction.
//!
//! State on entry (left by `relocate_kernel`, see `docs/panic-path.md`):
//! 1. 64-bit mode, CPL 0, interrupts off, on the CPU that crashed, which need not be the boot CPU.
//! 2. All general registers 0; RSP in a page that is not ours, what it points at is rubbish.
//! 3. CR4 has PAE and perhaps LA57 (MCE in TDX guests): any SSE instruction faults.
//! 4. No valid GDT or IDT (or the old kernel's debugging ones): any segment load or exception is a reset.
//! 5. CR3 holds an identity map of all RAM and all kexec segments. MMIO is not in it.
//! 6. The other CPUs are parked in the old kernel's code; DMA may still be going on.
//!
//! Duties: own stack, CPU state, descriptor tables; say so; believe the handoff block; check every region;
//! enter the capture kernel, or do what the policy says. Every wait is bounded, and only a failure while
//! another is reported ends silently.
//!
//! Must not touch: page tables, memory outside the image (but for reading regions), the other CPUs.
//!
//! At the jump: RSI = boot_params, all other general registers 0, CS 0x10, DS/ES/SS/FS/GS 0x18 flat, IF=DF=0,
//! CR0 and CR4 as found but for the SSE bits of CR0.
//!
//! This file tells the story; it only calls what the library decides and the neighbours do.

#![no_std]
#![no_main]

mod console;
mod cpu;
mod entry;
mod exceptions;
mod memory;
mod runtime;

use kdump_panic_kernel::handoff::{Console, HANDOFF_SIZE, surviving_console};
use kdump_panic_kernel::line::Sink;
use kdump_panic_kernel::sha256::Engine;
use kdump_panic_kernel::verify::{Action, Answer, Stage, check_handoff, check_regions};
use kdump_panic_kernel::{messages, reset};

use crate::console::ActiveConsole;
use crate::cpu::IoPorts;
use crate::memory::IdentityMap;

/// Where a block that is damaged down to its console is reported: the first serial port, as it was left.
const FALLBACK_CONSOLE: Console = Console::Uart8250Port { port: 0x3f8, baud: 0 };

/// Runs on our own stack with SSE enabled; `image` and `handoff` are the addresses of both.
extern "C" fn start(image: u64, handoff: &'static [u8; HANDOFF_SIZE], found_cr4: u64) -> ! {
    exceptions::install(image..handoff.as_ptr() as u64);
    cpu::enable_machine_check();

    let mut console = ActiveConsole::open(surviving_console(handoff).unwrap_or(FALLBACK_CONSOLE));
    console.line(&messages::entered(cpu::apic_id(), image));

    let engine = Engine::detect();
    let action = match check_handoff(handoff, engine, &mut console) {
        Ok(handoff) => {
            exceptions::believe(handoff.policy, handoff.entry, found_cr4);
            check_regions(&handoff, engine, &IdentityMap, &mut console)
        }
        Err(action) => action,
    };
    perform(action, found_cr4, &mut console)
}

/// Does what was decided. Never returns.
fn perform(action: Action, found_cr4: u64, console: &mut ActiveConsole) -> ! {
    match action {
        Action::Enter(entry) => {
            console.line(&messages::entering(entry));
            console.drain();
            exceptions::advance(Stage::Entered);
            cpu::enter(entry, found_cr4)
        }
        Action::Reset => {
            console.line(&messages::resetting());
            console.drain();
            reset_silently()
        }
        Action::Halt => {
            console.line(&messages::halted());
            console.drain();
            cpu::halt()
        }
    }
}

/// Resets without a word: for failures of whatever handled the first one, the console perhaps.
extern "C" fn reset_silently() -> ! {
    reset::reset_by_ports(&mut IoPorts);
    cpu::triple_fault()
}

/// A bug of ours, caught by a check of the compiler: say where, then let the policy decide as for a fault.
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    match exceptions::count_bug() {
        Answer::Report => {
            let mut console = ActiveConsole::resume();
            if let Some(place) = info.location() {
                console.line(&messages::bug(place.file(), place.line()));
            }
            let (action, found_cr4) = exceptions::judge();
            perform(action, found_cr4, &mut console)
        }
        Answer::Reset => reset_silently(),
        Answer::TripleFault => cpu::triple_fault(),
    }
}

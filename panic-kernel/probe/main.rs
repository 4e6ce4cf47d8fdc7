//! The probe: a small image that is loaded in place of a kernel, looks around, and says each step before it takes
//! it, so that a log that ends tells where.
//!
//! The successor of kexec_test, which came with the first kexec (2002). Entered as a kernel is by the 64-bit boot
//! protocol: 64-bit mode, an identity map that holds the first 2 MiB and this image, below 4 GiB. It expects nothing
//! in any register, prints on the console of the handoff block behind it (COM1 without one), and ends by the
//! policy there: reset, or halt.
//!
//! `docs/probe.md` says what each step proves.

#![no_std]
#![no_main]

#[path = "../program/runtime.rs"]
mod runtime;

mod bios;
mod cpu;
mod descriptors;
mod entry;
mod low;
mod output;
mod pic;

use kdump_panic_kernel::handoff::{HANDOFF_SIZE, Handoff, Policy};

use crate::entry::Registers;
use crate::output::{Probe, say};

/// Runs on our own stack with SSE enabled.
extern "C" fn start(registers: &'static Registers, block: &'static [u8; HANDOFF_SIZE]) -> ! {
    let handoff = Handoff::parse(block).ok();
    output::open(handoff.as_ref().map(|h| h.console));
    let mut probe = Probe::new();
    say!("hello, image at {h}", entry::image());
    if handoff.is_none() {
        say!("no parameters behind the image, printing on COM1");
    }

    probe.step("registers at entry", |probe| {
        registers.print();
        probe.pass("printed");
    });
    let found = descriptors::Found::read();
    probe.step("segments and descriptor tables as found", |probe| {
        found.print();
        probe.pass("printed");
    });
    probe.step("descriptor tables of our own", |probe| {
        low::install();
        descriptors::install();
        probe.pass("GDT and IDT loaded");
    });
    probe.step("exceptions", descriptors::provoke);
    probe.step("entries of the GDT as found", |probe| found.print_entries(probe));
    probe.step("control registers and CPU", cpu::print);
    probe.step("page tables of our own, through 32-bit protected mode", low::to_32_bit_and_back);
    probe.step("legacy interrupt controllers", pic::set_up);
    probe.step("16-bit real mode", low::to_real_mode_and_back);
    if bios::is_there() {
        probe.step("BIOS: memory map (int 15h, e820)", bios::memory_map);
        probe.step("BIOS: memory size (int 12h; int 15h, 88 and e801)", bios::memory_sizes);
        probe.step("BIOS: video (int 10h)", bios::video);
        probe.step("BIOS: keyboard (int 16h)", bios::keyboard);
    } else {
        say!("no BIOS here, as on EFI machines: its steps are skipped");
    }
    probe.summary();
    output::drain();
    match handoff.map(|h| h.policy) {
        Some(Policy::Halt) => cpu::halt(),
        _ => cpu::reset(),
    }
}

/// A bug of the probe.
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    if let Some(place) = info.location() {
        say!("BUG in the probe, line {d}", u64::from(place.line()));
    }
    output::drain();
    cpu::reset()
}

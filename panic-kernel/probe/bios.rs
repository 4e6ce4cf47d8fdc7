//! Asking the BIOS, in real mode.
//!
//! Source: ACPI specification, 15.1 "INT 15H, E820H"; Ralf Brown's interrupt list for the rest.

use kdump_panic_kernel::line::Line;

use crate::low::{self, BUFFER, Call};
use crate::output::{self, PREFIX, Probe, say};

const CARRY: u32 = 1;
/// "SMAP".
const SMAP: u32 = 0x534d_4150;
const ENTRY_SIZE: u32 = 24;
/// More entries than any firmware has.
const MAX_ENTRIES: u64 = 256;
/// Where adapters' and the system's ROMs begin.
const ROM_START: u32 = 0xc_0000;
const MEMORY_SERVICES: u32 = 0x15;

/// Whether interrupt 15h leads into a ROM.
pub fn is_there() -> bool {
    let vector = low::read_u32(MEMORY_SERVICES * 4);
    let handler = (vector >> 16) * 16 + (vector & 0xffff);
    (ROM_START..0x11_0000).contains(&handler) && low::read_u32(handler & !3) != u32::MAX
}

/// Prints the memory map.
pub fn memory_map(probe: &mut Probe) {
    let mut next = 0;
    for i in 0..MAX_ENTRIES {
        let call =
            Call { eax: 0xe820, ebx: next, ecx: ENTRY_SIZE, edx: SMAP, edi: BUFFER, ..Call::new(0x15) };
        let answer = call.make();
        if answer.eflags & CARRY != 0 || answer.eax != SMAP {
            // Some firmware ends the list so.
            return probe.check(i > 0, "the list ended with carry");
        }
        let u64_at =
            |at: u32| u64::from(low::read_u32(BUFFER + at)) | u64::from(low::read_u32(BUFFER + at + 4)) << 32;
        let (start, len) = (u64_at(0), u64_at(8));
        say!(
            "  {h} - {h} type {d}",
            start,
            start.wrapping_add(len).wrapping_sub(1),
            low::read_u32(BUFFER + 16).into()
        );
        next = answer.ebx;
        if next == 0 {
            return probe.pass("the list is complete");
        }
    }
    probe.fail("the list does not end");
}

/// Prints what the older services say.
pub fn memory_sizes(probe: &mut Probe) {
    let base = Call::new(0x12).make().eax & 0xffff;
    say!("  int 12h: {d} KiB below 640 KiB", base.into());
    let extended = Call { eax: 0x8800, ..Call::new(0x15) }.make();
    say!("  int 15h 88h: {d} KiB above 1 MiB", (extended.eax & 0xffff).into());
    let large = Call { eax: 0xe801, ..Call::new(0x15) }.make();
    if large.eflags & CARRY == 0 {
        say!(
            "  int 15h e801h: {d} KiB above 1 MiB, {d} times 64 KiB above 16 MiB",
            (large.eax & 0xffff).into(),
            (large.ebx & 0xffff).into()
        );
    }
    probe.check((64..=640).contains(&base), "answers that make sense");
}

/// Prints the video mode, and a line on the screen.
pub fn video(probe: &mut Probe) {
    let mode = Call { eax: 0x0f00, ..Call::new(0x10) }.make();
    say!("  mode {h}, {d} columns", (mode.eax & 0xff).into(), (mode.eax >> 8 & 0xff).into());
    for &byte in b"kdump-rs probe: hello from real mode\r\n" {
        Call { eax: 0x0e00 | u32::from(byte), ebx: 7, ..Call::new(0x10) }.make();
    }
    probe.pass("a line was put on the screen");
}

/// Asks whether a key waits.
pub fn keyboard(probe: &mut Probe) {
    const ZERO: u32 = 1 << 6;
    let answer = Call { eax: 0x0100, ..Call::new(0x16) }.make();
    let mut line = Line::empty();
    line.str(PREFIX).str(if answer.eflags & ZERO != 0 { "  no key waits" } else { "  a key waits" });
    output::print(&line);
    probe.pass("the BIOS returned");
}

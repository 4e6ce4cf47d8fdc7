//! Single instructions of the CPU that Rust has no words for.

// UNSAFETY: inline assembly; each block is one privileged instruction or one way out.
#![expect(unsafe_code)]

use core::arch::asm;
use core::arch::x86_64::{__cpuid, __cpuid_count, _rdtsc};

use kdump_panic_kernel::ports::Ports;

use crate::exceptions::DATA;

const CR4_MCE: u64 = 1 << 6;
const CR4_LA57: u64 = 1 << 12;
const LEAF1_EDX_MCE: u32 = 1 << 7;

/// The machine's I/O ports.
pub struct IoPorts;

impl Ports for IoPorts {
    fn read(&mut self, port: u16) -> u8 {
        let value: u8;
        // SAFETY: `in` changes nothing but AL on the CPU's side, and CPL 0 may use every port. What reading
        // does to the device is the caller's concern; no device reacts by writing to our memory.
        unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack, preserves_flags)) }
        value
    }

    fn write(&mut self, port: u16, value: u8) {
        // SAFETY: as for reading. The ports written are the UART's and the reset controls; none starts DMA.
        unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack, preserves_flags)) }
    }
}

/// The APIC id of this CPU, the x2APIC one where there is one.
///
/// Source: Intel SDM volume 2, CPUID leaves 0x1 and 0xb.
pub fn apic_id() -> u32 {
    if __cpuid(0).eax >= 0xb {
        let topology = __cpuid_count(0xb, 0);
        if topology.ebx != 0 {
            return topology.edx;
        }
    }
    __cpuid(1).ebx >> 24
}

/// Lets a machine check become an exception, which we can report; otherwise it shuts the CPU down.
pub fn enable_machine_check() {
    if __cpuid(1).edx & LEAF1_EDX_MCE != 0 {
        write_cr4(read_cr4() | CR4_MCE);
    }
}

fn read_cr4() -> u64 {
    let cr4: u64;
    // SAFETY: reads a control register at CPL 0.
    unsafe { asm!("mov {}, cr4", out(reg) cr4, options(nomem, nostack, preserves_flags)) }
    cr4
}

fn write_cr4(cr4: u64) {
    // SAFETY: the one caller passes the value in force with MCE added, which CPUID has announced.
    unsafe { asm!("mov cr4, {}", in(reg) cr4, options(nostack, preserves_flags)) }
}

/// The time stamp counter.
pub fn rdtsc() -> u64 {
    // SAFETY: every x86-64 CPU has it, and CPL 0 may read it.
    unsafe { _rdtsc() }
}

/// Whether page tables have five levels.
pub fn has_5_levels() -> bool {
    read_cr4() & CR4_LA57 != 0
}

/// Goes onto other page tables.
pub fn load_page_tables(root: u64) {
    // SAFETY: the caller has checked the digest of the region that holds the tables, for the number of levels in
    // force. They are an identity map that holds this image, as the one in force does, so no address changes
    // meaning. CR4 has neither PGE nor PCIDE: this flushes all translations.
    unsafe { asm!("mov cr3, {}", in(reg) root, options(nostack, preserves_flags)) }
}

/// Enters the control page with CR4 as it was found.
pub fn enter(control_page: u64, found_cr4: u64) -> ! {
    // SAFETY: the page lies in a region whose digest was right (or the policy is to try anyway); it needs no stack
    // and no registers. `exceptions::install` has loaded a GDT with 0x10 and 0x18 flat, and CS. CR4 was in force
    // at entry, so PAE and LA57 do not change; SSE faults again, and nothing after it in here is compiled.
    unsafe {
        asm!(
            "cli",
            "cld",
            "mov cr4, {cr4}",
            // Again, because an exception taken on another stack may have left SS null (QEMU does that).
            "mov ds, {data:x}",
            "mov es, {data:x}",
            "mov ss, {data:x}",
            "mov fs, {data:x}",
            "mov gs, {data:x}",
            "jmp {page}",
            cr4 = in(reg) found_cr4,
            data = in(reg) u32::from(DATA),
            page = in(reg) control_page,
            options(noreturn),
        )
    }
}

/// Resets the CPU, and with it the machine, by an exception that cannot be delivered.
pub fn triple_fault() -> ! {
    let no_idt = [0u8; 10];
    // SAFETY: no exception handler is wanted any more; the descriptor is 10 readable bytes.
    unsafe {
        asm!("lidt [{}]", "int3", "2: hlt", "jmp 2b", in(reg) &no_idt, options(noreturn));
    }
}

/// Stops. An NMI wakes the CPU and is put back to sleep.
pub fn halt() -> ! {
    loop {
        // SAFETY: interrupts are off; nothing depends on this CPU going on.
        unsafe { asm!("hlt", options(nomem, nostack, preserves_flags)) }
    }
}

//! Single instructions of the CPU that Rust has no words for.

// UNSAFETY: inline assembly; each block is one privileged instruction or one way out.
#![expect(unsafe_code)]

use core::arch::asm;
use core::arch::x86_64::{__cpuid, __cpuid_count};

use kdump_panic_kernel::handoff::Entry;
use kdump_panic_kernel::ports::Ports;

use crate::exceptions::DATA;

const CR4_MCE: u64 = 1 << 6;
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

/// Enters the capture kernel by the 64-bit boot protocol, with CR4 as it was found.
///
/// Source: `Documentation/arch/x86/boot.rst`, 64-bit boot protocol.
pub fn enter(entry: Entry, found_cr4: u64) -> ! {
    // SAFETY: the handoff block, checked by its digest, says that this is where the capture kernel's 64-bit
    // entry lies. `exceptions::install` has loaded a GDT with 0x10 and 0x18 flat, and CS. CR4 was in force at entry, so PAE
    // and LA57 do not change; SSE faults again, and nothing after it in here is compiled. Nothing of ours is
    // needed after the jump; the stack slot that `ret` takes the target from is ours until then.
    unsafe {
        asm!(
            "cli",
            "cld",
            "mov cr4, rdx",
            // Again, because an exception taken on another stack may have left SS null (QEMU does that).
            "mov ds, {data:x}",
            "mov es, {data:x}",
            "mov ss, {data:x}",
            "mov fs, {data:x}",
            "mov gs, {data:x}",
            "push rax",
            // The protocol asks for RBX = 0 and RSI; the others are cleared so that runs do not differ.
            "xor eax, eax",
            "xor ebx, ebx",
            "xor ecx, ecx",
            "xor edx, edx",
            "xor edi, edi",
            "xor ebp, ebp",
            "xor r8d, r8d",
            "xor r9d, r9d",
            "xor r10d, r10d",
            "xor r11d, r11d",
            "xor r12d, r12d",
            "xor r13d, r13d",
            "xor r14d, r14d",
            "xor r15d, r15d",
            "ret",
            in("rax") entry.rip,
            in("rdx") found_cr4,
            data = in(reg) u32::from(DATA),
            in("rsi") entry.argument,
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

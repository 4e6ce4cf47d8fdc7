//! Ports, control registers, MSRs, CPUID; reset and halt.

// UNSAFETY: privileged instructions.
#![expect(unsafe_code)]

use core::arch::asm;
use core::arch::x86_64::{__cpuid, __cpuid_count};

use kdump_panic_kernel::line::Line;
use kdump_panic_kernel::ports::Ports;
use kdump_panic_kernel::reset::reset_by_ports;

use crate::output::{self, PREFIX, Probe, say};

const MSR_EFER: u32 = 0xc000_0080;
const MSR_APIC_BASE: u32 = 0x1b;

/// The machine's I/O ports.
pub struct IoPorts;

impl Ports for IoPorts {
    fn read(&mut self, port: u16) -> u8 {
        let value: u8;
        // SAFETY: `in` changes nothing but AL on the CPU's side, and CPL 0 may use every port.
        unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack, preserves_flags)) }
        value
    }

    fn write(&mut self, port: u16, value: u8) {
        // SAFETY: as for reading. UART, interrupt controllers and reset controls are written; none starts DMA.
        unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack, preserves_flags)) }
    }
}

macro_rules! control_register {
    ($name:ident, $register:literal) => {
        fn $name() -> u64 {
            let value: u64;
            // SAFETY: reads a control register at CPL 0.
            unsafe { asm!(concat!("mov {}, ", $register), out(reg) value, options(nomem, nostack, preserves_flags)) }
            value
        }
    };
}
control_register!(cr0, "cr0");
control_register!(cr2, "cr2");
control_register!(cr3, "cr3");
control_register!(cr4, "cr4");

fn read_msr(msr: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: both MSRs read here exist on every x86-64 CPU; should one not, the #GP is reported.
    unsafe {
        asm!("rdmsr", in("ecx") msr, out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags))
    }
    u64::from(high) << 32 | u64::from(low)
}

/// Prints what the CPU is and how it is set up.
pub fn print(probe: &mut Probe) {
    say!("  cr0 {h} cr2 {h} cr3 {h} cr4 {h}", cr0(), cr2(), cr3(), cr4());
    say!("  efer {h} apic base {h}", read_msr(MSR_EFER), read_msr(MSR_APIC_BASE));
    let vendor = __cpuid(0);
    let mut line = Line::empty();
    line.str(PREFIX).str("  vendor ");
    for word in [vendor.ebx, vendor.edx, vendor.ecx] {
        for byte in word.to_le_bytes() {
            line.byte(byte);
        }
    }
    line.str(" signature ").hex(u64::from(__cpuid(1).eax)).str(" apic id ").dec(apic_id().into());
    output::print(&line);
    probe.pass("printed");
}

fn apic_id() -> u32 {
    if __cpuid(0).eax >= 0xb {
        let topology = __cpuid_count(0xb, 0);
        if topology.ebx != 0 {
            return topology.edx;
        }
    }
    __cpuid(1).ebx >> 24
}

/// Resets the machine.
pub fn reset() -> ! {
    reset_by_ports(&mut IoPorts);
    let no_idt = [0u8; 10];
    // SAFETY: an exception that cannot be delivered resets the CPU; the descriptor is 10 readable bytes.
    unsafe { asm!("lidt [{}]", "int3", "2: hlt", "jmp 2b", in(reg) &no_idt, options(noreturn)) }
}

/// Stops.
pub fn halt() -> ! {
    loop {
        // SAFETY: interrupts are off; nothing depends on this CPU going on.
        unsafe { asm!("hlt", options(nomem, nostack, preserves_flags)) }
    }
}

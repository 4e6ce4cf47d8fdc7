//! The serial port, and the way out of QEMU.

// UNSAFETY: port instructions.
#![expect(unsafe_code)]

use core::arch::asm;
use core::fmt;

const COM1: u16 = 0x3f8;
const LINE_STATUS: u16 = 5;
const TRANSMITTER_EMPTY: u8 = 1 << 5;
/// `-device isa-debug-exit`: QEMU ends with 2 n + 1.
const EXIT: u16 = 0xf4;

/// How the run ended; the values are those of the exit port.
#[derive(Clone, Copy)]
pub enum Verdict {
    /// QEMU ends with 0x21.
    Passed = 0x10,
    /// QEMU ends with 0x23.
    Failed = 0x11,
}

/// The first serial port, as the firmware left it.
pub struct Serial;

impl fmt::Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            while read(COM1 + LINE_STATUS) & TRANSMITTER_EMPTY == 0 {}
            write(COM1, byte);
        }
        Ok(())
    }
}

/// Prints a line.
#[macro_export]
macro_rules! say {
    ($($argument:tt)*) => {{
        use core::fmt::Write as _;
        // Serial does not fail.
        let _ = writeln!($crate::ports::Serial, $($argument)*);
    }};
}

/// Ends QEMU.
pub fn exit(verdict: Verdict) -> ! {
    loop {
        write(EXIT, verdict as u8);
    }
}

fn read(port: u16) -> u8 {
    let value: u8;
    // SAFETY: CPL 0; reading a UART's status touches no memory.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack, preserves_flags)) }
    value
}

fn write(port: u16, value: u8) {
    // SAFETY: CPL 0; neither the UART nor the exit port touches memory.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack, preserves_flags)) }
}

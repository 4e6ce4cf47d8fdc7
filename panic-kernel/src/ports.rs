//! Access to x86 I/O ports, as a trait so that drivers run on the host over a fake.

/// Byte-wide port I/O.
pub trait Ports {
    /// Reads one byte (`in al, dx`). A port nobody answers reads 0xff.
    fn read(&mut self, port: u16) -> u8;
    /// Writes one byte (`out dx, al`).
    fn write(&mut self, port: u16, value: u8);
}

impl<P: Ports + ?Sized> Ports for &mut P {
    fn read(&mut self, port: u16) -> u8 {
        (**self).read(port)
    }

    fn write(&mut self, port: u16, value: u8) {
        (**self).write(port, value);
    }
}

/// Passes about `micros` microseconds by reading the POST code port, which nothing reacts to.
///
/// One read takes about 1 µs on hardware (LPC) and longer under a hypervisor; there is no calibrated
/// clock here, and nobody needs one.
///
/// Source: `arch/x86/kernel/io_delay.c`.
pub fn delay<P: Ports>(ports: &mut P, micros: u32) {
    for _ in 0..micros {
        ports.read(0x80);
    }
}

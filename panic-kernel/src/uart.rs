//! The 8250/16550 serial port, polled, with every wait bounded.
//!
//! The machine has just crashed: the port may be absent, wedged, or held by a terminal server that
//! stopped listening. A port that does not answer in time is given up for good, so the panic path loses
//! at most one timeout to it.
//!
//! Source: `include/uapi/linux/serial_reg.h`; `arch/x86/kernel/early_printk.c`.

use crate::line::{Line, Sink};
use crate::ports::Ports;

/// The eight registers of an 8250, however they are reached.
pub trait Registers {
    /// Reads register `index`, 0 to 7. One that nobody answers for reads 0xff.
    fn read(&mut self, index: u8) -> u8;
    /// Writes register `index`, 0 to 7.
    fn write(&mut self, index: u8, value: u8);
}

/// Registers behind I/O ports.
pub struct PortRegisters<P> {
    ports: P,
    base: u16,
}

impl<P: Ports> PortRegisters<P> {
    /// Registers from port `base` on; one too high for eight of them is lowered.
    pub fn new(ports: P, base: u16) -> Self {
        Self { ports, base: base.min(u16::MAX - NR_REGISTERS) }
    }
}

impl<P: Ports> Registers for PortRegisters<P> {
    fn read(&mut self, index: u8) -> u8 {
        self.ports.read(self.base + u16::from(index & 7))
    }

    fn write(&mut self, index: u8, value: u8) {
        self.ports.write(self.base + u16::from(index & 7), value);
    }
}

/// Divisor latch, low byte (LCR.DLAB set), and transmit register.
const THR_DLL: u8 = 0;
/// Divisor latch, high byte (LCR.DLAB set), and interrupt enable register.
const IER_DLM: u8 = 1;
const FCR: u8 = 2;
const LCR: u8 = 3;
const MCR: u8 = 4;
const LSR: u8 = 5;

const FCR_ENABLE_AND_CLEAR: u8 = 0x07;
const LCR_8N1: u8 = 0x03;
const LCR_DLAB: u8 = 0x80;
const MCR_DTR_RTS: u8 = 0x03;
const LSR_THRE: u8 = 0x20;
const LSR_TEMT: u8 = 0x40;

/// Baud rate at divisor 1.
const BASE_BAUD: u32 = 115_200;

/// Number of registers, which must not run past the last port.
pub const NR_REGISTERS: u16 = 8;

/// Status reads after which a port is given up. A read takes 1 µs or more, and a full FIFO at 9600 baud
/// drains in 17 ms.
pub const MAX_POLLS: u32 = 100_000;

/// An 8250.
pub struct Uart8250<R> {
    registers: R,
    is_alive: bool,
}

impl<R: Registers> Uart8250<R> {
    /// Takes the port over; `baud` 0 leaves speed and format as the old kernel set them.
    ///
    /// What the old kernel still had in the FIFO is given time to leave first.
    pub fn open(registers: R, baud: u32) -> Self {
        let mut uart = Self::resume(registers);
        uart.is_alive = uart.registers.read(LSR) != 0xff && uart.wait_for(LSR_TEMT);
        if !uart.is_alive {
            return uart;
        }
        match divisor(baud) {
            Some(divisor) => {
                let [low, high] = divisor.to_le_bytes();
                uart.registers.write(LCR, LCR_DLAB | LCR_8N1);
                uart.registers.write(THR_DLL, low);
                uart.registers.write(IER_DLM, high);
                uart.registers.write(LCR, LCR_8N1);
                uart.registers.write(FCR, FCR_ENABLE_AND_CLEAR);
            }
            None => {
                let lcr = uart.registers.read(LCR);
                uart.registers.write(LCR, lcr & !LCR_DLAB);
            }
        }
        uart.registers.write(IER_DLM, 0);
        uart.registers.write(MCR, MCR_DTR_RTS);
        uart
    }

    /// Goes on with a port that [`open`](Self::open) has set up before.
    pub fn resume(registers: R) -> Self {
        Self { registers, is_alive: true }
    }

    /// Whether the port has answered so far.
    pub fn is_alive(&self) -> bool {
        self.is_alive
    }

    /// Waits until the last character is on the wire, because a reset would swallow it.
    pub fn drain(&mut self) {
        if self.is_alive {
            self.is_alive = self.wait_for(LSR_TEMT);
        }
    }

    /// Writes bytes as they are.
    pub fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if !self.is_alive {
                return;
            }
            if self.wait_for(LSR_THRE) {
                self.registers.write(THR_DLL, byte);
            } else {
                self.is_alive = false;
            }
        }
    }

    fn wait_for(&mut self, status: u8) -> bool {
        (0..MAX_POLLS).any(|_| self.registers.read(LSR) & status != 0)
    }
}

impl<R: Registers> Sink for Uart8250<R> {
    fn line(&mut self, line: &Line) {
        self.write(line.as_bytes());
        self.write(b"\r\n");
    }
}

/// The divisor nearest to a baud rate; none for 0, which means "leave it".
fn divisor(baud: u32) -> Option<u16> {
    if baud == 0 {
        return None;
    }
    let nearest = BASE_BAUD.saturating_add(baud / 2) / baud;
    Some(nearest.clamp(1, u32::from(u16::MAX)) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    /// A port block whose status register reads `status` from the `ready_after`th read on.
    struct FakePorts {
        status: u8,
        ready_after: u32,
        nr_status_reads: u32,
        writes: Vec<(u16, u8)>,
    }

    impl FakePorts {
        fn new(status: u8) -> Self {
            Self { status, ready_after: 0, nr_status_reads: 0, writes: Vec::new() }
        }
    }

    fn com1(ports: &mut FakePorts) -> PortRegisters<&mut FakePorts> {
        PortRegisters::new(ports, 0x3f8)
    }

    impl Ports for FakePorts {
        fn read(&mut self, port: u16) -> u8 {
            if port != 0x3f8 + u16::from(LSR) {
                return if port == 0x3f8 + u16::from(LCR) { LCR_DLAB | 0x1b } else { 0 };
            }
            self.nr_status_reads += 1;
            if self.nr_status_reads > self.ready_after { self.status } else { 0 }
        }

        fn write(&mut self, port: u16, value: u8) {
            self.writes.push((port, value));
        }
    }

    #[test]
    fn the_divisor_is_the_nearest_one() {
        let wanted =
            [(0, None), (115_200, Some(1)), (9600, Some(12)), (921_600, Some(1)), (1, Some(u16::MAX))];
        for (baud, divisor_wanted) in wanted {
            assert_eq!(divisor(baud), divisor_wanted, "{baud} baud");
        }
    }

    #[test]
    fn a_speed_is_programmed_through_the_divisor_latch() {
        let mut ports = FakePorts::new(LSR_THRE | LSR_TEMT);
        Uart8250::open(com1(&mut ports), 9600).write(b"x");
        let wanted = [
            (0x3fb, 0x83),
            (0x3f8, 12),
            (0x3f9, 0),
            (0x3fb, 3),
            (0x3fa, 7),
            (0x3f9, 0),
            (0x3fc, 3),
            (0x3f8, b'x'),
        ];
        assert_eq!(ports.writes, wanted);
    }

    #[test]
    fn speed_zero_leaves_the_format_and_only_closes_the_divisor_latch() {
        let mut ports = FakePorts::new(LSR_THRE | LSR_TEMT);
        Uart8250::open(com1(&mut ports), 0);
        assert_eq!(ports.writes, [(0x3fb, 0x1b), (0x3f9, 0), (0x3fc, 3)]);
    }

    #[test]
    fn an_absent_port_is_read_once_and_never_written() {
        let mut ports = FakePorts::new(0xff);
        let mut uart = Uart8250::open(com1(&mut ports), 115_200);
        assert!(!uart.is_alive());
        uart.write(b"lost");
        uart.drain();
        assert_eq!((ports.nr_status_reads, ports.writes.len()), (1, 0));
    }

    #[test]
    fn a_wedged_port_costs_one_timeout_in_all() {
        let mut ports = FakePorts::new(0);
        let mut uart = Uart8250::resume(com1(&mut ports));
        for _ in 0..100 {
            uart.line(&Line::new());
        }
        assert_eq!((ports.nr_status_reads, ports.writes.len()), (MAX_POLLS, 0));
    }

    #[test]
    fn the_old_kernels_last_characters_may_leave_before_the_fifo_is_cleared() {
        let mut ports = FakePorts::new(LSR_THRE | LSR_TEMT);
        ports.ready_after = 500;
        assert!(Uart8250::open(com1(&mut ports), 115_200).is_alive());
        assert_eq!(ports.nr_status_reads, 501);
    }

    #[test]
    fn a_line_ends_with_carriage_return_and_line_feed() {
        let mut ports = FakePorts::new(LSR_THRE | LSR_TEMT);
        let mut line = Line::empty();
        line.str("ab");
        Uart8250::resume(com1(&mut ports)).line(&line);
        let sent: Vec<u8> = ports.writes.iter().map(|&(_, byte)| byte).collect();
        assert_eq!(sent, b"ab\r\n");
    }
}

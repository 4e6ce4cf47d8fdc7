//! The console in use, which the exception handler can pick up where the main line left it.

use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use kdump_panic_kernel::handoff::Console;
use kdump_panic_kernel::line::{Line, Sink};
use kdump_panic_kernel::uart::Uart8250;

use crate::cpu::IoPorts;

/// The port that works, plus one; 0 for none. Atomic only to be a safe static; there is one CPU.
static PORT_PLUS_ONE: AtomicU32 = AtomicU32::new(0);

/// The UART, if one was asked for and answers.
pub struct ActiveConsole(Option<Uart8250<IoPorts>>);

impl ActiveConsole {
    /// Sets the console up.
    pub fn open(console: Console) -> Self {
        let Console::Uart8250Port { port, baud } = console else {
            return Self(None);
        };
        let uart = Uart8250::open(IoPorts, port, baud);
        if uart.is_alive() {
            PORT_PLUS_ONE.store(u32::from(port) + 1, Relaxed);
        }
        Self(Some(uart))
    }

    /// Goes on with the console that was set up, on a fresh line.
    pub fn resume() -> Self {
        let port = PORT_PLUS_ONE.load(Relaxed).checked_sub(1).and_then(|port| u16::try_from(port).ok());
        let mut uart = port.map(|port| Uart8250::resume(IoPorts, port));
        if let Some(uart) = &mut uart {
            uart.write(b"\r\n");
        }
        Self(uart)
    }

    /// Waits, boundedly, until everything is on the wire.
    pub fn drain(&mut self) {
        if let Some(uart) = &mut self.0 {
            uart.drain();
        }
    }
}

impl Sink for ActiveConsole {
    fn line(&mut self, line: &Line) {
        if let Some(uart) = &mut self.0 {
            uart.line(line);
        }
    }
}

//! The console in use, which the exception handler can pick up where the main line left it.
//!
//! Lines said before it is open are kept and printed when it is: one behind memory has to wait for page
//! tables. Every line ends with the milliseconds since entry.

// UNSAFETY: memory-mapped registers and the text screen are memory the language knows nothing about.
#![expect(unsafe_code)]

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use kdump_panic_kernel::handoff::{Console, VGA_TEXT_SIZE};
use kdump_panic_kernel::line::{Line, Sink};
use kdump_panic_kernel::uart::{PortRegisters, Registers, Uart8250};
use kdump_panic_kernel::vga::{Cells, VgaText};

use crate::clock;
use crate::cpu::IoPorts;

/// The console that works: its kind, shift and width, and its address. Atomic only to be safe statics; there
/// is one CPU.
static SHAPE: AtomicU64 = AtomicU64::new(0);
static ADDRESS: AtomicU64 = AtomicU64::new(0);

/// Lines kept until a console is open.
const MAX_WAITING: usize = 6;

/// What the lines go to.
pub struct ActiveConsole {
    device: Device,
    waiting: [Line; MAX_WAITING],
    nr_waiting: usize,
}

enum Device {
    /// Not chosen yet: lines wait.
    Waiting,
    None,
    Uart(Uart8250<AnyRegisters>),
    Vga(VgaText<Screen>),
}

/// Registers of an 8250 behind ports or memory: one type, so that the driver is compiled once.
enum AnyRegisters {
    Ports(PortRegisters<IoPorts>),
    Memory { base: u64, shift: u8, width: u8 },
}

impl Registers for AnyRegisters {
    fn read(&mut self, index: u8) -> u8 {
        match self {
            Self::Ports(ports) => ports.read(index),
            Self::Memory { base, shift, width } => {
                let at = *base + (u64::from(index) << *shift);
                // SAFETY: the block that named these registers hashed right, and the page tables in force map them
                // uncached; `open` is called for them only then. Reading them changes the device alone.
                unsafe {
                    if *width == 4 {
                        (at as *const u32).read_volatile() as u8
                    } else {
                        (at as *const u8).read_volatile()
                    }
                }
            }
        }
    }

    fn write(&mut self, index: u8, value: u8) {
        match self {
            Self::Ports(ports) => ports.write(index, value),
            Self::Memory { base, shift, width } => {
                let at = *base + (u64::from(index) << *shift);
                // SAFETY: as for reading.
                unsafe {
                    if *width == 4 {
                        (at as *mut u32).write_volatile(value.into());
                    } else {
                        (at as *mut u8).write_volatile(value);
                    }
                }
            }
        }
    }
}

/// The cells of the text screen from this address on.
struct Screen(u64);

impl Cells for Screen {
    fn read(&mut self, cell: usize) -> u16 {
        let offset = (cell as u64 * 2).min(VGA_TEXT_SIZE - 2);
        // SAFETY: within the screen, which the identity map holds: it lies in the first MiB. No Rust object does.
        unsafe { ((self.0 + offset) as *const u16).read_volatile() }
    }

    fn write(&mut self, cell: usize, value: u16) {
        let offset = (cell as u64 * 2).min(VGA_TEXT_SIZE - 2);
        // SAFETY: as for reading.
        unsafe { ((self.0 + offset) as *mut u16).write_volatile(value) }
    }
}

impl Device {
    fn reach(console: Console) -> Option<AnyRegisters> {
        match console {
            Console::Uart8250Port { port, .. } => {
                Some(AnyRegisters::Ports(PortRegisters::new(IoPorts, port)))
            }
            Console::Uart8250Mmio { base, shift, width, .. } => {
                Some(AnyRegisters::Memory { base, shift, width })
            }
            Console::None | Console::VgaText { .. } => None,
        }
    }
}

impl ActiveConsole {
    /// A console that keeps its lines until it is [opened](Self::open).
    pub fn waiting() -> Self {
        Self { device: Device::Waiting, waiting: [const { Line::empty() }; MAX_WAITING], nr_waiting: 0 }
    }

    /// Sets the console up, and prints what has waited for it.
    pub fn open(&mut self, console: Console) {
        let (Console::Uart8250Port { baud, .. } | Console::Uart8250Mmio { baud, .. }) = console else {
            self.device = match console {
                Console::VgaText { base } => Device::Vga(VgaText(Screen(base))),
                _ => Device::None,
            };
            remember(console);
            self.flush();
            return;
        };
        self.device = match Device::reach(console).map(|registers| Uart8250::open(registers, baud)) {
            Some(uart) if uart.is_alive() => {
                remember(console);
                Device::Uart(uart)
            }
            _ => Device::None,
        };
        self.flush();
    }

    /// Whether [`open`](Self::open) has been called.
    pub fn is_open(&self) -> bool {
        !matches!(self.device, Device::Waiting)
    }

    /// Goes on with the console that was set up, on a fresh line; with `fallback` if none was.
    pub fn resume(fallback: Console) -> Self {
        let mut console = Self::waiting();
        match remembered() {
            Console::None => console.open(fallback),
            Console::VgaText { base } => console.device = Device::Vga(VgaText(Screen(base))),
            remembered => {
                console.device = Device::reach(remembered).map_or(Device::None, |registers| {
                    let mut uart = Uart8250::resume(registers);
                    uart.write(b"\r\n");
                    Device::Uart(uart)
                });
            }
        }
        console
    }

    /// Waits, boundedly, until everything is on the wire.
    pub fn drain(&mut self) {
        if let Device::Uart(uart) = &mut self.device {
            uart.drain();
        }
    }

    fn flush(&mut self) {
        for i in 0..self.nr_waiting {
            if let Some(line) = self.waiting.get(i).cloned() {
                self.print(&line);
            }
        }
        self.nr_waiting = 0;
    }

    fn print(&mut self, line: &Line) {
        match &mut self.device {
            Device::Waiting => {
                if let Some(slot) = self.waiting.get_mut(self.nr_waiting) {
                    *slot = line.clone();
                    self.nr_waiting += 1;
                }
            }
            Device::None => {}
            Device::Uart(uart) => uart.line(line),
            Device::Vga(screen) => screen.line(line),
        }
    }
}

impl Sink for ActiveConsole {
    fn line(&mut self, line: &Line) {
        let mut line = line.clone();
        if let Some(millis) = clock::millis() {
            line.str(", ").dec(millis).str(" ms");
        }
        self.print(&line);
    }
}

fn remember(console: Console) {
    let (shift, width) = match console {
        Console::Uart8250Mmio { shift, width, .. } => (shift, width),
        _ => (0, 0),
    };
    let address = match console {
        Console::None => 0,
        Console::Uart8250Port { port, .. } => port.into(),
        Console::Uart8250Mmio { base, .. } | Console::VgaText { base } => base,
    };
    ADDRESS.store(address, Relaxed);
    SHAPE.store(u64::from(console.kind().0) << 16 | u64::from(shift) << 8 | u64::from(width), Relaxed);
}

fn remembered() -> Console {
    let (shape, address) = (SHAPE.load(Relaxed), ADDRESS.load(Relaxed));
    match shape >> 16 {
        1 => Console::Uart8250Port { port: address as u16, baud: 0 },
        2 => Console::Uart8250Mmio { base: address, shift: (shape >> 8) as u8, width: shape as u8, baud: 0 },
        3 => Console::VgaText { base: address },
        _ => Console::None,
    }
}

/// The kind of the console that works, as the record keeps it.
pub fn kind() -> u32 {
    (SHAPE.load(Relaxed) >> 16) as u32
}

//! Lines on the console, and the steps.

use core::sync::atomic::{AtomicU16, Ordering::Relaxed};

use kdump_panic_kernel::handoff::Console;
use kdump_panic_kernel::line::{Line, Sink};
use kdump_panic_kernel::uart::{PortRegisters, Uart8250};

use crate::cpu::IoPorts;

/// What every line begins with.
pub const PREFIX: &str = "kdump-rs probe: ";

const COM1: u16 = 0x3f8;

/// The port in use; 0 for none. Atomic only to be a safe static; there is one CPU.
static PORT: AtomicU16 = AtomicU16::new(0);

/// Opens the console. One that is no 8250 behind ports is replaced by COM1: what the probe switches through has no
/// mapping for others.
pub fn open(console: Option<Console>) {
    let (port, baud) = match console {
        Some(Console::Uart8250Port { port, baud }) => (port, baud),
        _ => (COM1, 0),
    };
    let uart = Uart8250::open(PortRegisters::new(IoPorts, port), baud);
    if uart.is_alive() {
        PORT.store(port, Relaxed);
    }
}

/// Prints a line.
pub fn print(line: &Line) {
    let port = PORT.load(Relaxed);
    if port != 0 {
        Uart8250::resume(PortRegisters::new(IoPorts, port)).line(line);
    }
}

/// Waits until everything is on the wire.
pub fn drain() {
    let port = PORT.load(Relaxed);
    if port != 0 {
        Uart8250::resume(PortRegisters::new(IoPorts, port)).drain();
    }
}

/// Puts text into a line, with a value at each `{h}` (hexadecimal) and `{d}` (decimal).
pub fn fill(line: &mut Line, text: &str, values: &[u64]) {
    let mut values = values.iter();
    let mut rest = text;
    while let Some(at) = rest.find('{') {
        let (before, after) = rest.split_at(at);
        line.str(before);
        let value = values.next().copied().unwrap_or(0);
        if after.starts_with("{h}") {
            line.hex(value);
        } else {
            line.dec(value);
        }
        rest = after.get(3..).unwrap_or("");
    }
    line.str(rest);
}

/// Prints a line of text and values.
macro_rules! say {
    ($text:expr $(, $value:expr)* $(,)?) => {{
        let mut line = ::kdump_panic_kernel::line::Line::empty();
        line.str($crate::output::PREFIX);
        $crate::output::fill(&mut line, $text, &[$($value),*]);
        $crate::output::print(&line);
    }};
}
pub(crate) use say;

/// The steps so far.
pub struct Probe {
    nr: u64,
    nr_passed: u64,
}

impl Probe {
    /// None yet.
    pub fn new() -> Self {
        Self { nr: 0, nr_passed: 0 }
    }

    /// Announces a step and takes it.
    pub fn step(&mut self, title: &str, take: impl FnOnce(&mut Self)) {
        self.nr += 1;
        let mut line = Line::empty();
        line.str(PREFIX).str("step ").dec(self.nr).str(" ").str(title);
        print(&line);
        take(self);
    }

    /// The step ended well.
    pub fn pass(&mut self, how: &str) {
        self.nr_passed += 1;
        self.end("ok", how);
    }

    /// The step did not.
    pub fn fail(&mut self, why: &str) {
        self.end("FAILED", why);
    }

    /// One or the other.
    pub fn check(&mut self, is_good: bool, what: &str) {
        if is_good {
            self.pass(what);
        } else {
            self.fail(what);
        }
    }

    fn end(&self, verdict: &str, text: &str) {
        let mut line = Line::empty();
        line.str(PREFIX).str("step ").dec(self.nr).str(" ").str(verdict).str(": ").str(text);
        print(&line);
    }

    /// The last line.
    pub fn summary(&self) {
        if self.nr == self.nr_passed {
            say!("all {d} steps passed", self.nr);
        } else {
            say!("{d} of {d} steps FAILED", self.nr - self.nr_passed, self.nr);
        }
    }
}

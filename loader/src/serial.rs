//! Which serial port the panic path prints on: the console the running kernel uses, by its I/O port.
//!
//! The panic path drives 8250 and 16550 ports behind I/O ports. A port behind MMIO is not mapped
//! for it at that moment, so such a console is declined, with the reason.

use std::fs;
use std::path::Path;

use kdump_panic_kernel::handoff::Console;

use crate::cmdline;
use crate::sysfs;

/// The ports of COM1 to COM4, `SERIAL_PORT_DFNS` of arch/x86/include/asm/serial.h.
const STANDARD_PORTS: [u16; 4] = [0x3f8, 0x2f8, 0x3e8, 0x2e8];
/// `UPIO_PORT` in /sys/class/tty/ttySn/io_type.
const IO_TYPE_PORT: u64 = 0;

/// What the user asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The last `console=ttyS` of the running kernel.
    #[default]
    Auto,
    /// Silence.
    None,
    /// A port by its number, at a speed; 0 leaves it as it is set.
    Port {
        /// n of ttySn.
        index: u8,
        /// Baud.
        baud: u32,
    },
}

/// Text that names no console.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is no console for the panic path: auto, none, or ttySn with an optional ,baud")]
pub struct BadChoice(String);

impl std::str::FromStr for Choice {
    type Err = BadChoice;

    /// `auto`, `none`, `ttyS0`, `ttyS0,115200`; what follows the digits (`n8`) is ignored, as 8n1 is all there is.
    fn from_str(text: &str) -> Result<Self, BadChoice> {
        match text {
            "auto" => Ok(Self::Auto),
            "none" => Ok(Self::None),
            _ => parse_tty(text).ok_or_else(|| BadChoice(text.to_owned())),
        }
    }
}

fn parse_tty(text: &str) -> Option<Choice> {
    let (name, options) = text.split_once(',').unwrap_or((text, ""));
    let index = name.strip_prefix("ttyS")?.parse().ok()?;
    let digits: String = options.chars().take_while(char::is_ascii_digit).collect();
    let baud = match digits.as_str() {
        "" if options.is_empty() => 0,
        digits => digits.parse().ok().filter(|b| (1..=4_000_000).contains(b))?,
    };
    Some(Choice::Port { index, baud })
}

/// Finds the port, and says in words what was chosen.
#[must_use]
pub fn resolve(choice: Choice, running_cmdline: &str, root: &Path) -> (Console, String) {
    let (index, baud) = match choice {
        Choice::None => return (Console::None, "none".to_owned()),
        Choice::Port { index, baud } => (index, baud),
        Choice::Auto => {
            let last = cmdline::consoles(running_cmdline).into_iter().filter_map(parse_tty).next_back();
            // The running kernel has set the speed; the panic path leaves it.
            let Some(Choice::Port { index, .. }) = last else {
                return (Console::None, "none: the running kernel has no console=ttyS".to_owned());
            };
            (index, 0)
        }
    };
    match find_port(index, root) {
        Ok(port) => {
            let speed = if baud == 0 { String::new() } else { format!(", {baud} baud") };
            (Console::Uart8250Port { port, baud }, format!("ttyS{index} at port {port:#x}{speed}"))
        }
        Err(reason) => (Console::None, format!("none: ttyS{index} {reason}")),
    }
}

fn find_port(index: u8, root: &Path) -> Result<u16, &'static str> {
    let dir = root.join(format!("sys/class/tty/ttyS{index}"));
    let read = |name: &str| fs::read_to_string(dir.join(name)).ok();
    if let (Some(port), Some(io_type)) = (read("port"), read("io_type")) {
        if sysfs::parse_decimal(&io_type) != Some(IO_TYPE_PORT) {
            return Err("is behind MMIO, which the panic path does not drive yet");
        }
        let port = sysfs::parse_hex(&port).and_then(|p| u16::try_from(p).ok()).filter(|&p| p != 0);
        // The standard port of a UART that was not found reads 0 in `type`.
        if read("type").and_then(|t| sysfs::parse_decimal(&t)) == Some(0) {
            return Err("has no UART");
        }
        return port.ok_or("has no I/O port");
    }
    let table = fs::read_to_string(root.join("proc/tty/driver/serial")).unwrap_or_default();
    if let Some(line) = table.lines().find_map(|l| l.strip_prefix(&format!("{index}: "))) {
        if line.contains("uart:unknown") {
            return Err("has no UART");
        }
        let port = line.split_whitespace().find_map(|w| w.strip_prefix("port:"));
        let port = port.and_then(sysfs::parse_hex).and_then(|p| u16::try_from(p).ok());
        return port.filter(|&p| p != 0).ok_or("is behind MMIO, which the panic path does not drive yet");
    }
    STANDARD_PORTS.get(usize::from(index)).copied().ok_or("has no standard port and none is shown in sysfs")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    #[test]
    fn choices_parse() {
        assert_eq!("ttyS1,115200n8".parse(), Ok(Choice::Port { index: 1, baud: 115_200 }));
        assert_eq!("ttyS0".parse(), Ok(Choice::Port { index: 0, baud: 0 }));
        assert_eq!("none".parse(), Ok(Choice::None));
        for bad in ["ttyUSB0", "ttyS0,fast", "ttyS", "tty0", "ttyS0,0"] {
            assert!(bad.parse::<Choice>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_last_serial_console_is_used_at_its_own_speed() {
        let dir = root(&[]);
        let (console, _) =
            resolve(Choice::Auto, "console=ttyS1,9600 console=ttyS0,115200 console=tty0", dir.path());
        assert_eq!(console, Console::Uart8250Port { port: 0x3f8, baud: 0 });
        let (console, why) = resolve(Choice::Auto, "console=tty0", dir.path());
        assert_eq!(console, Console::None);
        assert!(why.contains("no console=ttyS"), "{why}");
    }

    #[test]
    fn sysfs_gives_the_port_and_mmio_is_declined() {
        let port = root(&[
            ("sys/class/tty/ttyS0/port", "0x2E8\n"),
            ("sys/class/tty/ttyS0/io_type", "0\n"),
            ("sys/class/tty/ttyS0/type", "4\n"),
        ]);
        let (console, _) = resolve(Choice::Port { index: 0, baud: 9600 }, "", port.path());
        assert_eq!(console, Console::Uart8250Port { port: 0x2e8, baud: 9600 });
        let mmio = root(&[("sys/class/tty/ttyS0/port", "0x0\n"), ("sys/class/tty/ttyS0/io_type", "2\n")]);
        let (console, why) = resolve(Choice::Port { index: 0, baud: 0 }, "", mmio.path());
        assert_eq!(console, Console::None);
        assert!(why.contains("MMIO"), "{why}");
    }

    #[test]
    fn the_drivers_table_gives_the_port_where_sysfs_does_not() {
        let dir = root(&[(
            "proc/tty/driver/serial",
            "serinfo:1.0 driver revision:\n0: uart:16550A port:000003F8 irq:4\n1: uart:unknown port:000002F8 irq:3\n",
        )]);
        assert_eq!(find_port(0, dir.path()), Ok(0x3f8));
        assert_eq!(find_port(1, dir.path()), Err("has no UART"));
    }
}

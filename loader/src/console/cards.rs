//! Serial ports that drivers know: ttySn and PCI cards, from /sys and /proc.
//!
//! Source: drivers/tty/serial/serial_core.c (`tty_dev_attrs`, `uart_line_info`),
//! drivers/pci/pci-sysfs.c (`resource`), arch/x86/kernel/early_printk.c (`early_pci_serial_init`).

use std::fs;
use std::path::Path;

use kdump_panic_kernel::handoff::Console;

use super::{Found, describe};
use crate::sysfs;

/// The ports of COM1 to COM4, `SERIAL_PORT_DFNS` of arch/x86/include/asm/serial.h.
const STANDARD_PORTS: [u16; 4] = [0x3f8, 0x2f8, 0x3e8, 0x2e8];

/// `UPIO_PORT`, `UPIO_MEM` and `UPIO_MEM32` in /sys/class/tty/ttySn/io_type.
const UPIO_PORT: u64 = 0;
const UPIO_MEM: u64 = 2;
const UPIO_MEM32: u64 = 3;

/// Registers that lie further apart are nobody's.
const MAX_SHIFT: u64 = 4;

/// `IORESOURCE_IO` and `IORESOURCE_MEM`, include/linux/ioport.h.
const IORESOURCE_IO: u64 = 0x100;
const IORESOURCE_MEM: u64 = 0x200;

/// The port behind ttySn.
pub(super) fn tty(root: &Path, index: u8, baud: u32) -> Found {
    match find_tty(root, index, baud) {
        Ok(console) => Ok((console, format!("ttyS{index}, {}", describe(console)))),
        Err(reason) => Err(format!("ttyS{index} {reason}")),
    }
}

fn find_tty(root: &Path, index: u8, baud: u32) -> Result<Console, String> {
    let dir = root.join(format!("sys/class/tty/ttyS{index}"));
    let read = |name: &str| fs::read_to_string(dir.join(name)).ok();
    let (Some(port), Some(io_type)) = (read("port"), read("io_type")) else {
        return from_driver_table(root, index, baud);
    };
    // The standard port of a UART that was not found reads 0 in `type`.
    if read("type").and_then(|t| sysfs::parse_decimal(&t)) == Some(0) {
        return Err("has no UART".to_owned());
    }
    let shift = read("iomem_reg_shift").and_then(|t| sysfs::parse_decimal(&t)).unwrap_or(0);
    let memory = || {
        let base = read("iomem_base").and_then(|t| sysfs::parse_hex(&t)).filter(|&base| base >= 0x1000);
        base.ok_or_else(|| "is behind MMIO, and sysfs does not tell where".to_owned())
    };
    if shift > MAX_SHIFT {
        return Err(format!("has registers 2^{shift} bytes apart, which the panic path cannot drive"));
    }
    let (shift, base) = (shift as u8, memory);
    match sysfs::parse_decimal(&io_type) {
        Some(UPIO_PORT) if shift == 0 => {
            let port = sysfs::parse_hex(&port).and_then(|p| u16::try_from(p).ok()).filter(|&p| p != 0);
            port.map(|port| Console::Uart8250Port { port, baud }).ok_or_else(|| "has no I/O port".to_owned())
        }
        Some(UPIO_MEM) => Ok(Console::Uart8250Mmio { base: base()?, shift, width: 1, baud }),
        Some(UPIO_MEM32) => Ok(Console::Uart8250Mmio { base: base()?, shift, width: 4, baud }),
        _ => Err(format!(
            "has io_type {} and shift {shift}, which the panic path cannot drive",
            io_type.trim()
        )),
    }
}

fn from_driver_table(root: &Path, index: u8, baud: u32) -> Result<Console, String> {
    let table = fs::read_to_string(root.join("proc/tty/driver/serial")).unwrap_or_default();
    let port = if let Some(line) = table.lines().find_map(|l| l.strip_prefix(&format!("{index}: "))) {
        if line.contains("uart:unknown") {
            return Err("has no UART".to_owned());
        }
        let port = line.split_whitespace().find_map(|w| w.strip_prefix("port:"));
        let port = port.and_then(sysfs::parse_hex).and_then(|p| u16::try_from(p).ok());
        port.filter(|&p| p != 0).ok_or("is behind MMIO, and sysfs does not tell how")?
    } else {
        let standard = STANDARD_PORTS.get(usize::from(index)).copied();
        standard.ok_or("has no standard port and none is shown in sysfs")?
    };
    Ok(Console::Uart8250Port { port, baud })
}

/// The first resource of a PCI card, as earlyprintk takes it: ports, or 32-bit registers.
pub(super) fn pci(root: &Path, address: &str) -> Found {
    let path = root.join("sys/bus/pci/devices").join(address).join("resource");
    let text = fs::read_to_string(path).unwrap_or_default();
    let fields: Vec<_> =
        text.lines().next().unwrap_or_default().split_whitespace().map(sysfs::parse_hex).collect();
    let console = match *fields.as_slice() {
        [Some(start), _, Some(flags)] if flags & IORESOURCE_IO != 0 => {
            u16::try_from(start).ok().map(|port| Console::Uart8250Port { port, baud: 0 })
        }
        [Some(start), _, Some(flags)] if flags & IORESOURCE_MEM != 0 && start >= 0x1000 => {
            Some(Console::Uart8250Mmio { base: start, shift: 2, width: 4, baud: 0 })
        }
        _ => None,
    };
    let console = console.ok_or_else(|| format!("PCI device {address} has no usable first resource"))?;
    Ok((console, format!("PCI {address}, {}", describe(console))))
}

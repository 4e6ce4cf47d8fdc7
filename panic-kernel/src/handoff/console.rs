//! Where the panic path prints, as the loader chose it and as it stands in the block.

use super::HandoffError;
use super::field::{put, u32_at, u64_at};
use crate::uart::NR_REGISTERS;

/// Bytes of a console as stored.
pub(super) const CONSOLE_SIZE: usize = 0x20;

/// Characters of the VGA text screen, two bytes each: 80 columns, 25 rows.
pub const VGA_TEXT_SIZE: u64 = 80 * 25 * 2;

/// Where the panic path prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Console {
    /// Nowhere.
    None,
    /// An 8250 or 16550 behind I/O ports.
    Uart8250Port {
        /// First port.
        port: u16,
        /// Speed; 0 leaves speed and format as the old kernel set them.
        baud: u32,
    },
    /// An 8250 or 16550 behind memory-mapped registers.
    Uart8250Mmio {
        /// Physical address of the first register.
        base: u64,
        /// The registers are `1 << shift` bytes apart, 0 to 4.
        shift: u8,
        /// Bytes of one access: 1 or 4.
        width: u8,
        /// Speed; 0 leaves speed and format as the old kernel set them.
        baud: u32,
    },
    /// The VGA text screen.
    VgaText {
        /// Physical address of its first character, usually 0xb8000.
        base: u64,
    },
}

/// A console kind as stored.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConsoleKind(pub u32);

impl ConsoleKind {
    /// [`Console::None`].
    pub const NONE: Self = Self(0);
    /// [`Console::Uart8250Port`].
    pub const UART_8250_PORT: Self = Self(1);
    /// [`Console::Uart8250Mmio`].
    pub const UART_8250_MMIO: Self = Self(2);
    /// [`Console::VgaText`].
    pub const VGA_TEXT: Self = Self(3);
}

impl Console {
    /// Its kind as stored.
    pub fn kind(self) -> ConsoleKind {
        match self {
            Self::None => ConsoleKind::NONE,
            Self::Uart8250Port { .. } => ConsoleKind::UART_8250_PORT,
            Self::Uart8250Mmio { .. } => ConsoleKind::UART_8250_MMIO,
            Self::VgaText { .. } => ConsoleKind::VGA_TEXT,
        }
    }

    /// The memory it is driven through, start and length; none for ports.
    pub fn memory(self) -> Option<(u64, u64)> {
        match self {
            Self::None | Self::Uart8250Port { .. } => None,
            Self::Uart8250Mmio { base, shift, .. } => Some((base, u64::from(NR_REGISTERS) << shift)),
            Self::VgaText { base } => Some((base, VGA_TEXT_SIZE)),
        }
    }
}

/// A console as stored: kind, baud, address, shift, width, 8 bytes of zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RawConsole {
    pub(super) kind: ConsoleKind,
    pub(super) baud: u32,
    pub(super) address: u64,
    pub(super) shift: u32,
    pub(super) width: u32,
    pub(super) reserved: u64,
}

impl RawConsole {
    pub(super) fn read(bytes: &[u8], at: usize) -> Self {
        Self {
            kind: ConsoleKind(u32_at(bytes, at)),
            baud: u32_at(bytes, at + 0x04),
            address: u64_at(bytes, at + 0x08),
            shift: u32_at(bytes, at + 0x10),
            width: u32_at(bytes, at + 0x14),
            reserved: u64_at(bytes, at + 0x18),
        }
    }

    pub(super) fn write(self, bytes: &mut [u8], at: usize) {
        put(bytes, at, &self.kind.0.to_le_bytes());
        put(bytes, at + 0x04, &self.baud.to_le_bytes());
        put(bytes, at + 0x08, &self.address.to_le_bytes());
        put(bytes, at + 0x10, &self.shift.to_le_bytes());
        put(bytes, at + 0x14, &self.width.to_le_bytes());
        put(bytes, at + 0x18, &self.reserved.to_le_bytes());
    }

    pub(super) fn inverted(self) -> Self {
        Self {
            kind: ConsoleKind(!self.kind.0),
            baud: !self.baud,
            address: !self.address,
            shift: !self.shift,
            width: !self.width,
            reserved: !self.reserved,
        }
    }

    pub(super) fn decode(self) -> Result<Console, HandoffError> {
        let Self { baud, address, .. } = self;
        let console = match self.kind {
            ConsoleKind::NONE => return Ok(Console::None),
            ConsoleKind::UART_8250_PORT => match u16::try_from(address) {
                Ok(port) if port <= u16::MAX - NR_REGISTERS => {
                    return Ok(Console::Uart8250Port { port, baud });
                }
                _ => return Err(HandoffError::BadPort { port: address }),
            },
            ConsoleKind::UART_8250_MMIO => match (self.shift, self.width) {
                (shift @ 0..=4, width @ (1 | 4)) if u64::from(width) <= 1 << shift.max(2) => {
                    Console::Uart8250Mmio { base: address, shift: shift as u8, width: width as u8, baud }
                }
                (shift, width) => return Err(HandoffError::BadRegisters { shift, width }),
            },
            ConsoleKind::VGA_TEXT => Console::VgaText { base: address },
            ConsoleKind(kind) => return Err(HandoffError::UnknownConsole { kind }),
        };
        match console.memory() {
            Some((base, len)) if base >= 0x1000 && base.checked_add(len).is_some_and(|e| e < 1 << 52) => {
                Ok(console)
            }
            _ => Err(HandoffError::BadConsoleMemory { base: address }),
        }
    }
}

impl From<Console> for RawConsole {
    fn from(console: Console) -> Self {
        let raw = Self { kind: console.kind(), baud: 0, address: 0, shift: 0, width: 0, reserved: 0 };
        match console {
            Console::None => raw,
            Console::Uart8250Port { port, baud } => Self { baud, address: port.into(), ..raw },
            Console::Uart8250Mmio { base, shift, width, baud } => {
                Self { baud, address: base, shift: shift.into(), width: width.into(), ..raw }
            }
            Console::VgaText { base } => Self { address: base, ..raw },
        }
    }
}

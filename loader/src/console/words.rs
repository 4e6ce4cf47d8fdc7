//! Consoles in words: those of `--console`, and those of the kernel's command line.
//!
//! Source: Documentation/admin-guide/kernel-parameters.txt (`console=`, `earlycon=`, `earlyprintk=`),
//! drivers/tty/serial/earlycon.c, arch/x86/kernel/early_printk.c.

use kdump_panic_kernel::handoff::Console;

use crate::sysfs;

/// Faster is no serial line.
const MAX_BAUD: u32 = 4_000_000;
/// Physical addresses end here.
const MAX_ADDRESS: u64 = 1 << 52;
/// The ports of `earlyprintk=ttySn`.
const EARLY_PORTS: [u16; 2] = [0x3f8, 0x2f8];

/// What the user asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// What the running kernel prints on.
    #[default]
    Auto,
    /// Silence.
    None,
    /// A port by its number, at a speed; 0 leaves it as it is set.
    Tty {
        /// n of ttySn.
        index: u8,
        /// Baud.
        baud: u32,
    },
    /// A UART by its address.
    At(Console),
    /// The VGA text screen.
    Vga,
}

/// Text that names no console.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "{0:?} is no console for the panic path: auto, none, vga, ttySn, io,0xPORT, mmio,0xADDRESS or \
     mmio32,0xADDRESS, the last four with an optional ,baud"
)]
pub struct BadChoice(String);

impl std::str::FromStr for Choice {
    type Err = BadChoice;

    /// What follows the digits of a speed (`n8`) is ignored, as 8n1 is all there is.
    fn from_str(text: &str) -> Result<Self, BadChoice> {
        let choice = match text {
            "auto" => Some(Self::Auto),
            "none" => Some(Self::None),
            "vga" => Some(Self::Vga),
            _ => match text.split_once(',').unwrap_or((text, "")) {
                (name, rest) if name.starts_with("ttyS") => {
                    let (index, baud) = (tty_index(name), baud(rest));
                    index.zip(baud).map(|(index, baud)| Self::Tty { index, baud })
                }
                _ => located(text).map(Self::At),
            },
        };
        choice.ok_or_else(|| BadChoice(text.to_owned()))
    }
}

/// A console of the kernel's command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Word {
    Tty {
        index: u8,
    },
    At(Console),
    /// PCI address, `domain:bus:device.function`.
    Pci(String),
    Screen,
}

/// The value of `console=`, `earlycon=` or `earlyprintk=`. None for what is no console of ours.
pub(super) fn parse(value: &str) -> Option<Word> {
    let value = value.trim_matches('"').trim_end_matches(",nocfg");
    let (name, rest) = value.split_once(',').unwrap_or((value, ""));
    match name {
        "uart8250" | "uart" => located(rest).map(leave_speed).map(Word::At),
        "io" | "mmio" | "mmio32" => located(value).map(leave_speed).map(Word::At),
        // earlyprintk=serial,0x3f8,115200 and earlyprintk=serial,ttyS1.
        "serial" => match rest.split(',').next().unwrap_or_default() {
            "" => Some(early_port(0)),
            port if port.starts_with("0x") => located(&format!("io,{port}")).map(Word::At),
            tty => tty_index(tty).map(|index| early_port(index.into())),
        },
        "pciserial" => {
            let address = rest.split(',').find(|word| *word != "force")?;
            Some(Word::Pci(pci_address(address)?))
        }
        "vga" | "tty0" | "tty1" => Some(Word::Screen),
        _ => tty_index(name).map(|index| Word::Tty { index }),
    }
}

fn early_port(index: usize) -> Word {
    let port = EARLY_PORTS.get(index).copied().unwrap_or(EARLY_PORTS[0]);
    Word::At(Console::Uart8250Port { port, baud: 0 })
}

/// `io,0x3f8[,speed]`, `mmio,...`, `mmio32,...`; a bare number is MMIO, as for earlycon.
fn located(text: &str) -> Option<Console> {
    let mut words = text.split(',');
    let kind = words.next()?;
    let (kind, address) = if kind.starts_with("0x") { ("mmio", kind) } else { (kind, words.next()?) };
    let address = sysfs::parse_hex(address.strip_prefix("0x")?).filter(|&a| a != 0 && a < MAX_ADDRESS)?;
    let baud = baud(words.next().unwrap_or_default())?;
    if words.next().is_some() {
        return None;
    }
    match kind {
        // The last register is 7 above the first.
        "io" => u16::try_from(address)
            .ok()
            .filter(|port| *port <= u16::MAX - 8)
            .map(|port| Console::Uart8250Port { port, baud }),
        "mmio" => Some(Console::Uart8250Mmio { base: address, shift: 0, width: 1, baud }),
        "mmio32" => Some(Console::Uart8250Mmio { base: address, shift: 2, width: 4, baud }),
        _ => None,
    }
    .filter(|console| console.memory().is_none_or(|(base, _)| base >= 0x1000))
}

/// The running kernel has set the speed; the panic path leaves it.
fn leave_speed(console: Console) -> Console {
    match console {
        Console::Uart8250Port { port, .. } => Console::Uart8250Port { port, baud: 0 },
        Console::Uart8250Mmio { base, shift, width, .. } => {
            Console::Uart8250Mmio { base, shift, width, baud: 0 }
        }
        other => other,
    }
}

fn tty_index(name: &str) -> Option<u8> {
    name.strip_prefix("ttyS")?.parse().ok()
}

/// A speed and what may follow it; 0 if there is none.
fn baud(text: &str) -> Option<u32> {
    let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
    match digits.as_str() {
        "" => text.is_empty().then_some(0),
        digits => digits.parse().ok().filter(|baud| (1..=MAX_BAUD).contains(baud)),
    }
}

/// `bus:device.function`, all hexadecimal, as sysfs writes it.
fn pci_address(text: &str) -> Option<String> {
    let (bus, rest) = text.split_once(':')?;
    let (device, function) = rest.split_once('.')?;
    let number = |text: &str, max: u64| sysfs::parse_hex(text).filter(|&n| n <= max);
    let (bus, device, function) = (number(bus, 0xff)?, number(device, 0x1f)?, number(function, 7)?);
    Some(format!("0000:{bus:02x}:{device:02x}.{function}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn mmio(base: u64, shift: u8, width: u8, baud: u32) -> Console {
        Console::Uart8250Mmio { base, shift, width, baud }
    }

    #[test]
    fn choices_parse() {
        let port = |port, baud| Choice::At(Console::Uart8250Port { port, baud });
        for (text, choice) in [
            ("auto", Choice::Auto),
            ("none", Choice::None),
            ("vga", Choice::Vga),
            ("ttyS0", Choice::Tty { index: 0, baud: 0 }),
            ("ttyS1,115200n8", Choice::Tty { index: 1, baud: 115_200 }),
            ("io,0x3f8", port(0x3f8, 0)),
            ("io,0xe000,9600", port(0xe000, 9600)),
            ("mmio,0xfedc9000", Choice::At(mmio(0xfedc_9000, 0, 1, 0))),
            ("mmio32,0xfe032000,115200", Choice::At(mmio(0xfe03_2000, 2, 4, 115_200))),
        ] {
            assert_eq!(text.parse(), Ok(choice), "{text}");
        }
        for bad in [
            "",
            "ttyUSB0",
            "ttyS0,fast",
            "ttyS",
            "tty0",
            "ttyS0,0",
            "io,3f8",
            "io,0x10000",
            "io,0xfffb",
            "io",
            "mmio,0x0",
            "mmio,0x10",
            "mmio16,0x1000",
            "mmio,0x10000000000000",
            "io,0x3f8,9600,x",
            "ttyS300",
        ] {
            assert!(bad.parse::<Choice>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_kernels_own_words_parse_and_leave_the_speed() {
        let com1 = Word::At(Console::Uart8250Port { port: 0x3f8, baud: 0 });
        for (value, word) in [
            ("ttyS3,115200n8r", Word::Tty { index: 3 }),
            ("uart8250,io,0x3f8,115200n8", com1.clone()),
            ("uart,mmio32,0xfedc9000,115200", Word::At(mmio(0xfedc_9000, 2, 4, 0))),
            ("uart8250,mmio,0xfedc9000", Word::At(mmio(0xfedc_9000, 0, 1, 0))),
            ("uart8250,0xfedc9000", Word::At(mmio(0xfedc_9000, 0, 1, 0))),
            ("serial,ttyS0,115200", com1.clone()),
            ("serial,0x2f8,115200", Word::At(Console::Uart8250Port { port: 0x2f8, baud: 0 })),
            ("mmio32,0xfedc9000,nocfg", Word::At(mmio(0xfedc_9000, 2, 4, 0))),
            ("serial", com1),
            ("pciserial,force,0:16.3,115200", Word::Pci("0000:00:16.3".to_owned())),
            ("vga,keep", Word::Screen),
            ("tty0", Word::Screen),
        ] {
            assert_eq!(parse(value), Some(word), "{value}");
        }
        for other in ["hvc0", "netcon0", "pl011,0x9000000", "", "ttyAMA0", "pciserial", "efi"] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}

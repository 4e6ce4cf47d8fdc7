//! Where the panic path prints: what the running kernel prints on, by its command line and drivers, or what the
//! user says.
//!
//! The panic path drives 8250 and 16550 ports behind I/O ports or MMIO, and the VGA text screen. Where none is
//! found it will be silent, and that comes with a warning: only `none` is silence by choice.

mod cards;
mod words;

use std::path::Path;

use kdump_arch_x86::PhysRange;
use kdump_arch_x86::bootparam::BootParams;
use kdump_panic_kernel::handoff::Console;

use crate::cmdline;
use crate::machine::Machine;
use words::Word;
pub use words::{BadChoice, Choice};

/// Fields of `struct screen_info`, Documentation/arch/x86/zero-page.rst.
const ORIG_VIDEO_MODE: usize = 0x06;
const ORIG_VIDEO_COLS: usize = 0x07;
const ORIG_VIDEO_LINES: usize = 0x0e;
const ORIG_VIDEO_IS_VGA: usize = 0x0f;
/// The mode of monochrome text.
const MONOCHROME: u8 = 7;
/// Color text begins here, monochrome text below. Source: drivers/video/console/vgacon.c.
const COLOR_TEXT: u64 = 0xb_8000;
const MONOCHROME_TEXT: u64 = 0xb_0000;

/// What was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// For the panic path.
    pub console: Console,
    /// The same in words, with the reason if it is nowhere.
    pub text: String,
    /// Said aloud where silence was not asked for.
    pub warning: Option<String>,
}

/// Finds the console of a machine. `root` is where /proc and /sys are.
#[must_use]
pub fn resolve(choice: Choice, machine: &Machine, root: &Path) -> Chosen {
    let params = machine.boot_params.as_deref();
    let found = match choice {
        Choice::None => {
            return Chosen { console: Console::None, text: "none, as asked for".to_owned(), warning: None };
        }
        Choice::Auto => find(&machine.cmdline, params, root),
        Choice::Tty { index, baud } => cards::tty(root, index, baud),
        Choice::At(console) => Ok((console, describe(console))),
        // The user knows the screen; only where it lies is to be found out.
        Choice::Vga => Ok(vga(params.is_some_and(|p| p.screen_info[ORIG_VIDEO_MODE] == MONOCHROME))),
    };
    match found.and_then(|(console, text)| refuse_ram(console, text, &machine.iomem.ram())) {
        Ok((console, text)) => Chosen { console, text, warning: None },
        Err(reason) => Chosen {
            console: Console::None,
            warning: Some(format!(
                "the panic path will be SILENT: {reason}. Name a console (--console ttyS0,115200, \
                 --console io,0x3f8, --console mmio32,0xADDRESS), or choose silence with --console none"
            )),
            text: format!("none: {reason}"),
        },
    }
}

/// A mistyped address would have the panic path write over the crashed kernel's memory.
fn refuse_ram(console: Console, text: String, ram: &[PhysRange]) -> Found {
    let memory = console.memory().and_then(|(start, len)| PhysRange::from_len(start, len));
    match memory.filter(|memory| ram.iter().any(|ram| ram.overlap(*memory).is_some())) {
        Some(memory) => Err(format!("{memory} is RAM, not the registers of a device ({text})")),
        None => Ok((console, text)),
    }
}

type Found = Result<(Console, String), String>;

/// The last serial console of the command line that can be driven, then an early one, then the screen.
fn find(running_cmdline: &str, params: Option<&BootParams>, root: &Path) -> Found {
    let mut reasons = Vec::new();
    let consoles = cmdline::values(running_cmdline, "console").into_iter().rev();
    let early = ["earlycon", "earlyprintk"].map(|name| cmdline::values(running_cmdline, name)).concat();
    for word in consoles.chain(early).filter_map(words::parse) {
        let found = match word {
            // The running kernel has set the speed; the panic path leaves it.
            Word::Tty { index } => cards::tty(root, index, 0),
            Word::At(console) => Ok((console, describe(console))),
            Word::Pci(address) => cards::pci(root, &address),
            Word::Screen => continue,
        };
        match found {
            Ok(found) => return Ok(found),
            Err(reason) if !reasons.contains(&reason) => reasons.push(reason),
            Err(_) => {}
        }
    }
    if reasons.is_empty() {
        reasons.push("the running kernel's command line names no serial console".to_owned());
    }
    match screen(params, root) {
        Ok(is_monochrome) => Ok(vga(is_monochrome)),
        Err(reason) => {
            reasons.push(reason.to_owned());
            Err(reasons.join(", and "))
        }
    }
}

/// Whether the screen shows text, and if so, whether in monochrome.
fn screen(params: Option<&BootParams>, root: &Path) -> Result<bool, &'static str> {
    let Some(params) = params else {
        return Err("/sys/kernel/boot_params/data does not tell what the screen shows");
    };
    let field = |offset: usize| params.screen_info.get(offset).copied().unwrap_or(0);
    if field(ORIG_VIDEO_IS_VGA) != 1 || field(ORIG_VIDEO_COLS) != 80 || field(ORIG_VIDEO_LINES) < 25 {
        return Err("the screen is not in VGA text mode");
    }
    // The boot loader's mode is history once a driver has set another.
    let frame_buffers = std::fs::read_to_string(root.join("proc/fb")).unwrap_or_default();
    if !frame_buffers.trim().is_empty() {
        return Err("a frame buffer driver has the screen");
    }
    Ok(field(ORIG_VIDEO_MODE) == MONOCHROME)
}

fn vga(is_monochrome: bool) -> (Console, String) {
    let console = Console::VgaText { base: if is_monochrome { MONOCHROME_TEXT } else { COLOR_TEXT } };
    (console, describe(console))
}

/// A console in words.
fn describe(console: Console) -> String {
    let speed = |baud: u32| if baud == 0 { String::new() } else { format!(", {baud} baud") };
    match console {
        Console::None => "none".to_owned(),
        Console::Uart8250Port { port, baud } => format!("8250 at port {port:#x}{}", speed(baud)),
        Console::Uart8250Mmio { base, shift, width, baud } => {
            let (apart, bits, speed) = (1 << shift, width * 8, speed(baud));
            format!("8250 at {base:#x} ({bits}-bit registers, {apart} bytes apart){speed}")
        }
        Console::VgaText { base } => format!("VGA text at {base:#x}"),
    }
}

#[cfg(test)]
mod tests;

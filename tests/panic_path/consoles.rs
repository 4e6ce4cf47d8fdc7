//! The consoles that are no port: VGA text, read from the emulated adapter, and an 8250 behind memory.
//!
//! The emulator has no 8250 behind memory. In its place is a PCI device whose memory keeps what is written: its line
//! status says "ready" for ever, and what is left in the other registers at the end shows that they were reached, at
//! their distances, through the panic path's own page tables.

use std::fs::OpenOptions;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use kdump_rehearse::{Held, Progress, Scene};

use crate::case::{Ended, Guest};
use crate::common::{Quiet, scratch};

/// Where the firmware puts the memory of the only device with so much of it. The test looks whether it did.
const REGISTERS: u64 = 0xfea0_0000;
/// Registers are so far apart, and read and written as 32 bits.
const STRIDE: u64 = 4;
const THR: u64 = 0;
const IER: u64 = 1;
const FCR: u64 = 2;
const LCR: u64 = 3;
const MCR: u64 = 4;
const LSR: u64 = 5;

/// The emulator's monitor.
struct Monitor(PathBuf);

impl Monitor {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("kdump-rs-{name}-{}.sock", std::process::id())))
    }

    fn arguments(&self) -> Vec<String> {
        vec!["-monitor".to_owned(), format!("unix:{},server=on,wait=off", self.0.display())]
    }

    /// Gives a command and takes what comes back until it is silent for a while.
    fn ask(&self, command: &str) -> std::io::Result<String> {
        let mut stream = UnixStream::connect(&self.0)?;
        stream.set_read_timeout(Some(Duration::from_millis(500)))?;
        writeln!(stream, "{command}")?;
        let mut said = Vec::new();
        let mut part = [0; 4096];
        while let Ok(len @ 1..) = stream.read(&mut part) {
            said.extend_from_slice(&part[..len]);
        }
        Ok(String::from_utf8_lossy(&said).into_owned())
    }

    /// The text on the screen. The quotes keep the path from being a division.
    fn screen(&self, to: &Path) -> Option<String> {
        self.ask(&format!("pmemsave 0xb8000 4000 \"{}\"", to.display())).ok()?;
        let cells = std::fs::read(to).ok()?;
        let rows = cells.chunks_exact(160).map(|row| row.iter().step_by(2).map(|&c| char::from(c)).collect());
        // A row that is full goes on in the next one.
        let ends = |row: String| if row.ends_with(' ') { row.trim_end().to_owned() + "\n" } else { row };
        Some(rows.map(ends).collect())
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Check that the screen of a machine without any serial port shows what happened, below what the kernel had printed.
#[test]
#[ignore = "boots a kernel in QEMU; `make test` runs it"]
fn the_screen_shows_an_exception_and_its_registers() {
    let monitor = Monitor::new("screen");
    let cells = scratch("screen.cells");
    let guest = Guest::wait("6.12");
    let scene = Scene {
        qemu: [vec!["-device".into(), "VGA".into()], monitor.arguments()].concat(),
        ..Scene::default()
    };
    let arm = ["--console=vga", "--panic-test=ud2", "--on-corruption=halt"];
    let (screen, ended) = thread::scope(|scope| {
        let screen = scope.spawn(|| {
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_secs(280) {
                thread::sleep(Duration::from_secs(1));
                if let Some(screen) = monitor.screen(&cells).filter(|screen| screen.contains("halted")) {
                    // Nothing else ends a machine that has halted.
                    let _ = monitor.ask("quit");
                    return screen;
                }
            }
            String::new()
        });
        let ended = guest.run(&arm, scene, &mut Quiet);
        (screen.join().unwrap(), ended)
    });
    let Ended { serial, .. } = ended;
    let mut rest = screen.as_str();
    for text in [
        "kdump-rs panic-kernel: TEST: provoking failure",
        "EXCEPTION vector 6 (#UD) error 0x0 rip 0x",
        "(image+0x",
        "  rax 0x",
        "  r11 0x",
        "kdump-rs panic-kernel: halted",
    ] {
        let (_, after) =
            rest.split_once(text).unwrap_or_else(|| panic!("no {text:?} in:\n{screen}\n{serial}"));
        rest = after;
    }
    assert!(!serial.contains("panic-kernel:"), "the serial port was not chosen: {serial}");
}

/// What the registers hold before and after.
struct Registers<'a> {
    memory: &'a Path,
    monitor: &'a Monitor,
}

impl Registers<'_> {
    fn read(&self, register: u64) -> u32 {
        let mut bytes = [0; 4];
        let file = std::fs::File::open(self.memory).unwrap();
        file.read_exact_at(&mut bytes, register * STRIDE).unwrap();
        u32::from_le_bytes(bytes)
    }
}

impl Progress for Registers<'_> {
    fn held(&mut self, _: &Held<'_>) {
        let devices = self.monitor.ask("info pci").unwrap();
        assert!(
            devices.contains(&format!("memory at {REGISTERS:#x} ")),
            "the registers lie elsewhere: {devices}"
        );
        let file = OpenOptions::new().write(true).open(self.memory).unwrap();
        for (register, value) in
            [(THR, 0xffff_ffff), (IER, 0xff), (FCR, 0xff), (LCR, 0xff), (MCR, 0xff), (LSR, 0x60u32)]
        {
            file.write_all_at(&value.to_le_bytes(), register * STRIDE).unwrap();
        }
    }
}

#[test]
#[ignore = "boots a kernel in QEMU; `make test` runs it"]
fn a_uart_behind_memory_is_set_up_and_written_to() {
    let monitor = Monitor::new("registers");
    let memory = scratch("registers");
    let device = format!("memory-backend-file,id=registers,share=on,size=1M,mem-path={}", memory.display());
    let qemu = ["-object", &device, "-device", "ivshmem-plain,memdev=registers"].map(str::to_owned);
    let scene =
        Scene { is_held: true, qemu: [qemu.to_vec(), monitor.arguments()].concat(), ..Scene::default() };
    let mut registers = Registers { memory: &memory, monitor: &monitor };
    let arm = [&format!("--console=mmio32,{REGISTERS:#x},115200") as &str];
    let Ended { result, serial } = Guest::wait("6.12").run(&arm, scene, &mut registers);
    result.unwrap_or_else(|error| panic!("{error}\n{serial}"));
    assert!(!serial.contains("panic-kernel:"), "the other port was chosen: {serial}");
    // The line feed of the last line; no interrupts; queues on and empty; 8N1 without the divisor latch; DTR and RTS.
    let left = [THR, IER, FCR, LCR, MCR].map(|register| registers.read(register));
    assert_eq!(left, [0x0a, 0, 7, 3, 3]);
}

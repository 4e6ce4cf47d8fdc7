//! One boot of the test kernel in QEMU.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::programs;

/// Exit status of a run whose checks all passed: twice the value written to the exit port, and one.
const PASSED: i32 = 0x21;
/// Exit status of a run in which one failed.
const FAILED: i32 = 0x23;
/// A guest that hangs is ended after this long.
const PATIENCE: Duration = Duration::from_secs(300);

/// How a run ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    Passed,
    Failed,
    /// Neither: a reset, an error of QEMU, or nothing at all.
    Lost(Option<i32>),
}

/// What came of a boot.
pub struct Run {
    pub end: End,
    /// The serial port's text.
    pub said: String,
}

impl Run {
    /// Lines that begin like this.
    pub fn lines<'a>(&'a self, start: &'a str) -> impl Iterator<Item = &'a str> {
        self.said.lines().filter(move |line| line.starts_with(start))
    }
}

/// Boots on a CPU model with a command line. Half the memory lies above 4 GiB; what is not touched costs nothing.
pub fn boot(name: &str, cpu: &str, command_line: &str) -> Run {
    let serial = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("bare-metal/{name}.log"));
    let kernel = programs::kernel();
    let mut guest = Command::new("qemu-system-x86_64")
        .args(["-machine", "q35", "-accel", "tcg", "-cpu", cpu, "-m", "4G"])
        .args(["-nodefaults", "-display", "none", "-no-reboot"])
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=1"])
        .args(["-append", command_line])
        .arg("-kernel")
        .arg(kernel)
        .arg("-serial")
        .arg(format!("file:{}", serial.display()))
        .stdin(Stdio::null())
        .stderr(File::create(serial.with_extension("stderr")).unwrap())
        .spawn()
        .expect("qemu-system-x86_64 runs");
    let began = Instant::now();
    let status = loop {
        if let Some(status) = guest.try_wait().unwrap() {
            break status.code();
        }
        if began.elapsed() > PATIENCE {
            guest.kill().unwrap();
            guest.wait().unwrap();
            break None;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let end = match status {
        Some(PASSED) => End::Passed,
        Some(FAILED) => End::Failed,
        other => End::Lost(other),
    };
    let mut said = String::from_utf8_lossy(&std::fs::read(&serial).unwrap_or_default()).into_owned();
    said.push_str(&std::fs::read_to_string(serial.with_extension("stderr")).unwrap());
    Run { end, said }
}

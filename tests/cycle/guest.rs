//! One rehearsal in a test: which kernel, what for, and what came of it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use kdump_rehearse::{Error, Outcome, Phase, Plan, Progress};
use serde_json::Value;

use crate::common::{self, KDUMP_RS, Turn, scratch};
use crate::dump_dir::DumpDir;

/// A row of the matrix.
pub struct Case {
    /// Directory name in the kernel cache.
    pub kernel: &'static str,
    /// Arguments of `kdump-rs arm`.
    pub arm: &'static [&'static str],
    /// What its VMCOREINFO rightly does not have.
    pub absent: &'static [&'static str],
    pub cpus: u32,
    /// QEMU's `-cpu`; the usual one has 5-level page tables, [`FOUR_LEVELS`] has not.
    pub cpu: Option<&'static str>,
    /// The guest's memory in bytes.
    pub memory: u64,
}

/// A CPU with 4-level page tables only.
pub const FOUR_LEVELS: &str = "qemu64";

impl Case {
    pub const USUAL: Self =
        Self { kernel: "6.12", arm: &[], absent: &[], cpus: Plan::CPUS, cpu: None, memory: Plan::MEMORY };
}

/// A guest that lived, died and was dumped.
pub struct Cycle {
    pub outcome: Outcome,
    pub dump: DumpDir,
    /// The guest's memory in bytes.
    pub memory: u64,
    pub cpus: u32,
    /// As in [`Case`].
    pub absent: &'static [&'static str],
    out: PathBuf,
    _turn: Turn,
}

impl Case {
    /// Runs the cycle.
    pub fn run(&self) -> Cycle {
        let turn = Turn::wait();
        let out = scratch(&format!("{}-{}-{}", env!("CARGO_CRATE_NAME"), self.kernel, self.cpus));
        let arm = self.arm.iter().map(|&a| a.to_owned()).collect();
        let plan = Plan {
            arm,
            cpus: self.cpus,
            cpu: self.cpu.map(str::to_owned),
            memory: self.memory,
            ..Plan::new(common::kernel(self.kernel), common::programs(), out.clone())
        };
        let outcome = plan.run(&mut Spoken(self.kernel)).unwrap_or_else(|e| panic!("{}", told(&e)));
        let dump = DumpDir(outcome.dump_dir.clone());
        let Self { memory, cpus, absent, .. } = *self;
        Cycle { outcome, dump, memory, cpus, absent, out, _turn: turn }
    }
}

impl Cycle {
    pub fn every_phase_was_seen(&self) {
        let seen: Vec<Phase> = self.outcome.phases.iter().map(|&(phase, _)| phase).collect();
        assert_eq!(seen, Phase::ALL);
    }

    pub fn the_panic_kernel_spoke(&self) {
        let serial = std::fs::read(&self.outcome.serial_log).unwrap();
        let serial = String::from_utf8_lossy(&serial);
        let lines = serial.lines().filter(|l| l.contains("kdump-rs panic-kernel: ")).count();
        assert!(lines >= 2, "{lines} lines of the panic-kernel on the console");
    }

    /// Filters the dump once more, on this machine.
    pub fn filter_again(&self, level: u8, format: &str, compression: &str) -> PathBuf {
        let to = self.out.join(format!("again-{level}-{format}-{compression}"));
        let _ = std::fs::remove_file(&to);
        let level = format!("--dump-level={level}");
        let (format, compression) = (format!("--format={format}"), format!("--compression={compression}"));
        kdump_rs(&[
            "capture".as_ref(),
            self.dump.vmcore().as_ref(),
            "-o".as_ref(),
            to.as_ref(),
            level.as_ref(),
            format.as_ref(),
            compression.as_ref(),
        ]);
        to
    }
}

/// The report that `analyze --json` makes of a dump now, here.
pub fn analyze_json(vmcore: &Path) -> Value {
    let out = kdump_rs(&["analyze".as_ref(), vmcore.as_ref(), "--json".as_ref()]);
    serde_json::from_slice(&out.stdout).expect("analyze --json prints JSON")
}

/// The same of a dump that cannot be explained fully, which is what its exit code says.
pub fn analyze_with_gaps(vmcore: &Path) -> Value {
    let out = Command::new(KDUMP_RS).args(["analyze", "--json"]).arg(vmcore).output().unwrap();
    assert_eq!(out.status.code(), Some(1), "{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).expect("analyze --json prints JSON")
}

/// Runs the command under test, which must end with 0.
pub fn kdump_rs(args: &[&std::ffi::OsStr]) -> Output {
    let out = Command::new(KDUMP_RS).args(args).output().unwrap();
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(0), "kdump-rs {args:?}: {stderr}");
    out
}

fn told(error: &Error) -> String {
    match error {
        Error::Phase { tail, .. } => format!("{error}\n{}", tail.join("\n")),
        _ => {
            let mut text = error.to_string();
            let mut cause = std::error::Error::source(error);
            while let Some(e) = cause {
                text.push_str(&format!(": {e}"));
                cause = e.source();
            }
            text
        }
    }
}

/// Times in the test's output.
struct Spoken(&'static str);

impl Progress for Spoken {
    fn note(&mut self, text: &str) {
        eprintln!("{}: {text}", self.0);
    }

    fn ended(&mut self, phase: Phase, took: Duration) {
        eprintln!("{}: {phase:<15} {:>6.2} s", self.0, took.as_secs_f64());
    }
}

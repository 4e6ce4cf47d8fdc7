//! `rehearse`: a kernel boots in QEMU, is armed, panics, is dumped, and the dump is analyzed.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use kdump_rehearse::phase::PANIC_KERNEL_PREFIX;
use kdump_rehearse::{Crash, Error, Outcome, Phase, Plan, Programs, Progress, size};

use crate::exit::Exit;

/// Arguments.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Kernel image (bzImage) to boot, arm and crash
    #[arg(long, value_name = "PATH")]
    kernel: PathBuf,
    /// Its module directory [default: `modules` beside the kernel, or /lib/modules/RELEASE]
    #[arg(long, value_name = "DIR")]
    modules: Option<PathBuf>,
    /// Memory that the kernel reserves, as on its command line
    #[arg(long, value_name = "SIZE", default_value = Plan::CRASHKERNEL)]
    crashkernel: String,
    /// Memory of the guest
    #[arg(long, value_name = "SIZE", default_value = "1G", value_parser = size::parse)]
    memory: u64,
    /// CPUs of the guest
    #[arg(long, value_name = "N", default_value_t = Plan::CPUS, value_parser = clap::value_parser!(u32).range(1..=64))]
    cpus: u32,
    /// QEMU's CPU model [default: host with KVM, max without]
    #[arg(long, value_name = "MODEL")]
    cpu: Option<String>,
    /// How to bring it down: sysrq
    #[arg(long, value_name = "WAY", default_value_t)]
    crash: Crash,
    /// Dump level for `arm`: which pages are left out, 0 (none) to 31
    #[arg(long, value_name = "N")]
    level: Option<u8>,
    /// Dump format for `arm`: kdump or elf
    #[arg(long)]
    format: Option<String>,
    /// Compression for `arm`: zstd, zlib or none
    #[arg(long)]
    compression: Option<String>,
    /// Where the serial log and the dump go [default: ./kdump-rehearsal/RELEASE]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Keep the guest's disk and initramfs there
    #[arg(long)]
    keep: bool,
    /// Limit for the guest's life, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = Plan::TIMEOUT.as_secs())]
    timeout: u64,
}

/// Runs it: progress on stderr, the post-mortem on stdout.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    let plan = plan(args)?;
    let mut progress = Lines { columns: std::io::stderr().is_terminal() };
    let outcome = match plan.run(&mut progress) {
        Ok(outcome) => outcome,
        Err(error) => {
            if let Error::Phase { tail, .. } = &error {
                eprintln!("the serial console ended so:");
                for line in tail {
                    eprintln!("  | {line}");
                }
                eprintln!("the whole of it: {}", plan.out.join("serial.log").display());
            }
            return Err(error.into());
        }
    };
    eprintln!("serial console: {}", outcome.serial_log.display());
    eprintln!("dump directory: {}", outcome.dump_dir.display());
    explain(&outcome)
}

fn plan(args: &Args) -> anyhow::Result<Plan> {
    let image =
        std::fs::read(&args.kernel).with_context(|| format!("cannot read {}", args.kernel.display()))?;
    let release = Plan::release_of(&args.kernel, &image)?;
    let out = args.out.clone().unwrap_or_else(|| Path::new("kdump-rehearsal").join(release));
    Ok(Plan {
        modules: args.modules.clone(),
        crashkernel: args.crashkernel.clone(),
        memory: args.memory,
        cpus: args.cpus,
        cpu: args.cpu.clone(),
        crash: args.crash,
        arm: arm_arguments(args),
        keep: args.keep,
        timeout: Duration::from_secs(args.timeout),
        ..Plan::new(args.kernel.clone(), Programs::beside_this_one()?, out)
    })
}

/// What `arm` is told in the guest: only what was asked for, so that its defaults are rehearsed.
fn arm_arguments(args: &Args) -> Vec<String> {
    let mut arm = Vec::new();
    let mut option = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            arm.push(format!("--{name}={value}"));
        }
    };
    option("level", args.level.map(|level| level.to_string()));
    option("format", args.format.clone());
    option("compression", args.compression.clone());
    arm
}

/// Analyzes the dump that came out, here, and prints the page.
fn explain(outcome: &Outcome) -> anyhow::Result<Exit> {
    let begin = Instant::now();
    let report = super::analyze::report_on(&outcome.dump_dir.join("vmcore"))?;
    eprintln!("  {:<15} {:>6.2} s\n", "analyze", begin.elapsed().as_secs_f64());
    write!(std::io::stdout(), "{}", report.to_text())?;
    Ok(if report.complete { Exit::Complete } else { Exit::Gaps })
}

/// Phases as lines on stderr.
struct Lines {
    columns: bool,
}

impl Progress for Lines {
    fn note(&mut self, text: &str) {
        eprintln!("{text}");
    }

    fn started(&mut self, phase: Phase) {
        if self.columns {
            eprint!("  {phase:<15} ...\r");
        }
    }

    fn ended(&mut self, phase: Phase, took: Duration) {
        eprintln!("  {phase:<15} {:>6.2} s", took.as_secs_f64());
    }

    /// What is said between the two kernels is worth seeing: nothing else shows that it happened.
    fn line(&mut self, line: &str) {
        if let Some(at) = line.find(PANIC_KERNEL_PREFIX) {
            eprintln!("    | {}", line.get(at..).unwrap_or(line));
        }
    }
}

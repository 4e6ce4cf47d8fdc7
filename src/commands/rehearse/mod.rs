//! `rehearse`: a kernel boots in QEMU, is armed, panics, is dumped, and the dump is analyzed; once, or once for each
//! of several ways to crash.

pub mod here;
mod life;

use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context as _;
use kdump_loader::state;
use kdump_rehearse::phase::PANIC_KERNEL_PREFIX;
use kdump_rehearse::{Crash, Phase, Plan, Programs, Progress, UnknownCrash, size, trigger};

use crate::exit::Exit;
use life::{Life, Lived, Result as LifeResult};

/// Arguments.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Kernel image (bzImage) to boot, arm and crash [default: that of the running kernel]
    #[arg(long, value_name = "PATH")]
    kernel: Option<PathBuf>,
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
    /// How to bring it down, each in a guest of its own: sysrq, null-deref, bug, panic-in-irq, nmi, nmi-button,
    /// hung-task, soft-lockup, oom, killed-init, stack-overflow, or all; several with commas. Most need the kernel's
    /// headers
    #[arg(long, value_name = "WAY,...", value_delimiter = ',', default_value = "sysrq")]
    crash: Vec<Wanted>,
    /// CPU that it is to panic on
    #[arg(long, value_name = "N", conflicts_with = "all_cpus")]
    panic_cpu: Option<u32>,
    /// Panic on each CPU in turn
    #[arg(long)]
    all_cpus: bool,
    /// Configuration file; what it tells `arm` is rehearsed [default: /etc/kdump-rs/config.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Dump level for `arm`: which pages are left out, 0 (none) to 31
    #[arg(long, value_name = "N")]
    level: Option<u8>,
    /// Dump format for `arm`: kdump or elf
    #[arg(long)]
    format: Option<String>,
    /// Compression for `arm`: zstd, zlib or none
    #[arg(long)]
    compression: Option<String>,
    /// Longest damaged run that the panic path can rebuild, for `arm`
    #[arg(long, value_name = "SIZE")]
    parity: Option<String>,
    /// Where the serial log and the dump go [default: ./kdump-rehearsal/RELEASE]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Keep the guest's disk and initramfs there
    #[arg(long)]
    keep: bool,
    /// Limit for a guest's life, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = Plan::TIMEOUT.as_secs())]
    timeout: u64,
}

/// A way to crash, or all of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wanted {
    One(Crash),
    All,
}

impl FromStr for Wanted {
    type Err = UnknownCrash;

    fn from_str(text: &str) -> Result<Self, UnknownCrash> {
        if text == "all" { Ok(Self::All) } else { text.parse().map(Self::One) }
    }
}

/// Runs it: progress on stderr; on stdout the post-mortem of a single guest, a table of several.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    let kernel = here::kernel(args.kernel.as_deref())?;
    let image = std::fs::read(&kernel).with_context(|| format!("cannot read {}", kernel.display()))?;
    let release = Plan::release_of(&kernel, &image)?;
    let out = args.out.clone().unwrap_or_else(|| Path::new("kdump-rehearsal").join(&release));
    let config = super::arm::read_config(args.config.as_deref())?;
    let asked = here::Asked {
        level: args.level,
        format: args.format.clone(),
        compression: args.compression.clone(),
        parity: args.parity.clone(),
    };
    let plan = Plan {
        modules: args.modules.clone(),
        crashkernel: args.crashkernel.clone(),
        memory: args.memory,
        cpus: args.cpus,
        cpu: args.cpu.clone(),
        arm: here::arm_arguments(&asked, &config),
        keep: args.keep,
        timeout: Duration::from_secs(args.timeout),
        ..Plan::new(kernel.clone(), Programs::beside_this_one()?, out)
    };
    let lives = lives(args)?;
    let modules = plan.find_modules(&release)?;
    let is_of_this_machine = here::is_of_this_machine(&modules, &release);
    if is_of_this_machine {
        here::warn_of_target(&[], &config);
    }
    let trigger = lives
        .iter()
        .any(|life| life.crash.needs_module())
        .then(|| trigger::find_or_build(&kernel, &release, &modules, &plan.out.join("module")));
    let mut progress = Lines { columns: io::stderr().is_terminal() };
    let lived: Vec<Lived> =
        lives.iter().map(|life| life.live(&plan, trigger.as_ref(), lives.len() > 1, &mut progress)).collect();

    if is_of_this_machine {
        here::record(&release, &kernel, &lived);
    }
    if let [lived] = &lived[..] {
        return lived.tell();
    }
    io::stdout().write_all(life::table(&lived).as_bytes())?;
    let has = |result: fn(&LifeResult) -> bool| lived.iter().any(|lived| result(&lived.result));
    match (has(LifeResult::is_failure), has(LifeResult::is_skipped)) {
        (true, _) => {
            anyhow::bail!("not every rehearsal passed; what they left is below {}", plan.out.display())
        }
        (false, true) => Ok(Exit::Gaps),
        (false, false) => Ok(Exit::Complete),
    }
}

/// The lives that are asked for, each once; with all CPUs, those that a way can come on.
fn lives(args: &Args) -> anyhow::Result<Vec<Life>> {
    if let Some(cpu) = args.panic_cpu.filter(|cpu| *cpu >= args.cpus) {
        anyhow::bail!("the guest has {} CPUs, 0 to {}: none is {cpu}", args.cpus, args.cpus - 1);
    }
    let cpus: Vec<Option<u32>> =
        if args.all_cpus { (0..args.cpus).map(Some).collect() } else { vec![args.panic_cpu] };
    let wanted =
        |crash: &Crash| args.crash.iter().any(|w| matches!(w, Wanted::All) || *w == Wanted::One(*crash));
    let crashes = Crash::ALL.into_iter().filter(wanted);
    let all = crashes.flat_map(|crash| cpus.iter().map(move |&cpu| Life { crash, cpu }));
    Ok(all.filter(|life| !args.all_cpus || life.is_possible()).collect())
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

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn parse(words: &[&str]) -> anyhow::Result<Vec<String>> {
        let line = [&["kdump-rs", "rehearse"], words].concat();
        let cli = crate::cli::Cli::try_parse_from(line)?;
        let crate::cli::Command::Rehearse(args) = cli.command else { unreachable!("it is rehearse") };
        Ok(lives(&args)?.iter().map(Life::name).collect())
    }

    #[test]
    fn every_way_is_rehearsed_once_on_each_cpu_asked_for() {
        assert_eq!(parse(&[]).unwrap(), ["sysrq"]);
        assert_eq!(parse(&["--crash=bug,sysrq,bug", "--panic-cpu=1"]).unwrap(), ["sysrq-cpu1", "bug-cpu1"]);
        assert_eq!(parse(&["--crash=all"]).unwrap().len(), Crash::ALL.len());
        assert_eq!(
            parse(&["--crash=nmi", "--all-cpus", "--cpus=3"]).unwrap(),
            ["nmi-cpu0", "nmi-cpu1", "nmi-cpu2"]
        );
        assert_eq!(parse(&["--crash=nmi-button", "--all-cpus"]).unwrap(), ["nmi-button-cpu0"]);
        assert_eq!(parse(&["--crash=nmi-button", "--panic-cpu=1"]).unwrap(), ["nmi-button-cpu1"]);
    }

    #[test]
    fn what_cannot_be_rehearsed_is_refused_before_anything_is_booted() {
        let error = |words: &[&str]| parse(words).unwrap_err().to_string();
        assert!(error(&["--crash=fire"]).contains("known: sysrq, null-deref"));
        assert!(error(&["--panic-cpu=2"]).contains("none is 2"));
        assert!(error(&["--panic-cpu=1", "--all-cpus"]).contains("cannot be used with"));
    }
}

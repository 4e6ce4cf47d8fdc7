//! `arm`: flags over configuration file over defaults, then the loader's steps, then a few lines.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, bail};
use clap::{Parser as _, ValueEnum};
use kdump_capture::encrypt::Recipients;
use kdump_loader::arm::{self, Call, EntryState, Planned, Policy, Prepared, Settings, TestHook, Via, draft};
use kdump_loader::config::{self, ArmConfig};
use kdump_loader::image;
use kdump_loader::machine;
use kdump_loader::plan::{DEFAULT_RUN, parse_run, size_text};
use kdump_loader::quantity::parse_time;
use kdump_loader::state::State;
use kdump_loader::target::{Rung, Wish, WishedPlace};
use serde_json::json;

use super::server;
use crate::exit::Exit;

const SYSTEM: &str = "/";

/// Arguments.
#[derive(clap::Args, Debug, Default)]
pub struct Args {
    /// Kernel to capture with (bzImage, vmlinux), or another program (static ELF, Multiboot 1 or 2); also compressed,
    /// or in a unified kernel image [default: that of the running kernel]
    #[arg(long, value_name = "PATH")]
    kernel: Option<PathBuf>,
    /// Its modules [default: /lib/modules/RELEASE of the running kernel]
    #[arg(long, value_name = "DIR")]
    modules: Option<PathBuf>,
    /// Where dumps go: a directory on a local file system (ext2/3/4, xfs, btrfs, vfat), raw:DEVICE,overwrite for a
    /// partition, nfs:SERVER:/DIRECTORY, or a server that takes uploads: tcp://, tls://, https:// or s3://; with
    /// ,budget=TIME at most so long. Given more than once, they are tried in this order. What a server wants to know
    /// (ca, fingerprint, token-file) is in the `target` table of the configuration that has the same URL [default: /var/crash]
    #[arg(long, value_name = "TARGET")]
    target: Vec<Wish>,
    /// How long all targets together may take (90s, 2m), so that the machine is back in service [default: no limit]
    #[arg(long, value_name = "TIME")]
    total_budget: Option<String>,
    /// kdump-init, the capture kernel's first program [default: beside this program, or /usr/lib/kdump-rs]
    #[arg(long, value_name = "PATH")]
    init: Option<PathBuf>,
    /// Which pages are left out, a sum: 1 zero, 2 cache, 4 private cache, 8 user, 16 free [default: 31]
    #[arg(long, value_name = "0-31", value_parser = clap::value_parser!(u8).range(0..=31))]
    level: Option<u8>,
    /// Dump format [default: kdump]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Compression of the dump's pages [default: zstd]
    #[arg(long, value_enum)]
    compression: Option<Compression>,
    /// Public key (age1...) that the dump is encrypted to; given more than once, any of them opens it
    #[arg(long, value_name = "RECIPIENT")]
    encrypt_to: Vec<String>,
    /// Whether log and report are encrypted like the dump [default: true]
    #[arg(long, value_name = "true|false")]
    encrypt_reports: Option<bool>,
    /// What follows the capture [default: reboot]
    #[arg(long, value_enum, value_name = "ACTION")]
    end: Option<End>,
    /// Static program that --end shell runs on the console (busybox); the machine restarts when it ends
    #[arg(long, value_name = "PATH")]
    shell: Option<PathBuf>,
    /// Words to add to the capture kernel's command line
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    append: Option<String>,
    /// Console of the panic path: auto, none, vga, ttySN, io,0xPORT, mmio,0xADDRESS or mmio32,0xADDRESS, these
    /// with an optional ,BAUD [default: auto]
    #[arg(long, value_name = "CONSOLE")]
    console: Option<String>,
    /// What the panic path does when the loaded capture kernel is damaged [default: reset]
    #[arg(long, value_enum, value_name = "ACTION")]
    on_corruption: Option<OnCorruption>,
    /// Longest damaged run of the loaded memory that the panic path can rebuild, 0 for none [default: 1M]
    #[arg(long, value_name = "SIZE")]
    parity: Option<String>,
    /// Put the kernel at this physical address outside the reservation: at the panic it is swapped with the memory
    /// there, and the dump takes that from where it went (a vmlinux goes to where it is linked)
    #[arg(long, value_name = "ADDRESS", value_parser = parse_address)]
    payload_at: Option<u64>,
    /// Boot protocol that the kernel is entered by: 64 or 32 bits [default: 64]
    #[arg(long, value_name = "BITS", value_parser = ["64", "32"])]
    entry: Option<String>,
    /// Register that a plain ELF executable (--kernel) is entered with, NAME=VALUE: rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_register)]
    register: Vec<(String, u64)>,
    /// System call to load by: load is kexec_load with our panic path, file is kexec_file_load with the kernel's own
    /// purgatory, auto takes the second only where the kernel is locked down (Secure Boot) [default: auto]
    #[arg(long, value_enum, value_name = "CALL")]
    syscall: Option<Syscall>,
    /// Load the probe in place of the kernel: the next panic prints what it finds (docs/probe.md) and takes no dump
    #[arg(long)]
    probe: bool,
    /// Make the panic path fail in a given way, to see how it reports that; there will be no dump
    #[arg(long, value_name = "KIND", hide = true, value_parser = parse_test_hook)]
    panic_test: Option<TestHook>,
    /// Have the kernel refuse the load after it has freed what was loaded, to see how that is made good
    #[arg(long, hide = true)]
    load_test: bool,
    /// Configuration file; flags override its section [arm] [default: /etc/kdump-rs/config.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the plan and load nothing
    #[arg(long)]
    dry_run: bool,
    /// Print every file of the capture initramfs, why it is there and its size, and load nothing
    #[arg(long, conflicts_with = "probe")]
    explain: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum Format {
    Kdump,
    Elf,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum Compression {
    Zstd,
    Zlib,
    None,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum End {
    Reboot,
    Poweroff,
    Halt,
    Shell,
}

/// Which system call loads.
#[derive(ValueEnum, Clone, Copy, Debug)]
pub enum Syscall {
    // No doc comments: with one, clap makes the whole help long.
    Auto,
    Load,
    File,
}

impl From<Syscall> for Via {
    fn from(wanted: Syscall) -> Self {
        match wanted {
            Syscall::Auto => Self::Auto,
            Syscall::Load => Self::Only(Call::KexecLoad),
            Syscall::File => Self::Only(Call::KexecFileLoad),
        }
    }
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum OnCorruption {
    Reset,
    Boot,
    Halt,
}

/// Runs it.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    let start = Instant::now();
    let settings = settings(args, read_config(args.config.as_deref())?)?;
    let root = Path::new(SYSTEM);
    if args.explain {
        return explain(&settings, root, args.json);
    }
    let prepared = arm::prepare(settings, root, !args.dry_run)?;
    let mut plan = prepared.planned()?;
    if args.load_test {
        plan.spoil();
    }
    let mut state = prepared.state(&plan);
    if !args.dry_run {
        state.arguments = std::env::args().skip(1).collect();
        load(&prepared, &plan, root)?;
        if let Err(error) = state.write(root) {
            eprintln!("kdump-rs: armed, but {} cannot be written: {error}", kdump_loader::state::STATE_PATH);
        }
    }
    let warnings =
        plan.warnings().iter().chain(&prepared.console.warning).chain(&prepared.initramfs.warnings);
    for warning in warnings {
        eprintln!("kdump-rs: warning: {warning}");
    }
    if let Some(kind) = &state.panic_test {
        eprintln!("kdump-rs: WARNING: {}", panic_test_text(kind));
    }
    let ms = start.elapsed().as_millis();
    let text = if args.json {
        let report = json!({ "is_loaded": !args.dry_run, "took_ms": ms as u64, "load": state });
        serde_json::to_string_pretty(&report)? + "\n"
    } else if args.dry_run {
        format!("{plan}\n{}nothing was loaded (--dry-run), {ms} ms\n", summary(&prepared, &plan))
    } else {
        format!("armed in {ms} ms\n{}", summary(&prepared, &plan))
    };
    io::stdout().write_all(text.as_bytes())?;
    Ok(Exit::Complete)
}

/// Prints what is in the initramfs and why. Works without a reservation, too.
fn explain(settings: &Settings, root: &Path, is_json: bool) -> anyhow::Result<Exit> {
    let (kernel, capture) = draft::explain(settings, root)?;
    let initramfs = &capture.initramfs;
    for warning in &initramfs.warnings {
        eprintln!("kdump-rs: warning: {warning}");
    }
    let text = if is_json {
        let report = json!({
            "kernel": kernel.path,
            "init": capture.init,
            "targets": capture.targets,
            "members": initramfs.members,
            "packed_bytes": initramfs.packed.len(),
            "unpacked_bytes": initramfs.unpacked_len,
            "took_ms": initramfs.took.as_millis() as u64,
            "warnings": initramfs.warnings,
        });
        serde_json::to_string_pretty(&report)? + "\n"
    } else {
        initramfs.explain() + &ladder(&capture.targets)
    };
    io::stdout().write_all(text.as_bytes())?;
    Ok(Exit::Complete)
}

/// What `arm` would take as its settings, with the few that other commands have flags for.
pub(super) fn settings_of(
    kernel: Option<PathBuf>,
    target: Vec<Wish>,
    config: Option<&Path>,
) -> anyhow::Result<Settings> {
    settings(&Args { kernel, target, ..Args::default() }, read_config(config)?)
}

/// Loads the plan. A refusal that leaves the machine without a capture kernel is followed by loading once more what
/// was armed before, from the arguments of that time.
fn load(prepared: &Prepared, plan: &Planned<'_>, root: &Path) -> anyhow::Result<()> {
    let before = State::read(root).ok().flatten().filter(|_| machine::is_crash_loaded(root) == Some(true));
    let error = match prepared.load(plan, root) {
        Ok(()) => return Ok(()),
        Err(error) => error,
    };
    let (true, Some(before)) = (machine::is_crash_loaded(root) != Some(true), before) else {
        return Err(error.into());
    };
    match load_again(&before, root) {
        Ok(()) => Err(anyhow::Error::new(error).context("the capture kernel of before is armed again")),
        Err(again) => {
            eprintln!("kdump-rs: what was armed before cannot be loaded again either: {again:#}");
            Err(error.into())
        }
    }
}

fn load_again(before: &State, root: &Path) -> anyhow::Result<()> {
    let line = std::iter::once("kdump-rs").chain(before.arguments.iter().map(String::as_str));
    let cli = crate::cli::Cli::try_parse_from(line).context("its arguments are not known")?;
    let crate::cli::Command::Arm(args) = cli.command else { bail!("it was not armed by `arm`") };
    let prepared = arm::prepare(settings(&args, read_config(args.config.as_deref())?)?, root, true)?;
    let plan = prepared.planned()?;
    prepared.load(&plan, root)?;
    let state = State { arguments: before.arguments.clone(), ..prepared.state(&plan) };
    Ok(state.write(root)?)
}

fn summary(prepared: &Prepared, plan: &Planned<'_>) -> String {
    let kernel = prepared.image.version().and_then(|v| v.split_whitespace().next()).unwrap_or("unknown");
    let initramfs = &prepared.initramfs;
    let [packed, unpacked] = [initramfs.packed.len() as u64, initramfs.unpacked_len].map(size_text);
    let mut lines = vec![
        format!(
            "kernel     {kernel} from {}",
            image::origin(&prepared.kernel_file.path, &prepared.wrappings)
        ),
        format!("initramfs  {packed} ({unpacked} unpacked), {} modules", initramfs.modules.len()),
        format!("loaded by  {}: {}", prepared.via.call.name(), prepared.via.reason),
    ];
    if let Planned::Segments(plan) = plan {
        let used: u64 = plan.segments.iter().map(|s| s.range.len()).sum();
        let [used, reserved] = [used, plan.region.len()].map(size_text);
        lines.push(format!("memory     {used} of {reserved} reserved at {}", plan.region));
    }
    lines.extend(ladder_lines(&prepared.targets));
    if let Planned::Segments(plan) = plan {
        lines.push(format!("console    {}", prepared.console.text));
        lines.push(format!("parity     {}", plan.protection));
    }
    lines.iter().map(|line| format!("  {line}\n")).collect()
}

/// The targets in their order, a line each.
pub(super) fn ladder_lines(targets: &[Rung]) -> Vec<String> {
    let word = |at: usize| if at == 0 { "target" } else { "then" };
    targets.iter().enumerate().map(|(at, target)| format!("{:<10} {}", word(at), target.describe())).collect()
}

fn ladder(targets: &[Rung]) -> String {
    ladder_lines(targets).iter().map(|line| format!("{line}\n")).collect()
}

/// A register's name and value.
pub fn parse_register(text: &str) -> Result<(String, u64), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("{text:?} is not NAME=VALUE"))?;
    set_register(&mut EntryState::default(), name, 0)?;
    Ok((name.to_owned(), parse_address(value)?))
}

/// Sets a register by its name.
pub fn set_register(state: &mut EntryState, name: &str, value: u64) -> Result<(), String> {
    *match name {
        "rax" | "eax" => &mut state.rax,
        "rbx" | "ebx" => &mut state.rbx,
        "rcx" | "ecx" => &mut state.rcx,
        "rdx" | "edx" => &mut state.rdx,
        "rsi" | "esi" => &mut state.rsi,
        "rdi" | "edi" => &mut state.rdi,
        "rbp" | "ebp" => &mut state.rbp,
        "rsp" | "esp" => &mut state.rsp,
        _ => return Err(format!("{name:?} is none of rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp")),
    } = value;
    Ok(())
}

/// An address, hexadecimal with 0x or decimal.
fn parse_address(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| format!("{text:?} is no address: 0x1000000 or 16777216"))
}

/// What `--panic-test` means to whoever reads it later.
pub(super) fn panic_test_text(kind: &str) -> String {
    format!(
        "the panic path will fail on purpose ({kind}) at the next panic: there may be no dump; arm again without --panic-test"
    )
}

/// Reads the configuration; without a file at the usual place, there is none.
pub fn read_config(path: Option<&Path>) -> anyhow::Result<ArmConfig> {
    let is_asked_for = path.is_some();
    let path = path.unwrap_or(Path::new(config::DEFAULT_PATH));
    match std::fs::read_to_string(path) {
        Ok(text) => config::parse(&text).with_context(|| format!("{} is not valid", path.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !is_asked_for => Ok(ArmConfig::default()),
        Err(error) => Err(error).with_context(|| format!("{} cannot be read", path.display())),
    }
}

fn settings(args: &Args, config: ArmConfig) -> anyhow::Result<Settings> {
    let targets = match (args.target.as_slice(), config.ladder()?.as_slice()) {
        ([], []) => vec![Wish::directory("/var/crash".into())],
        ([], configured) => configured.to_vec(),
        (asked, configured) => asked.iter().map(|wish| with_keys(wish, configured)).collect(),
    };
    let encrypt_to = match args.encrypt_to.as_slice() {
        [] => config.encrypt_to.unwrap_or_default(),
        asked => asked.to_vec(),
    };
    if !encrypt_to.is_empty() {
        Recipients::parse(&encrypt_to)?;
    }
    let total_budget =
        args.total_budget.as_ref().or(config.total_budget.as_ref()).map(|text| parse_time(text));
    let level = args.level.or(config.level).unwrap_or(31);
    if level > 31 {
        bail!("level {level} is not between 0 and 31");
    }
    let console = args.console.clone().or(config.console);
    let parity = args.parity.clone().or(config.parity);
    let payload_at = args.payload_at.map(Ok).or_else(|| config.payload_at.as_deref().map(parse_address));
    let entry = args.entry.clone().or(config.entry).unwrap_or_else(|| "64".to_owned());
    if entry != "64" && entry != "32" {
        bail!("entry {entry:?} is neither 64 nor 32");
    }
    let mut registers = EntryState::default();
    for (name, value) in &args.register {
        set_register(&mut registers, name, *value).map_err(anyhow::Error::msg)?;
    }
    Ok(Settings {
        payload_at: payload_at.transpose().map_err(anyhow::Error::msg)?,
        is_32_bit: entry == "32",
        is_probe: args.probe,
        registers,
        given: None,
        via: choose("syscall", args.syscall, config.syscall, Syscall::Auto)?.into(),
        kernel: args.kernel.clone().or(config.kernel),
        init: args.init.clone().or(config.init),
        modules: args.modules.clone().or(config.modules),
        targets,
        client: server::look,
        encrypt_to,
        encrypt_reports: args.encrypt_reports.or(config.encrypt_reports).unwrap_or(true),
        total_budget: total_budget.transpose().map_err(anyhow::Error::msg)?,
        retention: config.retention.limits()?,
        shell: args.shell.clone().or(config.shell),
        level,
        format: word(choose("format", args.format, config.format, Format::Kdump)?),
        compression: word(choose("compression", args.compression, config.compression, Compression::Zstd)?),
        end: word(choose("end", args.end, config.end, End::Reboot)?),
        append: args.append.clone().or(config.append).unwrap_or_default(),
        console: console.map_or(Ok(Default::default()), |text| text.parse())?,
        on_corruption: match choose(
            "on-corruption",
            args.on_corruption,
            config.on_corruption,
            OnCorruption::Reset,
        )? {
            OnCorruption::Reset => Policy::Reset,
            OnCorruption::Boot => Policy::Boot,
            OnCorruption::Halt => Policy::Halt,
        },
        parity_run: parity.map_or(Ok(DEFAULT_RUN), |text| parse_run(&text))?,
        test_hook: args.panic_test.unwrap_or_default(),
    })
}

/// A server that is named on the command line, with the keys that the configuration has for it.
fn with_keys(wish: &Wish, configured: &[Wish]) -> Wish {
    let same = configured
        .iter()
        .find(|other| matches!(&other.place, WishedPlace::Url(_)) && other.place == wish.place);
    Wish { remote: same.map(|other| other.remote.clone()).unwrap_or_default(), ..wish.clone() }
}

fn parse_test_hook(text: &str) -> Result<TestHook, String> {
    let found = TestHook::NAMES.iter().find(|(name, _)| *name == text).map(|(_, hook)| *hook);
    found.ok_or_else(|| format!("one of {}", TestHook::NAMES.map(|(name, _)| name).join(", ")))
}

/// Flag over configuration over default.
fn choose<T: ValueEnum>(key: &str, flag: Option<T>, config: Option<String>, default: T) -> anyhow::Result<T> {
    match (flag, config) {
        (Some(value), _) => Ok(value),
        (None, Some(text)) => T::from_str(&text, false)
            .map_err(|_| anyhow::anyhow!("key {key} of the configuration cannot be {text:?}")),
        (None, None) => Ok(default),
    }
}

/// The value's word, as on the command line.
fn word<T: ValueEnum>(value: T) -> String {
    value.to_possible_value().map(|v| v.get_name().to_owned()).unwrap_or_default()
}

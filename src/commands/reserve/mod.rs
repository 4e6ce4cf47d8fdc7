//! `reserve`: how much memory the capture kernel needs, item by item, and the parameter for it where the boot loader
//! looks.

mod measure;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::bail;
use kdump_loader::arm::draft;
use kdump_loader::machine::Machine;
use kdump_loader::plan::{Need, size_text};
use kdump_loader::reserve::{self, Plan, Record, Value};
use kdump_loader::target::{Rung, Wish};
use kdump_rehearse::size;
use serde_json::json;

use super::arm;
use crate::exit::Exit;

const SYSTEM: &str = "/";

/// Arguments.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "The capture kernel, its modules and the target are those that `arm` would take: of the \
configuration file, or the defaults."
)]
pub struct Args {
    /// Value of crashkernel= [default: computed]
    #[arg(long, value_name = "SIZE")]
    size: Option<Value>,
    /// Write it for the boot loaders found here (GRUB, kernel-install, loader entries) and show what changes
    #[arg(long)]
    apply: bool,
    /// Restore what was there before the first --apply
    #[arg(long, conflicts_with_all = ["apply", "size"])]
    undo: bool,
    /// Show what --apply or --undo would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Kernel to capture with [default: that of `arm`]
    #[arg(long, value_name = "PATH")]
    kernel: Option<PathBuf>,
    /// Where dumps go, as `arm` takes it; may be given more than once [default: those of `arm`]
    #[arg(long, value_name = "TARGET")]
    target: Vec<Wish>,
    /// Configuration file [default: /etc/kdump-rs/config.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Find the smallest size by trial instead: guests of this kernel in QEMU, armed and crashed
    #[arg(long, conflicts_with_all = ["apply", "undo", "size", "dry_run"])]
    measure: bool,
    /// Memory of these guests
    #[arg(long, value_name = "SIZE", default_value = "1G", value_parser = size::parse, requires = "measure")]
    memory: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs it: 0 if the memory reserved now is enough, or what was asked for was written; 1 if there is too little.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    if args.undo {
        return undo(args);
    }
    if args.measure {
        return measure::run(args);
    }
    let computed = match &args.size {
        // What the user says needs no reason.
        Some(_) => compute(args).ok(),
        None => Some(compute(args)?),
    };
    let value = match (&args.size, &computed) {
        (Some(size), _) => size.clone(),
        (None, Some(computed)) => Value::of_bytes(computed.need.recommended),
        (None, None) => bail!("how much to reserve is not known: name it with --size"),
    };
    let is_write = args.apply || args.dry_run;
    let plan = if is_write { Some(reserve::plan(Path::new(SYSTEM), &value)?) } else { None };
    let is_done = args.apply && !args.dry_run;
    if args.json {
        print_json(&value, computed.as_ref(), plan.as_ref(), is_done)?;
    } else {
        print(args, &value, computed.as_ref(), plan.as_ref())?;
    }
    if let (Some(plan), true) = (&plan, is_done) {
        plan.apply(Path::new(SYSTEM), &value, &mut |words| command(words))?;
        if !args.json && !plan.changes.is_empty() {
            say("written; reboot, and `kdump-rs doctor` says whether the memory is there\n")?;
        }
    }
    let is_enough = computed.as_ref().is_none_or(|c| c.reserved >= c.need.recommended);
    Ok(if is_write || is_enough { Exit::Complete } else { Exit::Gaps })
}

/// What is needed, and what is there.
struct Computed {
    need: Need,
    kernel: PathBuf,
    targets: Vec<String>,
    /// Why the initramfs could not be built, and is counted as the usual one.
    unbuilt: Option<String>,
    reserved: u64,
    /// What the running kernel was told.
    told: Option<String>,
}

fn compute(args: &Args) -> anyhow::Result<Computed> {
    let settings = arm::settings_of(args.kernel.clone(), args.target.clone(), args.config.as_deref())?;
    let machine = Machine::read(Path::new(SYSTEM))?;
    if machine.iomem.is_hidden() {
        bail!("not root: how much RAM there is cannot be seen (/proc/iomem); run it as root, or name --size");
    }
    let kernel = draft::find_kernel(&settings, &machine)?;
    let built = draft::build(&settings, &machine, &kernel);
    let need = kernel.need(built.as_ref().ok().map(|capture| &capture.initramfs), &machine);
    Ok(Computed {
        need,
        kernel: kernel.path,
        targets: built.iter().flat_map(|capture| &capture.targets).map(Rung::name).collect(),
        unbuilt: built.err().map(|error| format!("{:#}", anyhow::Error::new(error))),
        reserved: machine.iomem.crash_kernel().iter().map(|range| range.len()).sum(),
        told: reserve::effective(&machine.cmdline).map(str::to_owned),
    })
}

fn print(args: &Args, value: &Value, computed: Option<&Computed>, plan: Option<&Plan>) -> anyhow::Result<()> {
    let mut text = String::new();
    if let Some(computed) = computed {
        text += &computed.to_text();
        if let Some(size) = args.size.as_ref().and_then(Value::bytes).filter(|&b| b < computed.need.sum) {
            eprintln!(
                "kdump-rs: warning: {} is less than the {} that the capture kernel may need",
                size_text(size),
                size_text(computed.need.sum)
            );
        }
    }
    if let Some(plan) = plan {
        text += &plan_text(plan, &format!("{} is written already: nothing to change", value.word()));
    } else {
        text +=
            &format!("\n`kdump-rs reserve --apply` writes {}; with --dry-run it shows where\n", value.word());
    }
    say(&text)
}

impl Computed {
    fn to_text(&self) -> String {
        let target = match self.targets.as_slice() {
            [] => String::new(),
            names => format!(", to dump to {}", names.join(", else ")),
        };
        let mut text = format!("crashkernel memory for {}{target}\n\n", self.kernel.display());
        let mut line = |bytes: u64, what: &str, from: &str| {
            let line = format!("{:>10}  {what:<20}  {from}", size_text(bytes));
            text.push_str(line.trim_end());
            text.push('\n');
        };
        for item in &self.need.items {
            line(item.bytes, item.what, &item.from);
        }
        line(self.need.sum, "together", "");
        line(self.need.recommended, "rounded up", "to 16 MiB");
        if let Some(why) = &self.unbuilt {
            text += &format!("\nthe initramfs cannot be built yet: {why}\n");
        }
        let told = match &self.told {
            Some(value) => format!("crashkernel={value} on the command line of this boot"),
            None => "no crashkernel= on the command line of this boot".to_owned(),
        };
        let verdict = match self.reserved {
            0 => "none",
            have if have < self.need.recommended => "too little",
            _ => "enough",
        };
        text + &format!("\nreserved now: {} ({told}): {verdict}\n", size_text(self.reserved))
    }
}

/// Where it goes, as diffs, and what runs then.
fn plan_text(plan: &Plan, if_none: &str) -> String {
    let mut text = String::new();
    if !plan.found.is_empty() {
        text += &format!("\nboots by: {}\n", plan.found.join(", "));
    }
    for note in &plan.notes {
        text += &format!("note: {note}\n");
    }
    if plan.changes.is_empty() {
        return text + if_none + "\n";
    }
    text += "\n";
    for change in &plan.changes {
        text += &change.diff();
    }
    for words in &plan.commands {
        text += &format!("then: {}\n", words.join(" "));
    }
    text
}

fn print_json(
    value: &Value,
    computed: Option<&Computed>,
    plan: Option<&Plan>,
    is_done: bool,
) -> anyhow::Result<()> {
    let report = json!({
        "crashkernel": value,
        "need": computed.map(|c| &c.need),
        "kernel": computed.map(|c| &c.kernel),
        "targets": computed.map(|c| &c.targets),
        "initramfs_not_built": computed.and_then(|c| c.unbuilt.as_ref()),
        "reserved_bytes": computed.map(|c| c.reserved),
        "cmdline_value": computed.and_then(|c| c.told.as_ref()),
        "is_applied": is_done,
        "plan": plan,
    });
    say(&(serde_json::to_string_pretty(&report)? + "\n"))
}

fn undo(args: &Args) -> anyhow::Result<Exit> {
    let root = Path::new(SYSTEM);
    let value = Record::read(root)?.map(|record| record.value);
    let plan = if args.dry_run {
        reserve::undo(root, None)?
    } else {
        reserve::undo(root, Some(&mut |words| command(words)))?
    };
    if args.json {
        let report = json!({ "crashkernel": value, "is_undone": !args.dry_run, "plan": plan });
        say(&(serde_json::to_string_pretty(&report)? + "\n"))?;
    } else {
        let end = if args.dry_run {
            "nothing was changed (--dry-run)\n"
        } else {
            "undone; it counts from the next boot on\n"
        };
        say(&(plan_text(&plan, "everything is as it was before already") + end))?;
    }
    Ok(Exit::Complete)
}

/// Runs a command, its output on stderr: stdout is ours.
fn command(words: &[String]) -> io::Result<()> {
    let [program, arguments @ ..] = words else { return Ok(()) };
    // Scripts call others by name.
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin";
    let out = Command::new(program).args(arguments).env("PATH", path).output()?;
    let mut stderr = io::stderr();
    stderr.write_all(&out.stdout)?;
    stderr.write_all(&out.stderr)?;
    if out.status.success() { Ok(()) } else { Err(io::Error::other(out.status.to_string())) }
}

fn say(text: &str) -> anyhow::Result<()> {
    Ok(io::stdout().write_all(text.as_bytes())?)
}

//! `analyze`: the post-mortem, or a view.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use clap::ValueEnum;
use kdump_analyze::log::Log;
use kdump_analyze::report::{Inquiry, Report, Section, Status};
use kdump_analyze::{Kernel, view};
use kdump_vmcore::Dump;
use serde::Serialize;

use crate::exit::Exit;

/// Arguments.
#[derive(clap::Args, Debug)]
#[command(after_help = "Everything is read from the dump itself: no vmlinux, no debug symbols.\n\
    Exit code: 0 a complete answer, 1 an answer with gaps, 2 no answer.")]
pub struct Args {
    /// The dump: an ELF core or a kdump-compressed file
    vmcore: PathBuf,

    /// Another file of a dump that was split into several; once for each
    #[arg(long, value_name = "FILE")]
    with: Vec<PathBuf>,

    /// What to show
    #[arg(value_enum, default_value_t = View::Report)]
    view: View,

    /// bt: the thread whose stack to show; without it, the one that panicked
    #[arg(conflicts_with = "all")]
    pid: Option<u32>,

    /// bt: what every CPU was running
    #[arg(short, long)]
    all: bool,

    /// log: only records this urgent or more, 0 (emergency) to 7 (debug)
    #[arg(long, value_parser = clap::value_parser!(u8).range(0..=7))]
    level: Option<u8>,

    /// Print JSON (docs/report-schema.md) instead of text
    #[arg(long)]
    json: bool,
}

/// What there is to see.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum View {
    /// One page of post-mortem
    Report,
    /// The kernel log, byte for byte as dmesg prints it
    Log,
    /// Stacks, with how each frame was found
    Bt,
    /// Tasks
    Ps,
    /// Modules
    Mod,
    /// The system and the panic in a few lines
    Sys,
    /// What ran between the crash and the capture kernel: times, digests, repairs, exceptions
    PanicPath,
}

/// Runs it.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    ensure!(args.view == View::Bt || !(args.all || args.pid.is_some()), "a pid and -a go with bt only");
    ensure!(args.view == View::Log || args.level.is_none(), "--level goes with log only");
    let path = || args.vmcore.display().to_string();
    let files: Vec<&Path> = std::iter::once(&args.vmcore).chain(&args.with).map(PathBuf::as_path).collect();
    let mut dump = Dump::open_set(&files).with_context(path)?;
    if dump.vmcoreinfo().is_none() && dump.find_vmcoreinfo() {
        eprintln!("kdump-rs: the file has no VMCOREINFO note; it was found in the dumped memory");
    }
    if args.view == View::Log {
        return log(args, &dump).with_context(path);
    }
    ask(args, &dump).with_context(path)
}

/// Opens the dump at `path` and reports on it: what `rehearse` shows at its end.
pub fn report_on(path: &Path) -> anyhow::Result<Report> {
    let dump = Dump::open(path).with_context(|| path.display().to_string())?;
    Ok(Report::build(&Kernel::open(&dump)?))
}

/// The log needs neither symbols nor types.
fn log(args: &Args, dump: &Dump) -> anyhow::Result<Exit> {
    let info = dump.vmcoreinfo().context("the dump has no VMCOREINFO note: not a Linux kernel's")?;
    let mut log = Log::read(&dump.kernel()?, info)?;
    log.records.retain(|r| args.level.is_none_or(|most| r.level <= most));
    if args.json {
        put_json(&log)?;
    } else {
        put(&log.to_text())?;
    }
    if log.lost > 0 {
        eprintln!("kdump-rs: {} records of the log have lost their text", log.lost);
        return Ok(Exit::Gaps);
    }
    Ok(Exit::Complete)
}

fn ask(args: &Args, dump: &Dump) -> anyhow::Result<Exit> {
    let kernel = Kernel::open(dump)?;
    let inquiry = Inquiry::new(&kernel);
    if args.view == View::Bt {
        return stacks(args, &inquiry);
    }
    let report = inquiry.report();
    match args.view {
        View::Ps => section(args, &report.tasks, |t| view::ps(&t.list)),
        View::Mod => section(args, &report.modules, |m| view::modules(m)),
        View::Sys => section(args, &report.system, |s| view::sys(&report, s)),
        View::PanicPath => section(args, &report.panic_path, |p| p.to_text()),
        View::Report | View::Log | View::Bt => {
            let text = if args.json { report.to_json() + "\n" } else { report.to_text() };
            if report.is_void() {
                // A page of "not available" is no answer.
                let cut =
                    report.dump.incomplete.then_some("the file was cut short, or its writing never ended");
                let why: Vec<_> =
                    cut.into_iter().chain(report.log.reasons.iter().map(String::as_str)).collect();
                anyhow::bail!("nothing of the crashed kernel can be read: {}", why.join("; "));
            }
            put(text.as_bytes())?;
            Ok(if report.complete { Exit::Complete } else { Exit::Gaps })
        }
    }
}

/// Prints one section; what is missing from it goes to stderr.
fn section<T: Serialize>(
    args: &Args,
    section: &Section<T>,
    text: impl FnOnce(&T) -> String,
) -> anyhow::Result<Exit> {
    if args.json {
        put_json(section)?;
    } else if let Some(data) = &section.data {
        put(text(data).as_bytes())?;
    }
    match section.status {
        Status::Present => return Ok(Exit::Complete),
        Status::Partial => {}
        Status::Absent => bail!(section.reasons.join("; ")),
    }
    for reason in &section.reasons {
        eprintln!("kdump-rs: missing: {reason}");
    }
    Ok(Exit::Gaps)
}

fn stacks(args: &Args, inquiry: &Inquiry<'_, '_>) -> anyhow::Result<Exit> {
    let stacks = match args.pid {
        Some(pid) => inquiry.task_stacks(pid)?,
        None => inquiry.cpu_stacks(args.all)?,
    };
    if args.json {
        put_json(&stacks)?;
    } else {
        let texts: Vec<_> = stacks.iter().map(view::stack).collect();
        put(texts.join("\n").as_bytes())?;
    }
    let is_whole = stacks.iter().all(|s| s.stack.as_ref().is_some_and(|stack| stack.clean));
    Ok(if is_whole { Exit::Complete } else { Exit::Gaps })
}

fn put_json(value: &impl Serialize) -> anyhow::Result<()> {
    let mut text = serde_json::to_vec_pretty(value)?;
    text.push(b'\n');
    put(&text)
}

fn put(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()?;
    Ok(())
}

//! `analyze`: the post-mortem, or a view.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::ValueEnum;
use kdump_analyze::log::Log;
use kdump_analyze::report::{Inquiry, Report, Section, Status};
use kdump_analyze::{Gap, Kernel, view};
use kdump_vmcore::Dump;

use crate::exit::Exit;

/// Arguments.
#[derive(clap::Args, Debug)]
#[command(after_help = "Everything is read from the dump itself: no vmlinux, no debug symbols.\n\
    Exit code: 0 a complete answer, 1 an answer with gaps, 2 no answer.")]
pub struct Args {
    /// The dump: an ELF core or a kdump-compressed file
    pub vmcore: PathBuf,
    /// What to show
    #[arg(value_enum, default_value_t = View::Report)]
    pub view: View,
    /// bt: the thread whose stack to show; default is the one that panicked
    pub pid: Option<u32>,
    /// bt: the stacks of all CPUs
    #[arg(short, long)]
    pub all: bool,
    /// log: only records of this level or more urgent, 0 (emergency) to 7 (debug)
    #[arg(long, value_name = "LEVEL", value_parser = clap::value_parser!(u8).range(0..=7))]
    pub level: Option<u8>,
    /// Print JSON (docs/report-schema.md) instead of text
    #[arg(long)]
    pub json: bool,
}

/// What there is to see.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum View {
    /// One page of post-mortem
    Report,
    /// The kernel log
    Log,
    /// Stacks
    Bt,
    /// Tasks
    Ps,
    /// Modules
    Mod,
    /// The system
    Sys,
}

/// Runs it.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    answer(args).with_context(|| args.vmcore.display().to_string())
}

fn answer(args: &Args) -> anyhow::Result<Exit> {
    let dump = Dump::open(&args.vmcore)?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    let exit = if args.view == View::Log { log(args, &dump, &mut out)? } else { ask(args, &dump, &mut out)? };
    out.flush()?;
    Ok(exit)
}

/// Opens and reports on the dump at `path`: what `rehearse` shows at its end.
pub fn report_on(path: &Path) -> anyhow::Result<Report> {
    let dump = Dump::open(path).with_context(|| path.display().to_string())?;
    Ok(Report::build(&Kernel::open(&dump)?))
}

/// The log needs neither symbols nor types.
fn log(args: &Args, dump: &Dump, out: &mut dyn Write) -> anyhow::Result<Exit> {
    let info = dump.vmcoreinfo().context("the dump has no VMCOREINFO note: not a Linux kernel's")?;
    let log = Log::read(&dump.kernel()?, info)?;
    let wanted = log.records.iter().filter(|r| args.level.is_none_or(|most| r.level <= most));
    if args.json {
        let lines: Vec<_> = wanted
            .map(|r| {
                serde_json::json!({
                    "seq": r.seq, "ts_ns": r.ts_ns, "level": r.level, "facility": r.facility,
                    "caller": r.caller.to_string(), "text": r.text_lossy(),
                })
            })
            .collect();
        print_json(out, &lines)?;
    } else {
        let mut text = Vec::new();
        wanted.for_each(|r| r.format_into(&mut text));
        out.write_all(&text)?;
    }
    if log.lost > 0 {
        eprintln!("kdump-rs: {} records have lost their text", log.lost);
        return Ok(Exit::Gaps);
    }
    Ok(Exit::Complete)
}

fn ask(args: &Args, dump: &Dump, out: &mut dyn Write) -> anyhow::Result<Exit> {
    let kernel = Kernel::open(dump)?;
    let inquiry = Inquiry::new(&kernel);
    if let (View::Bt, Some(pid)) = (args.view, args.pid) {
        let (task, stack) = inquiry
            .task_stack(pid)
            .ok_or_else(|| Gap::Other(format!("there is no task {pid}, or its stack cannot be found")))?;
        if args.json {
            print_json(out, &serde_json::json!({ "task": task, "stack": stack }))?;
        } else {
            write!(out, "{}", view::stack(&view::title(None, Some(&task)), &stack))?;
        }
        return Ok(if stack.clean { Exit::Complete } else { Exit::Gaps });
    }
    let report = inquiry.report();
    match args.view {
        View::Bt if args.all => stacks(args, &report, out),
        View::Bt => panic_stack(args, &report, out),
        View::Ps => section(args, out, &report.tasks, |t| view::ps(&t.list)),
        View::Mod => section(args, out, &report.modules, |m| view::modules(m)),
        View::Sys => section(args, out, &report.system, |s| view::sys(&report, s)),
        View::Report | View::Log => {
            let text = if args.json { report.to_json() + "\n" } else { report.to_text() };
            out.write_all(text.as_bytes())?;
            Ok(if report.complete { Exit::Complete } else { Exit::Gaps })
        }
    }
}

/// Shows one section; its gaps go to stderr.
fn section<T: serde::Serialize>(
    args: &Args,
    out: &mut dyn Write,
    section: &Section<T>,
    text: impl Fn(&T) -> String,
) -> anyhow::Result<Exit> {
    if args.json {
        print_json(out, section)?;
    } else if let Some(data) = &section.data {
        write!(out, "{}", text(data))?;
    } else {
        anyhow::bail!(section.reasons.join("; "));
    }
    if section.status == Status::Present {
        return Ok(Exit::Complete);
    }
    for reason in &section.reasons {
        eprintln!("kdump-rs: missing: {reason}");
    }
    Ok(Exit::Gaps)
}

fn stacks(args: &Args, report: &Report, out: &mut dyn Write) -> anyhow::Result<Exit> {
    section(args, out, &report.cpus, |cpus| {
        let mut text = String::new();
        for cpu in cpus {
            let title = view::title(Some(cpu.cpu), cpu.task.as_ref());
            match &cpu.stack {
                Some(stack) => text += &view::stack(&title, stack),
                None => text += &format!("{title}\n  -- {}\n", cpu.reasons.join("; ")),
            }
        }
        text
    })
}

fn panic_stack(args: &Args, report: &Report, out: &mut dyn Write) -> anyhow::Result<Exit> {
    let panic = report.panic.data.as_ref();
    let title = view::title(panic.and_then(|p| p.cpu), panic.and_then(|p| p.task.as_ref()));
    section(args, out, &report.panic_stack, |stack| view::stack(&title, stack))
}

fn print_json(out: &mut dyn Write, value: &impl serde::Serialize) -> anyhow::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    writeln!(out)?;
    Ok(())
}

fn page(report: &Report, view: Option<&View>, json: bool) -> anyhow::Result<Exit> {
    match view {
        Some(View::Ps) => section(&report.tasks, "tasks", json, |t| view::ps(&t.list)),
        Some(View::Mod) => section(&report.modules, "modules", json, |m| view::modules(m)),
        Some(View::Sys) => section(&report.system, "system", json, |s| view::sys(report, s)),
        _ => {
            let text = if json { report.to_json() + "\n" } else { report.to_text() };
            put(text.as_bytes())?;
            Ok(if report.complete { Exit::Complete } else { Exit::Gaps })
        }
    }
}

/// Prints one section; what is missing goes to stderr.
fn section<T: Serialize>(
    section: &Section<T>,
    name: &str,
    json: bool,
    text: impl FnOnce(&T) -> String,
) -> anyhow::Result<Exit> {
    if json {
        put_json(section)?;
    } else if let Some(data) = &section.data {
        put(text(data).as_bytes())?;
    }
    match section.status {
        Status::Present => Ok(Exit::Complete),
        Status::Partial => {
            for reason in &section.reasons {
                eprintln!("kdump-rs: {name}: {reason}");
            }
            Ok(Exit::Gaps)
        }
        Status::Absent => bail!("{name}: {}", section.reasons.join("; ")),
    }
}

fn log(dump: &Dump, level: Option<u8>, json: bool) -> anyhow::Result<Exit> {
    let info = dump.vmcoreinfo().context("the dump has no VMCOREINFO note: not a Linux kernel's")?;
    let mut log = Log::read(&dump.kernel()?, info)?;
    log.records.retain(|r| level.is_none_or(|most| r.level <= most));
    if json {
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

fn stacks(inquiry: &Inquiry<'_, '_>, pid: Option<u32>, all: bool, json: bool) -> anyhow::Result<Exit> {
    let stacks = match pid {
        Some(pid) => inquiry.task_stacks(pid)?,
        None => inquiry.cpu_stacks(all)?,
    };
    if json {
        put_json(&stacks)?;
    } else {
        let texts: Vec<_> = stacks.iter().map(view::stack).collect();
        put(texts.join("\n").as_bytes())?;
    }
    let clean = stacks.iter().all(|s| s.stack.as_ref().is_some_and(|stack| stack.clean));
    Ok(if clean { Exit::Complete } else { Exit::Gaps })
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

//! The report as a page for a person: the panic first, 100 columns at most.

use std::fmt::{self, Write as _};

use super::{CpuInfo, ModuleInfo, Report, Section, StackInfo, TaskInfo, TasksInfo};
use crate::sys::span;

/// Frames of another CPU's stack that the page shows.
const SHORT_STACK: usize = 8;
/// Log records at the end of the page.
const LOG_LINES: usize = 20;
/// Columns.
const WIDTH: usize = 100;

impl Report {
    /// The page.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _ = self.write_page(&mut out);
        out
    }

    fn write_page(&self, out: &mut String) -> fmt::Result {
        self.write_headline(out)?;
        for warning in &self.warnings {
            writeln!(out, "WARNING      {warning}")?;
        }

        writeln!(out, "\nSTACK OF THE PANIC TASK")?;
        match &self.panic_stack.data {
            Some(stack) => write_stack(out, stack, usize::MAX, "  ")?,
            None => writeln!(out, "  not available: {}", self.panic_stack.reasons.join("; "))?,
        }

        write_cpus(out, &self.cpus)?;
        write_tasks(out, &self.tasks)?;
        write_modules(out, &self.modules)?;
        self.write_log(out)?;
        self.write_system(out)?;
        self.write_gaps(out)
    }

    fn write_headline(&self, out: &mut String) -> fmt::Result {
        let panic = self.panic.data.clone().unwrap_or_default();
        match &panic.message {
            Some(message) => writeln!(out, "KERNEL PANIC {message}")?,
            None => writeln!(out, "KERNEL DUMP  no panic message in the log")?,
        }
        for cause in &panic.causes {
            writeln!(out, "  after      {}", cause.text)?;
        }
        let mut when = panic.time_utc.map(|t| format!("{t} UTC")).unwrap_or_else(|| "unknown".into());
        if let Some(t) = panic.after_boot {
            write!(when, ", {} after boot", span(t as u64))?;
        }
        writeln!(out, "when         {when}")?;
        let cpu = panic.cpu.map_or("unknown CPU".into(), |c| format!("CPU {c}"));
        match &panic.task {
            Some(t) => writeln!(out, "where        {cpu}, {}", describe(t, &self.tasks))?,
            None => writeln!(out, "where        {cpu}, task unknown")?,
        }
        let Some(s) = &self.system.data else { return Ok(()) };
        let text = |v: &Option<String>| v.clone().unwrap_or_else(|| "unknown".into());
        writeln!(out, "kernel       {} {}", text(&s.release), text(&s.machine))?;
        let taints = match s.taints.as_deref() {
            Some("") => "not tainted".into(),
            Some(letters) => format!("tainted {letters}"),
            None => "taints unknown".into(),
        };
        writeln!(out, "host         {}, {taints}", text(&s.hostname))
    }

    fn write_log(&self, out: &mut String) -> fmt::Result {
        match &self.log.data {
            Some(log) => {
                let tail = &log.tail[log.tail.len().saturating_sub(LOG_LINES)..];
                writeln!(out, "\nKERNEL LOG, last {} of {} records", tail.len(), log.records)?;
                for line in tail {
                    for (i, text) in line.text.lines().enumerate() {
                        let stamp = if i == 0 { format!("[{:12.6}]", line.time) } else { " ".repeat(14) };
                        writeln!(out, "  {stamp} {}", printable(text))?;
                    }
                }
                Ok(())
            }
            None => writeln!(out, "\nKERNEL LOG\n  not available: {}", self.log.reasons.join("; ")),
        }
    }

    fn write_system(&self, out: &mut String) -> fmt::Result {
        let Some(s) = &self.system.data else { return Ok(()) };
        writeln!(out, "\nSYSTEM")?;
        let mut fact = |name: &str, value: Option<String>| match value {
            Some(v) => writeln!(out, "  {name:<10} {v}"),
            None => Ok(()),
        };
        fact("version", s.version.clone())?;
        fact("build ID", s.build_id.clone())?;
        fact("uptime", s.uptime.map(span))?;
        fact("load", s.load.map(|[a, b, c]| format!("{a:.2} {b:.2} {c:.2}")))?;
        fact(
            "CPUs",
            s.cpus_online.map(|n| format!("{n} online, {} possible", s.cpus_possible.unwrap_or(n))),
        )?;
        fact("memory", Some(format!("{} MiB in the dump's description", s.memory_bytes >> 20)))?;
        fact(
            "paging",
            Some(format!("{} levels, kernel moved by {}", s.paging_levels, short(s.kaslr_offset.as_ref()))),
        )?;
        fact("cmdline", s.cmdline.clone())?;
        fact("dump", Some(format!("{}, {} CPU notes", self.dump.format, self.dump.cpu_notes)))
    }

    fn write_gaps(&self, out: &mut String) -> fmt::Result {
        let sections: [(&str, &[String]); 7] = [
            ("panic", &self.panic.reasons),
            ("system", &self.system.reasons),
            ("panic stack", &self.panic_stack.reasons),
            ("CPUs", &self.cpus.reasons),
            ("tasks", &self.tasks.reasons),
            ("modules", &self.modules.reasons),
            ("log", &self.log.reasons),
        ];
        if sections.iter().all(|(_, reasons)| reasons.is_empty()) {
            return Ok(());
        }
        writeln!(out, "\nWHAT IS MISSING")?;
        for (name, reasons) in sections {
            for reason in reasons {
                writeln!(out, "  {name}: {reason}")?;
            }
        }
        Ok(())
    }
}

/// `comm, pid 12 (thread of 10), started by init, uid 0`.
fn describe(t: &TaskInfo, tasks: &Section<TasksInfo>) -> String {
    let mut out = format!("{}, pid {}", t.comm, t.pid);
    if t.tgid != t.pid {
        let _ = write!(out, " of process {}", t.tgid);
    }
    if t.kernel_thread {
        out += ", kernel thread";
        return out;
    }
    if let Some(uid) = t.uid {
        let _ = write!(out, ", uid {uid}");
    }
    if let Some(ppid) = t.ppid {
        let parent = tasks.data.as_ref().and_then(|d| d.list.iter().find(|p| p.pid == ppid));
        let _ = write!(out, ", child of {} ({ppid})", parent.map_or("pid", |p| p.comm.as_str()));
    }
    out
}

/// One frame a line: symbol, and how it was found unless by the kernel's own tables.
pub(crate) fn write_stack(out: &mut String, stack: &StackInfo, most: usize, indent: &str) -> fmt::Result {
    for frame in stack.frames.iter().take(most) {
        let mark = match frame.trust.as_str() {
            "orc" | "regs" => String::new(),
            other => format!("  ({other})"),
        };
        writeln!(out, "{indent}{}{mark}", frame.text())?;
    }
    match stack.frames.len().checked_sub(most) {
        Some(more @ 1..) => writeln!(out, "{indent}… {more} more"),
        _ => writeln!(out, "{indent}-- {}", stack.stop),
    }
}

fn write_cpus(out: &mut String, cpus: &Section<Vec<CpuInfo>>) -> fmt::Result {
    writeln!(out, "\nOTHER CPUS")?;
    let Some(list) = &cpus.data else {
        return writeln!(out, "  not available: {}", cpus.reasons.join("; "));
    };
    let mut any = false;
    for cpu in list.iter().filter(|c| !c.panicked) {
        any = true;
        let task = cpu.task.as_ref().map_or("task unknown".into(), |t| match t.pid {
            0 => format!("idle ({})", t.comm),
            pid => format!("{}, pid {pid}", t.comm),
        });
        writeln!(out, "  CPU {}: {task}", cpu.cpu)?;
        match &cpu.stack {
            Some(stack) => write_stack(out, stack, SHORT_STACK, "    ")?,
            None => writeln!(out, "    no stack: {}", cpu.reasons.join("; "))?,
        }
    }
    if any { Ok(()) } else { writeln!(out, "  none") }
}

fn write_tasks(out: &mut String, tasks: &Section<TasksInfo>) -> fmt::Result {
    let Some(t) = &tasks.data else {
        return writeln!(out, "\nTASKS\n  not available: {}", tasks.reasons.join("; "));
    };
    let states: Vec<String> = t.by_state.iter().map(|(s, n)| format!("{n} {}", state_name(s))).collect();
    writeln!(out, "\nTASKS\n  {}: {}", t.count, states.join(", "))?;
    for task in t.list.iter().filter(|t| t.state == "D") {
        writeln!(out, "  blocked: {}, pid {}", task.comm, task.pid)?;
        if let Some(stack) = t.blocked.get(&task.pid) {
            write_stack(out, stack, SHORT_STACK, "    ")?;
        }
    }
    Ok(())
}

fn state_name(letter: &str) -> String {
    match letter {
        "R" => "runnable",
        "S" => "sleeping",
        "D" => "blocked",
        "I" => "idle",
        "Z" => "zombie",
        "T" => "stopped",
        "t" => "traced",
        "X" => "dead",
        "P" => "parked",
        other => return format!("in state {other}"),
    }
    .into()
}

fn write_modules(out: &mut String, modules: &Section<Vec<ModuleInfo>>) -> fmt::Result {
    let Some(list) = &modules.data else {
        return writeln!(out, "\nMODULES\n  not available: {}", modules.reasons.join("; "));
    };
    writeln!(out, "\nMODULES\n  {} loaded; letters are taints", list.len())?;
    let mut line = String::from(" ");
    for m in list {
        let name = if m.taints.is_empty() { m.name.clone() } else { format!("{}({})", m.name, m.taints) };
        if line.len() + 1 + name.len() > WIDTH {
            writeln!(out, "{line}")?;
            line = String::from(" ");
        }
        line += " ";
        line += &name;
    }
    if line.len() > 1 { writeln!(out, "{line}") } else { Ok(()) }
}

/// Control characters of a hostile log do not reach the terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect()
}

/// An address without its leading zeros.
fn short(hex: Option<&String>) -> String {
    match hex.map(|h| h.trim_start_matches("0x").trim_start_matches('0')) {
        Some("") => "0".into(),
        Some(digits) => format!("0x{digits}"),
        None => "an unknown distance".into(),
    }
}

//! The report as a page for a person: the panic first, [`WIDTH`] columns at most.

use std::fmt::{self, Write as _};

use super::fold::{fold, groups, printable, wrap};
use super::{
    Cause, CauseInfo, CpuInfo, ModuleInfo, Report, Section, StackInfo, Status, SystemInfo, TaskInfo,
    TasksInfo,
};
use crate::panic::Kind;
use crate::sys::span;

/// Frames of a stack other than the panic task's that the page shows.
const SHORT_STACK: usize = 8;
/// Groups of other CPUs, and of blocked tasks, that the page shows.
const GROUPS: usize = 8;
/// Names of those who share a stack.
const TITLES: usize = 12;
/// Log records that the page shows.
const LOG_LINES: usize = 16;
/// Lines that name the cause.
const CAUSE_LINES: usize = 6;
/// Columns.
pub(super) const WIDTH: usize = 100;

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
            fact(out, "WARNING", warning)?;
        }

        writeln!(out, "\nSTACK OF THE PANIC TASK")?;
        match &self.panic_stack.data {
            Some(stack) => write_stack(out, stack, usize::MAX)?,
            None => write_absent(out, &self.panic_stack)?,
        }

        self.write_cpus(out)?;
        write_tasks(out, &self.tasks)?;
        self.write_log(out)?;
        self.write_system(out)?;
        self.write_gaps(out)
    }

    pub(crate) fn write_headline(&self, out: &mut String) -> fmt::Result {
        let panic = self.panic.data.clone().unwrap_or_default();
        let head = match panic.kind {
            Some(Kind::Panic) => "KERNEL PANIC",
            Some(Kind::Oops) => "KERNEL OOPS",
            None => "KERNEL DUMP",
        };
        let message = panic.message.as_deref().unwrap_or("the log knows of no panic and no oops");
        writeln!(out, "{head}: {}\n", printable(message))?;
        if let Some(cause) = &panic.cause {
            fact(out, "cause", &self.describe_cause(cause, panic.task.as_ref()))?;
        }
        // Many causes: the first few, and the last, which is nearest to the end.
        let omitted = panic.causes.len().saturating_sub(CAUSE_LINES);
        for (i, cause) in panic.causes.iter().enumerate() {
            if omitted == 0 || i < CAUSE_LINES - 1 || i + 1 == panic.causes.len() {
                fact(out, if i == 0 { "reported" } else { "" }, &cause.text)?;
            } else if i == CAUSE_LINES - 1 {
                fact(out, "", &format!("({omitted} more)"))?;
            }
        }
        let mut when = panic.time_utc.map_or_else(|| "unknown".into(), |t| format!("{t} UTC"));
        let uptime = self.system.data.as_ref().and_then(|s| s.uptime);
        if let Some(t) = panic.after_boot.map(|t| t as u64).or(uptime) {
            write!(when, ", {} after boot", span(t))?;
        }
        fact(out, "when", &when)?;
        let mut cpu = panic.cpu.map_or_else(|| "unknown CPU".into(), |c| format!("CPU {c}"));
        if let Some(from) = panic.redirected_from {
            write!(cpu, " for CPU {from}, where it happened")?;
        }
        let task = panic.task.map_or_else(|| "task unknown".into(), |t| describe(&t, &self.tasks));
        fact(out, "where", &format!("{cpu}, {task}"))?;
        let Some(s) = &self.system.data else { return Ok(()) };
        let text = |v: &Option<String>| v.clone().unwrap_or_else(|| "unknown".into());
        fact(out, "kernel", &format!("{} {}, {}", text(&s.release), text(&s.machine), self.taints()))?;
        fact(out, "host", &text(&s.hostname))
    }

    /// `soft-lockup in spin+0x5/0x10 [m]`, and whose stack that is, where it is not the panicking task's.
    fn describe_cause(&self, cause: &CauseInfo, panicked: Option<&TaskInfo>) -> String {
        let mut out = cause.kind.word().to_owned();
        if let Some(function) = &cause.function {
            out += &format!(" in {}", function.text());
        }
        if cause.in_interrupt == Some(true) && cause.kind != Cause::PanicInInterrupt {
            out += ", in an interrupt";
        }
        if let Some(task) = cause.task.as_ref().filter(|task| panicked.is_none_or(|p| p.addr != task.addr)) {
            out += &format!(": {}", describe(task, &self.tasks));
        }
        out
    }

    /// Whether the kernel was tainted, by what, and which modules did it.
    fn taints(&self) -> String {
        let letters = match self.system.data.as_ref().and_then(|s| s.taints.as_deref()) {
            Some("") => return "not tainted".into(),
            Some(letters) => letters,
            None => return "taints unknown".into(),
        };
        let tainting = self.modules.data.iter().flatten().filter(|m| !m.taints.is_empty());
        let names: Vec<_> = tainting.map(|m| format!("{} ({})", printable(&m.name), m.taints)).collect();
        match names.is_empty() {
            true => format!("tainted {letters}"),
            false => format!("tainted {letters}: {}", names.join(", ")),
        }
    }

    fn write_cpus(&self, out: &mut String) -> fmt::Result {
        let Some(list) = &self.cpus.data else {
            writeln!(out, "\nOTHER CPUS")?;
            return write_absent(out, &self.cpus);
        };
        let others = || list.iter().filter(|c| !c.panicked);
        if others().next().is_none() {
            return Ok(());
        }
        writeln!(out, "\nOTHER CPUS")?;
        let idle: Vec<_> = others().filter(|c| is_idle(c)).map(|c| c.cpu.to_string()).collect();
        let busy = others().filter(|c| !is_idle(c)).filter_map(|c| Some((cpu_title(c), c.stack.as_ref()?)));
        write_groups(out, "", busy.collect())?;
        if !idle.is_empty() {
            let noun = if idle.len() == 1 { "CPU" } else { "CPUs" };
            wrap(out, &format!("{noun} {}: idle", idle.join(", ")), "  ", "    ")?;
        }
        for cpu in others().filter(|c| c.stack.is_none()) {
            wrap(out, &format!("{}: no stack: {}", cpu_title(cpu), cpu.reasons.join("; ")), "  ", "    ")?;
        }
        Ok(())
    }

    fn write_log(&self, out: &mut String) -> fmt::Result {
        let Some(log) = &self.log.data else {
            writeln!(out, "\nKERNEL LOG")?;
            return write_absent(out, &self.log);
        };
        // What led up to the panic says more than its registers and call trace, which come last and
        // stand above in a better form.
        let (title, all) = match log.leading_up.is_empty() {
            true => ("the end", &log.tail),
            false => ("what led up to it", &log.leading_up),
        };
        writeln!(out, "\nKERNEL LOG, {title}; `log` shows all {} records", log.records)?;
        for line in &all[all.len().saturating_sub(LOG_LINES)..] {
            let stamp = format!("  [{:12.6}] ", line.time);
            for (i, text) in line.text.lines().enumerate() {
                let blank = " ".repeat(stamp.len());
                wrap(out, &printable(text), if i == 0 { &stamp } else { &blank }, &blank)?;
            }
        }
        Ok(())
    }

    fn write_system(&self, out: &mut String) -> fmt::Result {
        let Some(s) = &self.system.data else { return Ok(()) };
        writeln!(out, "\nSYSTEM")?;
        self.write_facts(out, s)
    }

    /// What the machine and its dump were, without what the headline says.
    pub(crate) fn write_facts(&self, out: &mut String, s: &SystemInfo) -> fmt::Result {
        let mut known = |name: &str, value: Option<String>| value.map_or(Ok(()), |v| fact(out, name, &v));
        known("version", s.version.clone())?;
        known("build ID", s.build_id.clone())?;
        known("load", s.load.map(|[a, b, c]| format!("{a:.2} {b:.2} {c:.2}")))?;
        let possible = s.cpus_possible.filter(|n| Some(*n) != s.cpus_online);
        let possible = possible.map_or_else(String::new, |n| format!(" of {n} possible"));
        known("CPUs", s.cpus_online.map(|n| format!("{n} online{possible}")))?;
        let mib = |bytes: u64| bytes >> 20;
        known(
            "memory",
            Some(match (s.memory_total_bytes, s.memory_free_bytes) {
                (Some(total), Some(free)) => format!("{} MiB, {} MiB free", mib(total), mib(free)),
                _ => format!("{} MiB described by the dump", mib(s.memory_bytes)),
            }),
        )?;
        known("modules", self.modules.data.as_deref().map(count_modules))?;
        known("cmdline", s.cmdline.clone())?;
        let notes = match self.dump.cpu_notes {
            1 => "registers of 1 CPU".into(),
            n => format!("registers of {n} CPUs"),
        };
        let levels = s.paging_levels;
        known("dump", Some(format!("{}, {notes}, {levels}-level paging", self.dump.format)))?;
        known("capture", self.panic_path.data.as_ref().map(|path| path.summary()))
    }

    fn write_gaps(&self, out: &mut String) -> fmt::Result {
        // What is absent is said in its place, except where the page has none for it.
        let partial = |status, reasons| if status == Status::Absent { &[][..] } else { reasons };
        let sections: [(&str, &[String]); 7] = [
            ("panic", &self.panic.reasons),
            ("system", &self.system.reasons),
            ("stack", partial(self.panic_stack.status, &self.panic_stack.reasons)),
            ("CPUs", partial(self.cpus.status, &self.cpus.reasons)),
            ("tasks", partial(self.tasks.status, &self.tasks.reasons)),
            ("modules", &self.modules.reasons),
            ("log", partial(self.log.status, &self.log.reasons)),
        ];
        if sections.iter().all(|(_, reasons)| reasons.is_empty()) {
            return Ok(());
        }
        writeln!(out, "\nWHAT IS MISSING")?;
        for (name, reasons) in sections {
            for reason in reasons {
                fact(out, name, reason)?;
            }
        }
        Ok(())
    }
}

/// A name and its value, wrapped under itself.
fn fact(out: &mut String, name: &str, value: &str) -> fmt::Result {
    wrap(out, &printable(value), &format!("  {name:<8}  "), &" ".repeat(12))
}

fn write_absent<T>(out: &mut String, section: &Section<T>) -> fmt::Result {
    debug_assert_eq!(section.status, Status::Absent);
    wrap(out, &format!("not available: {}", section.reasons.join("; ")), "  ", "  ")
}

/// `comm, pid 12 of process 10, uid 0, child of init (1)`.
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
    if let Some(ppid) = t.ppid.filter(|p| *p != 0) {
        let parent = tasks.data.as_ref().and_then(|d| d.list.iter().find(|p| p.pid == ppid));
        let _ = write!(out, ", child of {} ({ppid})", parent.map_or("pid", |p| p.comm.as_str()));
    }
    out
}

fn task_title(t: &TaskInfo) -> String {
    match t.pid {
        0 => "idle".into(),
        pid => format!("{} ({pid})", printable(&t.comm)),
    }
}

fn cpu_title(c: &CpuInfo) -> String {
    let task = c.task.as_ref().map_or_else(|| "task unknown".into(), task_title);
    match &c.stack {
        Some(stack) if stack.frames.is_empty() && stack.clean => {
            format!("CPU {}: {task} in user mode", c.cpu)
        }
        _ => format!("CPU {}: {task}", c.cpu),
    }
}

/// Whether the CPU was in its idle loop, and nothing had interrupted it.
fn is_idle(c: &CpuInfo) -> bool {
    let interrupted = |s: &StackInfo| s.frames.iter().skip(1).any(|f| f.interrupted);
    c.task.as_ref().is_some_and(|t| t.pid == 0)
        && c.stack.as_ref().is_some_and(|s| s.clean && !interrupted(s))
}

/// Stacks, one a group, with whose they are.
fn write_groups(out: &mut String, what: &str, stacks: Vec<(String, &StackInfo)>) -> fmt::Result {
    let groups = groups(stacks);
    for (titles, stack) in groups.iter().take(GROUPS) {
        let mut whose = titles[..titles.len().min(TITLES)].join(", ");
        if titles.len() > TITLES {
            write!(whose, " and {} more", titles.len() - TITLES)?;
        }
        wrap(out, &format!("{what}{whose}"), "  ", "    ")?;
        if !stack.frames.is_empty() || !stack.clean {
            write_stack(out, stack, SHORT_STACK)?;
        }
    }
    match groups.len().checked_sub(GROUPS) {
        Some(more @ 1..) => {
            let hidden: usize = groups[GROUPS..].iter().map(|g| g.0.len()).sum();
            writeln!(out, "  and {hidden} with {more} other stacks")
        }
        _ => Ok(()),
    }
}

/// One frame a line: symbol, and how it was found where that is a guess.
fn write_stack(out: &mut String, stack: &StackInfo, most: usize) -> fmt::Result {
    if stack.overflowed {
        writeln!(out, "    -- the stack has overflowed")?;
    }
    let mut lines = Vec::new();
    for (i, f) in stack.frames.iter().enumerate() {
        if f.interrupted && i > 0 {
            lines.push("-- which interrupted".into());
        }
        // If the call that a scanned frame returns to goes to the function below, it is no guess.
        match f.trust.as_str() {
            "orc" | "regs" => lines.push(f.text()),
            _ if stack.guessed == 0 => lines.push(f.text()),
            trust => lines.push(format!("{}  ({trust})", f.text())),
        }
    }
    let lines = fold(&lines);
    // To say "2 more" takes a line as well.
    let shown = if lines.len() <= most.saturating_add(2) { lines.len() } else { most };
    for line in &lines[..shown] {
        writeln!(out, "    {}", printable(line))?;
    }
    match lines.len() - shown {
        0 => writeln!(out, "    -- {}", stack.stop),
        more => writeln!(out, "    … {more} more"),
    }
}

fn write_tasks(out: &mut String, tasks: &Section<TasksInfo>) -> fmt::Result {
    writeln!(out, "\nTASKS")?;
    let Some(t) = &tasks.data else { return write_absent(out, tasks) };
    let states: Vec<String> = t.by_state.iter().map(|(s, n)| format!("{n} {}", state_name(s))).collect();
    wrap(out, &format!("{}: {}", t.count, states.join(", ")), "  ", "  ")?;
    let blocked = t.list.iter().filter(|t| t.state == "D");
    let stacks: Vec<_> =
        blocked.clone().filter_map(|task| Some((task_title(task), t.blocked.get(&task.pid)?))).collect();
    let unseen = blocked.count().saturating_sub(stacks.len());
    write_groups(out, "blocked: ", stacks)?;
    if unseen > 0 {
        writeln!(out, "  and {unseen} more that were blocked")?;
    }
    Ok(())
}

fn state_name(letter: &str) -> String {
    match letter {
        "R" => "runnable",
        "S" => "sleeping",
        "D" => "blocked",
        "I" => "idle kernel threads",
        "Z" => "zombie",
        "T" => "stopped",
        "t" => "traced",
        "X" => "dead",
        "P" => "parked",
        other => return format!("in state {other}"),
    }
    .into()
}

fn count_modules(list: &[ModuleInfo]) -> String {
    match list.iter().filter(|m| !m.taints.is_empty()).count() {
        0 => format!("{} loaded", list.len()),
        n => format!("{} loaded, {n} of them tainting", list.len()),
    }
}

//! The views beside the report: each asks one thing, as text or as JSON.

use std::fmt::Write as _;

use crate::report::{ModuleInfo, Report, SystemInfo, TaskInfo, TaskStack, text};
use crate::sys::{span, utc};

/// `ps`: one task a line.
#[must_use]
pub fn ps(tasks: &[TaskInfo]) -> String {
    let mut out = format!(
        "{:>7} {:>7} {:>7} {:>3} {:>5}  {:<18}  NAME\n",
        "PID", "TGID", "PPID", "CPU", "STATE", "TASK"
    );
    for t in tasks {
        let number = |n: Option<u32>| n.map_or("-".to_string(), |n| n.to_string());
        let mark = if t.running { '>' } else { ' ' };
        let name = if t.kernel_thread { format!("[{}]", t.comm) } else { t.comm.clone() };
        let _ = writeln!(
            out,
            "{mark}{:>6} {:>7} {:>7} {:>3} {:>5}  {}  {}",
            t.pid,
            t.tgid,
            number(t.ppid),
            number(t.cpu),
            t.state,
            t.addr,
            text::printable(&name)
        );
    }
    out
}

/// `mod`: one module a line.
#[must_use]
pub fn modules(list: &[ModuleInfo]) -> String {
    let mut out = format!("{:<18}  {:>9}  {:<6}  {:<6}  NAME\n", "TEXT", "SIZE", "STATE", "TAINTS");
    for m in list {
        let _ = writeln!(
            out,
            "{}  {:>9}  {:<6}  {:<6}  {}",
            m.text,
            m.size,
            m.state,
            m.taints,
            text::printable(&m.name)
        );
    }
    out
}

/// `bt`: a stack with addresses and how each frame was found.
#[must_use]
pub fn stack(s: &TaskStack) -> String {
    let task = s.task.as_ref().map_or("task unknown".into(), |t| {
        format!("{}, pid {}, state {}, task {}", text::printable(&t.comm), t.pid, t.state, t.addr)
    });
    let mut out = match s.cpu {
        Some(cpu) if s.panicked => format!("CPU {cpu}, which panicked: {task}\n"),
        Some(cpu) => format!("CPU {cpu}: {task}\n"),
        None => format!("{task}\n"),
    };
    if let Some(stack) = &s.stack {
        for (i, f) in stack.frames.iter().enumerate() {
            let kind = if f.interrupted && i > 0 { "  interrupted" } else { "" };
            let _ = writeln!(out, "  #{i:<2} {}  {:<13}  {}{kind}", f.ip, f.trust, f.text());
        }
        let _ = writeln!(out, "  -- {}", stack.stop);
    }
    for reason in &s.reasons {
        let _ = writeln!(out, "  {reason}");
    }
    out
}

/// `sys`: the system and the panic in a few lines.
#[must_use]
pub fn sys(report: &Report, s: &SystemInfo) -> String {
    let mut out = String::new();
    let mut fact = |name: &str, value: Option<String>| {
        let _ = writeln!(out, "{name:<10} {}", value.unwrap_or_else(|| "unknown".into()));
    };
    let panic = report.panic.data.as_ref();
    fact("release", s.release.clone());
    fact("version", s.version.clone());
    fact("machine", s.machine.clone());
    fact("host", s.hostname.clone());
    fact("build ID", s.build_id.clone());
    fact("time", panic.and_then(|p| p.time).map(|t| format!("{} UTC", utc(t))));
    fact("uptime", s.uptime.map(span));
    fact("load", s.load.map(|[a, b, c]| format!("{a:.2} {b:.2} {c:.2}")));
    fact("CPUs", s.cpus_online.map(|n| format!("{n} online, {} possible", s.cpus_possible.unwrap_or(n))));
    fact("memory", Some(format!("{} MiB", s.memory_bytes >> 20)));
    fact("tasks", report.tasks.data.as_ref().map(|t| t.count.to_string()));
    fact("taints", s.taints.clone().map(|t| if t.is_empty() { "none".into() } else { t }));
    fact("panic", panic.and_then(|p| p.message.clone()));
    fact("cmdline", s.cmdline.clone());
    out
}

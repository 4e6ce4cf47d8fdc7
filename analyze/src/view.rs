//! The views beside the report: each asks one thing, as text or as JSON.

use std::fmt::Write as _;

use crate::report::{ModuleInfo, Report, SystemInfo, TaskInfo, TaskStack, fold};

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
            fold::printable(&name)
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
            fold::printable(&m.name)
        );
    }
    out
}

/// `bt`: a stack with addresses and how each frame was found.
#[must_use]
pub fn stack(s: &TaskStack) -> String {
    let task = s.task.as_ref().map_or("task unknown".into(), |t| {
        format!("{}, pid {}, state {}, task {}", fold::printable(&t.comm), t.pid, t.state, t.addr)
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

/// `sys`: the head of the page and the facts at its end.
#[must_use]
pub fn sys(report: &Report, s: &SystemInfo) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = report.write_headline(&mut out).and_then(|()| report.write_facts(&mut out, s));
    out
}

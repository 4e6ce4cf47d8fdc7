//! What happened: the panic's message or, where an oops crashed the kernel before it came to say
//! "panic", the oops; what was reported before; where.
//!
//! With a capture kernel loaded, an oops that would end in a panic enters the capture kernel from
//! `oops_end`, and "Kernel panic - not syncing" is never printed.
//!
//! Source: arch/x86/kernel/dumpstack.c, `oops_end`; kernel/panic.c.

use serde::Serialize;

use crate::kernel::{Gap, Kernel};
use crate::log::{Log, Record};

const PANIC: &str = "Kernel panic - not syncing: ";

/// Beginnings of log lines that say what went wrong.
const CAUSES: &[&str] = &[
    "BUG: ",
    "kernel BUG at ",
    "Oops: ",
    "general protection fault",
    "divide error: ",
    "invalid opcode: ",
    "stack segment: ",
    "stack guard page: ",
    "int3: ",
    "control protection fault: ",
    "double fault: ",
    "traps: PANIC: ",
    "PANIC: ",
    "kernel tried to execute NX-protected page",
    "list_add corruption",
    "list_del corruption",
    "WARNING: ",
    "watchdog: BUG: ",
    "watchdog: Watchdog detected ",
    "watchdog: CPU",
    "NMI watchdog: BUG: ",
    "NMI watchdog: Watchdog detected ",
    "Uhhuh. NMI received",
    "NMI: ",
    "mce: [Hardware Error]: CPU ",
    "INFO: task ",
    "rcu: INFO: ",
    "Out of memory: ",
    "RIP: 0010:",
    "sysrq: Trigger a crash",
    "panic: Redirected from CPU ",
];

/// What is reported this long before the end can have to do with it: soft lockups repeat every 22 s,
/// hung tasks are found after 120 s, and a slow console stretches it all.
const WINDOW_NS: u64 = 180 * 1_000_000_000;
/// At most so many records are looked through, so that a flood of them does not hide the end.
const WINDOW_RECORDS: usize = 2000;
/// The message stands at most so many records before "Oops: … [#1]": page table entries come between.
const OOPS_HEAD: usize = 8;
/// Causes that are kept: the first and the last half of so many.
const CAUSES_MAX: usize = 16;

/// How the kernel ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// It said "Kernel panic".
    Panic,
    /// An oops entered the capture kernel.
    Oops,
}

/// A line of the log that matters here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line {
    /// Nanoseconds since boot.
    pub ts_ns: u64,
    /// Its text.
    pub text: String,
}

/// What the log says about the end.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Panic {
    /// How it ended, if the log says so.
    pub kind: Option<Kind>,
    /// Text after "Kernel panic - not syncing: ", or the oops' first line.
    pub message: Option<String>,
    /// When it was printed.
    pub ts_ns: Option<u64>,
    /// Lines that name the cause, up to the message.
    pub causes: Vec<Line>,
    /// Position in the log of the record that trouble began with.
    pub begin: Option<usize>,
}

impl Panic {
    /// Looks through the log.
    #[must_use]
    pub fn from_log(log: &Log) -> Self {
        let records = &log.records;
        let starts = |i: usize, with: &str| records[i].text.starts_with(with.as_bytes());
        let first = records.len().saturating_sub(WINDOW_RECORDS);
        // The last words are near the end: after a panic come its registers and call trace.
        let panic = (first..records.len()).rev().find(|&i| starts(i, PANIC));
        let oops = (first..panic.unwrap_or(records.len())).rev().find(|&i| is_oops(&first_line(&records[i])));
        let oops_head = oops.map(|oops| {
            let is_head = |&i: &usize| starts(i, "BUG: ") || starts(i, "kernel BUG at ");
            (oops.saturating_sub(OOPS_HEAD)..oops).rev().find(is_head).unwrap_or(oops)
        });
        let (kind, end) = match (panic, oops_head) {
            (Some(end), _) => (Some(Kind::Panic), end),
            (None, Some(end)) => (Some(Kind::Oops), end),
            (None, None) => (None, records.len().saturating_sub(1)),
        };
        let Some(last) = records.get(end) else { return Self::default() };
        let since = last.ts_ns.saturating_sub(WINDOW_NS);
        // An oops goes on after its first line: what it executed is named below.
        let until = if kind == Some(Kind::Panic) { end } else { records.len() };
        let mut found: Vec<usize> = (first..until)
            .filter(|&i| records[i].ts_ns >= since && CAUSES.iter().any(|c| starts(i, c)))
            .filter(|&i| kind != Some(Kind::Oops) || i != end)
            .collect();
        let begin = found.first().copied().into_iter().chain(kind.map(|_| end)).min();
        if let Some(more @ 1..) = found.len().checked_sub(CAUSES_MAX) {
            found.drain(CAUSES_MAX / 2..CAUSES_MAX / 2 + more);
        }
        Self {
            kind,
            message: kind.map(|_| first_line(last).trim_start_matches(PANIC).to_string()),
            ts_ns: kind.map(|_| last.ts_ns),
            causes: found
                .into_iter()
                .map(|i| Line { ts_ns: records[i].ts_ns, text: first_line(&records[i]) })
                .collect(),
            begin,
        }
    }
}

/// `Oops: 0002 [#1] PREEMPT SMP`, before 6.10 also without "Oops: " in front: `invalid opcode: 0000 [#1]`.
pub(crate) fn is_oops(line: &str) -> bool {
    let number = line.split_once(" [#").map(|(_, rest)| rest);
    number.is_some_and(|n| n.starts_with(|c: char| c.is_ascii_digit()))
        && CAUSES.iter().any(|c| line.starts_with(c))
}

fn first_line(record: &Record) -> String {
    record.text_lossy().lines().next().unwrap_or("").to_string()
}

/// The CPU that panicked.
///
/// `panic_cpu` is set by panic() (and reset if crash_kexec returns), `crashing_cpu` by the x86 crash
/// path. From 7.0 a panic may be moved to another CPU: that one runs the panic.
///
/// # Errors
/// If neither says.
pub fn panic_cpu(k: &Kernel<'_>) -> Result<u32, Gap> {
    let mut last = Gap::Other("no CPU is recorded as panicking".into());
    for name in ["panic_cpu", "crashing_cpu"] {
        match k.symbol(name).and_then(|at| Ok(k.mem.read_u32(at)?)) {
            // -1: none
            Ok(cpu) if cpu < 1 << 16 => return Ok(cpu),
            Ok(_) => {}
            Err(e) => last = e,
        }
    }
    Err(last)
}

/// The CPU that the panic was moved from, if it was (from 7.0, with `panic_force_cpu=`).
///
/// Source: kernel/panic.c, `panic_try_force_cpu`.
#[must_use]
pub fn redirected_from(k: &Kernel<'_>) -> Option<u32> {
    let cpu = k.mem.read_u32(k.symbol("panic_redirect_cpu").ok()?).ok()?;
    (cpu < 1 << 16).then_some(cpu)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Caller;

    fn log(lines: &[&str]) -> Log {
        let records = lines
            .iter()
            .enumerate()
            .map(|(i, l)| Record {
                seq: i as u64,
                ts_ns: i as u64,
                level: 0,
                facility: 0,
                caller: Caller::Task(1),
                text: l.as_bytes().to_vec(),
            })
            .collect();
        Log { records, lost: 0 }
    }

    #[test]
    fn the_last_panic_and_its_causes() {
        let p = Panic::from_log(&log(&[
            "up and running",
            "BUG: kernel NULL pointer dereference, address: 0000000000000008",
            "#PF: supervisor write access in kernel mode",
            "Oops: 0002 [#1] PREEMPT SMP NOPTI",
            "RIP: 0010:die_here+0x5/0x10 [m]",
            "RIP: 0033:0x47b7a0",
            "Kernel panic - not syncing: Fatal exception\nmore",
            "Kernel Offset: 0x1",
        ]));
        assert_eq!((p.kind, p.message.as_deref()), (Some(Kind::Panic), Some("Fatal exception")));
        assert_eq!(p.causes.len(), 3, "{:?}", p.causes);
        assert_eq!(p.causes[2].text, "RIP: 0010:die_here+0x5/0x10 [m]");
        assert_eq!(p.begin, Some(1));
    }

    /// Folklore: with a capture kernel loaded, an oops never comes to say "panic".
    #[test]
    fn an_oops_without_a_panic_is_the_message() {
        let p = Panic::from_log(&log(&[
            "sysrq: Trigger a crash",
            "BUG: kernel NULL pointer dereference, address: 0000000000000000",
            "PGD 0 P4D 0 ",
            "Oops: Oops: 0010 [#1] PREEMPT SMP NOPTI",
            "RIP: 0010:0x0",
        ]));
        assert_eq!(p.kind, Some(Kind::Oops));
        assert_eq!(
            p.message.as_deref(),
            Some("BUG: kernel NULL pointer dereference, address: 0000000000000000")
        );
        let causes: Vec<_> = p.causes.iter().map(|l| l.text.as_str()).collect();
        let oops = "Oops: Oops: 0010 [#1] PREEMPT SMP NOPTI";
        assert_eq!(causes, ["sysrq: Trigger a crash", oops, "RIP: 0010:0x0"]);
        assert_eq!(p.begin, Some(0));
    }

    #[test]
    fn an_oops_may_have_no_line_before_it() {
        let p =
            Panic::from_log(&log(&["fine", "general protection fault: 0000 [#1] SMP", "RIP: 0010:f+0x1"]));
        assert_eq!(p.message.as_deref(), Some("general protection fault: 0000 [#1] SMP"));
        assert_eq!((p.begin, p.causes.len()), (Some(1), 1));
    }

    #[test]
    fn a_log_without_a_panic_says_nothing() {
        assert_eq!(Panic::from_log(&log(&["hello"])), Panic::default());
        assert_eq!(Panic::from_log(&log(&[])), Panic::default());
    }
}

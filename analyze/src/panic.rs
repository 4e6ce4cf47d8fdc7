//! What the panic was: its message, what led to it, where.

use crate::kernel::{Gap, Kernel};
use crate::log::{Log, Record};

const PANIC: &str = "Kernel panic - not syncing: ";

/// Beginnings of log lines that say what went wrong before the panic itself.
const CAUSES: &[&str] = &[
    "BUG: ",
    "kernel BUG at ",
    "Oops: ",
    "general protection fault",
    "divide error: ",
    "invalid opcode: ",
    "stack segment: ",
    "double fault: ",
    "Unable to handle kernel",
    "watchdog: BUG: ",
    "watchdog: Watchdog detected hard LOCKUP",
    "NMI watchdog: ",
    "INFO: task ",
    "rcu: INFO: ",
    "Out of memory: ",
    "RIP: ",
    "sysrq: Trigger a crash",
    "panic: Redirected from CPU ",
];

/// A line of the log that matters here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line {
    /// Nanoseconds since boot.
    pub ts_ns: u64,
    /// Its text.
    pub text: String,
}

/// What the log says about the panic.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Panic {
    /// Text after "Kernel panic - not syncing: ", its first line.
    pub message: Option<String>,
    /// When it was printed.
    pub ts_ns: Option<u64>,
    /// Lines before it that name the cause: those of the last oops or warning.
    pub causes: Vec<Line>,
}

impl Panic {
    /// Looks through the log.
    #[must_use]
    pub fn from_log(log: &Log) -> Self {
        let texts: Vec<(&Record, String)> = log.records.iter().map(|r| (r, r.text_lossy())).collect();
        let first_line = |t: &str| t.lines().next().unwrap_or("").to_string();
        let last_panic = texts.iter().rposition(|(_, t)| t.starts_with(PANIC));
        let end = last_panic.unwrap_or(texts.len());
        // A cause is near: an oops and its registers fill some 60 lines.
        let causes = texts[end.saturating_sub(80)..end]
            .iter()
            .filter(|(_, t)| CAUSES.iter().any(|c| t.starts_with(c)))
            .map(|(r, t)| Line { ts_ns: r.ts_ns, text: first_line(t) })
            .collect();
        Self {
            message: last_panic.map(|i| first_line(&texts[i].1[PANIC.len()..])),
            ts_ns: last_panic.map(|i| texts[i].0.ts_ns),
            causes,
        }
    }
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
            "Kernel panic - not syncing: an earlier one",
            "BUG: kernel NULL pointer dereference, address: 0000000000000008",
            "Oops: 0002 [#1] PREEMPT SMP NOPTI",
            "RIP: 0010:die_here+0x5/0x10 [m]",
            "Kernel panic - not syncing: Fatal exception\nmore",
            "Kernel Offset: 0x1",
        ]));
        assert_eq!(p.message.as_deref(), Some("Fatal exception"));
        assert_eq!(p.causes.len(), 3);
        assert_eq!(p.causes[2].text, "RIP: 0010:die_here+0x5/0x10 [m]");
    }

    #[test]
    fn a_log_without_a_panic_says_nothing() {
        let p = Panic::from_log(&log(&["hello"]));
        assert_eq!(p, Panic::default());
    }
}

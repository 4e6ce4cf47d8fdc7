//! What killed the kernel, as a word, and the function to blame.
//!
//! The word is decided by what the kernel itself printed: panic()'s message, the first lines of an oops. The function
//! comes from a stack: the first frame that is not the machinery by which a kernel panics, oopses, watches or waits.
//! Which stack that is, [`crate::report`] knows.
//!
//! Source: kernel/panic.c; kernel/watchdog.c; kernel/hung_task.c; mm/oom_kill.c; kernel/exit.c; drivers/tty/sysrq.c;
//! arch/x86/kernel/nmi.c, traps.c, dumpstack.c; arch/x86/mm/fault.c.

use serde::Serialize;

use crate::panic::{self, Line, Panic};

/// What killed the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// Somebody asked for it.
    Sysrq,
    /// Access through a null pointer.
    NullDereference,
    /// Access to another address that is not mapped, or not so.
    PageFault,
    /// A non-canonical address, mostly.
    GeneralProtection,
    /// BUG().
    Bug,
    /// Division by zero, or its overflow.
    DivideError,
    /// An instruction that is none, and no BUG().
    InvalidOpcode,
    /// A stack ran over.
    StackOverflow,
    /// A stack's canary was overwritten.
    StackCorruption,
    /// A fault while a fault was delivered.
    DoubleFault,
    /// A non-maskable interrupt that nobody claimed, or that reports an error of the hardware.
    Nmi,
    /// A CPU took no interrupts.
    HardLockup,
    /// A CPU ran no other task.
    SoftLockup,
    /// A task was blocked for too long.
    HungTask,
    /// No memory was left.
    OutOfMemory,
    /// The first process ended.
    InitKilled,
    /// The hardware reported an error that cannot be corrected.
    MachineCheck,
    /// A grace period did not end.
    RcuStall,
    /// A warning, where these are to panic.
    Warning,
    /// Another oops.
    Oops,
    /// panic() for a reason not known here, called in an interrupt.
    PanicInInterrupt,
    /// panic() for a reason not known here.
    Panic,
}

use Cause::{
    Bug, DivideError, DoubleFault, GeneralProtection, HardLockup, HungTask, InitKilled, InvalidOpcode,
    MachineCheck, Nmi, NullDereference, Oops, OutOfMemory, PageFault, PanicInInterrupt, RcuStall, SoftLockup,
    StackCorruption, StackOverflow, Sysrq, Warning,
};

/// Beginnings of what panic() is told.
const MESSAGES: &[(&str, Cause)] = &[
    ("sysrq triggered crash", Sysrq),
    ("Attempted to kill init!", InitKilled),
    ("Out of memory", OutOfMemory),
    ("System is deadlocked on memory", OutOfMemory),
    ("hung_task: ", HungTask),
    ("softlockup: ", SoftLockup),
    ("Hard LOCKUP", HardLockup),
    ("Watchdog detected hard LOCKUP", HardLockup),
    ("NMI", Nmi),
    ("RCU Stall", RcuStall),
    ("Fatal machine check", MachineCheck),
    ("Fatal local machine check", MachineCheck),
    ("Timeout: Not all CPUs entered broadcast exception handler", MachineCheck),
    ("stack-protector: ", StackCorruption),
    ("corrupted stack end detected", StackOverflow),
    ("kernel stack overflow", StackOverflow),
];

/// What such messages have in them.
const PARTS: &[(&str, Cause)] = &[("stack guard page", StackOverflow), ("panic_on_warn set", Warning)];

/// What the first line of an oops, or the line that names its kind, has in it; the first that fits counts.
const OOPSES: &[(&str, Cause)] = &[
    ("stack guard page", StackOverflow),
    ("NULL pointer dereference", NullDereference),
    ("unable to handle", PageFault),
    ("kernel BUG at ", Bug),
    ("general protection", GeneralProtection),
    ("double fault", DoubleFault),
    ("divide error", DivideError),
    ("invalid opcode", InvalidOpcode),
];

/// Messages that end an oops; what happened stands in that.
const AFTER_AN_OOPS: &[&str] = &["Fatal exception", "Aiee, killing interrupt handler!"];

/// What the log says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// The cause.
    pub cause: Cause,
    /// The line that says so.
    pub evidence: String,
}

impl Cause {
    /// The word for it, as in the report.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Sysrq => "sysrq",
            NullDereference => "null-dereference",
            PageFault => "page-fault",
            GeneralProtection => "general-protection",
            Bug => "bug",
            DivideError => "divide-error",
            InvalidOpcode => "invalid-opcode",
            StackOverflow => "stack-overflow",
            StackCorruption => "stack-corruption",
            DoubleFault => "double-fault",
            Nmi => "nmi",
            HardLockup => "hard-lockup",
            SoftLockup => "soft-lockup",
            HungTask => "hung-task",
            OutOfMemory => "out-of-memory",
            InitKilled => "init-killed",
            MachineCheck => "machine-check",
            RcuStall => "rcu-stall",
            Warning => "warning",
            Oops => "oops",
            PanicInInterrupt => "panic-in-interrupt",
            Self::Panic => "panic",
        }
    }

    /// Whether the function to blame is the one that was interrupted, or that faulted.
    #[must_use]
    pub fn is_interruption(self) -> bool {
        !matches!(
            self,
            Sysrq
                | StackCorruption
                | HungTask
                | OutOfMemory
                | InitKilled
                | Warning
                | PanicInInterrupt
                | Self::Panic
        )
    }

    /// Reads it from what was found in the log; `None` if that has no end.
    #[must_use]
    pub fn decide(panic: &Panic) -> Option<Verdict> {
        let message = panic.message.as_deref()?;
        let verdict = |cause, evidence: &str| Some(Verdict { cause, evidence: evidence.to_owned() });
        if panic.kind == Some(panic::Kind::Oops) {
            return verdict(oops(message), message);
        }
        if AFTER_AN_OOPS.iter().any(|text| message.starts_with(text)) {
            let line = oops_before(&panic.causes).unwrap_or(message);
            return verdict(oops(line), line);
        }
        let known = MESSAGES.iter().find(|(text, _)| message.starts_with(text));
        let known = known.or_else(|| PARTS.iter().find(|(text, _)| message.contains(text)));
        let Some(&(_, cause)) = known else { return verdict(Self::Panic, message) };
        // The watchdogs say more in the line before.
        let says_more = |text: &&str| match cause {
            HungTask => hung_pid(text).is_some(),
            SoftLockup => text.contains("soft lockup"),
            HardLockup => text.contains("hard LOCKUP"),
            Nmi => text.starts_with("Uhhuh. NMI received"),
            _ => false,
        };
        verdict(cause, texts(&panic.causes).rfind(says_more).unwrap_or(message))
    }
}

fn texts(lines: &[Line]) -> impl DoubleEndedIterator<Item = &str> {
    lines.iter().map(|line| line.text.as_str())
}

/// The kind of an oops, by its first line.
fn oops(line: &str) -> Cause {
    OOPSES.iter().find(|(part, _)| line.contains(part)).map_or(Oops, |&(_, cause)| cause)
}

/// The first line of the last oops: `BUG: …`, or the line with the trap's name.
fn oops_before(causes: &[Line]) -> Option<&str> {
    let last = causes.iter().rposition(|line| panic::is_oops(&line.text))?;
    let head = last.checked_sub(1).and_then(|before| causes.get(before)).map(|line| line.text.as_str());
    let head = head.filter(|text| text.starts_with("BUG: ") || text.starts_with("kernel BUG at "));
    Some(head.unwrap_or(&causes[last].text))
}

/// The thread that `INFO: task NAME:PID blocked for more than …` speaks of, or `… blocked in I/O wait for more than …`;
/// names may have colons.
#[must_use]
pub fn hung_pid(text: &str) -> Option<u32> {
    let (task, how) = text.strip_prefix("INFO: task ")?.rsplit_once(" blocked ")?;
    if !how.contains("for more than ") {
        // Who holds what it waits for.
        return None;
    }
    task.rsplit_once(':')?.1.parse().ok()
}

/// The CPU that a line about a lock-up names: `soft lockup - CPU#1 stuck …`, `hard LOCKUP on cpu 1`.
#[must_use]
pub fn locked_cpu(text: &str) -> Option<u32> {
    let rest = text.split_once("CPU#").or_else(|| text.split_once("hard LOCKUP on cpu "))?.1;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest.get(..end)?.parse().ok()
}

/// By which a kernel comes from what happened to the capture kernel.
const PANICKING: &[&str] = &[
    "__crash_kexec",
    "crash_kexec",
    "panic",
    "vpanic",
    "nmi_panic",
    "check_panic_on_warn",
    "oops_end",
    "__warn",
    "__warn_printf",
    "warn_slowpath_fmt",
    "report_bug",
    "__report_bug",
    "handle_bug",
    "__stack_chk_fail",
];

/// By which it waits; each is the beginning of a name.
const WAITING: &[&str] = &[
    "__schedule",
    "schedule",
    "preempt_schedule",
    "io_schedule",
    "__io_schedule",
    "blk_io_schedule",
    "__switch_to",
    "context_switch",
    "__wait_",
    "wait_for_",
    "wait_on_",
    "do_wait_for_common",
    "out_of_line_wait_",
    "bit_wait",
    "folio_wait_",
    "__folio_lock",
    "mutex_lock",
    "__mutex_lock",
    "rwsem_",
    "__down",
    "down",
    "percpu_rwsem_",
    "percpu_down_",
    "__percpu_",
    "rt_mutex_",
    "__rt_mutex_",
    "synchronize_",
];

/// By which it waits for a lock without sleeping.
const SPINNING: &[&str] =
    &["native_queued_spin_lock_", "__pv_queued_spin_lock_", "queued_", "_raw_", "do_raw_"];

/// A frame, as far as it matters here.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Function, if it has a name.
    pub symbol: Option<&'a str>,
    /// Whether an exception or interrupt struck here.
    pub is_interrupted: bool,
}

/// Which frame of the stack is to blame, if any is.
#[must_use]
pub fn blame(cause: Cause, frames: &[Frame<'_>]) -> Option<usize> {
    let names = |frame: &Frame<'_>, list: &[&str]| frame.symbol.is_some_and(|s| list.contains(&stem(s)));
    let begins = |frame: &Frame<'_>, list: &[&str]| {
        frame.symbol.is_some_and(|s| list.iter().any(|begin| s.starts_with(begin)))
    };
    let mut at = match cause {
        HungTask => frames.iter().position(|f| !begins(f, WAITING))?,
        // die() hands over the registers of the fault itself.
        _ if cause.is_interruption() && !names(frames.first()?, PANICKING) => 0,
        _ if cause.is_interruption() => 1 + frames.get(1..)?.iter().position(|f| f.is_interrupted)?,
        _ => frames.iter().position(|f| !names(f, PANICKING))?,
    };
    if cause == Warning && begins(frames.get(at)?, &["exc_", "asm_exc_"]) {
        at += frames.get(at..)?.iter().position(|f| f.is_interrupted)?;
    }
    if matches!(cause, SoftLockup | HardLockup) {
        at += frames.get(at..)?.iter().position(|f| !begins(f, SPINNING))?;
    }
    // A jump to nowhere: who called is to blame.
    at += frames.get(at..)?.iter().position(|f| f.symbol.is_some())?;
    Some(at)
}

/// Whether the frame ran in an interrupt: one struck a frame further out.
#[must_use]
pub fn is_in_interrupt(frames: &[Frame<'_>], at: usize) -> bool {
    let entries = ["asm_sysvec_", "asm_common_interrupt", "asm_spurious_interrupt"];
    let outer = frames.get(at..).unwrap_or_default();
    outer.iter().filter_map(|f| f.symbol).any(|s| entries.iter().any(|entry| s.starts_with(entry)))
}

/// A symbol without what the compiler adds: `.cold`, `.isra.0`.
fn stem(symbol: &str) -> &str {
    symbol.split_once('.').map_or(symbol, |(stem, _)| stem)
}

#[cfg(test)]
mod tests;

//! The report: everything the default answer says, as data.
//!
//! The JSON shape is a contract: `docs/report-schema.md`. Every section says whether it is present,
//! partial or absent and why; every field may be null; addresses are strings of 16 hexadecimal
//! digits, since JSON's numbers cannot hold them. [`Report::build`] never fails: what cannot be had
//! is a section that says so.

mod build;
mod cause;
mod convert;
pub(crate) mod fold;
mod panic_path;
mod stacks;

pub use build::Inquiry;
pub use panic_path::{ExceptionInfo, PanicPathInfo, PhaseInfo, RegionInfo};

mod text;

use std::collections::BTreeMap;

use serde::Serialize;

pub use crate::cause::Cause;
pub use crate::panic::Kind;

/// Version of the JSON shape: raised when a field changes its meaning or goes away.
pub const SCHEMA_VERSION: u32 = 1;

/// How much of a section there is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// All of it.
    Present,
    /// Some of it; the reasons say what is missing.
    Partial,
    /// None of it.
    Absent,
}

/// A part of the report with what is missing from it.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Section<T> {
    /// How much of it there is.
    pub status: Status,
    /// What is missing, and why.
    pub reasons: Vec<String>,
    /// The content; null if absent.
    pub data: Option<T>,
}

impl<T> Section<T> {
    fn absent(reason: impl ToString) -> Self {
        Self { status: Status::Absent, reasons: vec![reason.to_string()], data: None }
    }
    fn of(data: T, reasons: Vec<String>) -> Self {
        let status = if reasons.is_empty() { Status::Present } else { Status::Partial };
        Self { status, reasons, data: Some(data) }
    }
}

/// What happened.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Report {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The program that made the report, and its version.
    pub generator: String,
    /// Whether every section is present.
    pub complete: bool,
    /// What a reader should know before believing the rest; empty for a healthy dump.
    pub warnings: Vec<String>,
    /// The panic itself.
    pub panic: Section<PanicInfo>,
    /// The system.
    pub system: Section<SystemInfo>,
    /// The stack of the task that panicked.
    pub panic_stack: Section<StackInfo>,
    /// What every CPU was doing.
    pub cpus: Section<Vec<CpuInfo>>,
    /// The tasks.
    pub tasks: Section<TasksInfo>,
    /// The modules.
    pub modules: Section<Vec<ModuleInfo>>,
    /// The end of the kernel log.
    pub log: Section<LogInfo>,
    /// What ran between the crash and the capture kernel.
    pub panic_path: Section<PanicPathInfo>,
    /// The dump file.
    pub dump: DumpInfo,
}

/// The panic.
#[derive(Clone, PartialEq, Debug, Serialize, Default)]
pub struct PanicInfo {
    /// How the kernel ended: panic or oops.
    pub kind: Option<Kind>,
    /// What panic() was told, or the first line of the oops.
    pub message: Option<String>,
    /// What killed the kernel, and where, as far as log and stacks tell.
    pub cause: Option<CauseInfo>,
    /// Log lines around it that name the cause.
    pub causes: Vec<LogLine>,
    /// CPU that panicked.
    pub cpu: Option<u32>,
    /// CPU that the panic was moved from (`panic_force_cpu=`, 7.0): where the trouble was.
    pub redirected_from: Option<u32>,
    /// Task that panicked.
    pub task: Option<TaskInfo>,
    /// Seconds since 1970.
    pub time: Option<i64>,
    /// The same as text, UTC.
    pub time_utc: Option<String>,
    /// Seconds from boot to the panic's message.
    pub after_boot: Option<f64>,
}

/// What killed the kernel.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct CauseInfo {
    /// A word for it.
    pub kind: Cause,
    /// What the kernel printed that says so.
    pub evidence: String,
    /// The function to blame: where it faulted, looped or waited, or who called panic().
    pub function: Option<FrameInfo>,
    /// Whether that function ran in an interrupt.
    pub in_interrupt: Option<bool>,
    /// The task it ran in, or that was interrupted: not the panicking one where a task hung or another CPU locked up.
    pub task: Option<TaskInfo>,
}

/// The system.
#[derive(Clone, PartialEq, Debug, Serialize, Default)]
pub struct SystemInfo {
    /// `uname -r`.
    pub release: Option<String>,
    /// `uname -v`.
    pub version: Option<String>,
    /// `uname -n`.
    pub hostname: Option<String>,
    /// `uname -m`.
    pub machine: Option<String>,
    /// Build ID of the kernel.
    pub build_id: Option<String>,
    /// Kernel command line.
    pub cmdline: Option<String>,
    /// Taint letters, empty for none.
    pub taints: Option<String>,
    /// Seconds since boot.
    pub uptime: Option<u64>,
    /// Load averages over 1, 5, 15 minutes.
    pub load: Option<[f64; 3]>,
    /// CPUs online.
    pub cpus_online: Option<usize>,
    /// CPUs possible.
    pub cpus_possible: Option<usize>,
    /// Bytes of memory described by the dump.
    pub memory_bytes: u64,
    /// Bytes that the kernel managed: MemTotal.
    pub memory_total_bytes: Option<u64>,
    /// Bytes of it that were free.
    pub memory_free_bytes: Option<u64>,
    /// Bytes KASLR moved the kernel, as an address.
    pub kaslr_offset: Option<String>,
    /// 4 or 5.
    pub paging_levels: u32,
}

/// One stack.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct StackInfo {
    /// Innermost first.
    pub frames: Vec<FrameInfo>,
    /// Why there are no more frames, in words.
    pub stop: String,
    /// Whether it ends where a stack should.
    pub clean: bool,
    /// How many frames rest on a guess: found by scan, and no call confirms them.
    pub guessed: usize,
    /// Whether the stack had overflowed.
    pub overflowed: bool,
}

/// One frame.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct FrameInfo {
    /// Instruction pointer.
    pub ip: String,
    /// Stack pointer.
    pub sp: String,
    /// How it was found: regs, orc, frame-pointer, scan.
    pub trust: String,
    /// Function.
    pub symbol: Option<String>,
    /// Bytes from its start.
    pub offset: Option<u64>,
    /// Bytes to the next symbol.
    pub size: Option<u64>,
    /// Module it belongs to.
    pub module: Option<String>,
    /// Whether it was interrupted here (exception, interrupt) rather than having called.
    pub interrupted: bool,
}

impl FrameInfo {
    /// `function+0xoffset/0xsize [module]`, or the bare address.
    #[must_use]
    pub fn text(&self) -> String {
        let Some(symbol) = &self.symbol else { return self.ip.clone() };
        let mut out = format!("{symbol}+{:#x}", self.offset.unwrap_or(0));
        if let Some(size) = self.size {
            out += &format!("/{size:#x}");
        }
        if let Some(module) = &self.module {
            out += &format!(" [{module}]");
        }
        out
    }
}

/// One CPU.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct CpuInfo {
    /// Its number.
    pub cpu: u32,
    /// Whether it was online.
    pub online: bool,
    /// Whether it ran the panic.
    pub panicked: bool,
    /// Whether it answered at the crash and left its registers.
    pub registers_saved: bool,
    /// The task it was running.
    pub task: Option<TaskInfo>,
    /// Its stack.
    pub stack: Option<StackInfo>,
    /// What is missing.
    pub reasons: Vec<String>,
}

/// A stack and whose it is: what the view `bt` shows.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct TaskStack {
    /// The CPU it was running on; null if it was not.
    pub cpu: Option<u32>,
    /// Whether that CPU ran the panic.
    pub panicked: bool,
    /// The task.
    pub task: Option<TaskInfo>,
    /// Its stack.
    pub stack: Option<StackInfo>,
    /// What is missing.
    pub reasons: Vec<String>,
}

impl TaskStack {
    fn on_cpu(c: CpuInfo) -> Self {
        Self { cpu: Some(c.cpu), panicked: c.panicked, task: c.task, stack: c.stack, reasons: c.reasons }
    }
}

/// One task.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct TaskInfo {
    /// Its task_struct.
    pub addr: String,
    /// Thread id.
    pub pid: u32,
    /// Process id.
    pub tgid: u32,
    /// Process id of its parent.
    pub ppid: Option<u32>,
    /// Name.
    pub comm: String,
    /// State letter of ps(1).
    pub state: String,
    /// CPU it ran on last.
    pub cpu: Option<u32>,
    /// Whether it was executing.
    pub running: bool,
    /// Whether it is a kernel thread.
    pub kernel_thread: bool,
    /// User id.
    pub uid: Option<u32>,
    /// Seconds after boot that it started.
    pub start: Option<u64>,
}

/// The tasks.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct TasksInfo {
    /// How many.
    pub count: usize,
    /// How many in each state.
    pub by_state: BTreeMap<String, usize>,
    /// All of them, by thread id.
    pub list: Vec<TaskInfo>,
    /// Stacks of tasks in uninterruptible sleep, by thread id; at most 16.
    pub blocked: BTreeMap<u32, StackInfo>,
}

/// One module.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ModuleInfo {
    /// Name.
    pub name: String,
    /// Where its text is.
    pub text: String,
    /// Bytes of all its pieces.
    pub size: u64,
    /// live, coming, going.
    pub state: String,
    /// Taint letters.
    pub taints: String,
    /// Build ID.
    pub build_id: Option<String>,
}

/// The kernel log.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct LogInfo {
    /// Records in the ring.
    pub records: usize,
    /// Records whose text is lost.
    pub lost: u64,
    /// The records up to the first that names a cause, or the panic itself: what led there. Empty
    /// if the log knows of no trouble.
    pub leading_up: Vec<LogLine>,
    /// The last records of all; after a panic mostly its registers and call trace.
    pub tail: Vec<LogLine>,
}

/// One log record.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct LogLine {
    /// Seconds after boot.
    pub time: f64,
    /// syslog level, 0 to 7.
    pub level: Option<u8>,
    /// Text.
    pub text: String,
}

/// The dump file.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct DumpInfo {
    /// ELF core or kdump-compressed.
    pub format: String,
    /// Whether its writing was cut short.
    pub incomplete: bool,
    /// CPUs that left a note.
    pub cpu_notes: usize,
}

impl Report {
    /// Whether it has nothing to tell of the kernel: no log, no task, no CPU. A dump cut very early
    /// ends so.
    #[must_use]
    pub const fn is_void(&self) -> bool {
        self.log.data.is_none() && self.tasks.data.is_none() && self.cpus.data.is_none()
    }

    /// The JSON form, indented.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Plain data with string keys: serializing it cannot fail.
        serde_json::to_string_pretty(self).unwrap_or_default()
    }
}

/// An address as the report writes it.
#[must_use]
pub fn hex(addr: kdump_arch_x86::VirtAddr) -> String {
    format!("{:#018x}", addr.0)
}

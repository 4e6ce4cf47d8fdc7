//! Asking the kernel, section by section.

use std::collections::BTreeMap;

use kdump_arch_x86::VirtAddr;
use kdump_arch_x86::paging::Mode;

use super::convert::{line, module_info, seconds, task_info};
use super::stacks::Stacks;
use super::{
    CpuInfo, DumpInfo, LogInfo, LogLine, ModuleInfo, PanicInfo, PanicPathInfo, Report, SCHEMA_VERSION,
    Section, Status, SystemInfo, TasksInfo, hex, panic_path,
};
use crate::kernel::{Gap, Kernel};
use crate::log::{Log, Record};
use crate::modules::{self, Module};
use crate::panic::{Panic, panic_cpu, redirected_from};
use crate::panic_path::PanicPath;
use crate::percpu::Cpus;
use crate::sys::{System, utc};
use crate::tasks::Tasks;
use crate::unwind::Start;

/// Records of the log's end, and of what led up to the trouble, that the report carries.
const LOG_TAIL: usize = 40;
/// Gaps of the unwinder that are told.
const UNWIND_GAPS: usize = 2;
/// Tasks in uninterruptible sleep whose stacks the report carries.
const BLOCKED_MAX: usize = 64;

impl Report {
    /// Asks everything.
    #[must_use]
    pub fn build(k: &Kernel<'_>) -> Self {
        Inquiry::new(k).report()
    }
}

/// What the sections share, each as far as it could be had.
pub struct Inquiry<'k, 'd> {
    pub(super) k: &'k Kernel<'d>,
    log: Result<Log, Gap>,
    cpus: Result<Cpus, Gap>,
    pub(super) tasks: Result<Tasks, Gap>,
    modules: Result<Vec<Module>, Gap>,
    module_gaps: Vec<Gap>,
}

impl<'k, 'd> Inquiry<'k, 'd> {
    /// Reads log, CPUs, tasks and modules.
    #[must_use]
    pub fn new(k: &'k Kernel<'d>) -> Self {
        let cpus = Cpus::read(k);
        let tasks = Tasks::read(k, cpus.as_ref().ok());
        let mut module_gaps = Vec::new();
        let modules = modules::read(k, &mut module_gaps);
        Self { k, log: Log::read(&k.mem, k.info), cpus, tasks, modules, module_gaps }
    }

    /// The module list, empty if unknown.
    pub(super) fn module_list(&self) -> &[Module] {
        self.modules.as_deref().unwrap_or_default()
    }

    /// Puts the report together.
    #[must_use]
    pub fn report(&self) -> Report {
        let stacks = Stacks::new(self.k, self.module_list());
        let cpus = self.cpus_section(&stacks);
        let panic_stack = match cpus.data.iter().flatten().find(|c| c.panicked) {
            Some(CpuInfo { stack: Some(stack), reasons, .. }) => Section::of(stack.clone(), reasons.clone()),
            Some(cpu) => Section::absent(cpu.reasons.join("; ")),
            None => Section::absent("the panicking CPU is unknown"),
        };
        let system = self.system();
        let mut report = Report {
            schema_version: SCHEMA_VERSION,
            generator: concat!("kdump-rs ", env!("CARGO_PKG_VERSION")).into(),
            complete: false,
            warnings: Vec::new(),
            panic: self.panic(&stacks, &cpus),
            system,
            panic_stack,
            cpus,
            tasks: self.tasks_section(&stacks),
            modules: self.modules_section(),
            log: self.log_section(),
            panic_path: self.panic_path_section(),
            dump: self.dump(),
        };
        report.warnings = self.warnings(&stacks, report.dump.incomplete);
        report.warnings.extend(report.panic_path.data.iter().flat_map(PanicPathInfo::alarms));
        let statuses = [
            report.panic.status,
            report.system.status,
            report.panic_stack.status,
            report.cpus.status,
            report.tasks.status,
            report.modules.status,
            report.log.status,
        ];
        report.complete = report.warnings.is_empty() && statuses.iter().all(|s| *s == Status::Present);
        report
    }

    fn warnings(&self, stacks: &Stacks<'_, '_>, is_incomplete: bool) -> Vec<String> {
        let mut out = Vec::new();
        if is_incomplete {
            out.push("the dump is incomplete: the file was cut short, or its writing never ended".into());
        }
        out.extend(self.k.gaps.iter().map(ToString::to_string));
        let unwinding = stacks.unwinder.gaps();
        out.extend(unwinding.iter().take(UNWIND_GAPS).map(|gap| format!("unwinding: {gap}")));
        if let Some(more @ 1..) = unwinding.len().checked_sub(UNWIND_GAPS) {
            out.push(format!("unwinding: {more} more like these"));
        }
        out
    }

    fn panic(&self, stacks: &Stacks<'_, '_>, cpus: &Section<Vec<CpuInfo>>) -> Section<PanicInfo> {
        let mut reasons = Vec::new();
        let found = match &self.log {
            Ok(log) => Panic::from_log(log),
            Err(e) => {
                reasons.push(e.to_string());
                Panic::default()
            }
        };
        if found.kind.is_none() && self.log.is_ok() {
            reasons.push("the log has neither a panic nor an oops: none happened, or it was lost".into());
        }
        let panicked = cpus.data.iter().flatten().find(|c| c.panicked);
        if panicked.is_none() {
            reasons.push(
                panic_cpu(self.k).err().map_or("the panicking CPU is unknown".into(), |e| e.to_string()),
            );
        }
        let time = self.k.info.crash_time();
        let cause = self.cause(stacks, &found, cpus.data.as_deref().unwrap_or_default());
        let info = PanicInfo {
            kind: found.kind,
            cause,
            message: found.message,
            causes: found.causes.iter().map(|l| line(l.ts_ns, None, l.text.clone())).collect(),
            cpu: panicked.map(|c| c.cpu),
            redirected_from: redirected_from(self.k),
            task: panicked.and_then(|c| c.task.clone()),
            time,
            time_utc: time.map(utc),
            after_boot: found.ts_ns.map(seconds),
        };
        Section::of(info, reasons)
    }

    /// Absent in dumps that were not armed by us, which is no gap of the answer.
    fn panic_path_section(&self) -> Section<PanicPathInfo> {
        let log = self.log.as_ref().ok();
        let message_ns = log.and_then(|log| Panic::from_log(log).ts_ns);
        let path = PanicPath::read(self.k, self.cpus.as_ref().ok(), panic_cpu(self.k).ok(), log);
        panic_path::section(path, message_ns)
    }

    fn system(&self) -> Section<SystemInfo> {
        let s = System::read(self.k);
        let info = SystemInfo {
            release: s.release,
            version: s.version,
            hostname: s.hostname,
            machine: s.machine,
            build_id: s.build_id,
            cmdline: s.cmdline,
            taints: s.taints,
            uptime: s.uptime,
            load: s.load.map(|l| l.map(|v| v as f64 / 100.0)),
            cpus_online: self.cpus.as_ref().ok().map(|c| c.online.len()),
            cpus_possible: self.cpus.as_ref().ok().map(|c| c.possible.len()),
            memory_bytes: s.memory,
            memory_total_bytes: s.memory_total,
            memory_free_bytes: s.memory_free,
            kaslr_offset: self.k.info.kernel_offset().map(|o| hex(VirtAddr(o))),
            paging_levels: if self.k.mem.space().mode == Mode::FiveLevel { 5 } else { 4 },
        };
        Section::of(info, s.gaps.iter().map(ToString::to_string).collect())
    }

    /// What each online CPU, and any that left registers, was doing.
    pub(super) fn cpus_section(&self, stacks: &Stacks<'_, '_>) -> Section<Vec<CpuInfo>> {
        let cpus = match &self.cpus {
            Ok(cpus) => cpus,
            Err(e) => return Section::absent(e),
        };
        let panicked = panic_cpu(self.k).ok();
        let mut reasons = Vec::new();
        let mut list = Vec::new();
        for &(cpu, _) in &cpus.possible {
            let online = cpus.online.contains(&cpu);
            let registers = cpus.registers(self.k, cpu);
            if !online && !matches!(registers, Ok(Some(_))) {
                continue;
            }
            let mut info = CpuInfo {
                cpu,
                online,
                panicked: panicked == Some(cpu),
                registers_saved: false,
                task: None,
                stack: None,
                reasons: Vec::new(),
            };
            let tasks = self.tasks.as_ref().ok();
            let task = match cpus.current_task(self.k, cpu) {
                Ok(at) => tasks.and_then(|t| t.at(at)),
                Err(e) => {
                    info.reasons.push(format!("its current task: {e}"));
                    // The note says which it was, except for an idle one.
                    let pid = registers.as_ref().ok().and_then(|r| Some(r.as_ref()?.pr_pid.get()));
                    let pid = pid.filter(|pid| *pid != 0);
                    tasks.and_then(|t| t.list.iter().find(|t| Some(t.pid) == pid))
                }
            };
            info.task = task.map(task_info);
            match registers {
                Ok(Some(note)) => {
                    info.registers_saved = true;
                    let stack = stacks.unwinder.unwind(
                        Start::Regs(note.pr_reg.regs),
                        task.and_then(|t| t.stack).map(|s| s.0..s.0.saturating_add(stacks.thread_size)),
                        Some(cpu),
                    );
                    let stack = stacks.info(&stack);
                    if !stack.clean {
                        info.reasons.push(format!("its stack is not whole: {}", stack.stop));
                    }
                    info.stack = Some(stack);
                }
                Ok(None) => info.reasons.push("it left no registers: it did not answer at the crash".into()),
                Err(e) => info.reasons.push(format!("its registers: {e}")),
            }
            reasons.extend(info.reasons.iter().map(|r| format!("CPU {cpu}: {r}")));
            list.push(info);
        }
        Section::of(list, reasons)
    }

    fn tasks_section(&self, stacks: &Stacks<'_, '_>) -> Section<TasksInfo> {
        let tasks = match &self.tasks {
            Ok(tasks) => tasks,
            Err(e) => return Section::absent(e),
        };
        let mut by_state = BTreeMap::new();
        for t in &tasks.list {
            *by_state.entry(t.state.to_string()).or_insert(0) += 1;
        }
        let blocked = tasks.list.iter().filter(|t| t.state == 'D').take(BLOCKED_MAX);
        let blocked = blocked.filter_map(|t| Some((t.pid, stacks.sleeping(t)?))).collect();
        let list: Vec<_> = tasks.list.iter().map(task_info).collect();
        let info = TasksInfo { count: list.len(), by_state, list, blocked };
        Section::of(info, tasks.gaps.iter().map(ToString::to_string).collect())
    }

    fn modules_section(&self) -> Section<Vec<ModuleInfo>> {
        match &self.modules {
            Ok(list) => Section::of(
                list.iter().map(module_info).collect(),
                self.module_gaps.iter().map(ToString::to_string).collect(),
            ),
            Err(e) => Section::absent(e),
        }
    }

    fn log_section(&self) -> Section<LogInfo> {
        let log = match &self.log {
            Ok(log) => log,
            Err(e) => return Section::absent(e),
        };
        let last = |records: &[Record]| -> Vec<LogLine> {
            let tail = &records[records.len().saturating_sub(LOG_TAIL)..];
            tail.iter().map(|r| line(r.ts_ns, Some(r.level), r.text_lossy())).collect()
        };
        let leading_up = Panic::from_log(log).begin.map_or(0, |i| i + 1);
        Section::of(
            LogInfo {
                records: log.records.len(),
                lost: log.lost,
                leading_up: last(&log.records[..leading_up]),
                tail: last(&log.records),
            },
            if log.lost > 0 {
                vec![format!("{} records have lost their text", log.lost)]
            } else {
                Vec::new()
            },
        )
    }

    fn dump(&self) -> DumpInfo {
        let d = self.k.dump;
        DumpInfo {
            format: format!("{}{}", d.format(), d.wrapping()),
            incomplete: d.is_incomplete(),
            cpu_notes: d.prstatus().len(),
        }
    }
}

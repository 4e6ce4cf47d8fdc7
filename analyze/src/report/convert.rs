//! What the kernel has, as the report writes it.

use kdump_arch_x86::VirtAddr;

use super::{LogLine, ModuleInfo, TaskInfo, hex};
use crate::modules::Module;
use crate::sys::taint_letters;
use crate::tasks::Task;

pub(super) fn task_info(t: &Task) -> TaskInfo {
    TaskInfo {
        addr: hex(t.addr),
        pid: t.pid,
        tgid: t.tgid,
        ppid: t.ppid,
        comm: t.comm.clone(),
        state: t.state.to_string(),
        cpu: t.cpu,
        running: t.is_running,
        kernel_thread: t.is_kernel_thread,
        uid: t.uid,
        start: t.start_ns.map(|ns| ns / 1_000_000_000),
    }
}

pub(super) fn module_info(m: &Module) -> ModuleInfo {
    let state = match m.state {
        0 => "live".into(),
        1 => "coming".into(),
        2 => "going".into(),
        n => format!("state {n}"),
    };
    ModuleInfo {
        name: m.name.clone(),
        text: hex(VirtAddr(m.text.start)),
        size: m.size,
        state,
        taints: taint_letters(m.taints),
        build_id: m.build_id.clone(),
    }
}

pub(super) fn line(ts_ns: u64, level: Option<u8>, text: String) -> LogLine {
    LogLine { time: seconds(ts_ns), level, text }
}

/// Nanoseconds as seconds with microseconds: what the log shows, and what a double holds exactly enough.
pub(super) fn seconds(ns: u64) -> f64 {
    (ns / 1000) as f64 / 1e6
}

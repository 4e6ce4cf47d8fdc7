//! The end of the guest: what a crash needs beforehand, and the crash itself.

use std::fs;
use std::hint::black_box;
use std::path::Path;

use rustix::io::Errno;
use rustix::process::Pid;
use rustix::system::init_module;
use rustix::thread::{CpuSet, sched_setaffinity};

use super::{Failure, because, say};
use crate::phase::BUTTON_WANTED;
use crate::{Crash, trigger};

/// What is taken at once where memory is to run out.
const BITE: usize = 8 << 20;
const PAGE: usize = 4096;

/// Makes ready for a crash, before the capture kernel is loaded.
pub(super) fn prepare(crash: Crash) -> Result<(), Failure> {
    if !crash.needs_module() {
        return Ok(());
    }
    let module = fs::read(trigger::GUEST_PATH).map_err(because(trigger::GUEST_PATH))?;
    match init_module(&module, c"") {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(e) => Err(format!("cannot load {}: {e}", trigger::GUEST_PATH)),
    }
}

/// Tells the kernel what to take for a panic. Last, so that nothing but what was asked for is one.
pub(super) fn configure(crash: Crash, cpu: Option<u32>) -> Result<(), Failure> {
    if let (Crash::HungTask, Some(cpu)) = (crash, cpu) {
        // Who finds the task panics.
        move_to(cpu, Some(find_task("khungtaskd")?))?;
    }
    for (name, value) in crash.sysctls() {
        let path = Path::new("/proc/sys").join(name);
        fs::write(&path, value).map_err(because(&format!("cannot write {value} to {}", path.display())))?;
    }
    Ok(())
}

/// Crashes; returns where that takes time, or fails.
pub(super) fn crash(crash: Crash) -> Result<(), Failure> {
    match crash {
        Crash::Sysrq => fs::write("/proc/sysrq-trigger", "c").map_err(because("cannot crash")),
        Crash::Oom => take_all_memory(),
        Crash::NmiButton => {
            say(BUTTON_WANTED);
            loop {
                black_box(());
            }
        }
        // PID 1.
        Crash::KilledInit => std::process::exit(1),
        _ => fs::write(trigger::GUEST_CONTROL, crash.name())
            .map_err(because(&format!("cannot write {crash} to {}", trigger::GUEST_CONTROL))),
    }
}

/// Moves a task, or this one, to a CPU.
pub(super) fn move_to(cpu: u32, task: Option<Pid>) -> Result<(), Failure> {
    let mut cpus = CpuSet::new();
    if cpu as usize >= CpuSet::MAX_CPU {
        return Err(format!("no CPU is number {cpu}"));
    }
    cpus.set(cpu as usize);
    sched_setaffinity(task, &cpus).map_err(because(&format!("cannot move to CPU {cpu}")))
}

fn find_task(comm: &str) -> Result<Pid, Failure> {
    let entries = fs::read_dir("/proc").map_err(because("/proc"))?;
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let mut named = pids.filter(|pid| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim_end() == comm)
    });
    named.next().and_then(Pid::from_raw).ok_or_else(|| format!("no task is called {comm}"))
}

fn take_all_memory() -> Result<(), Failure> {
    let mut taken: Vec<Vec<u8>> = Vec::new();
    loop {
        let mut bite = vec![0; BITE];
        // Untouched, it would be no memory.
        bite.iter_mut().step_by(PAGE).for_each(|byte| *byte = 1);
        taken.push(black_box(bite));
    }
}

//! The report, made by a child process: analysis of a broken kernel's memory may be slow, or want much
//! memory, and neither must cost the dump. The child is this program with [`ROLE`] as first argument;
//! it has a limit on its memory and is killed when its time is over.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use kdump_analyze::Kernel;
use kdump_analyze::report::Report;
use kdump_analyze::slabs::Walk;
use kdump_capture::config::CaptureConfig;
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::child::{self, End, Limits};
use crate::console::{self, say};
use crate::dump::peak_memory;
use crate::record::{SOURCE, open_source};
use crate::store::Store;
use crate::worth;

/// First argument of the child. After the time comes the directory for the report, and that of the log; without the
/// first, the report goes to the console.
pub const ROLE: &str = "triage";

/// What the report may take.
const DEADLINE: Duration = Duration::from_secs(60);
/// What a serial line of 115200 baud takes ten seconds for.
const CONSOLE_REPORT_MAX: usize = 100 << 10;

/// Makes the report, in `dir` or on the console, with what is said meanwhile in the log of the directory `log`. Comes back in little more than [`DEADLINE`].
pub fn run(dir: Option<&Path>, log: Option<&Path>) {
    let begin = Instant::now();
    let limits = Limits { time: Some(DEADLINE), still: None };
    match child::start(ROLE, dir.into_iter().chain(log)) {
        Ok(mut child) => match child::supervise(&mut child, limits) {
            Ok(End::Exited(status)) if status.success() => {
                say!("triage took {:.2} s", begin.elapsed().as_secs_f64());
            }
            Ok(End::Exited(status)) => say!("triage failed ({status}); the dump follows"),
            Ok(_) => say!("triage was not done in {} s; the dump follows", DEADLINE.as_secs()),
            Err(e) => say!("triage: {e}"),
        },
        Err(e) => {
            say!("no process for triage, doing it here: {e}");
            report(dir);
        }
    }
}

/// Makes the report on the console, for which it is small enough, and which somebody may be recording.
pub fn on_console(config: &CaptureConfig) {
    if config.dump.encrypt_reports && !config.dump.encrypt_to.is_empty() {
        return say!("no report here, since it is to be encrypted");
    }
    run(None, None);
}

/// What the child does, with the arguments after its role and the time.
pub fn child_main(mut args: impl Iterator<Item = String>) -> ExitCode {
    limit_memory();
    let (dir, log) = (args.next(), args.next());
    if let Some(log) = &log {
        // What it says goes to the log of the dump.
        let _ = console::log_to(Path::new(log));
    }
    if report(dir.as_ref().map(Path::new)) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Leaves a quarter of the memory to others: the kernel, and PID 1, which only waits meanwhile. What is mapped of the
/// dump is no memory of this machine, so the limit is on data, not on the address space.
pub fn limit_memory() {
    // Should memory run out all the same, it is this process that goes.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let Some(available) = available_memory(&meminfo) else {
        return say!("/proc/meminfo tells no MemAvailable: no memory limit for triage");
    };
    let mut limit = getrlimit(Resource::Data);
    limit.current = Some(available / 4 * 3);
    if let Err(e) = setrlimit(Resource::Data, limit) {
        say!("no memory limit for triage: {e}");
    }
}

/// Bytes that can be had without harm to others.
fn available_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim_end().parse::<u64>().ok()?.checked_mul(1024)
}

/// Finds out what happened and says so, in files or on the console. False if there is no report.
fn report(dir: Option<&Path>) -> bool {
    let result = catch_unwind(AssertUnwindSafe(|| -> Result<(), String> {
        let mut dump = open_source().map_err(|e| format!("{SOURCE}: {e}"))?;
        dump.note_reads();
        let kernel = Kernel::open(&dump).map_err(|e| e.to_string())?;
        let report = Report::build(&kernel);
        // Whoever opens the dump will want to walk these, too.
        let _ = Walk::new(&kernel);
        if let Some(dir) = dir {
            let mut store = Store::Directory(dir);
            for (name, text) in [("report.json", report.to_json()), ("report.txt", report.to_text())] {
                // What became of it was said; the other may find room.
                let _ = store.save(name, text.as_bytes());
            }
        } else {
            console::text(&report.to_text(), CONSOLE_REPORT_MAX);
        }
        worth::leave(&dump.touched());
        Ok(())
    }));
    match &result {
        Ok(Ok(())) => {
            if let Some(peak) = peak_memory() {
                say!("peak memory of triage: {peak}");
            }
        }
        Ok(Err(e)) => say!("no report: {e}"),
        Err(_) => say!("triage ended in a bug"),
    }
    matches!(result, Ok(Ok(())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_in_bytes() {
        let meminfo =
            "MemTotal:         221732 kB\nMemFree:          150000 kB\nMemAvailable:     148996 kB\n";
        assert_eq!(available_memory(meminfo), Some(148_996 << 10));
        assert_eq!(available_memory("MemTotal: 1 kB\n"), None);
        assert_eq!(available_memory("MemAvailable: 99999999999999999999 kB\n"), None);
    }
}

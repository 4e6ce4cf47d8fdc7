//! The report, made by a child process: analysis of a broken kernel's memory may be slow, or want much
//! memory, and neither must cost the dump. The child is this program with [`ROLE`] as first argument;
//! it has a limit on its memory and is killed when its time is over.

use std::ffi::OsStr;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::time::{Duration, Instant};

use kdump_analyze::Kernel;
use kdump_analyze::report::Report;
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::console::{self, say};
use crate::dump::{peak_memory, save};
use crate::record::{SOURCE, open_source};

/// First argument of the child. The second is how many milliseconds ago PID 1 began, the third the
/// directory for the report; without it, the report goes to the console.
pub const ROLE: &str = "triage";

/// What the report may take.
const DEADLINE: Duration = Duration::from_secs(60);
/// How long a killed process may take to die. In a wait for a disk it does not, and is left behind.
const DYING: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(20);
/// What a serial line of 115200 baud takes ten seconds for.
const CONSOLE_REPORT_MAX: usize = 100 << 10;

/// Makes the report, in `dir` or on the console. Comes back in little more than [`DEADLINE`].
pub fn run(dir: Option<&Path>) {
    let begin = Instant::now();
    let mut command = Command::new("/proc/self/exe");
    command.arg(ROLE).arg(console::elapsed().as_millis().to_string()).args(dir);
    match command.spawn() {
        Ok(mut child) => match supervise(&mut child, DEADLINE) {
            Ok(Some(status)) if status.success() => {
                say!("triage took {:.2} s", begin.elapsed().as_secs_f64());
            }
            Ok(Some(status)) => say!("triage failed ({status}); the dump follows"),
            Ok(None) => say!("triage was not done in {} s; the dump follows", DEADLINE.as_secs()),
            Err(e) => say!("triage: {e}"),
        },
        Err(e) => {
            say!("no process for triage, doing it here: {e}");
            report(dir);
        }
    }
}

/// Waits for a child, and kills it when its time is over. `None` if it had to be killed.
fn supervise(child: &mut Child, deadline: Duration) -> io::Result<Option<ExitStatus>> {
    if let Some(status) = wait_for(child, deadline)? {
        return Ok(Some(status));
    }
    child.kill()?;
    if wait_for(child, DYING)?.is_none() {
        say!("process {} does not die", child.id());
    }
    Ok(None)
}

/// Waits no longer than `time`.
fn wait_for(child: &mut Child, time: Duration) -> io::Result<Option<ExitStatus>> {
    let begin = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if begin.elapsed() >= time {
            return Ok(None);
        }
        std::thread::sleep(POLL);
    }
}

/// What the child does, with the arguments after [`ROLE`].
pub fn child_main<S: AsRef<OsStr>>(mut args: impl Iterator<Item = S>) -> ExitCode {
    let before = args.next().and_then(|ms| ms.as_ref().to_str()?.parse().ok()).unwrap_or(0);
    console::began(Duration::from_millis(before));
    limit_memory();
    let dir = args.next();
    if report(dir.as_ref().map(Path::new)) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Leaves a quarter of the memory to others: the kernel, and PID 1, which only waits meanwhile. What is mapped of the
/// dump is no memory of this machine, so the limit is on data, not on the address space.
fn limit_memory() {
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
        let dump = open_source().map_err(|e| format!("{SOURCE}: {e}"))?;
        let kernel = Kernel::open(&dump).map_err(|e| e.to_string())?;
        let report = Report::build(&kernel);
        if let Some(dir) = dir {
            save(&dir.join("report.json"), report.to_json().as_bytes());
            save(&dir.join("report.txt"), report.to_text().as_bytes());
        } else {
            console::text(&report.to_text(), CONSOLE_REPORT_MAX);
        }
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
    fn a_child_that_takes_too_long_is_killed_and_reaped() {
        let begin = Instant::now();
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        assert!(supervise(&mut child, Duration::from_millis(100)).unwrap().is_none());
        assert!(begin.elapsed() < Duration::from_secs(10));
        use std::os::unix::process::ExitStatusExt as _;
        assert_eq!(child.wait().unwrap().signal(), Some(9));
    }

    #[test]
    fn a_child_that_ends_in_time_gives_its_status() {
        let mut child = Command::new("sleep").arg("0").spawn().unwrap();
        assert!(supervise(&mut child, DEADLINE).unwrap().unwrap().success());
        let mut child = Command::new("false").spawn().unwrap();
        assert_eq!(supervise(&mut child, DEADLINE).unwrap().unwrap().code(), Some(1));
    }

    #[test]
    fn available_memory_is_in_bytes() {
        let meminfo =
            "MemTotal:         221732 kB\nMemFree:          150000 kB\nMemAvailable:     148996 kB\n";
        assert_eq!(available_memory(meminfo), Some(148_996 << 10));
        assert_eq!(available_memory("MemTotal: 1 kB\n"), None);
        assert_eq!(available_memory("MemAvailable: 99999999999999999999 kB\n"), None);
    }
}

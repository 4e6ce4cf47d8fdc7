//! Work that a process of its own does, this same program under another role: it may be slow, hang, be killed or run out of
//! memory, and PID 1 goes on. As long as things move there, it says so with a byte on its standard output.

use std::ffi::OsStr;
use std::io::{self, Read as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::console::{self, say};

/// How long a killed process may take to die. In a wait for a disk it does not, and is left behind.
const DYING: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(20);

/// How a child came to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// By itself.
    Exited(ExitStatus),
    /// Killed, since its time was over.
    Late,
    /// Killed, since nothing moved in it.
    Still,
}

/// What a child may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// In all; `None`: as long as it does.
    pub time: Option<Duration>,
    /// Without a sign of life.
    pub still: Option<Duration>,
}

/// Starts this program under `role`, in a process group of its own. The first argument after the role tells when PID 1
/// began.
pub fn start<S: AsRef<OsStr>>(role: &str, args: impl IntoIterator<Item = S>) -> io::Result<Child> {
    let mut command = Command::new("/proc/self/exe");
    command.arg(role).arg(console::elapsed().as_millis().to_string()).args(args);
    command.stdout(Stdio::piped()).process_group(0).spawn()
}

/// Waits for a child, and kills it with all that it started when a limit is passed.
pub fn supervise(child: &mut Child, limits: Limits) -> io::Result<End> {
    if let Some(signs) = child.stdout.take() {
        relay(signs);
    }
    let begin = Instant::now();
    let end = loop {
        if let Some(status) = child.try_wait()? {
            return Ok(End::Exited(status));
        }
        if limits.time.is_some_and(|limit| begin.elapsed() >= limit) {
            break End::Late;
        }
        if limits.still.is_some_and(|limit| console::still_for() >= limit) {
            break End::Still;
        }
        std::thread::sleep(POLL);
    };
    match i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        Some(group) => kill_process_group(group, Signal::KILL)
            .or_else(|_| child.kill().map_err(|_| rustix::io::Errno::SRCH))?,
        None => child.kill()?,
    }
    let killed = Instant::now();
    while child.try_wait()?.is_none() {
        if killed.elapsed() >= DYING {
            say!("process {} does not die", child.id());
            break;
        }
        std::thread::sleep(POLL);
    }
    Ok(end)
}

/// Takes the child's signs of life for this process's own.
fn relay(mut signs: ChildStdout) {
    let thread = std::thread::Builder::new().name("signs".into()).spawn(move || {
        let mut bytes = [0; 64];
        while signs.read(&mut bytes).is_ok_and(|n| n > 0) {
            console::moved();
        }
    });
    if let Err(e) = thread {
        say!("no thread for signs of life: {e}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Child {
        Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).process_group(0).spawn().unwrap()
    }

    #[test]
    fn a_child_that_takes_too_long_is_killed_with_what_it_started() {
        let begin = Instant::now();
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut child = shell(&format!("sleep 60 & echo $! > {}; wait", file.path().display()));
        let limits = Limits { time: Some(Duration::from_millis(500)), still: None };
        assert_eq!(supervise(&mut child, limits).unwrap(), End::Late);
        assert!(begin.elapsed() < Duration::from_secs(10));
        let grandchild = std::fs::read_to_string(file.path()).unwrap();
        // It goes when the signal reaches it, or waits for init to reap it.
        let is_gone = || {
            let stat =
                std::fs::read_to_string(format!("/proc/{}/stat", grandchild.trim())).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z ")
        };
        while !is_gone() {
            assert!(begin.elapsed() < Duration::from_secs(10), "process {grandchild} lives");
            std::thread::sleep(POLL);
        }
    }

    #[test]
    fn a_child_that_ends_in_time_gives_its_status() {
        let limits = Limits { time: Some(Duration::from_secs(60)), still: None };
        for (script, code) in [("exit 0", 0), ("exit 3", 3)] {
            let End::Exited(status) = supervise(&mut shell(script), limits).unwrap() else { panic!() };
            assert_eq!(status.code(), Some(code));
        }
    }
}

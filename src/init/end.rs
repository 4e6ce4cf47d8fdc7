//! The last step: restart, power off, halt or a shell, come what may.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::system::{RebootCommand, reboot};

use crate::console::{elapsed, moved, say, still_for};
use crate::watchdog;

/// What follows the capture.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    Reboot,
    PowerOff,
    Halt,
    /// A shell on the console, and a restart when it ends.
    Shell,
}

impl Action {
    /// The action of that name; what is unknown means reboot, which brings the service back.
    pub fn parse(name: &str) -> Self {
        match name {
            "reboot" => Self::Reboot,
            "poweroff" => Self::PowerOff,
            "halt" => Self::Halt,
            "shell" => Self::Shell,
            other => {
                say!("end.action is {other:?}, not reboot, poweroff, halt or shell: will reboot");
                Self::Reboot
            }
        }
    }

    const fn command(self) -> RebootCommand {
        match self {
            Self::Reboot | Self::Shell => RebootCommand::Restart,
            Self::PowerOff => RebootCommand::PowerOff,
            Self::Halt => RebootCommand::Halt,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Reboot | Self::Shell => "reboot",
            Self::PowerOff => "power off",
            Self::Halt => "halt",
        }
    }
}

/// A disk that answers at all answers in less.
pub const STALL: Duration = Duration::from_secs(300);
/// What the last step may take: what is left to sync, the unmount, and shutting devices down.
const LAST_STEP: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_secs(1);
/// A write of `b` to it restarts the machine at once, without shutting devices down, whatever
/// /proc/sys/kernel/sysrq forbids at the keyboard.
/// Source: drivers/tty/sysrq.c `write_sysrq_trigger`, `sysrq_handle_reboot`
const SYSRQ: &str = "/proc/sysrq-trigger";

/// Where `arm` puts the program.
const SHELL: &str = "/bin/shell";

/// Milliseconds after the start at which the last step began, plus one; 0 before that.
static LAST_STEP_BEGAN: AtomicU64 = AtomicU64::new(0);

/// Starts the two timers, neither of which needs the console, a disk or the main thread: one watches
/// that things move and takes the last step without waiting for them when they do not; the other
/// restarts the machine when the last step itself gets stuck, as it does in shutting down a wedged disk.
pub fn start_watchdogs(action: Action) {
    // Opened now: later there may be no memory for it.
    let sysrq = OpenOptions::new().write(true).open(SYSRQ);
    if let Err(e) = &sysrq {
        say!("{SYSRQ}: {e}: no restart if the last step gets stuck");
    }
    start("watchdog", move || {
        loop {
            std::thread::sleep(POLL);
            if still_for() >= STALL {
                last_step_begins();
                say_aside(format!("nothing has moved for {} s: {} now", STALL.as_secs(), action.name()));
                now(action);
            }
        }
    });
    start("last-resort", move || {
        loop {
            std::thread::sleep(POLL);
            if is_stuck() {
                if let Ok(mut trigger) = sysrq.as_ref() {
                    let _ = trigger.write_all(b"b");
                }
                // Where there is no sysrq, the end of PID 1 is a panic, which restarts by `panic=`.
                std::process::exit(1);
            }
        }
    });
}

fn start(name: &str, run: impl FnOnce() + Send + 'static) {
    if let Err(e) = std::thread::Builder::new().name(name.into()).spawn(run) {
        say!("no thread {name}: {e}");
    }
}

/// Says something without depending on it: from another thread, which gets a second to do it.
fn say_aside(line: String) {
    let Ok(thread) = std::thread::Builder::new().spawn(move || say!("{line}")) else { return };
    for _ in 0..10 {
        if thread.is_finished() {
            break;
        }
        std::thread::sleep(POLL / 10);
    }
}

/// The time for the last step runs from the first call of this.
pub fn last_step_begins() {
    let now = u64::try_from(elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1);
    let _ = LAST_STEP_BEGAN.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
}

/// Whether the last step, which began at `began` as [`LAST_STEP_BEGAN`] tells it, should be over.
fn is_overdue(began: u64, elapsed: Duration) -> bool {
    began != 0 && elapsed.saturating_sub(Duration::from_millis(began)) >= LAST_STEP
}

/// Whether the last step has taken longer than it may.
pub fn is_stuck() -> bool {
    is_overdue(LAST_STEP_BEGAN.load(Ordering::Relaxed), elapsed())
}

/// Runs the shell on the console until it ends, however long that takes.
fn shell() {
    let console = |write| OpenOptions::new().read(true).write(write).open("/dev/console");
    let run = || -> std::io::Result<ExitStatus> {
        let mut command = Command::new(SHELL);
        // By this name a program of many names is a shell.
        command.arg0("sh").stdin(console(false)?).stdout(console(true)?).stderr(console(true)?);
        let mut child = command.spawn()?;
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            moved();
            std::thread::sleep(POLL);
        }
    };
    say!("a shell, as configured: the machine restarts when it ends");
    match run() {
        Ok(status) => say!("the shell ended with {status}"),
        Err(e) => say!("{SHELL}: {e}"),
    }
}

/// Brings everything to the disks and takes the last step.
pub fn end(action: Action) -> ! {
    if action != Action::Reboot {
        watchdog::stop();
    }
    if action == Action::Shell {
        rustix::fs::sync();
        shell();
    }
    last_step_begins();
    rustix::fs::sync();
    say!("{}", action.name());
    now(action)
}

/// Takes the last step now. It does not come back; should it, PID 1 ends, on which the kernel panics
/// and, by `panic=` on its command line, restarts.
fn now(action: Action) -> ! {
    if let Err(e) = reboot(action.command()) {
        say!("cannot {}: {e}", action.name());
    }
    let _ = reboot(RebootCommand::Restart);
    std::process::exit(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_resort_comes_a_minute_after_the_last_step_began_and_not_before() {
        let at = Duration::from_millis;
        assert!(!is_overdue(0, at(10_000_000)));
        assert!(!is_overdue(5_001, at(5_000)));
        assert!(!is_overdue(5_001, at(65_000)));
        assert!(is_overdue(5_001, at(65_001)));
    }
}

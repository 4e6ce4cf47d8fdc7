//! The last step: restart, power off or halt, come what may.

use std::time::Duration;

use rustix::system::{RebootCommand, reboot};

use crate::console::{say, still_for};

/// What follows the capture.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    Reboot,
    PowerOff,
    Halt,
}

impl Action {
    /// The action of that name; what is unknown means reboot, which brings the service back.
    pub fn parse(name: &str) -> Self {
        match name {
            "reboot" => Self::Reboot,
            "poweroff" => Self::PowerOff,
            "halt" => Self::Halt,
            other => {
                say!("end.action is {other:?}, not reboot, poweroff or halt: will reboot");
                Self::Reboot
            }
        }
    }

    const fn command(self) -> RebootCommand {
        match self {
            Self::Reboot => RebootCommand::Restart,
            Self::PowerOff => RebootCommand::PowerOff,
            Self::Halt => RebootCommand::Halt,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Reboot => "reboot",
            Self::PowerOff => "power off",
            Self::Halt => "halt",
        }
    }
}

/// A disk that answers at all answers in less.
const STALL: Duration = Duration::from_secs(300);

/// Watches that things move; when they do not, takes the last step without waiting for them.
pub fn start_watchdog(action: Action) {
    let watch = move || {
        loop {
            std::thread::sleep(Duration::from_secs(5));
            if still_for() >= STALL {
                say!("nothing has moved for {} s: {} now", STALL.as_secs(), action.name());
                now(action);
            }
        }
    };
    if let Err(e) = std::thread::Builder::new().name("watchdog".into()).spawn(watch) {
        say!("no watchdog: {e}");
    }
}

/// Brings everything to the disks and takes the last step.
pub fn end(action: Action) -> ! {
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

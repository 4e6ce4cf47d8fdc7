//! Everything that a capture depends on, looked at before it is needed.
//!
//! [`Facts`] are read once; each check is a pure function of them that says pass, warn or fail, what was found, and
//! the one command that mends it. docs/doctor.md explains each; a test holds the two against each other.

mod armed;
mod capture;
mod facts;
mod loading;
mod panicking;
mod reservation;
mod space;
mod system;
#[cfg(test)]
mod tests;

use serde::Serialize;

pub use facts::{Facts, Outlook};
pub use space::Memory;
pub use system::{System, Watchdog};

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should be.
    Pass,
    /// A capture may suffer, or some kinds of crash bring none.
    Warn,
    /// There would be no capture.
    Fail,
}

/// What a check says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Verdict {
    status: Status,
    found: String,
    remedy: Option<String>,
}

fn pass(found: impl Into<String>) -> Verdict {
    Verdict { status: Status::Pass, found: found.into(), remedy: None }
}

fn warn(found: impl Into<String>, remedy: impl Into<String>) -> Verdict {
    Verdict { status: Status::Warn, found: found.into(), remedy: Some(remedy.into()) }
}

fn fail(found: impl Into<String>, remedy: impl Into<String>) -> Verdict {
    Verdict { status: Status::Fail, found: found.into(), remedy: Some(remedy.into()) }
}

/// An error with its causes, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// A check's result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Its name, as docs/doctor.md has it.
    pub name: &'static str,
    /// How it went.
    pub status: Status,
    /// What was found, with values.
    pub found: String,
    /// The command that mends it, if it did not pass.
    pub remedy: Option<String>,
}

type Checker = fn(&Facts) -> Verdict;

/// All of them, in the order of a crash's life.
const CHECKS: [(&str, Checker); 26] = [
    ("root", reservation::root),
    ("reservation", reservation::reservation),
    ("size", reservation::size),
    ("guest", loading::guest),
    ("lockdown", loading::lockdown),
    ("load-disabled", loading::load_disabled),
    ("load-limit", loading::load_limit),
    ("kernel", capture::kernel),
    ("init", capture::init),
    ("target", capture::target),
    ("drivers", capture::drivers),
    ("space", capture::space),
    ("armed", armed::armed),
    ("stale", armed::stale),
    ("upgrade", armed::upgrade),
    ("hotplug", armed::hotplug),
    ("service", armed::service),
    ("other-tools", armed::other_tools),
    ("console", armed::console),
    ("panic-on-oops", panicking::panic_on_oops),
    ("panic-timeout", panicking::panic_timeout),
    ("lockups", panicking::lockups),
    ("hung-tasks", panicking::hung_tasks),
    ("notifiers", panicking::notifiers),
    ("watchdog", panicking::watchdog),
    ("rehearsed", armed::rehearsed),
];

/// Names of all checks, in their order.
#[must_use]
pub fn names() -> Vec<&'static str> {
    CHECKS.iter().map(|(name, _)| *name).collect()
}

/// Runs all checks.
#[must_use]
pub fn examine(facts: &Facts) -> Vec<Check> {
    let run = |&(name, check): &(&'static str, Checker)| {
        let Verdict { status, found, remedy } = check(facts);
        Check { name, status, found, remedy }
    };
    CHECKS.iter().map(run).collect()
}

/// The worst of them.
#[must_use]
pub fn worst(checks: &[Check]) -> Status {
    checks.iter().map(|check| check.status).max().unwrap_or(Status::Pass)
}

/// The checks as lines of columns, and how many there are of each kind.
#[must_use]
pub fn to_text(checks: &[Check]) -> String {
    let width = checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for Check { name, status, found, remedy } in checks {
        let status = match status {
            Status::Pass => "pass",
            Status::Warn => "WARN",
            Status::Fail => "FAIL",
        };
        text.push_str(&format!("{status}  {name:width$}  {found}\n"));
        if let Some(remedy) = remedy {
            text.push_str(&format!("      {:width$}  -> {remedy}\n", ""));
        }
    }
    let count = |status| checks.iter().filter(|check| check.status == status).count();
    let verdict = match worst(checks) {
        Status::Pass => "a panic will be dumped, as far as can be told",
        Status::Warn => "a panic will be dumped, but see above",
        Status::Fail => "a panic now would not be dumped",
    };
    let [passed, warned, failed] = [Status::Pass, Status::Warn, Status::Fail].map(count);
    text + &format!("\n{passed} pass, {warned} warn, {failed} fail: {verdict}\n")
}

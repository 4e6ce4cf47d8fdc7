//! The targets, tried in their order until one has taken the dump. Each is tried by a child, so that one that hangs or
//! fails in any way costs its time and no more; the budgets bound that. What is said of each is in the log that the
//! next one gets.

use std::process::ExitCode;
use std::time::Duration;

use kdump_capture::config::CaptureConfig;

use crate::child::{self, End, Limits};
use crate::console::{self, say};
use crate::{attempt, target, triage};

/// First argument of the child that tries a target; its number follows the time.
pub const ROLE: &str = "target";
/// First argument of the child that unmounts what a killed one had mounted.
pub const UNMOUNT_ROLE: &str = "unmount";

/// A target on which nothing moves for so long is given up. A disk that answers at all answers in less.
const STILL: Duration = Duration::from_secs(180);
/// What an unmount after a failure may take: what is in memory for the disk goes there.
const UNMOUNT: Duration = Duration::from_secs(20);

/// Tries all targets; true if one of them has the dump.
pub fn climb(config: &CaptureConfig) -> bool {
    if config.targets.is_empty() {
        say!("the configuration names no target");
    }
    let total = Budget::of(config.total_budget);
    let mut is_anything_written = false;
    for (number, target) in config.targets.iter().enumerate() {
        let name = target::describe(target);
        let Some(time) = total.with(target.budget).left(console::elapsed()) else {
            say!("{name} is not tried: the {} s for all targets are over", config.total_budget);
            break;
        };
        if config.targets.len() > 1 {
            say!("target {} of {}: {name}", number + 1, config.targets.len());
        }
        match try_one(number, config, time) {
            Attempt::Complete => return true,
            Attempt::Failed => is_anything_written = true,
            Attempt::NoPlace => {}
        }
        if number + 1 < config.targets.len() {
            say!("{name} has no complete dump: the next target is tried");
        }
    }
    if !is_anything_written && total.left(console::elapsed()).is_some() {
        say!("no place for the dump");
        triage::on_console(config);
    }
    false
}

/// What came of a target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Attempt {
    /// It has a complete dump.
    Complete,
    /// It took something, but not all.
    Failed,
    /// There was nowhere to write to.
    NoPlace,
}

impl Attempt {
    const fn code(self) -> u8 {
        match self {
            Self::Complete => 0,
            Self::Failed => 1,
            Self::NoPlace => 3,
        }
    }
}

fn try_one(number: usize, config: &CaptureConfig, time: Option<Duration>) -> Attempt {
    let limits = Limits { time, still: Some(STILL) };
    let mut child = match child::start(ROLE, [number.to_string()]) {
        Ok(child) => child,
        Err(e) => {
            say!("no process for this target, doing it here: {e}");
            return attempt::run(number, config);
        }
    };
    console::moved();
    let end = child::supervise(&mut child, limits);
    let killed = match end {
        Ok(End::Exited(status)) => match status.code() {
            Some(0) => return Attempt::Complete,
            Some(1) => return Attempt::Failed,
            Some(3) => return Attempt::NoPlace,
            _ => format!("it ended with {status}"),
        },
        Ok(End::Late) => format!("its {} s are over", time.unwrap_or_default().as_secs()),
        Ok(End::Still) => format!("nothing has moved for {} s", STILL.as_secs()),
        Err(e) => format!("it cannot be waited for: {e}"),
    };
    if !target::is_mounted(number) {
        say!("{killed}");
        return Attempt::NoPlace;
    }
    say!("{killed}; what was written of the dump is vmcore.partial");
    unmount(number);
    Attempt::Failed
}

/// Has a target unmounted that a killed child had mounted, by another child: it may hang, too.
fn unmount(number: usize) {
    let limits = Limits { time: Some(UNMOUNT), still: None };
    let end =
        child::start(UNMOUNT_ROLE, [number.to_string()]).and_then(|mut c| child::supervise(&mut c, limits));
    match end {
        Ok(End::Exited(_)) => {}
        Ok(_) => say!("the target cannot be unmounted: left as it is"),
        Err(e) => say!("the target cannot be unmounted: {e}"),
    }
}

/// What the children do, with the arguments after their role and the time.
pub fn child_main(mut args: impl Iterator<Item = String>, config: &CaptureConfig) -> ExitCode {
    let number = args.next().and_then(|number| number.parse().ok()).unwrap_or(usize::MAX);
    ExitCode::from(attempt::run(number, config).code())
}

/// A limit in seconds since the start, of which 0 is none, beside one for a target alone.
#[derive(Clone, Copy, Debug)]
struct Budget {
    until: Option<Duration>,
    most: Option<Duration>,
}

impl Budget {
    fn of(total: u64) -> Self {
        Self { until: (total > 0).then(|| Duration::from_secs(total)), most: None }
    }

    fn with(self, most: u64) -> Self {
        Self { most: (most > 0).then(|| Duration::from_secs(most)), ..self }
    }

    /// What may be taken now: `Some(None)` without a limit, `None` if the time is over.
    fn left(self, now: Duration) -> Option<Option<Duration>> {
        match self.until.map(|until| until.saturating_sub(now)) {
            Some(Duration::ZERO) => None,
            Some(left) => Some(Some(self.most.map_or(left, |most| most.min(left)))),
            None => Some(self.most),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_has_its_own_time_and_no_more_than_is_left_of_all() {
        let s = Duration::from_secs;
        assert_eq!(Budget::of(0).left(s(1000)), Some(None));
        assert_eq!(Budget::of(0).with(30).left(s(1000)), Some(Some(s(30))));
        assert_eq!(Budget::of(120).left(s(20)), Some(Some(s(100))));
        assert_eq!(Budget::of(120).with(30).left(s(20)), Some(Some(s(30))));
        assert_eq!(Budget::of(120).with(30).left(s(100)), Some(Some(s(20))));
        assert_eq!(Budget::of(120).with(30).left(s(120)), None);
    }
}

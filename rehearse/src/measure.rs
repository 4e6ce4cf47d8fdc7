//! The smallest `crashkernel=` that a capture gets by with: lives of a guest, with less or more memory reserved, until
//! two sizes one step apart are found of which one is enough and the other is not.

use std::fmt;
use std::time::{Duration, Instant};

use crate::phase::Phase;
use crate::plan::Plan;
use crate::{Error, Progress};

/// One life.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Try {
    /// Bytes reserved.
    pub bytes: u64,
    /// Why it was not enough, if it was not.
    pub failure: Option<String>,
    /// How long it took.
    pub took: Duration,
}

/// What came of all of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Smallest {
    /// The smallest size that was enough; one step less was not, or was not looked at.
    pub bytes: u64,
    /// The lives, in the order in which they were lived.
    pub tries: Vec<Try>,
}

impl fmt::Display for Smallest {
    /// The size, and the largest that was tried and is not enough, with the reason.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "crashkernel={}M is enough", self.bytes >> 20)?;
        let failed = self.tries.iter().filter_map(|t| Some((t.bytes, t.failure.as_ref()?)));
        match failed.max_by_key(|&(bytes, _)| bytes) {
            Some((bytes, why)) => write!(f, ", {}M is not: {why}", bytes >> 20),
            None => f.write_str("; nothing less was tried"),
        }
    }
}

/// Why there is no such size.
#[derive(Debug, thiserror::Error)]
pub enum NotMeasured {
    /// Nothing to search in.
    #[error("no multiple of {step} bytes lies between {low} and {high}")]
    NoSizes {
        /// Lower bound in bytes.
        low: u64,
        /// Upper bound in bytes.
        high: u64,
        /// Step in bytes.
        step: u64,
    },
    /// Even the largest size is too small.
    #[error("{} MiB of crashkernel memory are not enough: {why}", bytes >> 20)]
    NotEnough {
        /// That size.
        bytes: u64,
        /// How it failed.
        why: String,
    },
    /// No life could be lived.
    #[error(transparent)]
    Guest(#[from] Error),
}

/// Finds the smallest multiple of `step` from `low` to `high` that `live` says is enough; `live` gives the reason where
/// it is not. A size above one that is enough is taken to be enough, too.
///
/// # Errors
/// [`NotMeasured`].
pub fn bisect(
    low: u64,
    high: u64,
    step: u64,
    live: &mut dyn FnMut(u64) -> Result<Option<String>, Error>,
) -> Result<Smallest, NotMeasured> {
    let sizes = || NotMeasured::NoSizes { low, high, step };
    // In steps: `enough` is, everything below `open` is not.
    let mut enough = high.checked_div(step).ok_or_else(sizes)?;
    let mut open = low.div_ceil(step).max(1);
    if enough < open {
        return Err(sizes());
    }
    let mut tries = Vec::new();
    let mut attempt = |steps: u64| -> Result<Option<String>, Error> {
        let (bytes, begin) = (steps * step, Instant::now());
        let failure = live(bytes)?;
        tries.push(Try { bytes, failure: failure.clone(), took: begin.elapsed() });
        Ok(failure)
    };
    if let Some(why) = attempt(enough)? {
        return Err(NotMeasured::NotEnough { bytes: enough * step, why });
    }
    while open < enough {
        let middle = open + (enough - open) / 2;
        match attempt(middle)? {
            None => enough = middle,
            Some(_) => open = middle + 1,
        }
    }
    Ok(Smallest { bytes: enough * step, tries })
}

/// Rehearses `plan` with less and more memory, from `low` to `high` bytes in multiples of `step`. Enough is what ends in
/// a complete dump with its report.
///
/// # Errors
/// [`NotMeasured`].
pub fn smallest_crashkernel(
    plan: &Plan,
    low: u64,
    high: u64,
    step: u64,
    progress: &mut dyn Progress,
) -> Result<Smallest, NotMeasured> {
    bisect(low, high, step, &mut |bytes| {
        let crashkernel = format!("{}K", bytes >> 10);
        let failure = live(&Plan { crashkernel, ..plan.clone() }, progress)?;
        let verdict = failure.as_deref().unwrap_or("enough");
        progress.note(&format!("crashkernel={}M: {verdict}", bytes >> 20));
        Ok(failure)
    })
}

/// What kdump-init writes: `vmcore` has that name when it is complete, the manifest comes after it, and the report says
/// that memory sufficed for looking at the crash, too.
const WRITTEN: [&str; 3] = ["vmcore", "manifest.json", "report.json"];

fn live(plan: &Plan, progress: &mut dyn Progress) -> Result<Option<String>, Error> {
    match plan.run(progress) {
        Ok(outcome) => {
            let missing = WRITTEN.into_iter().find(|name| !outcome.dump_dir.join(name).exists());
            Ok(missing.map(|name| format!("no {name} was written")))
        }
        // Before it is armed, a guest fails for other reasons than its crashkernel memory.
        Err(Error::Phase { phase, why, .. }) if phase >= Phase::Arm => Ok(Some(format!("{phase}: {why}"))),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn search(low: u64, high: u64, needed: u64) -> Result<Smallest, NotMeasured> {
        bisect(low * MIB, high * MIB, 4 * MIB, &mut |bytes| {
            Ok((bytes < needed * MIB).then(|| "out of memory".to_owned()))
        })
    }

    #[test]
    fn the_smallest_size_is_found_and_the_one_below_it_was_tried() {
        for needed in [1, 32, 33, 61, 64, 65, 127, 128] {
            let found = search(32, 128, needed).unwrap();
            assert_eq!(found.bytes, (needed * MIB).next_multiple_of(4 * MIB).max(32 * MIB), "{needed}");
            let failed = found.tries.iter().filter(|t| t.failure.is_some()).map(|t| t.bytes).max();
            assert!(failed.is_none_or(|bytes| bytes + 4 * MIB == found.bytes), "{needed}: {found:?}");
            assert!(found.tries.len() <= 6, "{found:?}");
        }
    }

    #[test]
    fn the_result_is_said_with_what_is_too_little() {
        let said = search(32, 128, 61).unwrap().to_string();
        assert_eq!(said, "crashkernel=64M is enough, 60M is not: out of memory");
        assert_eq!(
            search(128, 128, 1).unwrap().to_string(),
            "crashkernel=128M is enough; nothing less was tried"
        );
    }

    #[test]
    fn what_fails_at_the_largest_size_is_an_error() {
        let error = search(32, 128, 129).unwrap_err();
        assert_eq!(error.to_string(), "128 MiB of crashkernel memory are not enough: out of memory");
    }

    #[test]
    fn bounds_without_a_size_between_them_are_refused() {
        assert!(matches!(search(33, 35, 1), Err(NotMeasured::NoSizes { .. })));
        assert!(matches!(bisect(0, 1, 0, &mut |_| Ok(None)), Err(NotMeasured::NoSizes { .. })));
    }
}

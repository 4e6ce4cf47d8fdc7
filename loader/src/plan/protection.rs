//! How much of what is staged can be rebuilt, and what that costs.

use std::fmt;

use kdump_panic_kernel::PAGE_SIZE;
use kdump_panic_kernel::handoff::MAX_TABLE_PAGES;
use kdump_panic_kernel::parity::{DIGESTS_PER_PAGE, Geometry};
use serde::Serialize;

use super::Request;
use super::own::Sizes;
use super::seal::table_pages_for;
use super::show::size_text;
use super::staging::Piece;

/// Longest damaged run that can be made repairable, in bytes.
pub const MAX_RUN: u64 = 1 << 30;
/// The same unless somebody says otherwise.
pub const DEFAULT_RUN: u64 = 1 << 20;
/// Most pages that page digests can be kept of.
const MAX_PROTECTED: u64 = MAX_TABLE_PAGES as u64 * DIGESTS_PER_PAGE as u64;

/// What parity there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Protection {
    /// Any damaged run of so many bytes can be rebuilt; 0: none.
    pub run_bytes: u64,
    /// Bytes of parity.
    pub parity_bytes: u64,
    /// Bytes of page digests.
    pub table_bytes: u64,
    /// Bytes that they are about, in whole pages.
    pub protected_bytes: u64,
}

/// Chooses for everything that is protected: what is staged but for the record, and but for elfcorehdr where
/// the kernel rewrites it.
pub(super) fn choose(
    request: &Request<'_, '_>,
    sizes: &Sizes,
    is_elfcorehdr_updated: bool,
    payload: &[Piece],
) -> (Protection, Option<String>) {
    let elfcorehdr = if is_elfcorehdr_updated { 0 } else { sizes.elfcorehdr };
    let own = [elfcorehdr, sizes.page_tables, PAGE_SIZE, sizes.panic_image, sizes.panic_image];
    let bytes = own.into_iter().chain(payload.iter().map(|piece| piece.content));
    Protection::choose(request.parity_run, bytes.map(|b| b.div_ceil(PAGE_SIZE)).sum())
}

impl Protection {
    /// Chooses the sizes for a run of so many bytes, and so many pages to protect besides the digest table.
    /// Where there are too many pages it is none, and the second value says why.
    fn choose(run: u64, nr_pages: u64) -> (Self, Option<String>) {
        let nr_table = table_pages_for(nr_pages);
        let protected_bytes = (nr_pages + nr_table) * PAGE_SIZE;
        if run == 0 {
            return (Self::default(), None);
        }
        if nr_pages + nr_table > MAX_PROTECTED {
            let why = format!(
                "{} are staged, page digests can be kept of {}: damage will be found, but nothing can be rebuilt",
                size_text(nr_pages * PAGE_SIZE),
                size_text(MAX_PROTECTED * PAGE_SIZE)
            );
            return (Self::default(), Some(why));
        }
        let run_bytes = run.min(MAX_RUN);
        let parity_bytes = Geometry::parity_pages_for(run_bytes) * PAGE_SIZE;
        (Self { run_bytes, parity_bytes, table_bytes: nr_table * PAGE_SIZE, protected_bytes }, None)
    }
}

impl fmt::Display for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.run_bytes == 0 {
            return f.write_str("none: damage is found, and nothing can be rebuilt");
        }
        let cost = self.parity_bytes + self.table_bytes;
        let per_cent = cost as f64 * 100.0 / self.protected_bytes as f64;
        let [cost, protected, run] = [cost, self.protected_bytes, self.run_bytes].map(size_text);
        write!(f, "{cost} for {protected} staged ({per_cent:.1} %), rebuilds any damaged run up to {run}")
    }
}

/// A size such as `64K`, `4M` or `0`.
///
/// # Errors
/// Text that is no size, or one beyond [`MAX_RUN`].
pub fn parse_run(text: &str) -> Result<u64, BadRun> {
    let bad = || BadRun { text: text.to_owned() };
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = &text[digits.len()..];
    let shift = match unit {
        "" => 0,
        "k" | "K" | "KiB" => 10,
        "m" | "M" | "MiB" => 20,
        "g" | "G" | "GiB" => 30,
        _ => return Err(bad()),
    };
    let number: u64 = digits.parse().map_err(|_| bad())?;
    number.checked_mul(1 << shift).filter(|&run| run <= MAX_RUN).ok_or_else(bad)
}

/// Text that is no size of a run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no size for parity: a number of bytes up to 1G, with K, M or G behind it if you like; 0 for none"
)]
pub struct BadRun {
    /// The text.
    pub text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, run) in [("0", 0), ("4096", 4096), ("64K", 64 << 10), ("4M", 4 << 20), ("1GiB", 1 << 30)] {
            assert_eq!(parse_run(text), Ok(run), "{text}");
        }
        for bad in ["", "M", "1.5M", "-1", "2G", "1T", "99999999999999999999", "1 M", "é"] {
            assert!(parse_run(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_cost_is_said_in_words() {
        let (protection, why) = Protection::choose(DEFAULT_RUN, 5190);
        assert_eq!(why, None);
        assert_eq!(
            protection.to_string(),
            "1.0 MiB for 20.3 MiB staged (5.2 %), rebuilds any damaged run up to 1.0 MiB"
        );
        assert!(Protection::choose(0, 5190).0.to_string().contains("nothing can be rebuilt"));
    }

    #[test]
    fn more_pages_than_digests_are_warned_of() {
        let (most, why) = Protection::choose(DEFAULT_RUN, 131_072 - 256);
        assert_eq!((most.table_bytes, why), (256 * 4096, None));
        let (none, why) = Protection::choose(DEFAULT_RUN, 131_072 - 255);
        assert_eq!(none, Protection::default());
        assert!(why.unwrap().contains("512.0 MiB"));
    }
}

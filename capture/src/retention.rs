//! Which dumps of a directory are removed: [`scan`] looks, [`plan`] decides and [`remove`] acts.
//!
//! The oldest go first. What is not certain to be a dump of ours is never touched: the name must be one that kdump-init
//! gives, and all that lies inside must be files that it writes. A file of anybody else's in a dump's directory keeps the
//! dump. The only complete dump stays, whatever the limits say, and so does the only dump.

use std::fs;
use std::io;
use std::path::Path;

use crate::config::RetentionConfig;
use crate::durable;

/// What makes a dump complete, with a dump of one of the names below.
const MANIFEST: &str = "manifest.json";
/// Names of a dump.
const DUMPS: [&str; 2] = ["vmcore", "vmcore.flat"];
/// What else a dump directory may hold. `.age`, which [`crate::encrypt`] makes, and `.partial` may follow each.
const FILES: [&str; 4] = ["report.json", "report.txt", "dmesg.txt", "capture.log"];

/// A dump directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its name.
    pub name: String,
    /// When it was made, seconds since 1970, by its name.
    pub made: u64,
    /// Bytes that its files take on the disk.
    pub bytes: u64,
    /// Whether it holds a dump that was finished.
    pub is_complete: bool,
}

/// Why a dump is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// There are more than are to be kept.
    Count,
    /// It is older than any is to be.
    Age,
    /// Together they take too much.
    Bytes,
    /// The room is needed.
    Room,
}

impl Why {
    /// In words.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Count => "more than are to be kept",
            Self::Age => "older than any is to be",
            Self::Bytes => "together they take more than they may",
            Self::Room => "its room is needed",
        }
    }
}

/// What is going on while it is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Circumstances<'a> {
    /// The dump that is being written: it is counted, and never removed.
    pub current: Option<&'a str>,
    /// Seconds since 1970.
    pub now: u64,
    /// Bytes free on the file system.
    pub free: u64,
    /// Bytes that are going to be written.
    pub wanted: u64,
}

/// Decides which of `found` are removed, in this order.
#[must_use]
pub fn plan<'a>(
    found: &'a [Found],
    limits: &RetentionConfig,
    circumstances: Circumstances<'_>,
) -> Vec<(&'a Found, Why)> {
    let mut left: Vec<&Found> = found.iter().collect();
    left.sort_by(|a, b| (a.made, &a.name).cmp(&(b.made, &b.name)));
    let mut gone: Vec<(&Found, Why)> = Vec::new();
    let at_least = circumstances.wanted.saturating_add(limits.min_free);
    loop {
        let freed: u64 = gone.iter().map(|(dump, _)| dump.bytes).sum();
        let taken: u64 = left.iter().map(|dump| dump.bytes).sum();
        let has_expired =
            |dump: &Found| limits.max_age > 0 && circumstances.now.saturating_sub(dump.made) > limits.max_age;
        let over = |dump: &Found| {
            if limits.keep > 0 && left.len() > limits.keep as usize {
                Some(Why::Count)
            } else if has_expired(dump) {
                Some(Why::Age)
            } else if limits.max_bytes > 0 && taken > limits.max_bytes {
                Some(Why::Bytes)
            } else {
                (circumstances.free.saturating_add(freed) < at_least).then_some(Why::Room)
            }
        };
        let complete = left.iter().filter(|dump| dump.is_complete).count();
        let may_go = |dump: &Found| {
            let is_current = circumstances.current == Some(dump.name.as_str());
            let is_last = left.len() == 1 || (dump.is_complete && complete == 1);
            !is_current && !is_last
        };
        // One that is not complete yet counts as nothing: until it is, the one before is the last.
        let next = left.iter().position(|dump| may_go(dump) && over(dump).is_some());
        let Some(at) = next else { return gone };
        let why = over(left[at]);
        let dump = left.remove(at);
        gone.extend(why.map(|why| (dump, why)));
    }
}

/// Finds the dump directories below `dir`.
///
/// # Errors
/// If `dir` cannot be listed.
pub fn scan(dir: &Path) -> io::Result<Vec<Found>> {
    let names = fs::read_dir(dir)?.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    Ok(names.filter_map(|name| look(&dir.join(&name), name)).collect())
}

/// Whether kdump-init writes files of this name.
fn is_ours(name: &str) -> bool {
    let name = name.strip_suffix(".partial").unwrap_or(name);
    let plain = name.strip_suffix(".age").unwrap_or(name);
    name == MANIFEST || DUMPS.contains(&plain) || FILES.contains(&plain)
}

fn look(path: &Path, name: String) -> Option<Found> {
    let made = parse_name(&name)?;
    if !path.symlink_metadata().ok()?.is_dir() {
        return None;
    }
    let mut found = Found { name, made, bytes: 0, is_complete: false };
    let mut files = Vec::new();
    for entry in fs::read_dir(path).ok()? {
        let entry = entry.ok()?;
        let (name, metadata) = (entry.file_name().into_string().ok()?, entry.metadata().ok()?);
        if !is_ours(&name) || !metadata.is_file() {
            return None;
        }
        found.bytes += std::os::unix::fs::MetadataExt::blocks(&metadata) * 512;
        files.push(name);
    }
    let is_dump = |name: &String| DUMPS.contains(&name.strip_suffix(".age").unwrap_or(name));
    found.is_complete = files.iter().any(|name| name == MANIFEST) && files.iter().any(is_dump);
    Some(found)
}

/// Removes a dump. It ceases to be complete first, so that one whose removal is cut short is not taken for whole.
///
/// # Errors
/// Whatever the operating system says, and what the directory holds that is not ours.
pub fn remove(dir: &Path, dump: &Found) -> io::Result<()> {
    let path = dir.join(&dump.name);
    for name in [MANIFEST].iter().chain(&DUMPS).chain(&FILES) {
        for suffix in ["", ".partial", ".age", ".age.partial"] {
            match fs::remove_file(path.join(format!("{name}{suffix}"))) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        if *name == MANIFEST {
            durable::sync_dir(&path)?;
        }
    }
    fs::remove_dir(&path)?;
    durable::sync_dir(dir)
}

/// When a directory of this name was made: `20261123T134501Z-1f3a9c04`, and `-2` for one of the same second.
fn parse_name(name: &str) -> Option<u64> {
    let (time, id) = name.split_once("Z-")?;
    let (id, more) = id.split_once('-').unwrap_or((id, "2"));
    let is_id = id == "unknown" || (1..=8).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_hexdigit());
    if !is_id || more.parse::<u8>().is_err() {
        return None;
    }
    let (date, clock) = time.split_once('T')?;
    let is_digits = |text: &str, len| text.len() == len && text.bytes().all(|b| b.is_ascii_digit());
    if !is_digits(date, 8) || !is_digits(clock, 6) {
        return None;
    }
    let part = |text: &str, at: usize, len: usize| text.get(at..at + len)?.parse::<u64>().ok();
    let (year, month, day) = (part(date, 0, 4)?, part(date, 4, 2)?, part(date, 6, 2)?);
    let (hour, minute, second) = (part(clock, 0, 2)?, part(clock, 2, 2)?, part(clock, 4, 2)?);
    let is_time =
        (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second < 61;
    if !is_time || year < 1970 {
        return None;
    }
    // Days since 1970 in the proleptic Gregorian calendar, counted in years from March.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = (365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1).checked_sub(719_468)?;
    Some(days * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400;

    fn dump(day: u64, bytes: u64, is_complete: bool) -> Found {
        Found { name: format!("day-{day}"), made: day * DAY, bytes, is_complete }
    }

    fn gone(found: &[Found], limits: RetentionConfig, circumstances: Circumstances<'_>) -> Vec<(u64, Why)> {
        plan(found, &limits, circumstances).into_iter().map(|(dump, why)| (dump.made / DAY, why)).collect()
    }

    const AT_EASE: Circumstances<'_> = Circumstances { current: None, now: 100 * DAY, free: 1000, wanted: 0 };

    #[test]
    fn the_oldest_go_first() {
        let found: Vec<_> = [3, 1, 5, 2, 4].map(|day| dump(day, 10, true)).into();
        let keep = RetentionConfig { keep: 3, ..RetentionConfig::default() };
        assert_eq!(gone(&found, keep, AT_EASE), [(1, Why::Count), (2, Why::Count)]);
        let bytes = RetentionConfig { max_bytes: 35, ..RetentionConfig::default() };
        assert_eq!(gone(&found, bytes, AT_EASE), [(1, Why::Bytes), (2, Why::Bytes)]);
        let age = RetentionConfig { max_age: 97 * DAY, ..RetentionConfig::default() };
        assert_eq!(gone(&found, age, AT_EASE), [(1, Why::Age), (2, Why::Age)]);
        let free = RetentionConfig { min_free: 1005, ..RetentionConfig::default() };
        assert_eq!(gone(&found, free, AT_EASE), [(1, Why::Room)]);
        assert_eq!(gone(&found, RetentionConfig::default(), AT_EASE), []);
    }

    #[test]
    fn room_is_made_for_what_is_to_be_written_and_not_more() {
        let found: Vec<_> = (1..=4).map(|day| dump(day, 100, true)).collect();
        let room =
            |wanted| gone(&found, RetentionConfig::default(), Circumstances { wanted, ..AT_EASE }).len();
        assert_eq!([room(1000), room(1001), room(1100), room(1101)], [0, 1, 1, 2]);
        assert_eq!(room(u64::MAX), 3, "the only complete one stays");
    }

    #[test]
    fn the_only_complete_dump_stays_whatever_is_wanted() {
        let all = RetentionConfig { keep: 1, max_bytes: 1, max_age: 1, min_free: 10_000 };
        let found = [dump(1, 10, true), dump(2, 10, false), dump(3, 10, false)];
        assert_eq!(gone(&found, all, AT_EASE), [(2, Why::Count), (3, Why::Count)]);
        assert_eq!(gone(&found[1..], all, AT_EASE), [(2, Why::Count)], "without one, the only dump stays");
        assert_eq!(gone(&found[..1], all, AT_EASE), []);
    }

    #[test]
    fn what_is_being_written_stays_and_replaces_nothing_before_it_is_complete() {
        let all = RetentionConfig { keep: 1, ..RetentionConfig::default() };
        let with = |is_complete| {
            let found = [dump(1, 10, true), dump(9, 10, is_complete)];
            gone(&found, all, Circumstances { current: Some("day-9"), ..AT_EASE })
        };
        assert_eq!(with(false), []);
        assert_eq!(with(true), [(1, Why::Count)]);
    }

    #[test]
    fn only_names_that_kdump_init_gives_are_dumps() {
        assert_eq!(parse_name("19700101T000000Z-b4bb3a2f"), Some(0));
        assert_eq!(parse_name("20000229T123456Z-b4bb3a2f-2"), Some(951_827_696));
        assert_eq!(parse_name("21000301T000000Z-unknown"), Some(4_107_542_400));
        for name in [
            "20261123T134501Z",
            "20261123T134501Z-",
            "20261323T134501Z-1f3a9c04",
            "20261123T134501Z-1f3a9c04-x",
            "20261123T134501Z-../../x",
            "x0261123T134501Z-1f3a9c04",
            "2026-11-23-13:45:01",
            "lost+found",
        ] {
            assert_eq!(parse_name(name), None, "{name}");
        }
    }

    #[test]
    fn a_foreign_file_keeps_a_directory_and_a_link_is_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let make = |name: &str, files: &[&str]| {
            fs::create_dir(root.path().join(name)).unwrap();
            for file in files {
                fs::write(root.path().join(name).join(file), "x").unwrap();
            }
        };
        make("20260101T000000Z-00000001", &["vmcore", "manifest.json", "report.txt"]);
        make("20260102T000000Z-00000002", &["vmcore.partial", "report.txt"]);
        make("20260103T000000Z-00000003", &["vmcore", "manifest.json", "ticket.txt"]);
        make("20260104T000000Z-00000004", &[]);
        make("20260106T000000Z-00000006", &["vmcore.flat.age", "manifest.json", "dmesg.txt.age"]);
        make("20260107T000000Z-00000007", &["vmcore.flat.age.partial", "report.txt.age"]);
        make("20260108T000000Z-00000008", &["vmcore.flat.age", "manifest.json", "key.age"]);
        make("precious", &["vmcore", "manifest.json"]);
        std::os::unix::fs::symlink("precious", root.path().join("20260105T000000Z-00000005")).unwrap();
        let mut found = scan(root.path()).unwrap();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        let seen: Vec<_> = found.iter().map(|f| (f.name.split_once('-').unwrap().1, f.is_complete)).collect();
        assert_eq!(
            seen,
            [
                ("00000001", true),
                ("00000002", false),
                ("00000004", false),
                ("00000006", true),
                ("00000007", false)
            ]
        );
        for dump in &found {
            remove(root.path(), dump).unwrap();
        }
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 4);
        assert!(root.path().join("precious/vmcore").exists());
    }

    #[test]
    fn a_file_that_came_up_meanwhile_is_not_removed() {
        let root = tempfile::tempdir().unwrap();
        let name = "20260101T000000Z-00000001";
        fs::create_dir(root.path().join(name)).unwrap();
        let found = scan(root.path()).unwrap();
        fs::write(root.path().join(name).join("ticket.txt"), "x").unwrap();
        assert!(remove(root.path(), &found[0]).is_err());
        assert!(root.path().join(name).join("ticket.txt").exists());
    }
}

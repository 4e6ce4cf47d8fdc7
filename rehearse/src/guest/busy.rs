//! A little life for the guest: processes with names to recognise, memory of every kind a dump
//! level tells apart.

use std::fs::{self, File};
use std::hint::black_box;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::thread;
use std::time::Duration;

use super::{Failure, Orders, because, crash};
use crate::disk::MOUNT_POINT;
use crate::scene;

/// Anonymous memory of the holder, in bytes: a quarter noise, a quarter zero-filled, half text.
const HELD: usize = 32 << 20;
/// Page cache of a file on the disk.
const CACHED: usize = 16 << 20;
/// A guest that says nothing for long is given up.
const SAID_EVERY: u64 = 256 << 20;
/// Files on tmpfs: page cache too, but with no disk behind it.
const SHARED: usize = 8 << 20;

/// What a process of the guest does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Sleeps.
    Sleeper,
    /// Keeps a CPU busy in user mode.
    Burner,
    /// Holds anonymous memory.
    Holder,
    /// Holds pages of the pattern that [`crate::scene`] knows.
    Pattern,
    /// Holds anonymous memory with files' contents.
    Loader,
    /// Crashes, on a CPU of the host's choice.
    Crasher,
}

impl Role {
    const ALL: [Self; 6] =
        [Self::Sleeper, Self::Burner, Self::Holder, Self::Pattern, Self::Loader, Self::Crasher];

    /// The task's name in the dump.
    #[must_use]
    pub fn comm(self) -> &'static str {
        match self {
            Self::Sleeper => "kdump-sleeper",
            Self::Burner => "kdump-burner",
            Self::Holder => "kdump-holder",
            Self::Pattern => "kdump-pattern",
            Self::Loader => "kdump-loader",
            Self::Crasher => "kdump-crasher",
        }
    }
}

/// A role that is none.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no role in a rehearsal")]
pub struct UnknownRole(String);

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        Self::ALL.into_iter().find(|r| r.comm() == text).ok_or_else(|| UnknownRole(text.to_owned()))
    }
}

/// Fills page cache and tmpfs, and starts the processes that do not take CPU time.
pub(super) fn populate(orders: &Orders) -> Result<(), Failure> {
    let cached = Path::new(MOUNT_POINT).join("spool");
    fs::create_dir_all(&cached).map_err(because("cannot create the spool directory"))?;
    for (path, bytes) in [(cached.join("ballast"), CACHED), (Path::new("/run/ballast").to_owned(), SHARED)] {
        let mut content = vec![0; bytes];
        fill(&mut content, bytes as u64);
        let mut file = File::create(&path).map_err(because("cannot create ballast"))?;
        file.write_all(&content).map_err(because("cannot write ballast"))?;
        file.sync_all().map_err(because("cannot sync ballast"))?;
    }
    for role in [Role::Sleeper, Role::Sleeper, Role::Sleeper, Role::Holder] {
        start(role)?;
    }
    if orders.load_bytes > 0 { load(orders.load_bytes) } else { Ok(()) }
}

/// Half of `bytes` as page cache of the disk's files, a quarter as copies of them on tmpfs; the last quarter is the
/// loader's own memory.
fn load(bytes: u64) -> Result<(), Failure> {
    let mut files = Vec::new();
    list(Path::new(MOUNT_POINT), &mut files)?;
    let (mut cached, mut copied) = (0, 0);
    for (number, path) in files.iter().enumerate() {
        if cached >= bytes / 2 {
            break;
        }
        let content = fs::read(path).map_err(because("cannot read ballast"))?;
        cached += content.len() as u64;
        if cached / SAID_EVERY > (cached - content.len() as u64) / SAID_EVERY {
            super::say(&format!("filling memory: {} MiB cached", cached >> 20));
        }
        if copied < bytes / 4 {
            copied += content.len() as u64;
            fs::write(format!("/run/ballast-{number}"), content).map_err(because("cannot copy ballast"))?;
        }
    }
    start(Role::Loader)?;
    super::say(&format!("filled memory: {} MiB cached, {} MiB copied", cached >> 20, copied >> 20));
    Ok(())
}

/// Contents of the disk's files, last ones first, up to `bytes`.
fn anonymous(bytes: u64) -> Result<Vec<u8>, Failure> {
    let mut files = Vec::new();
    list(Path::new(MOUNT_POINT), &mut files)?;
    let limit = usize::try_from(bytes).map_err(because("too much to hold"))?;
    let mut held = Vec::with_capacity(limit);
    for path in files.iter().rev() {
        let room = (limit - held.len()) as u64;
        if room == 0 {
            break;
        }
        let file = File::open(path).map_err(because("cannot open ballast"))?;
        file.take(room).read_to_end(&mut held).map_err(because("cannot read ballast"))?;
    }
    Ok(held)
}

/// Regular files below `dir`, in an order that is the same each time.
fn list(dir: &Path, files: &mut Vec<PathBuf>) -> Result<(), Failure> {
    let entries = fs::read_dir(dir).map_err(because("cannot list ballast"))?;
    let mut entries: Vec<_> = entries.flatten().collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => list(&entry.path(), files)?,
            Ok(kind) if kind.is_file() => files.push(entry.path()),
            _ => {}
        }
    }
    Ok(())
}

/// Starts a process in a role, and waits until it has begun.
pub(super) fn start(role: Role) -> Result<(), Failure> {
    let mut child = Command::new("/proc/self/exe")
        .args(["rehearse-guest", "--be", role.comm()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(because(&format!("cannot start {}", role.comm())))?;
    let mut line = String::new();
    if let Some(out) = child.stdout.take() {
        BufReader::new(out).read_line(&mut line).map_err(because(role.comm()))?;
    }
    if line.is_empty() { Err(format!("{} ended at once", role.comm())) } else { Ok(()) }
}

/// Plays a role; returns only where that fails.
pub(super) fn be(role: Role) -> Result<(), Failure> {
    // The task's name: what prctl(PR_SET_NAME) sets.
    fs::write("/proc/self/comm", role.comm()).map_err(because("cannot set the task's name"))?;
    let mut held = Vec::new();
    if role == Role::Holder {
        held.resize(HELD, 0);
        fill(&mut held, 1);
    }
    let orders = Orders::read()?;
    if role == Role::Loader {
        held = anonymous(orders.load_bytes / 4)?;
    }
    let mut patterns = Vec::new();
    if role == Role::Pattern {
        // Page-aligned, so that each pattern is one physical page.
        let nr_pages = orders.pattern_bytes / scene::PATTERN_PAGE as u64;
        patterns = (0..nr_pages).map(|number| Page(scene::pattern(number))).collect();
    }
    if let (Role::Crasher, Some(cpu)) = (role, orders.panic_cpu.or(orders.crash.only_cpu())) {
        crash::move_to(cpu, None)?;
    }
    println!("ready");
    match role {
        Role::Crasher => crash::crash(orders.crash),
        Role::Burner => loop {
            black_box(());
        },
        Role::Sleeper | Role::Holder | Role::Pattern | Role::Loader => loop {
            thread::sleep(Duration::from_secs(3600));
            black_box((&held, &patterns));
        },
    }
}

/// A page of memory.
#[repr(align(4096))]
struct Page(#[expect(dead_code, reason = "it is for the dump")] [u8; scene::PATTERN_PAGE]);

/// Fills memory as real memory is filled: a quarter noise (xorshift), a quarter zeros, half text.
fn fill(memory: &mut [u8], seed: u64) {
    let quarter = memory.len() / 4;
    let (noise, rest) = memory.split_at_mut(quarter);
    let mut x = seed | 1;
    for word in noise.chunks_mut(8) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        word.copy_from_slice(&x.to_le_bytes()[..word.len()]);
    }
    let (zeros, text) = rest.split_at_mut(quarter);
    // Written, so that each page is there, though the kernel gave it zeroed.
    zeros.fill(0);
    for (i, line) in text.chunks_mut(64).enumerate() {
        let words = format!("{i:>12} the quick brown fox jumps over the lazy dog, says kdump");
        let bytes = words.as_bytes().get(..line.len()).unwrap_or(words.as_bytes());
        line[..bytes.len()].copy_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn task_names_fit_the_kernel_and_name_their_role() {
        for role in Role::ALL {
            assert!(role.comm().len() < 16); // TASK_COMM_LEN, NUL included
            assert_eq!(role.comm().parse::<Role>().unwrap(), role);
        }
        assert!("init".parse::<Role>().is_err());
    }

    #[test]
    fn held_memory_is_noise_zeros_and_text() {
        let mut memory = vec![0xff; 4 << 12];
        fill(&mut memory, 7);
        assert!(memory[..4096].iter().filter(|&&b| b == 0).count() < 100);
        assert!(memory[4096..8192].iter().all(|&b| b == 0));
        assert!(memory[8192..].windows(9).any(|w| w == b"brown fox"));
    }
}

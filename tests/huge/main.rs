//! Machines of terabytes: memory stays within what a capture kernel has, and time grows as they do.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod machine;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kdump_vmcore::Dump;

/// Sections of a TiB.
const SECTIONS: u64 = (1 << 40) >> 27;
/// What kdump-init may take.
const PEAK_MAX_KIB: u64 = 32 << 10;

/// Dumps a machine of `tib` TiB at level 31; says how long that took, and how much memory.
fn capture(dir: &Path, tib: u64) -> (Duration, u64) {
    let (core, out) = (dir.join("core"), dir.join("vmcore"));
    machine::write(&core, tib).unwrap();
    let begin = Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_kdump-rs"))
        .args(["capture", "--threads", "2", "-d", "31", "--force"])
        .arg(&core)
        .arg("-o")
        .arg(&out)
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    // The mark only rises, so the last look before the end has it, or nearly.
    let mut peak = 0;
    let status = loop {
        peak = peak_of(child.id()).unwrap_or(0).max(peak);
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let time = begin.elapsed();
    assert!(status.success(), "{status}");
    let dump = Dump::open(&out).unwrap();
    let kdump = dump.kdump().unwrap();
    assert_eq!(kdump.info().max_mapnr, tib << 28);
    let section = (tib * SECTIONS - 1) << 15;
    let held = kdump.read_dumped(section..section + (1 << 15)).unwrap();
    assert_eq!(held.count(), machine::KEPT, "pages of the last section");
    assert!(!dump.is_incomplete());
    println!(
        "{tib} TiB: {:.1} s, {:.1} s a TiB, peak {peak} KiB, file {} MiB",
        time.as_secs_f64(),
        time.as_secs_f64() / tib as f64,
        out.metadata().unwrap().len() >> 20
    );
    (time, peak)
}

fn peak_of(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?.trim().strip_suffix(" kB")?.parse().ok()
}

#[test]
fn a_terabyte_is_dumped_in_little_memory() {
    let dir = tempfile::tempdir().unwrap();
    let (_, peak) = capture(dir.path(), 1);
    assert!((1000..=PEAK_MAX_KIB).contains(&peak), "{peak} KiB");
}

#[test]
#[cfg(feature = "full-tests")]
fn sixteen_terabytes_take_no_more_memory_than_one() {
    let dir = tempfile::tempdir().unwrap();
    let (one, first) = capture(dir.path(), 1);
    let (sixteen, peak) = capture(dir.path(), 16);
    println!("16 TiB take {:.1} times as long as one", sixteen.as_secs_f64() / one.as_secs_f64());
    assert!(first <= PEAK_MAX_KIB && peak <= PEAK_MAX_KIB, "{first} and {peak} KiB");
}

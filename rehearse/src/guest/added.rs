//! Putting to use what comes to a running guest: CPUs appear offline, memory as the kernel was told.
//!
//! Source: Documentation/ABI/testing/sysfs-devices-memory, sysfs-devices-system-cpu.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::{Failure, because, say};
use crate::Added;

const CPUS: &str = "/sys/devices/system/cpu";
const MEMORY: &str = "/sys/devices/system/memory";

/// ACPI tells the kernel within a second; this is for slow emulation.
const LIMIT: Duration = Duration::from_secs(60);

/// What was there before.
pub(super) struct Before {
    blocks: usize,
}

impl Before {
    /// Looks, and has the kernel put what comes online by itself, as some do anyway: as movable, since the
    /// processes' pages are wanted in it.
    pub(super) fn look(added: Added) -> Result<Self, Failure> {
        if added.memory > 0 {
            let policy = Path::new(MEMORY).join("auto_online_blocks");
            fs::write(&policy, "online_movable").map_err(because(&policy.display().to_string()))?;
        }
        Ok(Self { blocks: switches(Path::new(MEMORY), "memory", "state", "online").len() })
    }
}

/// Waits for what is added, and brings the CPUs online.
pub(super) fn put_to_use(added: Added, before: &Before) -> Result<(), Failure> {
    let block = block_bytes()?;
    let mut cpus = 0;
    let start = Instant::now();
    loop {
        for cpu in switches(Path::new(CPUS), "cpu", "online", "0") {
            fs::write(&cpu, "1").map_err(because(&format!("cannot write 1 to {}", cpu.display())))?;
            say(&format!("online: {}", cpu.display()));
            cpus += 1;
        }
        let blocks = switches(Path::new(MEMORY), "memory", "state", "online").len();
        let bytes = blocks.saturating_sub(before.blocks) as u64 * block;
        if cpus >= added.cpus && bytes >= added.memory {
            say(&format!("added and online: {cpus} CPUs, {} MiB of memory", bytes >> 20));
            return Ok(());
        }
        if start.elapsed() > LIMIT {
            return Err(format!(
                "of {} CPUs and {} bytes of memory, {cpus} and {bytes} have come",
                added.cpus, added.memory
            ));
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// The switches of all devices that stand so.
fn switches(directory: &Path, prefix: &str, switch: &str, state: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return vec![] };
    let devices = entries.flatten().map(|entry| entry.path());
    let is_numbered = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.strip_prefix(prefix).is_some_and(|number| number.parse::<u32>().is_ok())
    };
    devices
        .filter(is_numbered)
        .map(|path| path.join(switch))
        .filter(|path| fs::read_to_string(path).is_ok_and(|now| now.trim() == state))
        .collect()
}

fn block_bytes() -> Result<u64, Failure> {
    let path = Path::new(MEMORY).join("block_size_bytes");
    let text = fs::read_to_string(&path).map_err(because(&path.display().to_string()))?;
    u64::from_str_radix(text.trim(), 16).map_err(because(&path.display().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_numbered_devices_are_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        for (name, state) in [("memory0", "online\n"), ("memory32", "offline\n"), ("memory", "offline\n")] {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join("state"), state).unwrap();
        }
        fs::write(dir.path().join("block_size_bytes"), "8000000\n").unwrap();
        let found = switches(dir.path(), "memory", "state", "offline");
        assert_eq!(found, [dir.path().join("memory32/state")]);
    }
}

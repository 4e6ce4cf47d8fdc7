//! Hardware watchdogs of the running machine: whoever feeds them now does not do it in the capture kernel, where
//! kdump-init takes over. For that it needs their drivers.
//!
//! Source: Documentation/ABI/testing/sysfs-class-watchdog.

use std::fs;
use std::path::{Path, PathBuf};

use crate::modules::{Error, Reason, Tree, devices};

/// The watchdogs that are hardware, as directories under /sys/devices.
#[must_use]
pub fn find(root: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(root.join("sys/class/watchdog")).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries
        .filter_map(|entry| fs::canonicalize(entry.path()).ok())
        // The kernel's own (softdog) dies with it.
        .filter(|path| !path.components().any(|part| part.as_os_str() == "virtual"))
        .collect();
    found.sort_unstable();
    found
}

/// What watchdogs need of the capture kernel.
#[derive(Debug, Default)]
pub struct Drivers {
    /// Modules, each with its reason.
    pub names: Vec<(String, Reason)>,
    /// A sentence for each watchdog that there is no driver for.
    pub warnings: Vec<String>,
}

/// The drivers of `watchdogs`.
///
/// # Errors
/// None that a missing driver is the reason of: a capture does not depend on it.
pub fn drivers(tree: &Tree, watchdogs: &[PathBuf]) -> Result<Drivers, Error> {
    let mut drivers = Drivers::default();
    for watchdog in watchdogs {
        match devices::find_drivers(tree, watchdog) {
            Ok(found) => drivers.names.extend(found),
            Err(Error::NoDriver { module, .. }) => drivers.warnings.push(format!(
                "the capture kernel has no driver {module} for the watchdog {}: if that runs, it resets the machine \
                 in the middle of a capture",
                watchdog.display()
            )),
            Err(error) => return Err(error),
        }
    }
    Ok(drivers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_watchdog_of_software_is_none() {
        let root = tempfile::tempdir().unwrap();
        let class = root.path().join("sys/class/watchdog");
        fs::create_dir_all(&class).unwrap();
        assert!(find(root.path()).is_empty());
        for (name, device) in
            [("watchdog0", "virtual/watchdog/watchdog0"), ("watchdog1", "pci0/04.0/watchdog/watchdog1")]
        {
            let device = root.path().join("sys/devices").join(device);
            fs::create_dir_all(&device).unwrap();
            symlink(&device, class.join(name)).unwrap();
        }
        let found = find(root.path());
        assert!(found.len() == 1 && found[0].ends_with("watchdog1"), "{found:?}");
    }
}

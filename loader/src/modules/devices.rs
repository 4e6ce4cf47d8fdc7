//! The drivers between a block device and the CPU, from the device's chain of parents in sysfs.
//!
//! Each ancestor that has a driver counts: partition and disk have none, then come for instance the
//! virtio device (`virtio_blk`) and the PCI function it sits on (`virtio_pci`). A driver that is a
//! module now is named by sysfs; one that is built in now may be a module of the capture kernel,
//! and is looked up by the device's modalias.

use std::fs;
use std::path::Path;

use super::{Error, FoundBy, Reason, Tree};

/// Longest chain that is believed; USB hubs behind PCI bridges make a dozen.
const MAX_DEPTH: usize = 64;

/// Names of the modules of `tree` that drive `device`, a directory under /sys/devices, and its
/// parents, the outermost bus first, each with the device as its reason.
///
/// # Errors
/// [`Error::NoDriver`] where a module that drives one of them now is none of `tree`.
pub fn find_drivers(tree: &Tree, device: &Path) -> Result<Vec<(String, Reason)>, Error> {
    // Directories without uevent are no devices: `block`, and all above the bus.
    let chain: Vec<&Path> =
        device.ancestors().take(MAX_DEPTH).filter(|d| d.join("uevent").exists()).collect();
    let mut found: Vec<(String, Reason)> = Vec::new();
    for dir in chain.into_iter().rev() {
        let (names, by) = drivers_of(tree, dir)?;
        for name in names {
            if found.iter().all(|(other, _)| *other != name) {
                found.push((name, Reason::Driver { device: dir.to_owned(), by }));
            }
        }
    }
    Ok(found)
}

fn drivers_of(tree: &Tree, dir: &Path) -> Result<(Vec<String>, FoundBy), Error> {
    let driver = dir.join("driver");
    if !driver.exists() {
        return Ok((Vec::new(), FoundBy::Sysfs));
    }
    let module_dir = fs::canonicalize(driver.join("module")).ok();
    let module = module_dir.as_deref().and_then(Path::file_name).and_then(|n| n.to_str());
    if module.is_some_and(|m| tree.is_builtin(m)) {
        return Ok((Vec::new(), FoundBy::Sysfs));
    }
    let found = module.map(|m| tree.find_alias(m)).unwrap_or_default();
    let (found, by) = if found.is_empty() {
        let alias = fs::read_to_string(dir.join("modalias")).unwrap_or_default();
        (tree.find_alias(alias.trim()), FoundBy::Modalias)
    } else {
        (found, FoundBy::Sysfs)
    };
    // Only a loaded module has `initstate`. What is built in now and no module there is taken to be built in
    // there too: modules.builtin lists only what could have been a module.
    let is_loaded = module_dir.as_deref().is_some_and(|m| m.join("initstate").exists());
    match module {
        Some(module) if found.is_empty() && is_loaded => Err(Error::NoDriver {
            module: module.to_owned(),
            device: dir.to_owned(),
            dir: tree.dir().to_owned(),
        }),
        _ => Ok((found.into_iter().map(str::to_owned).collect(), by)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// Check that a virtio disk gives both its drivers, the one that is built in here by its modalias,
    /// and that a tree without one of them is refused.
    #[test]
    fn a_virtio_disk_needs_its_bus_and_its_driver() {
        let root = tempfile::tempdir().unwrap();
        let lib = root.path().join("lib");
        fs::create_dir_all(&lib).unwrap();
        fs::write(lib.join("modules.dep"), "k/virtio_blk.ko.xz:\nk/virtio_pci.ko:\nk/other.ko:\n").unwrap();
        fs::write(lib.join("modules.alias"), "alias pci:v00001AF4d*sv*sd*bc*sc*i* virtio_pci\n").unwrap();
        let tree = Tree::open(&lib).unwrap();

        let pci = root.path().join("devices/pci0000:00/0000:00:03.0");
        let virtio = pci.join("virtio1");
        let part = virtio.join("block/vda/vda1");
        fs::create_dir_all(&part).unwrap();
        for dir in [&part, &virtio.join("block/vda"), &virtio, &pci] {
            fs::write(dir.join("uevent"), "").unwrap();
        }
        fs::create_dir_all(root.path().join("bus/drivers/virtio_blk")).unwrap();
        fs::create_dir_all(root.path().join("bus/drivers/virtio-pci")).unwrap();
        fs::create_dir_all(root.path().join("module/virtio_blk")).unwrap();
        symlink(root.path().join("module/virtio_blk"), root.path().join("bus/drivers/virtio_blk/module"))
            .unwrap();
        symlink(root.path().join("bus/drivers/virtio_blk"), virtio.join("driver")).unwrap();
        symlink(root.path().join("bus/drivers/virtio-pci"), pci.join("driver")).unwrap();
        fs::write(pci.join("modalias"), "pci:v00001AF4d00001042sv00001AF4sd00001100bc01sc00i00\n").unwrap();

        let driver = |name: &str, device: &Path, by| {
            (name.to_owned(), Reason::Driver { device: device.to_owned(), by })
        };
        let bus = driver("virtio_pci", &pci, FoundBy::Modalias);
        let disk = driver("virtio_blk", &virtio, FoundBy::Sysfs);
        assert_eq!(find_drivers(&tree, &part).unwrap(), [bus.clone(), disk]);

        // The tree of a kernel that has no such driver.
        fs::write(lib.join("modules.dep"), "k/virtio_pci.ko:\n").unwrap();
        let without = Tree::open(&lib).unwrap();
        fs::write(root.path().join("module/virtio_blk/initstate"), "live\n").unwrap();
        let error = find_drivers(&without, &part).unwrap_err();
        let names = [&virtio, &lib].map(|path| path.display().to_string());
        for name in names.iter().map(String::as_str).chain(["virtio_blk"]) {
            assert!(error.to_string().contains(name), "{error}");
        }
        // One that has it built in.
        fs::write(lib.join("modules.builtin"), "kernel/drivers/block/virtio_blk.ko\n").unwrap();
        assert_eq!(find_drivers(&Tree::open(&lib).unwrap(), &part).unwrap(), [bus]);
    }
}

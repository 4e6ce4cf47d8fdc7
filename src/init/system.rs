//! The file systems and modules everything else needs.

use std::ffi::CString;
use std::fs::File;
use std::path::Path;

use rustix::mount::{MountFlags, mount};
use rustix::system::finit_module;

use crate::console::say;

/// Mounts what the kernel tells things by.
pub fn mount_early() {
    let nodev = MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV;
    for (fstype, dir, flags) in [
        ("proc", "/proc", nodev),
        ("sysfs", "/sys", nodev),
        ("devtmpfs", "/dev", MountFlags::NOSUID),
        ("tmpfs", "/run", nodev),
    ] {
        if let Err(e) = mount_at(fstype, fstype, Path::new(dir), flags, "") {
            say!("cannot mount {dir}: {e}");
        }
    }
}

/// Mounts `source` on `dir`, which is made if it does not exist.
pub fn mount_at(
    source: &str,
    fstype: &str,
    dir: &Path,
    flags: MountFlags,
    options: &str,
) -> std::io::Result<()> {
    std::fs::create_dir_all(dir)?;
    let options = CString::new(options)?;
    Ok(mount(source, dir, fstype, flags, (!options.is_empty()).then_some(options.as_c_str()))?)
}

/// Loads modules in the order given. One that fails need not be the one that matters: the others are
/// tried all the same.
pub fn load_modules(modules: &[String]) {
    let mut loaded = 0;
    for path in modules {
        let path = Path::new("/").join(path);
        match load_module(&path) {
            Ok(()) => loaded += 1,
            Err(e) => say!("module {}: {e}", path.display()),
        }
        // It is of no more use, and lies in memory: this root is a tmpfs. A second failure would say nothing new.
        let _ = std::fs::remove_file(&path);
    }
    if !modules.is_empty() {
        say!("{loaded} of {} modules loaded", modules.len());
    }
}

fn load_module(path: &Path) -> std::io::Result<()> {
    let file = File::open(path)?;
    match finit_module(&file, &CString::default(), 0) {
        // Built in, or loaded by another's dependency.
        Err(rustix::io::Errno::EXIST) => Ok(()),
        other => Ok(other?),
    }
}

//! What would be armed, without a look at whether it could be loaded: for `arm --explain`, `reserve` and `doctor`,
//! which have an answer on machines without a reservation, too.

use std::path::{Path, PathBuf};

use super::{
    Error, Kernel, Settings, build_capture, find, init_places, open_modules, read_file, read_kernel, way,
};
use crate::initramfs::{self, Initramfs};
use crate::machine::Machine;
use crate::modules::Wanted;
use crate::plan::Need;
use crate::state::FileId;
use crate::target::Rung;

/// What runs in the capture kernel, built.
#[derive(Debug)]
pub struct Capture {
    /// Where the dump goes, in this order.
    pub targets: Vec<Rung>,
    /// The initramfs.
    pub initramfs: Initramfs,
    /// kdump-init's file.
    pub init: FileId,
}

/// Finds and reads the capture kernel.
///
/// # Errors
/// [`Error`].
pub fn find_kernel(settings: &Settings, machine: &Machine) -> Result<Kernel, Error> {
    read_kernel(settings, &machine.release)
}

/// Resolves the targets and builds the initramfs for it.
///
/// # Errors
/// [`Error`].
pub fn build(settings: &Settings, machine: &Machine, kernel: &Kernel) -> Result<Capture, Error> {
    let (targets, initramfs, init) = build_capture(settings, machine, &kernel.image, Path::new("/"))?;
    Ok(Capture { targets, initramfs, init })
}

/// Finds kdump-init, and checks that it would start.
///
/// # Errors
/// [`Error::NotFound`], [`Error::File`], [`Error::Initramfs`].
pub fn find_init(settings: &Settings) -> Result<PathBuf, Error> {
    let path = find("kdump-init", "--init", settings.init.as_deref(), &init_places())?;
    initramfs::check_static("kdump-init", &read_file("kdump-init", &path)?)?;
    Ok(path)
}

/// Finds the modules that reach the targets.
///
/// # Errors
/// [`Error::Modules`], [`Error::OtherModules`], [`Error::Network`].
pub fn find_modules(
    settings: &Settings,
    machine: &Machine,
    kernel: &Kernel,
    targets: &[Rung],
) -> Result<Vec<Wanted>, Error> {
    let (tree, _) = open_modules(settings, machine, &kernel.image)?;
    let way = way::find(&tree, targets, Path::new("/"))?;
    Ok(way.modules.into_iter().chain(way.later).collect())
}

/// Both from the settings alone. `root` is where /proc and /sys are.
///
/// # Errors
/// [`Error`].
pub fn explain(settings: &Settings, root: &Path) -> Result<(Kernel, Capture), Error> {
    let machine = Machine::read(root)?;
    let kernel = find_kernel(settings, &machine)?;
    let capture = build(settings, &machine, &kernel)?;
    Ok((kernel, capture))
}

/// What an initramfs is counted as that could not be built: twice one for virtio and ext4.
const USUAL_INITRAMFS: u64 = 4 << 20;

impl Kernel {
    /// What it needs of crashkernel memory, with this initramfs or, without one, with the usual.
    #[must_use]
    pub fn need(&self, initramfs: Option<&Initramfs>, machine: &Machine) -> Need {
        let packed = initramfs.map_or(USUAL_INITRAMFS, |initramfs| initramfs.packed.len() as u64);
        let unpacked = initramfs.map_or(2 * USUAL_INITRAMFS, |initramfs| initramfs.unpacked_len);
        let mut need = Need::new(&self.image, packed, unpacked, machine);
        for item in
            need.items.iter_mut().filter(|item| initramfs.is_none() && item.what.starts_with("initramfs"))
        {
            item.from = "not built: as much as most need".to_owned();
        }
        need
    }
}

//! What the capture kernel needs to reach its targets: modules, and the network where one of them is on a server.

use std::path::Path;

use super::Error;
use crate::initramfs;
use crate::modules::{Tree, Wanted};
use crate::network::{self, Destination, NetworkConfig};
use crate::target::Rung;
use crate::watchdog;

/// All of it.
#[derive(Debug)]
pub(super) struct Way {
    /// Modules that are loaded at once.
    pub modules: Vec<Wanted>,
    /// Those that wait until the network is needed.
    pub later: Vec<Wanted>,
    /// The network; none if all targets are local.
    pub network: Option<NetworkConfig>,
    /// What is not as it should be.
    pub warnings: Vec<String>,
}

/// Finds the way to the targets. `root` is what /sys and /etc are below.
pub(super) fn find(tree: &Tree, targets: &[Rung], root: &Path) -> Result<Way, Error> {
    let watchdogs = watchdog::drivers(tree, &watchdog::find(root))?;
    let modules = initramfs::find_modules(tree, targets, watchdogs.names)?;
    let destinations: Vec<Destination> = targets.iter().filter_map(Rung::destination).collect();
    let (mut network, mut later) = (None, Vec::new());
    if !destinations.is_empty() {
        let recorded = network::Recorded::read(root, &destinations)?;
        later = recorded.find_modules(tree)?;
        later.retain(|module| modules.iter().all(|other| other.name != module.name));
        network = Some(recorded.config);
    }
    Ok(Way { modules, later, network, warnings: watchdogs.warnings })
}

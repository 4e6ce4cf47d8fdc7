//! All that the checks judge, read once.

use std::path::{Path, PathBuf};

use super::system::System;
use crate::arm::{self, Settings, draft};
use crate::console::{self, Chosen};
use crate::initramfs::Initramfs;
use crate::machine::{self, Machine};
use crate::plan::Need;
use crate::rehearsed::Rehearsed;
use crate::reserve::{Record, Value};
use crate::state::State;
use crate::target::{self, Rung};

/// The facts.
#[derive(Debug)]
pub struct Facts {
    /// The running system, as `arm` sees it.
    pub machine: Machine,
    /// What more there is to know.
    pub system: System,
    /// What `arm` would load.
    pub outlook: Outlook,
    /// Where the panic path would print.
    pub console: Chosen,
    /// What was armed in this boot; why that is not known.
    pub state: Result<Option<State>, String>,
    /// What no longer fits of it.
    pub changes: Vec<String>,
    /// The reservation that was written for the next boot.
    pub written: Option<Value>,
    /// The last rehearsal; why that is not known.
    pub rehearsed: Result<Option<Rehearsed>, String>,
}

/// What `arm` would load, piece by piece, so that one that is missing does not hide the next.
#[derive(Debug)]
pub struct Outlook {
    /// Dump level.
    pub level: u8,
    /// Whether the dump is compressed.
    pub is_compressed: bool,
    /// The kernel's file and its version.
    pub kernel: Result<(PathBuf, String), arm::Error>,
    /// kdump-init's file.
    pub init: Result<PathBuf, arm::Error>,
    /// Where the dump goes, in this order.
    pub targets: Result<Vec<Rung>, target::Error>,
    /// Modules for them; `None` where kernel or target are missing.
    pub modules: Option<Result<Vec<String>, arm::Error>>,
    /// The initramfs, where all that it is made of is there.
    pub initramfs: Option<Initramfs>,
    /// How much memory it needs; `None` without a kernel.
    pub need: Option<Need>,
}

impl Facts {
    /// Reads the system under `root`; target and programs are those of the running one.
    ///
    /// # Errors
    /// [`machine::Error`].
    pub fn read(root: &Path, settings: &Settings) -> Result<Self, machine::Error> {
        let machine = Machine::read(root)?;
        let state = State::read(root).map_err(|error| error.to_string()).map(|state| {
            // Of another boot, or of an image that is gone: it tells nothing.
            let is_ours = |s: &State| machine.boot_id.as_ref().is_none_or(|id| *id == s.boot_id);
            state.filter(|state| machine.is_crash_loaded == Some(true) && is_ours(state))
        });
        let changes = match &state {
            Ok(Some(state)) => state.changes(),
            _ => Vec::new(),
        };
        Ok(Self {
            system: System::read(root),
            outlook: Outlook::new(settings, &machine),
            console: console::resolve(settings.console, &machine, root),
            state,
            changes,
            // One that cannot be read is for `reserve` to complain of.
            written: Record::read(root).ok().flatten().map(|record| record.value),
            rehearsed: Rehearsed::read(root).map_err(|error| error.to_string()),
            machine,
        })
    }

    /// Bytes of crashkernel memory.
    pub(super) fn reserved(&self) -> u64 {
        self.machine.iomem.crash_kernel().iter().map(|range| range.len()).sum()
    }

    /// What was armed.
    pub(super) fn armed(&self) -> Option<&State> {
        self.state.as_ref().ok()?.as_ref()
    }
}

impl Outlook {
    /// Looks at each piece.
    #[must_use]
    pub fn new(settings: &Settings, machine: &Machine) -> Self {
        let kernel = draft::find_kernel(settings, machine);
        let init = draft::find_init(settings);
        let targets = Rung::resolve_all(&settings.targets, settings.client);
        let modules = match (&kernel, &targets) {
            (Ok(kernel), Ok(targets)) => {
                let found = draft::find_modules(settings, machine, kernel, targets);
                Some(found.map(|found| found.into_iter().map(|module| module.name).collect()))
            }
            _ => None,
        };
        let initramfs = match (&kernel, &init, &modules) {
            (Ok(kernel), Ok(_), Some(Ok(_))) => draft::build(settings, machine, kernel).ok(),
            _ => None,
        };
        Self {
            level: settings.level,
            is_compressed: settings.compression != "none",
            need: kernel
                .as_ref()
                .ok()
                .map(|kernel| kernel.need(initramfs.as_ref().map(|capture| &capture.initramfs), machine)),
            initramfs: initramfs.map(|capture| capture.initramfs),
            kernel: kernel.map(|kernel| (kernel.path, kernel.image.version().unwrap_or_default().to_owned())),
            init,
            targets,
            modules,
        }
    }
}

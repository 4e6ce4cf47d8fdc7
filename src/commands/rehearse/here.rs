//! What a rehearsal takes from this machine: its kernel, its configuration, its target; and what it leaves here.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use kdump_loader::config::ArmConfig;
use kdump_loader::rehearsed::{REHEARSED_PATH, Rehearsed};
use kdump_loader::target::{Place, Rung, Wish};

use super::life::Lived;
use super::state;
use crate::commands::server;

/// The file system of the guest's disk.
const GUEST_FSTYPE: &str = "ext4";

/// The kernel that is named, or the running one, where `arm` looks for it.
pub fn kernel(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(named) = named {
        return Ok(named.to_owned());
    }
    let release =
        std::fs::read_to_string("/proc/sys/kernel/osrelease").context("the running kernel's release")?;
    let places = kdump_loader::arm::kernel_places(release.trim());
    let found = places.iter().find(|place| place.exists()).cloned();
    found.with_context(|| {
        let tried: Vec<_> = places.iter().map(|place| place.display().to_string()).collect();
        format!("no image of the running kernel: tried {}; name one with --kernel", tried.join(", "))
    })
}

/// Whether the modules are those that this machine uses with that kernel.
pub(super) fn is_of_this_machine(modules: &Path, release: &str) -> bool {
    let own = Path::new("/lib/modules").join(release);
    match (modules.canonicalize(), own.canonicalize()) {
        (Ok(modules), Ok(own)) => modules == own,
        _ => false,
    }
}

/// What a flag says of `arm`, before the configuration.
#[derive(Debug, Default)]
pub struct Asked {
    pub level: Option<u8>,
    pub format: Option<String>,
    pub compression: Option<String>,
    pub parity: Option<String>,
}

/// What `arm` is told in the guest: what was asked for here or stands in the configuration; the rest is left to its
/// defaults, so that these are rehearsed. Target, console, files and what follows the capture are the guest's own.
pub fn arm_arguments(args: &Asked, config: &ArmConfig) -> Vec<String> {
    let mut arm = Vec::new();
    let mut option = |name: &str, asked: Option<String>, configured: Option<String>| {
        if let Some(value) = asked.or(configured) {
            arm.push(format!("--{name}={value}"));
        }
    };
    let level = |level: Option<u8>| level.map(|level| level.to_string());
    option("level", level(args.level), level(config.level));
    option("format", args.format.clone(), config.format.clone());
    option("compression", args.compression.clone(), config.compression.clone());
    option("parity", args.parity.clone(), config.parity.clone());
    option("on-corruption", None, config.on_corruption.clone());
    option("append", None, config.append.clone());
    option("entry", None, config.entry.clone());
    option("syscall", None, config.syscall.clone());
    arm
}

/// Says where this machine's target is of another kind than the guest's disk.
pub fn warn_of_target(asked: &[Wish], config: &ArmConfig) {
    let ladder = match config.ladder() {
        Ok(ladder) => ladder,
        Err(error) => return eprintln!("kdump-rs: warning: `arm` could not dump here: {error}"),
    };
    let first =
        asked.iter().cloned().chain(ladder).next().unwrap_or_else(|| Wish::directory("/var/crash".into()));
    match Rung::resolve(&first, server::look).map(|rung| (rung.name(), rung.place)) {
        Ok((_, Place::Directory(target))) if target.fstype == GUEST_FSTYPE => {}
        Ok((name, Place::Directory(target))) => eprintln!(
            "kdump-rs: warning: {name} is on {}; what is rehearsed is a dump to {GUEST_FSTYPE}",
            target.fstype
        ),
        Ok((name, _)) => {
            eprintln!(
                "kdump-rs: warning: the target is {name}; what is rehearsed is a dump to {GUEST_FSTYPE}"
            );
        }
        Err(error) => eprintln!("kdump-rs: warning: `arm` could not dump here: {error}"),
    }
}

/// Leaves word of it for `status`.
pub(super) fn record(release: &str, kernel: &Path, lived: &[Lived]) {
    let (passed, failed): (Vec<_>, Vec<_>) = lived.iter().partition(|lived| lived.result.is_pass());
    let names = |lived: Vec<&Lived>| lived.iter().map(|lived| lived.life.name()).collect();
    let record = Rehearsed {
        at: state::now(),
        release: release.to_owned(),
        kernel: kernel.canonicalize().unwrap_or_else(|_| kernel.to_owned()),
        passed: names(passed),
        failed: names(failed),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    if let Err(error) = record.write(Path::new("/")) {
        eprintln!("kdump-rs: `status` will not know of this: /{REHEARSED_PATH} cannot be written: {error}");
    }
}

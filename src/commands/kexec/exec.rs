//! `kexec exec`: the way into a loaded image.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail, ensure};
use kdump_loader::machine;
use rustix::mount::{MountFlags, mount_remount};
use rustix::system::{RebootCommand, reboot};

use super::SYSTEM;
use crate::exit::Exit;

/// Arguments.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// At once: without stopping services or remounting, after a sync
    #[arg(short, long)]
    force: bool,
}

/// Runs it.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    if machine::is_kexec_loaded(Path::new(SYSTEM)) == Some(false) {
        bail!("no image is loaded: kdump-rs kexec load first");
    }
    let has_systemd = fs::read_to_string("/proc/1/comm").is_ok_and(|comm| comm.trim() == "systemd");
    if has_systemd && !args.force {
        let status = Command::new("systemctl").arg("kexec").status().context("cannot run systemctl kexec")?;
        ensure!(status.success(), "systemctl kexec ended with {status}");
        return Ok(Exit::Complete);
    }
    enter(true, !args.force)?;
    Ok(Exit::Complete)
}

/// Enters the loaded image from here: nothing is stopped first.
///
/// # Errors
/// The kernel's refusal; it does not return otherwise.
pub fn enter(is_synced: bool, is_remounted: bool) -> anyhow::Result<()> {
    if is_synced {
        rustix::fs::sync();
    }
    if is_remounted {
        remount_read_only(&fs::read_to_string("/proc/self/mounts").unwrap_or_default());
    }
    reboot(RebootCommand::Kexec).context("the kernel did not enter the image (reboot(2), KEXEC)")
}

/// File systems on disks become read-only, the last mounted first. What cannot has been synced.
fn remount_read_only(mounts: &str) {
    for target in disk_mounts(mounts) {
        if let Err(error) = mount_remount(target.as_str(), MountFlags::RDONLY, "") {
            eprintln!("kdump-rs: {target} stays writable: {error}");
        }
    }
}

/// Mount points of block devices, the last mounted first.
fn disk_mounts(mounts: &str) -> Vec<String> {
    let mut targets: Vec<_> = mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            let (source, target) = (words.next()?, words.next()?);
            // Blanks and the like are written as octal numbers.
            source.starts_with("/dev/").then(|| target.replace("\\040", " ").replace("\\011", "\t"))
        })
        .collect();
    targets.reverse();
    targets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_are_remounted_from_the_last_to_the_first() {
        let mounts = "/dev/vda1 / ext4 rw 0 0\nproc /proc proc rw 0 0\n/dev/vdb /srv/a\\040b xfs rw 0 0\n";
        assert_eq!(disk_mounts(mounts), ["/srv/a b", "/"]);
    }
}

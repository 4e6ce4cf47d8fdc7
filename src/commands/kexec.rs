//! `kexec`: load, exec, unload. So far for the probe alone.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail, ensure};
use clap::Subcommand;
use kdump_loader::arm::Policy;
use kdump_loader::console;
use kdump_loader::machine::{self, Machine};
use kdump_loader::probe::Probe;
use kdump_loader::{preflight, syscall};
use rustix::mount::{MountFlags, mount_remount};
use rustix::system::{RebootCommand, reboot};

use crate::exit::Exit;

const SYSTEM: &str = "/";

/// Arguments.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Load an image for the next `exec`; so far only the probe
    Load(Load),
    /// Shut down and enter the loaded image, without firmware
    Exec(Exec),
    /// Drop the loaded image
    Unload,
}

#[derive(clap::Args, Debug)]
struct Load {
    /// The probe: a small image that prints registers, tables, memory map, goes to real mode and back (docs/probe.md)
    #[arg(long, required = true)]
    probe: bool,
    /// Its console: auto, none, or ttySN or io,0xPORT with an optional ,BAUD
    #[arg(long, value_name = "CONSOLE", default_value = "auto")]
    console: String,
    /// Halt at its end instead of resetting the machine
    #[arg(long)]
    halt: bool,
}

#[derive(clap::Args, Debug)]
struct Exec {
    /// At once: without stopping services, after a sync
    #[arg(short, long)]
    force: bool,
}

/// Runs it.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    match &args.action {
        Action::Load(load) => self::load(load),
        Action::Exec(exec) => self::exec(exec),
        Action::Unload => unload(),
    }
}

fn load(args: &Load) -> anyhow::Result<Exit> {
    let root = Path::new(SYSTEM);
    let machine = Machine::read(root)?;
    preflight::check_permission(&machine)?;
    let chosen = console::resolve(args.console.parse()?, &machine, root);
    let end = if args.halt { Policy::Halt } else { Policy::Reset };
    let probe = Probe::new(chosen.console, end)?;
    let at = probe.find_room(&machine)?;
    let (bytes, entry) = probe.place(at.start())?;
    syscall::load_normal(entry, at, &bytes, &machine)?;
    ensure!(
        machine::is_kexec_loaded(root) != Some(false),
        "kexec_load succeeded, but /sys/kernel/kexec_loaded reads 0"
    );
    writeln!(
        io::stdout(),
        "loaded the probe, {} bytes for {at}, entry {entry}, console {}\nenter it with: kdump-rs kexec exec",
        bytes.len(),
        chosen.text
    )?;
    Ok(Exit::Complete)
}

fn exec(args: &Exec) -> anyhow::Result<Exit> {
    let root = Path::new(SYSTEM);
    if machine::is_kexec_loaded(root) == Some(false) {
        bail!("no image is loaded: kdump-rs kexec load first");
    }
    let has_systemd = fs::read_to_string("/proc/1/comm").is_ok_and(|comm| comm.trim() == "systemd");
    if has_systemd && !args.force {
        let status = Command::new("systemctl").arg("kexec").status().context("cannot run systemctl kexec")?;
        ensure!(status.success(), "systemctl kexec ended with {status}");
        return Ok(Exit::Complete);
    }
    rustix::fs::sync();
    if !args.force {
        // What cannot be made read-only has been synced.
        let _ = mount_remount("/", MountFlags::RDONLY, "");
    }
    reboot(RebootCommand::Kexec).context("the kernel did not enter the image (reboot(2), KEXEC)")?;
    Ok(Exit::Complete)
}

fn unload() -> anyhow::Result<Exit> {
    let root = Path::new(SYSTEM);
    if machine::is_kexec_loaded(root) == Some(false) {
        writeln!(io::stdout(), "nothing was loaded")?;
        return Ok(Exit::Gaps);
    }
    let machine = Machine::read(root)?;
    preflight::check_permission(&machine)?;
    syscall::unload_normal(&machine)?;
    writeln!(io::stdout(), "unloaded")?;
    Ok(Exit::Complete)
}

//! `kexec load --probe`.

use std::io::{self, Write as _};
use std::path::Path;

use anyhow::ensure;
use kdump_loader::arm::Policy;
use kdump_loader::console;
use kdump_loader::machine::{self, Machine};
use kdump_loader::probe::Probe;
use kdump_loader::{preflight, syscall};

use super::SYSTEM;
use crate::exit::Exit;

/// Arguments.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Load the probe instead: a small image that prints registers, tables, memory map, goes to real mode and back
    /// (docs/probe.md)
    #[arg(long, conflicts_with_all = ["kernel", "initrd", "append", "reuse_cmdline"])]
    pub probe: bool,
    /// The probe's console: auto, none, or ttySN or io,0xPORT with an optional ,BAUD
    #[arg(long, value_name = "CONSOLE", default_value = "auto", requires = "probe")]
    console: String,
    /// Halt at the probe's end instead of resetting the machine
    #[arg(long, requires = "probe")]
    halt: bool,
}

/// Loads it.
pub fn load(args: &Args) -> anyhow::Result<Exit> {
    let root = Path::new(SYSTEM);
    let machine = Machine::read(root)?;
    preflight::check_permission(&machine, false)?;
    let chosen = console::resolve(args.console.parse()?, &machine, root);
    let end = if args.halt { Policy::Halt } else { Policy::Reset };
    let probe = Probe::new(chosen.console, end)?;
    let at = probe.find_room(&machine)?;
    let (bytes, entry) = probe.place(at.start())?;
    syscall::load_one(entry, at, &bytes, &machine)?;
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

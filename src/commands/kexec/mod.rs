//! `kexec`: load, exec, unload: the fast reboot, without firmware.

pub mod exec;
pub mod load;
mod probe;

use std::io::{self, Write as _};
use std::path::Path;

use clap::Subcommand;
use kdump_loader::machine::{self, Machine};
use kdump_loader::syscall;

use crate::exit::Exit;

/// The system that is acted on.
pub const SYSTEM: &str = "/";

/// Arguments.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Load an image for the next `exec`: by default the running kernel, with its initramfs and command line
    Load(Load),
    /// Shut down and enter the loaded image, without firmware
    Exec(exec::Args),
    /// Drop the loaded image
    Unload,
}

#[derive(clap::Args, Debug)]
struct Load {
    #[command(flatten)]
    image: load::Args,
    #[command(flatten)]
    probe: probe::Args,
}

/// Runs it.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    match &args.action {
        Action::Load(args) if args.probe.probe => probe::load(&args.probe),
        Action::Load(args) => load::run(&args.image),
        Action::Exec(args) => exec::run(args),
        Action::Unload => unload(),
    }
}

fn unload() -> anyhow::Result<Exit> {
    let root = Path::new(SYSTEM);
    if machine::is_kexec_loaded(root) == Some(false) {
        writeln!(io::stdout(), "nothing was loaded")?;
        return Ok(Exit::Gaps);
    }
    syscall::unload(&Machine::read(root)?, false)?;
    writeln!(io::stdout(), "unloaded")?;
    Ok(Exit::Complete)
}

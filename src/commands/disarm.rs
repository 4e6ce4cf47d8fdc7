//! `disarm`.

use std::io::{self, Write as _};
use std::path::Path;

use kdump_loader::machine::{self, Machine};
use kdump_loader::state::State;
use kdump_loader::{preflight, syscall};

use crate::exit::Exit;

/// Arguments.
#[derive(clap::Args, Debug)]
pub struct Args {}

/// Runs it: 0 if a capture kernel was unloaded, 1 if there was none.
pub fn run(_args: &Args) -> anyhow::Result<Exit> {
    let root = Path::new("/");
    if machine::is_crash_loaded(root) != Some(true) {
        writeln!(io::stdout(), "nothing was armed: no capture kernel is loaded")?;
        return Ok(Exit::Gaps);
    }
    let machine = Machine::read(root)?;
    preflight::check_file_permission(&machine)?;
    syscall::unload(&machine, true)?;
    if machine::is_crash_loaded(root) == Some(true) {
        anyhow::bail!("the kernel took the call, but /sys/kernel/kexec_crash_loaded still reads 1");
    }
    State::remove(root)?;
    writeln!(io::stdout(), "disarmed: the next panic will not be dumped")?;
    Ok(Exit::Complete)
}

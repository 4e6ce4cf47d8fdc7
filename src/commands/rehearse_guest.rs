//! `rehearse-guest`: PID 1 of the guest that `rehearse` boots, and the processes it starts.

use kdump_rehearse::guest::{self, Role};

use crate::exit::Exit;

/// Arguments.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Play this part, instead of being PID 1
    #[arg(long, value_name = "ROLE")]
    be: Option<Role>,
    /// What a boot loader puts behind the kernel's command line
    #[arg(hide = true)]
    _rest: Vec<String>,
}

/// Runs it; refused on every machine but such a guest.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    match args.be {
        None => guest::run()?,
        Some(role) => guest::run_as(role)?,
    }
    Ok(Exit::Complete)
}

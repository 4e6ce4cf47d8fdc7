//! `doctor`: everything that a capture depends on, as pass, warn or fail, with the command that mends it.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use kdump_loader::doctor::{self, Facts, Status};
use kdump_loader::target::Wish;
use serde_json::json;

use super::arm;
use crate::exit::Exit;

/// Arguments.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Exit code: 0 all pass, 1 warnings, 2 a panic now would not be dumped. docs/doctor.md explains \
each check. Nothing is changed."
)]
pub struct Args {
    /// Kernel to capture with [default: that of `arm`]
    #[arg(long, value_name = "PATH")]
    kernel: Option<PathBuf>,
    /// Where dumps go, as `arm` takes it; may be given more than once [default: those of `arm`]
    #[arg(long, value_name = "TARGET")]
    target: Vec<Wish>,
    /// Configuration file [default: /etc/kdump-rs/config.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs it: 0 if all pass, 1 with warnings, 2 if something would stop a capture.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    let settings = arm::settings_of(args.kernel.clone(), args.target.clone(), args.config.as_deref())?;
    let facts = Facts::read(Path::new("/"), &settings)?;
    let checks = doctor::examine(&facts);
    let worst = doctor::worst(&checks);
    let text = if args.json {
        serde_json::to_string_pretty(&json!({ "status": worst, "checks": checks }))? + "\n"
    } else {
        doctor::to_text(&checks)
    };
    io::stdout().write_all(text.as_bytes())?;
    Ok(match worst {
        Status::Pass => Exit::Complete,
        Status::Warn => Exit::Gaps,
        Status::Fail => Exit::Unfit,
    })
}

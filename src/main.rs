//! `kdump-rs` turns command lines into calls of the stages: loader, capture, analyze, rehearse.

#![forbid(unsafe_code)]

mod cli;
mod commands;
mod exit;
mod personality;

use clap::Parser as _;

fn main() -> std::process::ExitCode {
    if let Some(code) = personality::run() {
        return code;
    }
    let cli = cli::Cli::parse();
    exit::report(commands::run(cli.command))
}

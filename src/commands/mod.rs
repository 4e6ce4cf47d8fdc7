//! One file per verb: its arguments, and `run`, which turns them into library calls and text.

pub mod analyze;
pub mod arm;
mod bar;
pub mod capture;
pub mod disarm;
pub mod doctor;
pub mod generate_docs;
pub mod kexec;
pub mod receive;
pub mod rehearse;
pub mod rehearse_guest;
pub mod reserve;
pub mod server;
pub mod status;

use crate::cli::Command;
use crate::exit::Exit;

/// Runs one command.
pub fn run(command: Command) -> anyhow::Result<Exit> {
    match command {
        Command::Arm(args) => arm::run(&args),
        Command::Disarm(args) => disarm::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Reserve(args) => reserve::run(&args),
        Command::Kexec(args) => kexec::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Rehearse(args) => rehearse::run(&args),
        Command::Capture(args) => capture::run(&args),
        Command::Receive(args) => receive::run(&args),
        Command::Analyze(args) => analyze::run(&args),
        Command::RehearseGuest(args) => rehearse_guest::run(&args),
        Command::GenerateDocs(args) => generate_docs::run(&args),
    }
}

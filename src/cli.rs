//! The command line: clap types only. Each command's arguments stand in `commands/<verb>.rs`
//! beside what it does; their doc comments are the manual.

use clap::{Parser, Subcommand};

use crate::commands;

/// A crash-dump toolkit for Linux on x86-64.
#[derive(Parser, Debug)]
#[command(name = "kdump-rs", version, about, propagate_version = true)]
pub struct Cli {
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// The verbs, in the order of a crash's life.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Load the capture kernel, so that the next panic is dumped
    Arm(commands::arm::Args),
    /// Unload the capture kernel
    Disarm(commands::disarm::Args),
    /// Say what is armed, and whether it still fits
    Status(commands::status::Args),
    /// Check everything that a capture depends on, and name the command that mends what is wrong
    Doctor(commands::doctor::Args),
    /// Compute how much memory the capture kernel needs, and have it reserved at the next boot
    Reserve(commands::reserve::Args),
    /// Boot a kernel in QEMU, panic it, capture and analyze: proof before production
    Rehearse(commands::rehearse::Args),
    /// Load an image and enter it without firmware: the fast reboot
    Kexec(commands::kexec::Args),
    /// Write a filtered, compressed dump from /proc/vmcore or from an existing dump
    Capture(commands::capture::Args),
    /// Take the dumps that other machines send when they crash
    Receive(commands::receive::Args),
    /// Say what happened: one page of post-mortem, or a view
    Analyze(commands::analyze::Args),
    /// First program of the guest that `rehearse` boots; of no use elsewhere
    #[command(hide = true)]
    RehearseGuest(commands::rehearse_guest::Args),
    /// Write man pages and shell completions, for packages
    #[command(hide = true)]
    GenerateDocs(commands::generate_docs::Args),
}

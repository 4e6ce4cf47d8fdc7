//! `kdump-init`: PID 1 of the capture kernel. It finds a place, writes what happened, writes the
//! dump, and restarts the machine; there is nothing else in the initramfs.
//!
//! Whatever goes wrong, the machine comes back: each step says on the console what failed and goes on
//! to the next best thing, a panic in any of them ends in the same last step, and a watchdog takes
//! it when nothing moves any more. A last step that gets stuck is cut short by an emergency restart. A
//! stuck console is given up. Small and certain things are written first: the log, the report, then
//! the dump. Each target is tried by a child, this same program, and so is the report made: they may be
//! killed, hang or run out of memory without harm to what comes after them.

#![forbid(unsafe_code)]

mod attempt;
mod child;
mod console;
mod dump;
mod end;
mod ladder;
mod network;
mod raw;
mod record;
mod room;
mod selfcheck;
mod server;
mod settle;
mod store;
mod system;
mod target;
mod triage;
mod watchdog;
mod worth;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Duration;

use kdump_capture::config::{self, CaptureConfig};

use crate::console::say;
use crate::end::Action;

fn main() -> ExitCode {
    if std::process::id() != 1 {
        return child_main(std::env::args().skip(1)).unwrap_or_else(|| {
            eprintln!(
                "kdump-init: is the first program of a capture kernel and restarts the machine when done"
            );
            eprintln!("kdump-init: it is not meant to be run by hand; see `kdump-rs capture`");
            ExitCode::from(2)
        });
    }
    std::panic::set_hook(Box::new(|info| say!("a bug in kdump-init: {info}")));
    say!("version {} begins", env!("CARGO_PKG_VERSION"));
    system::mount_early();
    let config = read_config();
    let action = Action::parse(&config.end.action);
    end::start_watchdogs(action);
    if catch_unwind(AssertUnwindSafe(|| run(&config))).is_err() {
        say!("a step ended in a bug; ending here");
    }
    end::end(action)
}

/// What a child does: its role, the milliseconds since PID 1 began, and arguments of its own. `None` if it is no child.
fn child_main(mut args: impl Iterator<Item = String>) -> Option<ExitCode> {
    let role = args.next()?;
    let before = args.next()?.parse().ok()?;
    if ![triage::ROLE, selfcheck::ROLE, ladder::ROLE, ladder::UNMOUNT_ROLE].contains(&role.as_str()) {
        return None;
    }
    console::began(Duration::from_millis(before));
    let of_whom = role.clone();
    std::panic::set_hook(Box::new(move |info| say!("a bug in {of_whom}: {info}")));
    Some(match role.as_str() {
        triage::ROLE => triage::child_main(args),
        selfcheck::ROLE => selfcheck::child_main(args),
        ladder::ROLE => ladder::child_main(args, &read_config()),
        _ => {
            target::unmount(args.next()?.parse().ok()?);
            ExitCode::SUCCESS
        }
    })
}

/// The configuration; where it cannot be had, the defaults, with which at least the console gets a
/// report.
fn read_config() -> CaptureConfig {
    let text = match std::fs::read_to_string(config::PATH) {
        Ok(text) => text,
        Err(e) => {
            say!("{}: {e}", config::PATH);
            return CaptureConfig::default();
        }
    };
    CaptureConfig::parse(&text).unwrap_or_else(|e| {
        say!("{}: {e}", config::PATH);
        CaptureConfig::default()
    })
}

fn run(config: &CaptureConfig) {
    system::load_modules(&config.modules);
    watchdog::start();
    ladder::climb(config);
}

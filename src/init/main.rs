//! `kdump-init`: PID 1 of the capture kernel. It finds the disk, writes what happened, writes the
//! dump, and restarts the machine; there is nothing else in the initramfs.
//!
//! Whatever goes wrong, the machine comes back: each step says on the console what failed and goes on
//! to the next best thing, a panic in any of them ends in the same last step, and a watchdog takes
//! it when nothing moves any more. A last step that gets stuck is cut short by an emergency restart. A
//! stuck console is given up. Small and certain things are written first: the log, the report, then
//! the dump. The report is made by a child, this same program, which may be killed or run out of
//! memory without harm to the dump.

#![forbid(unsafe_code)]

mod console;
mod dump;
mod end;
mod record;
mod system;
mod target;
mod triage;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use kdump_capture::config::{self, CaptureConfig};

use crate::console::say;
use crate::end::Action;

fn main() -> ExitCode {
    if std::process::id() != 1 {
        let mut args = std::env::args_os().skip(1);
        if args.next().is_some_and(|role| role == triage::ROLE) {
            std::panic::set_hook(Box::new(|info| say!("a bug in triage: {info}")));
            return triage::child_main(args);
        }
        eprintln!("kdump-init: is the first program of a capture kernel and restarts the machine when done");
        eprintln!("kdump-init: it is not meant to be run by hand; see `kdump-rs capture`");
        return ExitCode::from(2);
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
    let dir = target::mount(&config.target).and_then(|()| target::make_dump_dir(config));
    match dir {
        Ok(dir) => {
            dump::write_all(&dir, config);
            end::last_step_begins();
            target::unmount();
        }
        Err(e) => {
            say!("no place for the dump: {e:#}");
            // The report is small enough for the console, which somebody may be recording.
            triage::run(None);
        }
    }
}

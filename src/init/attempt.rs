//! One target, from the device to the last file: what a child of the [ladder](crate::ladder) does.

use std::panic::{AssertUnwindSafe, catch_unwind};

use kdump_capture::config::{CaptureConfig, TargetConfig};

use crate::console::{self, say};
use crate::ladder::Attempt;
use crate::{dump, network, raw, target};

/// Tries target `number`; says how that goes.
pub fn run(number: usize, config: &CaptureConfig) -> Attempt {
    let Some(wanted) = config.targets.get(number) else { return Attempt::NoPlace };
    let tried = catch_unwind(AssertUnwindSafe(|| to_target(number, wanted, config)));
    tried.unwrap_or_else(|_| {
        say!("this target ended in a bug");
        Attempt::Failed
    })
}

fn to_target(number: usize, wanted: &TargetConfig, config: &CaptureConfig) -> Attempt {
    match wanted.kind.as_str() {
        "raw" => return raw::write(wanted, config),
        "directory" => {}
        "nfs" => {
            if let Err(e) = network::bring_up() {
                say!("{}: {e:#}", target::describe(wanted));
                return Attempt::NoPlace;
            }
        }
        other => {
            say!("this version knows no targets of kind {other:?}");
            return Attempt::NoPlace;
        }
    }
    let dir =
        target::mount(number, wanted).and_then(|()| target::make_dump_dir(number, wanted, &config.boot_id));
    let dir = match dir {
        Ok(dir) => dir,
        Err(e) => {
            say!("{}: {e:#}", target::describe(wanted));
            target::unmount(number);
            return Attempt::NoPlace;
        }
    };
    if let Err(e) = console::log_to(&dir.path) {
        say!("cannot write capture.log: {e}");
    }
    let is_complete = dump::write_all(&dir, config);
    console::log_nowhere();
    target::unmount(number);
    if is_complete { Attempt::Complete } else { Attempt::Failed }
}

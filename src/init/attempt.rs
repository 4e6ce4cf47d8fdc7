//! One target, from the device to the last file: what a child of the [ladder](crate::ladder) does.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use anyhow::Context as _;
use kdump_capture::config::{self, CaptureConfig, TargetConfig};
use kdump_loader::network::NetworkConfig;

use crate::console::{self, say};
use crate::ladder::Attempt;
use crate::{dump, network, raw, server, target};

/// What the network may take to come up: a switch may need half a minute before it passes packets on.
const NETWORK: Duration = Duration::from_mins(1);

/// Tries target `number`; says how that goes.
pub fn run(number: usize, config: &CaptureConfig) -> Attempt {
    let Some(wanted) = config.targets.get(number) else { return Attempt::NoPlace };
    let tried = catch_unwind(AssertUnwindSafe(|| to_target(number, wanted, config)));
    tried.unwrap_or_else(|_| {
        say!("this target ended in a bug");
        Attempt::Failed
    })
}

/// What was recorded of the network when the machine was armed.
fn recorded_network() -> anyhow::Result<NetworkConfig> {
    #[derive(serde::Deserialize)]
    struct File {
        network: Option<NetworkConfig>,
    }
    let text = std::fs::read_to_string(config::PATH).context(config::PATH)?;
    let file: File = toml::from_str(&text).context(config::PATH)?;
    file.network.context("the configuration records no network")
}

/// What came of setting the network up, for the targets after the first that needs it: nothing is set up twice.
const OUTCOME: &str = "/run/network";

/// Sets the network up, or says what came of that before.
fn network_up() -> anyhow::Result<()> {
    match std::fs::read_to_string(OUTCOME) {
        Ok(said) if said.is_empty() => return Ok(()),
        Ok(said) => anyhow::bail!("there is no network: {said}"),
        Err(_) => {}
    }
    let up = recorded_network().and_then(|config| network::bring_up(&config, NETWORK));
    let said = up.as_ref().err().map(|e| format!("{e:#}")).unwrap_or_default();
    if let Err(e) = std::fs::write(OUTCOME, said) {
        say!("{OUTCOME}: {e}");
    }
    up
}

fn to_target(number: usize, wanted: &TargetConfig, config: &CaptureConfig) -> Attempt {
    if matches!(wanted.kind.as_str(), "nfs" | "url")
        && let Err(e) = network_up()
    {
        say!("{}: {e:#}", target::describe(wanted));
        return Attempt::NoPlace;
    }
    match wanted.kind.as_str() {
        "raw" => return raw::write(wanted, config),
        "url" => return server::write(wanted, config),
        "directory" | "nfs" => {}
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

//! The first program of a guest: this test program itself. It sets up the network as the capture kernel does, sends a
//! file, and says how all that went.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use kdump_capture::remote::{RemoteOptions, open};
use kdump_loader::network::{Destination, NetworkConfig, Recorded};
use rustix::system::{RebootCommand, reboot};
use serde::{Deserialize, Serialize};

use crate::console::say;
use crate::{network, noise, system};

/// Name of the test that is the guest's first program.
pub const TEST: &str = "guest::the_guests_first_program";

/// What the guest is told.
#[derive(Serialize, Deserialize)]
pub struct Orders {
    /// Seconds for the network.
    pub budget: u64,
    /// Where to, and how many bytes; nothing, if it is empty.
    pub url: String,
    pub bytes: usize,
    /// Files that are shown when the network is up.
    pub shown: Vec<String>,
    pub network: NetworkConfig,
    pub remote: RemoteOptions,
}

impl Orders {
    pub const PATH: &str = "/etc/kdump-rs/network-guest.toml";
}

/// Before and after the configuration that is recorded of what was set up.
pub const RECORDED: &str = "recorded:";
pub const END: &str = "end of record";

/// Runs as PID 1 of such a guest, and nowhere else.
#[test]
#[ignore = "is the first program of the guests that other tests boot"]
fn the_guests_first_program() {
    if std::process::id() != 1 || !Path::new(Orders::PATH).exists() {
        // On another machine it must do nothing.
        assert_ne!(std::process::id(), 1);
        assert!(!Path::new(Orders::PATH).exists(), "{} is of a guest", Orders::PATH);
        return;
    }
    system::mount_early();
    if let Err(e) = live() {
        say!("failed: {e:#}");
    }
    std::thread::sleep(Duration::from_millis(300));
    let _ = reboot(RebootCommand::Restart);
}

fn live() -> anyhow::Result<()> {
    let orders: Orders = toml::from_str(&fs::read_to_string(Orders::PATH)?)?;
    // As for one target, and then for another.
    for _ in 0..2 {
        network::bring_up(&orders.network, Duration::from_secs(orders.budget))?;
    }
    for file in &orders.shown {
        say!("{file}:\n{}", fs::read_to_string(file)?);
    }
    if orders.url.is_empty() {
        return Ok(());
    }
    let mut remote = open(&orders.url, &orders.remote)?;
    remote.put("dmesg.txt", b"panic")?;
    let bytes = noise(orders.bytes);
    let mut upload = remote.begin("vmcore")?;
    upload.write_all(&bytes)?;
    say!("sent {} bytes to {}", upload.finish()?, remote.describe());

    let destinations = orders.network.reach.iter();
    let destinations: Result<Vec<_>, _> =
        destinations.map(|to| Destination::resolve(&to.ip().to_string(), to.port())).collect();
    let recorded = Recorded::read(Path::new("/"), &destinations?)?.config;
    say!("{RECORDED}\n{}\n{END}", toml::to_string(&recorded)?);
    Ok(())
}

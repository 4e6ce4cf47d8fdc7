//! Giving the guest's network device its address, as it has one on a machine that is up.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::thread;
use std::time::{Duration, Instant};

use kdump_loader::network::netlink::{AF_INET, NLM_F_CREATE, RTM_NEWADDR, RTM_NEWLINK, Request, Socket};
use kdump_loader::network::rta;

use super::{Failure, because, say};

const DEVICES: &str = "/sys/class/net";
const IFF_UP: u32 = 1;
/// Bits of QEMU's user network.
const PREFIX: u8 = 24;
/// virtio-net probes while its module loads; this is for slow emulation.
const LIMIT: Duration = Duration::from_secs(10);

pub(super) fn set_up(address: Ipv4Addr) -> Result<(), Failure> {
    let start = Instant::now();
    let (name, index) = loop {
        match find() {
            Some(found) => break found,
            None if start.elapsed() > LIMIT => return Err("there is no network device".to_owned()),
            None => thread::sleep(Duration::from_millis(20)),
        }
    };
    give(index, address).map_err(because(&format!("{name} does not take {address}")))?;
    say(&format!("{name} has {address}/{PREFIX}"));
    Ok(())
}

/// The first interface that is a device.
fn find() -> Option<(String, u32)> {
    let entries = fs::read_dir(DEVICES).ok()?.flatten().filter(|entry| entry.path().join("device").exists());
    entries.into_iter().find_map(|entry| {
        let index = fs::read_to_string(entry.path().join("ifindex")).ok()?.trim().parse().ok()?;
        Some((entry.file_name().into_string().ok()?, index))
    })
}

fn give(index: u32, address: Ipv4Addr) -> io::Result<()> {
    let mut socket = Socket::open()?;
    // `struct ifinfomsg`: family and type, index, flags, and which of the flags count.
    let link: Vec<u8> = [0, index, IFF_UP, IFF_UP].iter().flat_map(|word: &u32| word.to_ne_bytes()).collect();
    socket.change(Request::new(RTM_NEWLINK, 0, &link))?;
    // `struct ifaddrmsg`.
    let mut fixed = vec![AF_INET, PREFIX, rta::IFA_F_PERMANENT as u8, rta::SCOPE_UNIVERSE];
    fixed.extend(index.to_ne_bytes());
    let request = Request::new(RTM_NEWADDR, NLM_F_CREATE, &fixed)
        .with_ip(rta::IFA_LOCAL, address.into())
        .with_ip(rta::IFA_ADDRESS, address.into());
    socket.change(request)
}

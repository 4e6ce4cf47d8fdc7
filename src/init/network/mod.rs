//! The network in the capture kernel: what the loader recorded of the running machine, set up again.
//!
//! The recorded addresses come first where they were fixed, DHCP first where they were leased; each stands in for the
//! other when the target does not answer. A switch may take half a minute before it passes packets on, so what is
//! set up is tried until the time is over.

mod dhcp;
mod links;

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use kdump_loader::network::netlink::Socket;
use kdump_loader::network::{Address, NetworkConfig, Route};

use crate::console::say;
use crate::system;
use links::Made;

/// How long one try to reach the target may take.
const TRY: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(500);

/// Sets up the network, within `budget`. Without an error, the target answers.
///
/// # Errors
/// What prevents it; the network may work all the same, or do so later.
pub fn bring_up(config: &NetworkConfig, budget: Duration) -> anyhow::Result<()> {
    let begin = Instant::now();
    let deadline = begin + budget;
    // Another target may have had it set up before: then the modules are loaded, and gone.
    let is_here = |path: &&String| Path::new("/").join(path).exists();
    system::load_modules(&config.modules.iter().filter(is_here).cloned().collect::<Vec<_>>());
    let mut socket = Socket::open().context("no netlink socket")?;
    if let Err(e) = links::set_loopback_up(&mut socket) {
        say!("the loopback interface stays down: {e}");
    }
    let made = links::make(&mut socket, config, begin + budget / 2)?;
    let tops: Vec<usize> = (0..made.len()).filter(|&link| is_used(config, link)).collect();
    for &top in &tops {
        let there = &made[top];
        if links::await_carrier(there, begin + budget / 2) {
            say!("{} is up ({}), {:.1} s", there.name, config.links[top].name, begin.elapsed().as_secs_f64());
        } else {
            say!("{} has no carrier ({})", there.name, config.links[top].name);
        }
    }
    write_resolver(&config.nameservers);
    let has_dhcp = config.links.iter().any(|link| link.is_dhcp);
    // Who goes first has two thirds of what is left, since it is what worked before the crash.
    let turn = Instant::now() + deadline.saturating_duration_since(Instant::now()) * 2 / 3;
    for (is_dhcp, until) in [(has_dhcp, turn), (!has_dhcp, deadline)] {
        if is_dhcp {
            let leased = tops.iter().map(|&top| lease(&mut socket, config, top, &made[top], until));
            if !leased.fold(false, |any, one| any | one) {
                continue;
            }
        } else {
            set_recorded(&mut socket, config, &made);
        }
        if reaches(&config.reach, until) {
            say!("the network is up, {:.1} s", begin.elapsed().as_secs_f64());
            return Ok(());
        }
    }
    let to: Vec<String> = config.reach.iter().map(SocketAddr::to_string).collect();
    anyhow::bail!("nothing answers at {} within {} s", to.join(", "), budget.as_secs())
}

/// Whether something is to go over a link itself, not only over what is made of it.
fn is_used(config: &NetworkConfig, link: usize) -> bool {
    config.addresses.iter().any(|a| a.link == link) || config.routes.iter().any(|r| r.link == link)
}

/// Sets the recorded addresses and routes.
fn set_recorded(socket: &mut Socket, config: &NetworkConfig, made: &[Made]) {
    for address in &config.addresses {
        let Some(there) = made.get(address.link) else { continue };
        match links::add_address(socket, there.index, address) {
            Ok(()) => say!("{} has {}/{}, as recorded", there.name, address.ip, address.prefix),
            Err(e) => say!("{} does not take {}/{}: {e}", there.name, address.ip, address.prefix),
        }
    }
    for route in &config.routes {
        let Some(there) = made.get(route.link) else { continue };
        if let Err(e) = links::add_route(socket, there.index, route) {
            say!("no route to {}/{} over {}: {e}", route.to, route.prefix, there.name);
        }
    }
}

/// Asks for an address by DHCP, and sets what comes of it; gives whether something did.
fn lease(socket: &mut Socket, config: &NetworkConfig, link: usize, there: &Made, until: Instant) -> bool {
    let Some(mac) = links::mac_of(there) else { return false };
    let wish = config.addresses.iter().filter(|a| a.link == link).find_map(|a| match a.ip {
        IpAddr::V4(v4) => Some(v4),
        IpAddr::V6(_) => None,
    });
    // Need not be secret, only another than that of the machine beside this one, which has another address.
    let number = u32::from_be_bytes([mac[2], mac[3], mac[4], mac[5]]) ^ std::process::id().rotate_left(24);
    let client = dhcp::Client { mac, number, wish };
    if let Err(e) = links::lead_broadcasts(socket, there.index, false) {
        say!("{}: nobody can be asked for an address: {e}", there.name);
        return false;
    }
    let leased = dhcp::lease(&client, until);
    if let Err(e) = links::lead_broadcasts(socket, there.index, true) {
        say!("{}: {e}", there.name);
    }
    match leased {
        Ok(lease) => {
            say!("{} has {}/{} by DHCP", there.name, lease.ip, lease.prefix);
            set_lease(socket, link, there, &lease);
            true
        }
        Err(e) => {
            say!("{}: {e}", there.name);
            false
        }
    }
}

fn set_lease(socket: &mut Socket, link: usize, there: &Made, lease: &dhcp::Lease) {
    let address = Address { link, ip: lease.ip.into(), prefix: lease.prefix };
    if let Err(e) = links::add_address(socket, there.index, &address) {
        say!("{} does not take {}/{}: {e}", there.name, address.ip, address.prefix);
    }
    // A server that gives classless routes gives all; the gateway is then not to be used (RFC 3442).
    let mut routes = lease.routes.clone();
    if routes.is_empty() {
        routes.extend(lease.gateway.map(|gateway| (Ipv4Addr::UNSPECIFIED, 0, gateway)));
    }
    for (to, prefix, via) in routes {
        let via = (!via.is_unspecified()).then_some(via.into());
        let route = Route { link, to: to.into(), prefix, via, source: Some(lease.ip.into()) };
        if let Err(e) = links::add_route(socket, there.index, &route) {
            say!("no route to {to}/{prefix} over {}: {e}", there.name);
        }
    }
    if !lease.nameservers.is_empty() {
        write_resolver(&lease.nameservers);
    }
}

/// Whether the target answers, if only to say no. What nobody named is taken to answer.
fn reaches(targets: &[SocketAddr], until: Instant) -> bool {
    loop {
        for target in targets {
            match TcpStream::connect_timeout(target, TRY) {
                Ok(_) => return true,
                Err(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => return true,
                Err(_) => {}
            }
        }
        if targets.is_empty() || Instant::now() >= until {
            return targets.is_empty();
        }
        std::thread::sleep(PAUSE);
    }
}

/// The C library's resolver finds its servers in files.
fn write_resolver(servers: &[IpAddr]) {
    let mut text = "options timeout:2 attempts:2\n".to_owned();
    for server in servers {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "nameserver {server}");
    }
    let files = [
        ("/etc/resolv.conf", text.as_str()),
        ("/etc/hosts", "127.0.0.1 localhost\n"),
        ("/etc/nsswitch.conf", NSS),
    ];
    for (path, text) in files {
        if let Err(e) = std::fs::write(path, text) {
            say!("{path}: {e}: names may not resolve");
        }
    }
}

/// No other sources of names than these: there are no libraries to load them from.
const NSS: &str = "hosts: files dns\n";

//! Setting links up: finding devices by their MAC addresses, making bonds and VLANs, waiting for carriers, addresses
//! and routes.
//!
//! Source: drivers/net/bonding/bond_netlink.c, net/8021q/vlan_netlink.c, net/ipv4/fib_frontend.c.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use kdump_loader::network::netlink::{
    AF_INET, AF_INET6, NLM_F_CREATE, NLM_F_REPLACE, Nest, RTM_DELROUTE, RTM_NEWADDR, RTM_NEWLINK,
    RTM_NEWROUTE, Request, Socket,
};
use kdump_loader::network::{Address, Bond, Link, NetworkConfig, Route, What, ifla, rta};

const NET: &str = "/sys/class/net";
const POLL: Duration = Duration::from_millis(50);
const IFF_UP: u32 = 1;
/// Modes of a bond.
const ACTIVE_BACKUP: u8 = 1;
const XOR: u8 = 2;
const LACP: u8 = 4;
const TLB: u8 = 5;
/// Milliseconds between looks at carriers, where a bond has no other way to tell which member works.
const MIIMON: u32 = 100;

/// A link that is there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Made {
    pub index: u32,
    pub name: String,
}

/// Finds the devices, makes what is made of them, and sets all of it up.
pub(super) fn make(
    socket: &mut Socket,
    config: &NetworkConfig,
    deadline: Instant,
) -> anyhow::Result<Vec<Made>> {
    let mut made: Vec<Made> = Vec::new();
    for (place, link) in config.links.iter().enumerate() {
        let name = format!("kdump{place}");
        let is_made = index_of(&Path::new(NET).join(&name)).ok();
        let there = match &link.what {
            What::Bond(_) | What::Vlan { .. } if is_made.is_some() => {
                Made { index: is_made.unwrap_or_default(), name }
            }
            What::Device { macs } => wait_for(Path::new(NET), macs, deadline).with_context(|| {
                format!("no device has the MAC address of {} ({})", link.name, macs.join(", "))
            })?,
            What::Bond(bond) => make_bond(socket, &name, bond, &made)
                .with_context(|| format!("the bond {} cannot be made", link.name))?,
            What::Vlan { below, id, protocol } => make_vlan(socket, &name, *below, *id, *protocol, &made)
                .with_context(|| format!("the VLAN {} cannot be made", link.name))?,
        };
        made.push(there);
    }
    // Members of a bond are set up by it; before, a bond does not take what is up.
    for (link, there) in config.links.iter().zip(&made) {
        set_up(socket, link, there)
            .with_context(|| format!("{} ({}) cannot be set up", there.name, link.name))?;
    }
    Ok(made)
}

fn set_up(socket: &mut Socket, link: &Link, there: &Made) -> io::Result<()> {
    // A device keeps its own, if it does not take the recorded one.
    if link.mtu > 0 {
        let request = Request::new(RTM_NEWLINK, 0, &ifinfo(there.index, 0, 0)).with_u32(ifla::MTU, link.mtu);
        let _ = socket.change(request);
    }
    socket.change(Request::new(RTM_NEWLINK, 0, &ifinfo(there.index, IFF_UP, IFF_UP)))
}

/// Sets the loopback up: programs and resolvers take it for granted.
pub(super) fn set_loopback_up(socket: &mut Socket) -> io::Result<()> {
    let index = index_of(&Path::new(NET).join("lo"))?;
    socket.change(Request::new(RTM_NEWLINK, 0, &ifinfo(index, IFF_UP, IFF_UP)))
}

/// `struct ifinfomsg`: family, type, index, flags, and which of the flags count.
fn ifinfo(index: u32, flags: u32, which: u32) -> Vec<u8> {
    [0, index, flags, which].iter().flat_map(|word: &u32| word.to_ne_bytes()).collect()
}

/// The first device that has one of the MAC addresses: in their order, since members of a bond share the first.
fn wait_for(net: &Path, macs: &[String], deadline: Instant) -> io::Result<Made> {
    loop {
        // By the one it was made with first: the other may be a sibling's, too.
        for mac in macs.iter().rev() {
            if let Some(found) = find_device(net, mac) {
                return Ok(found);
            }
        }
        if Instant::now() >= deadline {
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("there are: {}", list(net))));
        }
        std::thread::sleep(POLL);
    }
}

/// Interfaces that are devices, by name.
fn devices(net: &Path) -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir(net).into_iter().flatten().flatten();
    let mut all: Vec<_> =
        entries.filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path()))).collect();
    all.retain(|(_, path)| path.join("device").exists());
    all.sort();
    all
}

fn find_device(net: &Path, mac: &str) -> Option<Made> {
    devices(net).into_iter().find_map(|(name, path)| {
        let address = mac_text(&path)?;
        (address.trim().eq_ignore_ascii_case(mac)).then_some(())?;
        Some(Made { index: index_of(&path).ok()?, name })
    })
}

/// The MAC address of a device; of a member of a bond its own, not the bond's, which it has as long as it is one.
fn mac_text(path: &Path) -> Option<String> {
    let own = std::fs::read_to_string(path.join("bonding_slave/perm_hwaddr"));
    own.or_else(|_| std::fs::read_to_string(path.join("address"))).ok()
}

fn index_of(path: &Path) -> io::Result<u32> {
    let text = std::fs::read_to_string(path.join("ifindex"))?;
    text.trim().parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "no number of an interface"))
}

fn list(net: &Path) -> String {
    let all: Vec<_> = devices(net)
        .into_iter()
        .map(|(name, path)| format!("{name} {}", mac_text(&path).unwrap_or_default().trim()))
        .collect();
    if all.is_empty() { "none".to_owned() } else { all.join(", ") }
}

fn make_bond(socket: &mut Socket, name: &str, bond: &Bond, made: &[Made]) -> anyhow::Result<Made> {
    let members: Option<Vec<&Made>> = bond.members.iter().map(|&member| made.get(member)).collect();
    let members = members.context("it has members that are not listed before it")?;
    let info = Nest::default().with(ifla::INFO_KIND, b"bond").with_nest(ifla::INFO_DATA, &settings(bond));
    let mut request = Request::new(RTM_NEWLINK, NLM_F_CREATE, &ifinfo(0, 0, 0))
        .with(ifla::IFNAME, &c_text(name))
        .with(ifla::LINKINFO, info.bytes());
    if let Some(mac) = mac_bytes(&bond.mac) {
        request = request.with(ifla::ADDRESS, &mac);
    }
    socket.change(request).context("the kernel refuses it")?;
    let index = index_of(&Path::new(NET).join(name))?;
    for member in members {
        // It may have been set up by the kernel's own command line.
        socket.change(Request::new(RTM_NEWLINK, 0, &ifinfo(member.index, 0, IFF_UP)))?;
        let join = Request::new(RTM_NEWLINK, 0, &ifinfo(member.index, 0, 0)).with_u32(ifla::MASTER, index);
        socket.change(join).with_context(|| format!("it does not take {}", member.name))?;
    }
    Ok(Made { index, name: name.to_owned() })
}

/// The settings that a bond of this mode has: the kernel refuses those of others.
fn settings(bond: &Bond) -> Nest {
    let mut data = Nest::default().with(ifla::BOND_MODE, &[bond.mode]);
    if bond.arp_interval > 0 && !bond.arp_targets.is_empty() {
        let targets = bond
            .arp_targets
            .iter()
            .zip(0..)
            .fold(Nest::default(), |nest, (ip, number)| nest.with(number, &ip.octets()));
        data = data
            .with(ifla::BOND_ARP_INTERVAL, &bond.arp_interval.to_ne_bytes())
            .with_nest(ifla::BOND_ARP_IP_TARGET, &targets);
    } else {
        let miimon = if bond.miimon > 0 { bond.miimon } else { MIIMON };
        data = data.with(ifla::BOND_MIIMON, &miimon.to_ne_bytes());
    }
    if matches!(bond.mode, XOR | LACP | TLB) {
        data = data.with(ifla::BOND_XMIT_HASH_POLICY, &[bond.xmit_hash_policy]);
    }
    if bond.mode == LACP {
        data = data.with(ifla::BOND_AD_LACP_RATE, &[bond.lacp_rate]);
        data = data.with(ifla::BOND_AD_SELECT, &[bond.ad_select]);
    }
    if bond.mode == ACTIVE_BACKUP {
        data = data.with(ifla::BOND_FAIL_OVER_MAC, &[bond.fail_over_mac]);
    }
    data
}

fn make_vlan(
    socket: &mut Socket,
    name: &str,
    below: usize,
    id: u16,
    protocol: u16,
    made: &[Made],
) -> anyhow::Result<Made> {
    let below = made.get(below).context("what it is a part of is not listed before it")?;
    let data = Nest::default()
        .with(ifla::VLAN_ID, &id.to_ne_bytes())
        .with(ifla::VLAN_PROTOCOL, &protocol.to_be_bytes());
    let info = Nest::default().with(ifla::INFO_KIND, b"vlan").with_nest(ifla::INFO_DATA, &data);
    let request = Request::new(RTM_NEWLINK, NLM_F_CREATE, &ifinfo(0, 0, 0))
        .with(ifla::IFNAME, &c_text(name))
        .with_u32(ifla::LINK, below.index)
        .with(ifla::LINKINFO, info.bytes());
    socket.change(request).context("the kernel refuses it")?;
    Ok(Made { index: index_of(&Path::new(NET).join(name))?, name: name.to_owned() })
}

/// Waits until a link has its carrier; gives whether it has.
pub(super) fn await_carrier(there: &Made, deadline: Instant) -> bool {
    let carrier = Path::new(NET).join(&there.name).join("carrier");
    loop {
        if std::fs::read_to_string(&carrier).is_ok_and(|text| text.trim() == "1") {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(POLL);
    }
}

/// The MAC address of a link.
pub(super) fn mac_of(there: &Made) -> Option<[u8; 6]> {
    mac_bytes(std::fs::read_to_string(Path::new(NET).join(&there.name).join("address")).ok()?.trim())
}

pub(super) fn add_address(socket: &mut Socket, index: u32, address: &Address) -> io::Result<()> {
    let family = if address.ip.is_ipv4() { AF_INET } else { AF_INET6 };
    // Nobody else had it before the crash: no need to wait for a duplicate to speak up.
    let mut fixed = vec![family, address.prefix, rta::IFA_F_NODAD as u8, rta::SCOPE_UNIVERSE];
    fixed.extend(index.to_ne_bytes());
    let request = Request::new(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, &fixed)
        .with_ip(rta::IFA_LOCAL, address.ip)
        .with_ip(rta::IFA_ADDRESS, address.ip);
    socket.change(request)
}

pub(super) fn add_route(socket: &mut Socket, index: u32, route: &Route) -> io::Result<()> {
    // What routes over another family's gateway needs an attribute that older kernels do not have.
    let via = route.via.filter(|via| via.is_ipv4() == route.to.is_ipv4());
    let mut request = route_request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, route.to, route.prefix, via)
        .with_u32(rta::OIF, index);
    match (via, route.via) {
        (Some(via), _) => request = request.with_ip(rta::GATEWAY, via),
        (None, Some(IpAddr::V6(v6))) => {
            let mut value = vec![AF_INET6, 0];
            value.extend(v6.octets());
            request = request.with(rta::VIA, &value);
        }
        _ => {}
    }
    if let Some(source) = route.source {
        request = request.with_ip(rta::PREFSRC, source);
    }
    socket.change(request)
}

/// Leads what goes to everybody over a link, or no more.
pub(super) fn lead_broadcasts(socket: &mut Socket, index: u32, is_over: bool) -> io::Result<()> {
    let (kind, flags) =
        if is_over { (RTM_DELROUTE, 0) } else { (RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE) };
    let request = route_request(kind, flags, Ipv4Addr::BROADCAST.into(), 32, None).with_u32(rta::OIF, index);
    socket.change(request)
}

/// `struct rtmsg` and the destination.
fn route_request(kind: u16, flags: u16, to: IpAddr, prefix: u8, via: Option<IpAddr>) -> Request {
    let family = if to.is_ipv4() { AF_INET } else { AF_INET6 };
    let scope = if via.is_none() && to.is_ipv4() { rta::SCOPE_LINK } else { rta::SCOPE_UNIVERSE };
    let mut fixed = vec![family, prefix, 0, 0, rta::TABLE_MAIN, rta::RTPROT_BOOT, scope, rta::RTN_UNICAST];
    // The gateway need not be in one of our networks: some clouds have it so.
    fixed.extend(if via.is_some() { rta::ONLINK } else { 0 }.to_ne_bytes());
    let request = Request::new(kind, flags, &fixed);
    if prefix == 0 { request } else { request.with_ip(rta::DST, to) }
}

fn c_text(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

fn mac_bytes(text: &str) -> Option<[u8; 6]> {
    let bytes: Option<Vec<u8>> = text.split(':').map(|pair| u8::from_str_radix(pair, 16).ok()).collect();
    bytes?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_found_by_its_own_mac_address_before_its_bonds() {
        let dir = tempfile::tempdir().unwrap();
        for (name, index, mac, is_device) in [
            ("bond0", "9", "02:00:00:00:00:aa", false),
            ("ens1", "2", "02:00:00:00:00:AA", true),
            ("ens2", "3", "02:00:00:00:00:02", true),
        ] {
            let path = dir.path().join(name);
            std::fs::create_dir_all(&path).unwrap();
            std::fs::write(path.join("address"), format!("{mac}\n")).unwrap();
            std::fs::write(path.join("ifindex"), format!("{index}\n")).unwrap();
            if is_device {
                std::fs::create_dir(path.join("device")).unwrap();
            }
        }
        let now = Instant::now();
        let find = |macs: &[&str]| {
            wait_for(dir.path(), &macs.iter().map(|mac| (*mac).to_owned()).collect::<Vec<_>>(), now)
        };
        assert_eq!(find(&["02:00:00:00:00:aa", "02:00:00:00:00:02"]).unwrap().name, "ens2");
        assert_eq!(find(&["02:00:00:00:00:aa"]).unwrap(), Made { index: 2, name: "ens1".into() });
        // As members of a bond they have its address, and are found all the same.
        let member = dir.path().join("ens2/bonding_slave");
        std::fs::create_dir(&member).unwrap();
        std::fs::write(dir.path().join("ens2/address"), "02:00:00:00:00:aa\n").unwrap();
        std::fs::write(member.join("perm_hwaddr"), "02:00:00:00:00:02\n").unwrap();
        assert_eq!(find(&["02:00:00:00:00:02"]).unwrap().name, "ens2");
        assert_eq!(find(&["02:00:00:00:00:aa"]).unwrap().name, "ens1");
        let error = find(&["02:00:00:00:00:03"]).unwrap_err();
        assert!(error.to_string().contains("ens1 02:00:00:00:00:AA, ens2"), "{error}");
    }

    #[test]
    fn mac_addresses_are_six_bytes() {
        assert_eq!(mac_bytes("52:54:00:12:34:56"), Some([0x52, 0x54, 0, 0x12, 0x34, 0x56]));
        assert_eq!(mac_bytes("80:00:02:08:fe:80:00:00"), None);
        assert_eq!(mac_bytes(""), None);
    }
}

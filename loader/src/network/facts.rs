//! The network as the kernel has it now: links, addresses, and the routes to some addresses.
//!
//! Source: include/uapi/linux/if_link.h, if_addr.h, rtnetlink.h; net/core/rtnetlink.c `rtnl_fill_ifinfo`.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use super::config::Bond;
use super::netlink::{
    AF_INET, AF_INET6, Attributes, Message, RTM_GETADDR, RTM_GETLINK, RTM_GETROUTE, Request, Socket,
};

/// Sizes of the fixed parts: `struct ifinfomsg`, `ifaddrmsg`, `rtmsg`.
pub const IFINFO: usize = 16;
/// `struct ifaddrmsg`.
pub const IFADDR: usize = 8;
/// `struct rtmsg`.
pub const RTMSG: usize = 12;

/// `IFLA_*`.
pub mod ifla {
    #![expect(missing_docs, reason = "the kernel's names")]
    pub const ADDRESS: u16 = 1;
    pub const IFNAME: u16 = 3;
    pub const MTU: u16 = 4;
    pub const LINK: u16 = 5;
    pub const MASTER: u16 = 10;
    pub const LINKINFO: u16 = 18;
    pub const PERM_ADDRESS: u16 = 54;
    pub const INFO_KIND: u16 = 1;
    pub const INFO_DATA: u16 = 2;
    pub const VLAN_ID: u16 = 1;
    pub const VLAN_PROTOCOL: u16 = 5;
    pub const BOND_MODE: u16 = 1;
    pub const BOND_MIIMON: u16 = 3;
    pub const BOND_ARP_INTERVAL: u16 = 7;
    pub const BOND_ARP_IP_TARGET: u16 = 8;
    pub const BOND_FAIL_OVER_MAC: u16 = 13;
    pub const BOND_XMIT_HASH_POLICY: u16 = 14;
    pub const BOND_AD_LACP_RATE: u16 = 21;
    pub const BOND_AD_SELECT: u16 = 22;
}

/// `RTA_*`, `IFA_*` and numbers of routes.
pub mod rta {
    #![expect(missing_docs, reason = "the kernel's names")]
    pub const DST: u16 = 1;
    pub const OIF: u16 = 4;
    pub const GATEWAY: u16 = 5;
    pub const PREFSRC: u16 = 7;
    pub const MULTIPATH: u16 = 9;
    pub const TABLE: u16 = 15;
    pub const VIA: u16 = 18;
    pub const IFA_ADDRESS: u16 = 1;
    pub const IFA_LOCAL: u16 = 2;
    pub const IFA_FLAGS: u16 = 8;
    pub const IFA_F_TEMPORARY: u32 = 1;
    pub const IFA_F_NODAD: u32 = 2;
    pub const IFA_F_TENTATIVE: u32 = 0x40;
    pub const IFA_F_PERMANENT: u32 = 0x80;
    pub const RTN_UNICAST: u8 = 1;
    pub const RTN_LOCAL: u8 = 2;
    pub const TABLE_MAIN: u8 = 254;
    pub const RTPROT_BOOT: u8 = 3;
    pub const SCOPE_UNIVERSE: u8 = 0;
    pub const SCOPE_LINK: u8 = 253;
    pub const ONLINK: u32 = 4;
}

/// A link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkFact {
    /// The kernel's number.
    pub index: u32,
    /// Name.
    pub name: String,
    /// MAC address now.
    pub mac: String,
    /// The one it was made with, where the kernel says.
    pub permanent_mac: Option<String>,
    /// Bytes of a packet.
    pub mtu: u32,
    /// The link below.
    pub below: Option<u32>,
    /// The bond or bridge that it is a member of.
    pub master: Option<u32>,
    /// `vlan`, `bond`, `bridge` and the like; none for devices.
    pub kind: Option<String>,
    /// Number and protocol, where it is a VLAN.
    pub vlan: Option<(u16, u16)>,
    /// Settings, where it is a bond; without members.
    pub bond: Option<Bond>,
    /// Its device in sysfs, where it has one.
    pub device: Option<PathBuf>,
    /// Radio.
    pub is_wireless: bool,
}

/// An address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressFact {
    /// The link's number.
    pub link: u32,
    /// The address.
    pub ip: IpAddr,
    /// Bits of the network.
    pub prefix: u8,
    /// `IFA_F_*`.
    pub flags: u32,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteFact {
    /// Where it leads.
    pub to: IpAddr,
    /// Bits of that.
    pub prefix: u8,
    /// The link's number.
    pub link: u32,
    /// Over whom.
    pub via: Option<IpAddr>,
    /// From which of our addresses.
    pub source: Option<IpAddr>,
    /// `RTN_*`.
    pub kind: u8,
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Links.
    pub links: Vec<LinkFact>,
    /// Addresses.
    pub addresses: Vec<AddressFact>,
    /// Default routes of the main table.
    pub defaults: Vec<RouteFact>,
    /// The way to each address that was asked for, as far as there is one.
    pub ways: Vec<RouteFact>,
    /// Servers that resolve names.
    pub nameservers: Vec<IpAddr>,
}

impl Facts {
    /// Asks the running kernel. `root` is where /sys and /etc are below.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn read(root: &Path, to: &[IpAddr]) -> io::Result<Self> {
        let mut socket = Socket::open()?;
        let links = socket.dump(Request::new(RTM_GETLINK, 0, &[0; IFINFO]))?;
        let mut links: Vec<_> = links.iter().filter_map(parse_link).collect();
        for link in &mut links {
            complete(link, root);
        }
        let addresses = socket.dump(Request::new(RTM_GETADDR, 0, &[0; IFADDR]))?;
        let mut defaults = Vec::new();
        for family in [AF_INET, AF_INET6] {
            let mut fixed = [0; RTMSG];
            fixed[0] = family;
            let routes = socket.dump(Request::new(RTM_GETROUTE, 0, &fixed))?;
            defaults.extend(routes.iter().filter_map(parse_default));
        }
        let nameservers = read_nameservers(root);
        let ways =
            to.iter().chain(&nameservers).filter_map(|&address| find_way(&mut socket, address)).collect();
        let addresses = addresses.iter().filter_map(parse_address).collect();
        Ok(Self { links, addresses, defaults, ways, nameservers })
    }
}

/// What sysfs knows of a link.
fn complete(link: &mut LinkFact, root: &Path) {
    let dir = root.join("sys/class/net").join(&link.name);
    link.device = std::fs::canonicalize(dir.join("device")).ok();
    link.is_wireless = dir.join("phy80211").exists() || dir.join("wireless").exists();
    // Members of a bond have its address; kernels before 5.6 say their own only here.
    if link.permanent_mac.is_none() {
        let mac = std::fs::read_to_string(dir.join("bonding_slave/perm_hwaddr")).ok();
        link.permanent_mac = mac.map(|mac| mac.trim().to_owned());
    }
}

fn parse_link(message: &Message) -> Option<LinkFact> {
    let &[_, _, _, _, i0, i1, i2, i3, ..] = message.fixed::<IFINFO>()?;
    let attributes = message.attributes(IFINFO);
    let info = attributes.nest(ifla::LINKINFO);
    let kind = info.and_then(|info| info.text(ifla::INFO_KIND));
    let data = info.and_then(|info| info.nest(ifla::INFO_DATA));
    Some(LinkFact {
        index: u32::from_ne_bytes([i0, i1, i2, i3]),
        name: attributes.text(ifla::IFNAME)?,
        mac: attributes.get(ifla::ADDRESS).map(mac_text).unwrap_or_default(),
        permanent_mac: attributes.get(ifla::PERM_ADDRESS).map(mac_text),
        mtu: attributes.u32(ifla::MTU).unwrap_or_default(),
        below: attributes.u32(ifla::LINK),
        master: attributes.u32(ifla::MASTER),
        vlan: data.filter(|_| kind.as_deref() == Some("vlan")).and_then(parse_vlan),
        bond: data.filter(|_| kind.as_deref() == Some("bond")).map(parse_bond),
        kind,
        device: None,
        is_wireless: false,
    })
}

fn parse_vlan(data: Attributes<'_>) -> Option<(u16, u16)> {
    let protocol = data.u16(ifla::VLAN_PROTOCOL).map_or(0x8100, u16::from_be);
    Some((data.u16(ifla::VLAN_ID)?, protocol))
}

fn parse_bond(data: Attributes<'_>) -> Bond {
    let targets = data.nest(ifla::BOND_ARP_IP_TARGET).into_iter().flatten();
    let targets = targets.filter_map(|(_, ip)| Some(Ipv4Addr::from(<[u8; 4]>::try_from(ip).ok()?)));
    Bond {
        members: Vec::new(),
        mac: String::new(),
        mode: data.u8(ifla::BOND_MODE).unwrap_or_default(),
        miimon: data.u32(ifla::BOND_MIIMON).unwrap_or_default(),
        arp_interval: data.u32(ifla::BOND_ARP_INTERVAL).unwrap_or_default(),
        arp_targets: targets.collect(),
        xmit_hash_policy: data.u8(ifla::BOND_XMIT_HASH_POLICY).unwrap_or_default(),
        lacp_rate: data.u8(ifla::BOND_AD_LACP_RATE).unwrap_or_default(),
        ad_select: data.u8(ifla::BOND_AD_SELECT).unwrap_or_default(),
        fail_over_mac: data.u8(ifla::BOND_FAIL_OVER_MAC).unwrap_or_default(),
    }
}

fn parse_address(message: &Message) -> Option<AddressFact> {
    let &[_, prefix, flags, _, i0, i1, i2, i3] = message.fixed::<IFADDR>()?;
    let attributes = message.attributes(IFADDR);
    Some(AddressFact {
        link: u32::from_ne_bytes([i0, i1, i2, i3]),
        // Of a point-to-point link, the other is the peer's.
        ip: attributes.ip(rta::IFA_LOCAL).or_else(|| attributes.ip(rta::IFA_ADDRESS))?,
        prefix,
        flags: attributes.u32(rta::IFA_FLAGS).unwrap_or_else(|| u32::from(flags)),
    })
}

fn parse_route(message: &Message) -> Option<RouteFact> {
    let &[family, prefix, _, _, _, _, _, kind, ..] = message.fixed::<RTMSG>()?;
    let attributes = message.attributes(RTMSG);
    let everywhere: IpAddr = match family {
        AF_INET => Ipv4Addr::UNSPECIFIED.into(),
        AF_INET6 => std::net::Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    // Of several ways the first; what it begins with is `struct rtnexthop`: length, flags, hops, link.
    let hop = attributes.get(rta::MULTIPATH);
    let hop_link = hop.and_then(|hop| Some(u32::from_ne_bytes(*hop.get(4..8)?.first_chunk()?)));
    let hop_via = hop.and_then(|hop| {
        let length = usize::from(u16::from_ne_bytes(*hop.first_chunk()?));
        let message = Message { kind: 0, body: hop.get(8..length)?.to_vec() };
        gateway(message.attributes(0))
    });
    Some(RouteFact {
        to: attributes.ip(rta::DST).unwrap_or(everywhere),
        prefix,
        link: attributes.u32(rta::OIF).or(hop_link)?,
        via: gateway(attributes).or(hop_via),
        source: attributes.ip(rta::PREFSRC),
        kind,
    })
}

/// The gateway; IPv4 over one of IPv6 has another attribute, which begins with the family.
fn gateway(attributes: Attributes<'_>) -> Option<IpAddr> {
    attributes.ip(rta::GATEWAY).or_else(|| {
        let via = attributes.get(rta::VIA)?.get(2..)?;
        Some(IpAddr::from(<[u8; 16]>::try_from(via).ok()?))
    })
}

fn parse_default(message: &Message) -> Option<RouteFact> {
    let table = message.fixed::<RTMSG>()?[4];
    let table = message.attributes(RTMSG).u32(rta::TABLE).unwrap_or_else(|| u32::from(table));
    let route = parse_route(message)?;
    (table == u32::from(rta::TABLE_MAIN) && route.prefix == 0 && route.kind == rta::RTN_UNICAST)
        .then_some(route)
}

/// The way to an address that the kernel would take now; none if there is none.
fn find_way(socket: &mut Socket, to: IpAddr) -> Option<RouteFact> {
    let (family, bits) = if to.is_ipv4() { (AF_INET, 32) } else { (AF_INET6, 128) };
    let mut fixed = [0; RTMSG];
    fixed[..2].copy_from_slice(&[family, bits]);
    let answer = socket.ask(Request::new(RTM_GETROUTE, 0, &fixed).with_ip(rta::DST, to)).ok()?;
    let way = parse_route(&answer)?;
    Some(RouteFact { to, prefix: bits, ..way })
}

fn mac_text(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(":")
}

/// Nameservers that another kernel can reach: not the one that systemd-resolved is for this one.
fn read_nameservers(root: &Path) -> Vec<IpAddr> {
    ["etc/resolv.conf", "run/systemd/resolve/resolv.conf"]
        .into_iter()
        .map(|file| parse_nameservers(&std::fs::read_to_string(root.join(file)).unwrap_or_default()))
        .find(|found| !found.is_empty())
        .unwrap_or_default()
}

fn parse_nameservers(text: &str) -> Vec<IpAddr> {
    let servers = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver")?.trim().parse().ok());
    servers.filter(|ip: &IpAddr| !ip.is_loopback()).take(3).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::netlink::Nest;

    fn message(request: Request) -> Message {
        Message { kind: 0, body: request.body() }
    }

    #[test]
    fn a_bonds_member_is_read() {
        let mut fixed = [0; IFINFO];
        fixed[4] = 3;
        let request = Request::new(0, 0, &fixed)
            .with(ifla::IFNAME, b"eth1\0")
            .with(ifla::ADDRESS, &[2, 0, 0, 0, 0, 9])
            .with(ifla::PERM_ADDRESS, &[2, 0, 0, 0, 0, 1])
            .with_u32(ifla::MTU, 9000)
            .with_u32(ifla::MASTER, 7);
        let link = parse_link(&message(request)).unwrap();
        assert_eq!((link.index, link.name.as_str(), link.mtu, link.master), (3, "eth1", 9000, Some(7)));
        assert_eq!(link.mac, "02:00:00:00:00:09");
        assert_eq!(link.permanent_mac.as_deref(), Some("02:00:00:00:00:01"));
        assert_eq!((link.kind, link.bond), (None, None));
    }

    #[test]
    fn a_vlan_and_a_bond_have_their_settings() {
        let data = Nest::default()
            .with(ifla::VLAN_ID, &42_u16.to_ne_bytes())
            .with(ifla::VLAN_PROTOCOL, &0x88a8_u16.to_be_bytes());
        let info = Nest::default().with(ifla::INFO_KIND, b"vlan").with_nest(ifla::INFO_DATA, &data);
        let request = Request::new(0, 0, &[0; IFINFO])
            .with(ifla::IFNAME, b"eth0.42\0")
            .with_u32(ifla::LINK, 2)
            .with(ifla::LINKINFO, info.bytes());
        let link = parse_link(&message(request)).unwrap();
        assert_eq!((link.vlan, link.below), (Some((42, 0x88a8)), Some(2)));

        let targets = Nest::default().with(0, &[192, 0, 2, 1]).with(1, &[192, 0, 2, 2]);
        let data = Nest::default()
            .with(ifla::BOND_MODE, &[1])
            .with(ifla::BOND_ARP_INTERVAL, &1000_u32.to_ne_bytes())
            .with_nest(ifla::BOND_ARP_IP_TARGET, &targets);
        let info = Nest::default().with(ifla::INFO_KIND, b"bond\0").with_nest(ifla::INFO_DATA, &data);
        let request = Request::new(0, 0, &[0; IFINFO])
            .with(ifla::IFNAME, b"bond0\0")
            .with(ifla::LINKINFO, info.bytes());
        let bond = parse_link(&message(request)).unwrap().bond.unwrap();
        assert_eq!((bond.mode, bond.arp_interval, bond.arp_targets.len()), (1, 1000, 2));
    }

    #[test]
    fn routes_have_their_gateways() {
        let route = |family: u8, attributes: &[(u16, &[u8])]| {
            let mut fixed = [0; RTMSG];
            (fixed[0], fixed[4], fixed[7]) = (family, rta::TABLE_MAIN, rta::RTN_UNICAST);
            let request = Request::new(0, 0, &fixed);
            message(attributes.iter().fold(request, |request, (kind, value)| request.with(*kind, value)))
        };
        let link = 2_u32.to_ne_bytes();
        let plain = route(AF_INET, &[(rta::OIF, &link), (rta::GATEWAY, &[10, 0, 2, 2])]);
        let plain = parse_default(&plain).unwrap();
        assert_eq!(
            (plain.to, plain.link, plain.via),
            ("0.0.0.0".parse().unwrap(), 2, "10.0.2.2".parse().ok())
        );
        let mut via = vec![AF_INET6, 0];
        via.extend("fe80::1".parse::<std::net::Ipv6Addr>().unwrap().octets());
        let over6 = parse_default(&route(AF_INET, &[(rta::OIF, &link), (rta::VIA, &via)])).unwrap();
        assert_eq!(over6.via, "fe80::1".parse().ok());
        let hop = [
            &16_u16.to_ne_bytes()[..],
            &[0, 0],
            &link,
            &8_u16.to_ne_bytes(),
            &5_u16.to_ne_bytes(),
            &[10, 0, 2, 3],
        ];
        let several = parse_default(&route(AF_INET, &[(rta::MULTIPATH, &hop.concat())])).unwrap();
        assert_eq!((several.link, several.via), (2, "10.0.2.3".parse().ok()));
        let other = route(AF_INET, &[(rta::OIF, &link), (rta::TABLE, &100_u32.to_ne_bytes())]);
        assert_eq!(parse_default(&other), None, "of another table");
    }

    #[test]
    fn a_nameserver_of_this_machine_is_of_no_use() {
        assert_eq!(parse_nameservers("nameserver 127.0.0.53\nsearch x\n"), [] as [IpAddr; 0]);
        let text = "# made\nnameserver 192.0.2.1\n nameserver\t2001:db8::1\nnameserver x\n";
        let expected: Vec<IpAddr> = vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        assert_eq!(parse_nameservers(text), expected);
    }

    /// Check that the running kernel answers: every machine has a loopback.
    #[test]
    fn the_running_kernel_is_read() {
        let here = ["127.0.0.1".parse().unwrap()];
        let facts = Facts::read(Path::new("/"), &here).unwrap();
        let lo = facts.links.iter().find(|link| link.name == "lo").unwrap();
        assert_eq!(lo.device, None);
        let way = facts.ways.iter().find(|way| way.to == here[0]).unwrap();
        assert_eq!(way.kind, rta::RTN_LOCAL);
    }
}

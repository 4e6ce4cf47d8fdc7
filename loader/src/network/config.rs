//! What the capture kernel is told about the network: `[network]` of its configuration.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

/// The network as the way to the target needs it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkConfig {
    /// Modules to load, in order, as paths from `/`.
    pub modules: Vec<String>,
    /// Servers that resolve names.
    pub nameservers: Vec<IpAddr>,
    /// Where the target listens: whether one of these can be reached decides whether the network is up.
    pub reach: Vec<SocketAddr>,
    /// Interfaces, each after those it is made of.
    pub links: Vec<Link>,
    /// Their addresses.
    pub addresses: Vec<Address>,
    /// Routes over them.
    pub routes: Vec<Route>,
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Its name when the machine was armed, for people: the capture kernel may name it otherwise.
    pub name: String,
    /// Bytes of a packet.
    pub mtu: u32,
    /// Whether its IPv4 address came by DHCP.
    #[serde(default)]
    pub is_dhcp: bool,
    /// What it is.
    pub what: What,
}

/// What an interface is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// A device, known by its MAC address: the one it had, and the one it was made with where that is another.
    Device {
        /// `00:11:22:33:44:55` each.
        macs: Vec<String>,
    },
    /// Several that act as one.
    Bond(Bond),
    /// A numbered part of another.
    Vlan {
        /// The interface below, by its place in the list.
        below: usize,
        /// The number.
        id: u16,
        /// Ethernet type of its tag: 0x8100, or 0x88a8.
        protocol: u16,
    },
}

/// A bond, as far as its settings matter to the other side.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Bond {
    /// Its members, by their places in the list.
    pub members: Vec<usize>,
    /// Its MAC address.
    pub mac: String,
    /// How it sends: the kernel's number (1 active-backup, 4 802.3ad).
    pub mode: u8,
    /// Milliseconds between looks at the members' carriers.
    pub miimon: u32,
    /// Milliseconds between ARP requests, where those tell which members work.
    pub arp_interval: u32,
    /// To whom.
    pub arp_targets: Vec<Ipv4Addr>,
    /// By what it distributes packets.
    pub xmit_hash_policy: u8,
    /// 802.3ad: how often the other side is to speak.
    pub lacp_rate: u8,
    /// 802.3ad: which members are chosen.
    pub ad_select: u8,
    /// Active-backup: whose MAC address it has.
    pub fail_over_mac: u8,
}

/// An address of an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// The interface, by its place in the list.
    pub link: usize,
    /// The address.
    pub ip: IpAddr,
    /// Bits of the network.
    pub prefix: u8,
}

/// A route over an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The interface, by its place in the list.
    pub link: usize,
    /// Where it leads.
    pub to: IpAddr,
    /// How many bits of that count; 0 for everywhere.
    pub prefix: u8,
    /// Over whom, where it is not at the other end of the wire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<IpAddr>,
    /// Which of our addresses is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<IpAddr>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that what the loader writes is what kdump-init reads.
    #[test]
    fn the_configuration_survives_the_file() {
        let device = What::Device { macs: vec!["52:54:00:12:34:56".into()] };
        let link = |name: &str, what| Link { name: name.into(), mtu: 1500, is_dhcp: false, what };
        let bond = Bond { members: vec![0], mode: 4, miimon: 100, ..Bond::default() };
        let config = NetworkConfig {
            modules: vec!["lib/modules/virtio_net.ko".into()],
            nameservers: vec!["2001:db8::1".parse().unwrap()],
            reach: vec!["192.0.2.9:443".parse().unwrap()],
            links: vec![
                link("eth0", device),
                link("bond0", What::Bond(bond)),
                link("bond0.7", What::Vlan { below: 1, id: 7, protocol: 0x8100 }),
            ],
            addresses: vec![Address { link: 2, ip: "192.0.2.1".parse().unwrap(), prefix: 24 }],
            routes: vec![
                Route {
                    link: 2,
                    to: "0.0.0.0".parse().unwrap(),
                    prefix: 0,
                    via: Some("192.0.2.254".parse().unwrap()),
                    source: None,
                },
                Route { link: 2, to: "192.0.2.9".parse().unwrap(), prefix: 32, via: None, source: None },
            ],
        };
        let text = toml::to_string(&config).unwrap();
        assert_eq!(toml::from_str::<NetworkConfig>(&text).unwrap(), config, "{text}");
        assert_eq!(toml::from_str::<NetworkConfig>("").unwrap(), NetworkConfig::default());
    }
}

//! The network, recorded when the machine is armed, so that the capture kernel can set up what the way to the target
//! needs, and nothing else.
//!
//! [`Facts`] is what the running kernel says; [`plan`] picks out of it the interface that the target is reached by, with
//! what it is made of (VLANs, bonds, their members), its addresses, and the routes; [`NetworkConfig`] is the result, which
//! travels in the configuration of kdump-init. Devices are known by their MAC addresses: names may be others there.
//! [`Recorded`] does both, and names the drivers. A bridge is left out: its one uplink stands in for it.
//!
//! [`netlink`] serves both sides.

mod config;
mod facts;
pub mod netlink;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};

pub use config::{Address, Bond, Link, NetworkConfig, Route, What};
pub use facts::{AddressFact, Facts, IFADDR, IFINFO, LinkFact, RTMSG, RouteFact, ifla, rta};

use crate::modules::{self, Reason, Tree, Wanted, devices};

/// Links on top of each other: a VLAN on a VLAN on a bond of devices has four.
const MAX_DEPTH: usize = 8;
/// Addresses of a name.
const MAX_ADDRESSES: usize = 8;

/// A server that dumps are sent to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Its addresses, as far as they are known.
    pub addresses: Vec<IpAddr>,
}

/// Why the capture kernel could not reach a target.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// rtnetlink.
    #[error("the kernel does not say how its network is set up")]
    Netlink(#[source] io::Error),
    /// The name.
    #[error("{host} has no address: without one known now, the capture kernel may not find it either")]
    Unknown {
        /// The name.
        host: String,
        /// What the resolver says.
        #[source]
        source: io::Error,
    },
    /// The kernel has no route.
    #[error("there is no route to {host} ({addresses})")]
    NoRoute {
        /// The server.
        host: String,
        /// What it resolves to.
        addresses: String,
    },
    /// This machine itself.
    #[error("{host} is this machine itself: when it has crashed, nobody there takes a dump")]
    Own {
        /// The server.
        host: String,
    },
    /// WLAN.
    #[error("{host} is reached by {name}, a radio link: the capture kernel does not join those")]
    Wireless {
        /// The server.
        host: String,
        /// The interface.
        name: String,
    },
    /// A tunnel and the like.
    #[error(
        "{host} is reached by {name}, an interface of kind {kind}: the capture kernel sets up Ethernet devices, bonds \
         and VLANs, and goes through a bridge"
    )]
    Unsupported {
        /// The server.
        host: String,
        /// The interface.
        name: String,
        /// Its kind.
        kind: String,
    },
    /// A bridge of which nobody knows where it leads.
    #[error("{host} is reached by the bridge {name}, which has {count} ports that could lead there, not one")]
    Bridge {
        /// The server.
        host: String,
        /// The bridge.
        name: String,
        /// Ports that are devices, bonds or VLANs.
        count: usize,
    },
    /// A driver that is in use now is no module of the capture kernel, nor built in.
    #[error(
        "the interface {name} needs the driver {module}, but the modules in {dir} do not have it, nor is it built in \
         there: the capture kernel would have no network", dir = dir.display()
    )]
    NoDriver {
        /// The interface.
        name: String,
        /// The module that drives it now.
        module: String,
        /// Where the module was looked for.
        dir: PathBuf,
    },
    /// Modules.
    #[error(transparent)]
    Modules(#[from] modules::Error),
}

impl Destination {
    /// Resolves the server's name. An address needs no resolver.
    ///
    /// # Errors
    /// [`Error::Unknown`].
    pub fn resolve(host: &str, port: u16) -> Result<Self, Error> {
        let unknown = |source| Error::Unknown { host: host.to_owned(), source };
        let found = (host, port).to_socket_addrs().map_err(unknown)?;
        let mut addresses: Vec<IpAddr> = Vec::new();
        for address in found.take(MAX_ADDRESSES) {
            if !addresses.contains(&address.ip()) {
                addresses.push(address.ip());
            }
        }
        Ok(Self { host: host.to_owned(), port, addresses })
    }
}

/// What was recorded of the running machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// For the capture kernel; its modules are not filled in.
    pub config: NetworkConfig,
    facts: Facts,
}

impl Recorded {
    /// Records what the way to some servers needs. `root` is what /sys and /etc are below.
    ///
    /// # Errors
    /// [`Error`].
    pub fn read(root: &Path, destinations: &[Destination]) -> Result<Self, Error> {
        let to: Vec<IpAddr> = destinations.iter().flat_map(|d| d.addresses.iter().copied()).collect();
        let facts = Facts::read(root, &to).map_err(Error::Netlink)?;
        Ok(Self { config: plan(&facts, destinations)?, facts })
    }

    /// The modules that the links need, each with its reason: drivers from each device up, and what makes bonds and
    /// VLANs. They are loaded before the links are set up.
    ///
    /// # Errors
    /// [`Error::NoDriver`] where the capture kernel has no driver for a device; [`Error::Modules`] where it has no
    /// bonds or VLANs.
    pub fn find_modules(&self, tree: &Tree) -> Result<Vec<Wanted>, Error> {
        let mut names = Vec::new();
        for link in &self.config.links {
            let made_by = match &link.what {
                What::Device { .. } => {
                    let fact = self.facts.links.iter().find(|fact| fact.name == link.name);
                    if let Some(device) = fact.and_then(|fact| fact.device.as_ref()) {
                        names.extend(find_drivers(tree, device, &link.name)?);
                    }
                    continue;
                }
                What::Bond(_) => "bonding",
                What::Vlan { .. } => "8021q",
            };
            names.push((made_by.to_owned(), Reason::Interface { name: link.name.clone() }));
        }
        Ok(tree.wanted(&names)?)
    }
}

fn find_drivers(tree: &Tree, device: &Path, name: &str) -> Result<Vec<(String, Reason)>, Error> {
    devices::find_drivers(tree, device).map_err(|e| match e {
        modules::Error::NoDriver { module, dir, .. } => {
            Error::NoDriver { name: name.to_owned(), module, dir }
        }
        other => other.into(),
    })
}

/// Picks what the way to some servers needs.
///
/// # Errors
/// [`Error`].
pub fn plan(facts: &Facts, destinations: &[Destination]) -> Result<NetworkConfig, Error> {
    let mut draft = Draft { facts, config: NetworkConfig::default(), indexes: Vec::new() };
    for destination in destinations {
        draft.add(destination)?;
    }
    // A nameserver that another interface leads to is not worth setting that up: the addresses are known.
    for &server in &facts.nameservers {
        if let Some(way) = facts.ways.iter().find(|way| way.to == server)
            && let Some(link) = draft.link_of(way.link)
        {
            draft.config.nameservers.push(server);
            draft.add_way(link, way);
        }
    }
    draft.add_defaults();
    Ok(draft.config)
}

struct Draft<'a> {
    facts: &'a Facts,
    config: NetworkConfig,
    /// The kernel's number of a link and its place in the list; several of a bridge and its uplink have one place.
    indexes: Vec<(u32, usize)>,
}

impl Draft<'_> {
    fn link_of(&self, index: u32) -> Option<usize> {
        self.indexes.iter().find(|(i, _)| *i == index).map(|(_, place)| *place)
    }

    /// Adds the way to a server, by the first of its addresses that there is one to.
    fn add(&mut self, destination: &Destination) -> Result<(), Error> {
        let host = &destination.host;
        let facts = self.facts;
        let ways: Vec<_> = destination
            .addresses
            .iter()
            .filter_map(|address| facts.ways.iter().find(|way| way.to == *address))
            .collect();
        if ways.iter().any(|way| way.kind == rta::RTN_LOCAL) {
            return Err(Error::Own { host: host.clone() });
        }
        let mut found = None;
        for way in ways.into_iter().filter(|way| way.kind == rta::RTN_UNICAST) {
            // Only what leads where the first one does: two families on two interfaces are one too many.
            let link = match found {
                None => self.add_link(way.link, host, MAX_DEPTH)?,
                Some(link) if self.link_of(way.link) == Some(link) => link,
                Some(_) => continue,
            };
            found = Some(link);
            self.add_way(link, way);
            self.config.reach.push(SocketAddr::new(way.to, destination.port));
        }
        let link = found.ok_or_else(|| Error::NoRoute {
            host: host.clone(),
            addresses: destination.addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", "),
        })?;
        self.add_addresses(link);
        Ok(())
    }

    /// Adds a link after those it is made of; gives its place.
    fn add_link(&mut self, index: u32, host: &str, depth: usize) -> Result<usize, Error> {
        if let Some(place) = self.link_of(index) {
            return Ok(place);
        }
        let facts = self.facts;
        let fact = facts.links.iter().find(|link| link.index == index).filter(|_| depth > 0);
        let Some(fact) = fact else {
            return Err(self.unsupported(host, &format!("number {index}"), "unknown"));
        };
        if fact.is_wireless {
            return Err(Error::Wireless { host: host.to_owned(), name: fact.name.clone() });
        }
        let members = || facts.links.iter().filter(|link| link.master == Some(index));
        let what = match (fact.kind.as_deref(), &fact.bond, fact.vlan, fact.below) {
            (Some("bond"), Some(bond), _, _) => {
                let members: Result<Vec<_>, _> =
                    members().map(|member| self.add_link(member.index, host, depth - 1)).collect();
                What::Bond(Bond { members: members?, mac: fact.mac.clone(), ..bond.clone() })
            }
            (Some("vlan"), _, Some((id, protocol)), Some(below)) => {
                What::Vlan { below: self.add_link(below, host, depth - 1)?, id, protocol }
            }
            (Some("bridge"), ..) => {
                let leads_out = |link: &&LinkFact| {
                    link.device.is_some() || matches!(link.kind.as_deref(), Some("bond" | "vlan"))
                };
                let uplinks: Vec<_> = members().filter(leads_out).collect();
                let [uplink] = uplinks.as_slice() else {
                    let (host, name) = (host.to_owned(), fact.name.clone());
                    return Err(Error::Bridge { host, name, count: uplinks.len() });
                };
                let place = self.add_link(uplink.index, host, depth - 1)?;
                self.indexes.push((index, place));
                return Ok(place);
            }
            _ if fact.device.is_some() && !fact.mac.is_empty() => {
                let mut macs = vec![fact.mac.clone()];
                macs.extend(fact.permanent_mac.clone().filter(|mac| *mac != fact.mac && !is_zero(mac)));
                What::Device { macs }
            }
            (kind, ..) => {
                let kind = kind.unwrap_or("unknown");
                return Err(self.unsupported(host, &fact.name, kind));
            }
        };
        let place = self.config.links.len();
        self.config.links.push(Link { name: fact.name.clone(), mtu: fact.mtu, is_dhcp: false, what });
        self.indexes.push((index, place));
        Ok(place)
    }

    fn unsupported(&self, host: &str, name: &str, kind: &str) -> Error {
        Error::Unsupported { host: host.to_owned(), name: name.to_owned(), kind: kind.to_owned() }
    }

    /// The addresses of a link, and of the bridge that it stands in for.
    fn add_addresses(&mut self, link: usize) {
        let indexes: Vec<u32> =
            self.indexes.iter().filter(|(_, place)| *place == link).map(|(index, _)| *index).collect();
        for fact in self.facts.addresses.iter().filter(|fact| indexes.contains(&fact.link)) {
            // The kernel makes one of its own; and addresses for privacy come and go.
            let is_link_local = matches!(fact.ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
            let passes = fact.ip.is_ipv6() && fact.flags & (rta::IFA_F_TEMPORARY | rta::IFA_F_TENTATIVE) != 0;
            let address = Address { link, ip: fact.ip, prefix: fact.prefix };
            if is_link_local || passes || self.config.addresses.contains(&address) {
                continue;
            }
            self.config.addresses.push(address);
            if fact.ip.is_ipv4() && fact.flags & rta::IFA_F_PERMANENT == 0 {
                self.config.links[link].is_dhcp = true;
            }
        }
    }

    fn add_way(&mut self, link: usize, way: &RouteFact) {
        self.add_route(Route { link, to: way.to, prefix: way.prefix, via: way.via, source: way.source });
    }

    /// The default routes over links that are set up: names may resolve to other addresses by then.
    fn add_defaults(&mut self) {
        for way in &self.facts.defaults {
            let has_one =
                self.config.routes.iter().any(|r| r.prefix == 0 && r.to.is_ipv4() == way.to.is_ipv4());
            if let Some(link) = self.link_of(way.link).filter(|_| !has_one) {
                self.add_way(link, way);
            }
        }
    }

    fn add_route(&mut self, route: Route) {
        if !self.config.routes.iter().any(|r| (r.to, r.prefix) == (route.to, route.prefix)) {
            self.config.routes.push(route);
        }
    }
}

fn is_zero(mac: &str) -> bool {
    mac.chars().all(|c| matches!(c, '0' | ':'))
}

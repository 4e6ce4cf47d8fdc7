use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn device(index: u32, name: &str, mac: &str) -> LinkFact {
    LinkFact {
        index,
        name: name.into(),
        mac: mac.into(),
        mtu: 1500,
        device: Some(format!("/sys/devices/pci0/{name}").into()),
        ..LinkFact::default()
    }
}

fn made(index: u32, name: &str, kind: &str) -> LinkFact {
    LinkFact { kind: Some(kind.into()), device: None, ..device(index, name, "02:00:00:00:00:aa") }
}

fn way(to: &str, link: u32, via: Option<&str>, source: &str) -> RouteFact {
    let prefix = if ip(to).is_ipv4() { 32 } else { 128 };
    RouteFact { to: ip(to), prefix, link, via: via.map(ip), source: Some(ip(source)), kind: rta::RTN_UNICAST }
}

fn address(link: u32, text: &str, prefix: u8, flags: u32) -> AddressFact {
    AddressFact { link, ip: ip(text), prefix, flags }
}

fn server(addresses: &[&str]) -> Destination {
    Destination {
        host: "dumps.example.org".into(),
        port: 443,
        addresses: addresses.iter().map(|text| ip(text)).collect(),
    }
}

/// A server behind a gateway, on a plain device with a leased address and one for privacy.
fn plain() -> Facts {
    Facts {
        links: vec![device(2, "eth0", "52:54:00:12:34:56"), device(3, "eth1", "52:54:00:12:34:57")],
        addresses: vec![
            address(2, "192.0.2.7", 24, 0),
            address(2, "fe80::1", 64, rta::IFA_F_PERMANENT),
            address(2, "2001:db8::7", 64, rta::IFA_F_TEMPORARY),
            address(3, "198.51.100.7", 24, rta::IFA_F_PERMANENT),
        ],
        defaults: vec![
            RouteFact { prefix: 0, ..way("0.0.0.0", 3, Some("198.51.100.1"), "198.51.100.7") },
            RouteFact { prefix: 0, ..way("0.0.0.0", 2, Some("192.0.2.1"), "192.0.2.7") },
        ],
        ways: vec![
            way("203.0.113.9", 2, Some("192.0.2.1"), "192.0.2.7"),
            way("192.0.2.53", 2, None, "192.0.2.7"),
            way("198.51.100.53", 3, None, "198.51.100.7"),
        ],
        nameservers: vec![ip("198.51.100.53"), ip("192.0.2.53")],
    }
}

#[test]
fn only_what_the_way_needs_is_recorded() {
    let config = plan(&plain(), &[server(&["203.0.113.9"])]).unwrap();
    let [link] = config.links.as_slice() else { panic!("{config:?}") };
    assert_eq!((link.name.as_str(), link.is_dhcp), ("eth0", true));
    assert_eq!(link.what, What::Device { macs: vec!["52:54:00:12:34:56".into()] });
    assert_eq!(config.addresses, [Address { link: 0, ip: ip("192.0.2.7"), prefix: 24 }]);
    assert_eq!(config.reach, ["203.0.113.9:443".parse().unwrap()]);
    assert_eq!(config.nameservers, [ip("192.0.2.53")], "the other is beyond an interface that is not set up");
    let routes: Vec<_> = config.routes.iter().map(|r| (r.to, r.prefix, r.via)).collect();
    assert_eq!(
        routes,
        [
            (ip("203.0.113.9"), 32, Some(ip("192.0.2.1"))),
            (ip("192.0.2.53"), 32, None),
            (ip("0.0.0.0"), 0, Some(ip("192.0.2.1"))),
        ]
    );
}

#[test]
fn a_vlan_on_a_bond_is_recorded_from_the_bottom_up() {
    let mut facts = plain();
    for (link, permanent) in [(0, "02:00:00:00:00:01"), (1, "02:00:00:00:00:02")] {
        facts.links[link].master = Some(4);
        facts.links[link].mac = "02:00:00:00:00:aa".into();
        facts.links[link].permanent_mac = Some(permanent.into());
    }
    let bond = Bond { mode: 4, miimon: 100, lacp_rate: 1, ..Bond::default() };
    facts.links.push(LinkFact { bond: Some(bond.clone()), ..made(4, "bond0", "bond") });
    facts.links.push(LinkFact { vlan: Some((42, 0x8100)), below: Some(4), ..made(5, "bond0.42", "vlan") });
    facts.ways = vec![way("203.0.113.9", 5, Some("10.42.0.1"), "10.42.0.7")];
    facts.addresses = vec![address(5, "10.42.0.7", 24, rta::IFA_F_PERMANENT)];
    let config = plan(&facts, &[server(&["203.0.113.9"])]).unwrap();
    let names: Vec<_> = config.links.iter().map(|link| link.name.as_str()).collect();
    assert_eq!(names, ["eth0", "eth1", "bond0", "bond0.42"]);
    let macs = vec!["02:00:00:00:00:aa".to_owned(), "02:00:00:00:00:02".to_owned()];
    assert_eq!(config.links[1].what, What::Device { macs });
    let expected = Bond { members: vec![0, 1], mac: "02:00:00:00:00:aa".into(), ..bond };
    assert_eq!(config.links[2].what, What::Bond(expected));
    assert_eq!(config.links[3].what, What::Vlan { below: 2, id: 42, protocol: 0x8100 });
    assert_eq!(config.addresses[0].link, 3);
    assert!(!config.links[3].is_dhcp);
}

#[test]
fn a_bridges_one_uplink_stands_in_for_it() {
    let mut facts = plain();
    facts.links[0].master = Some(4);
    facts.links.push(made(4, "br0", "bridge"));
    facts.links.push(LinkFact { master: Some(4), ..made(6, "vnet0", "tun") });
    facts.ways[0].link = 4;
    facts.addresses[0].link = 4;
    let config = plan(&facts, &[server(&["203.0.113.9"])]).unwrap();
    assert_eq!(config.links.len(), 1);
    assert_eq!(config.links[0].name, "eth0");
    assert_eq!(config.addresses.first().map(|a| (a.link, a.ip)), Some((0, ip("192.0.2.7"))));
    // Two that lead out are one too many.
    facts.links[1].master = Some(4);
    let error = plan(&facts, &[server(&["203.0.113.9"])]).unwrap_err();
    assert!(matches!(&error, Error::Bridge { count: 2, .. }), "{error}");
}

#[test]
fn a_target_that_cannot_be_reached_is_refused_with_a_reason() {
    let refused = |facts: &Facts, to: &[&str]| plan(facts, &[server(to)]).unwrap_err().to_string();
    assert!(refused(&plain(), &["203.0.113.99"]).contains("no route to dumps.example.org (203.0.113.99)"));
    let mut own = plain();
    own.ways[0].kind = rta::RTN_LOCAL;
    assert!(refused(&own, &["203.0.113.9"]).contains("this machine itself"));
    let mut radio = plain();
    radio.links[0].is_wireless = true;
    assert!(refused(&radio, &["203.0.113.9"]).contains("eth0, a radio link"));
    let mut tunnel = plain();
    tunnel.links[0] = made(2, "wg0", "wireguard");
    assert!(refused(&tunnel, &["203.0.113.9"]).contains("wg0, an interface of kind wireguard"));
    // A VLAN on itself.
    let mut circle = plain();
    circle.links[0] = LinkFact { vlan: Some((1, 0x8100)), below: Some(2), ..made(2, "v", "vlan") };
    assert!(matches!(plan(&circle, &[server(&["203.0.113.9"])]), Err(Error::Unsupported { .. })));
}

#[test]
fn an_address_on_another_interface_is_not_worth_that_one() {
    let mut facts = plain();
    facts.ways.push(way("2001:db8:9::9", 3, None, "2001:db8:9::7"));
    let config = plan(&facts, &[server(&["203.0.113.9", "2001:db8:9::9"])]).unwrap();
    assert_eq!((config.links.len(), config.reach.len()), (1, 1));
    let config = plan(&facts, &[server(&["2001:db8:9::9", "203.0.113.9"])]).unwrap();
    assert_eq!((config.links[0].name.as_str(), config.reach.len()), ("eth1", 1));
}

/// Check that a bond's and a VLAN's modules are named with their reasons, and a driver that is not there with its
/// interface.
#[test]
fn modules_are_those_of_the_links() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("modules.dep"), "k/bonding.ko:\nk/8021q.ko: k/garp.ko\nk/garp.ko:\n")
        .unwrap();
    let tree = Tree::open(dir.path()).unwrap();
    let link = |name: &str, what| Link { name: name.into(), mtu: 1500, is_dhcp: false, what };
    let links = vec![
        link("bond0", What::Bond(Bond::default())),
        link("bond0.1", What::Vlan { below: 0, id: 1, protocol: 0x8100 }),
    ];
    let mut recorded =
        Recorded { config: NetworkConfig { links, ..NetworkConfig::default() }, facts: plain() };
    let wanted = recorded.find_modules(&tree).unwrap();
    let reasons: Vec<_> = wanted.iter().map(|m| (m.name.as_str(), m.reason.to_string())).collect();
    assert_eq!(
        reasons,
        [
            ("bonding", "makes bond0 (network of the target)".to_owned()),
            ("garp", "dependency of 8021q".to_owned()),
            ("8021q", "makes bond0.1 (network of the target)".to_owned()),
        ]
    );

    let device = dir.path().join("device");
    std::fs::create_dir_all(device.join("driver")).unwrap();
    std::fs::create_dir(dir.path().join("e1000e")).unwrap();
    std::fs::write(dir.path().join("e1000e/initstate"), "live").unwrap();
    std::os::unix::fs::symlink(dir.path().join("e1000e"), device.join("driver/module")).unwrap();
    std::fs::write(device.join("uevent"), "").unwrap();
    recorded.facts.links[0].device = Some(device);
    recorded.config.links = vec![link("eth0", What::Device { macs: vec![] })];
    let error = recorded.find_modules(&tree).unwrap_err().to_string();
    assert!(error.contains("the interface eth0 needs the driver e1000e"), "{error}");
}

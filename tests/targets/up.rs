//! Guests that set up a network which another machine had, and send something over it.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kdump_capture::remote::receiver::{Options, Receiver};
use kdump_capture::remote::{RemoteOptions, Secret};
use kdump_loader::cpio;
use kdump_loader::modules::{Tree, plain_file_name};
use kdump_loader::network::{Address, Bond, Link, NetworkConfig, Route, What};
use kdump_rehearse::accel;
use kdump_rehearse::qemu::{Emulator, Machine};

use crate::common::{self, Turn};
use crate::guest::{END, Orders, RECORDED, TEST};
use crate::servers::Certificates;
use crate::{noise, proxy};

const MAC: &str = "52:54:00:12:34:56";
const OTHER_MAC: &str = "52:54:00:12:34:99";
const LIMIT: Duration = Duration::from_secs(240);
/// A user network, on which the host is 10.0.2.2 and fec0::2.
const NET: &str = "user,ipv4=on,ipv6=on,id";
/// The same without a router that gives addresses of the other family.
const NET4: &str = "user,ipv6=off,id";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn device(name: &str, mac: &str) -> Link {
    Link { name: name.into(), mtu: 1400, is_dhcp: false, what: What::Device { macs: vec![mac.into()] } }
}

/// A receiver in this process, at `listen`, and where that is.
fn receive(dir: &Path, listen: &str, identity: Option<(String, Secret)>) -> SocketAddr {
    let options = Options { dir: dir.to_owned(), token: Secret::default(), identity };
    let receiver = Receiver::new(&options, |_| ()).unwrap();
    let listener = std::net::TcpListener::bind(listen).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || Arc::new(receiver).serve(&listener));
    address
}

/// Boots a guest with this program as its first; gives its console.
fn boot(name: &str, kernel: &str, modules: &[&str], mut orders: Orders, qemu: &[&str]) -> String {
    let turn = Turn::wait();
    let out = turn.directory(&format!("targets-{name}"));
    fs::create_dir_all(&out).unwrap();
    let image = common::kernel(kernel);
    let dir = image.parent().unwrap();
    let release = fs::read_to_string(dir.join("release")).unwrap();
    let tree = Tree::open(&dir.join("lib/modules").join(release.trim())).unwrap();
    let mut archive = cpio::Archive::new();
    for dir in ["proc", "sys", "dev", "run", "etc", "tmp"] {
        archive.dir(dir).unwrap();
    }
    archive.node("dev/console", 0o600, 5, 1).unwrap();
    archive.node("dev/null", 0o666, 1, 3).unwrap();
    let this = fs::read(std::env::current_exe().unwrap()).unwrap();
    archive.file("init", 0o755, &this).unwrap();
    for path in tree.closure(&[&["virtio_pci", "virtio_net"], modules].concat()).unwrap() {
        let file = format!("lib/modules/{}", plain_file_name(&path));
        archive.file(&file, 0o644, &tree.read_decompressed(&path).unwrap()).unwrap();
        orders.network.modules.push(file);
    }
    let text = toml::to_string(&orders).unwrap();
    archive.file(Orders::PATH, 0o600, text.as_bytes()).unwrap();
    let files = ["initramfs", "disk", "serial.log", "qemu.log"].map(|name| out.join(name));
    let [initramfs, disk, serial, log] = &files;
    fs::write(initramfs, archive.finish()).unwrap();
    fs::write(disk, vec![0; 1 << 20]).unwrap();
    let _ = fs::remove_file(serial);
    let machine = Machine {
        accel: accel::choose(&out).accel,
        cpu: None,
        cpus: 2,
        memory: 512 << 20,
        kernel: &image,
        initramfs,
        cmdline: &format!(
            "console=ttyS0,115200 panic=1 rdinit=/init -- --exact {TEST} --ignored --nocapture"
        ),
        disk,
        serial,
        held: None,
        more: &qemu.iter().map(|&word| word.to_owned()).collect::<Vec<_>>(),
    };
    let mut emulator = Emulator::start(&machine.arguments(), log).unwrap();
    let begin = Instant::now();
    while emulator.try_wait().unwrap().is_none() {
        assert!(begin.elapsed() < LIMIT, "{}", common::serial_of(&out));
        std::thread::sleep(Duration::from_millis(50));
    }
    let console = common::serial_of(&out);
    assert!(!console.is_empty(), "{}", fs::read_to_string(log).unwrap());
    console
}

fn nic(id: &str, mac: &str) -> [String; 2] {
    // Without its boot program, which comes in a package of its own.
    ["-device".to_owned(), format!("virtio-net-pci,netdev={id},mac={mac},romfile=")]
}

/// What the guest recorded of the network that it had set up.
fn recorded(console: &str) -> NetworkConfig {
    let text = console.split_once(RECORDED).and_then(|(_, rest)| rest.split_once(END));
    let (text, _) = text.unwrap_or_else(|| panic!("no record: {console}"));
    // Each line has the time before it.
    let lines = text.lines().filter_map(|line| line.strip_prefix("kdump-init: [")?.split_once("] "));
    let text: String = lines.map(|(_, line)| format!("{line}\n")).collect();
    toml::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

fn orders(network: NetworkConfig, url: String) -> Orders {
    let remote = RemoteOptions { directory: "dump".into(), ..RemoteOptions::default() };
    Orders { budget: 60, url, bytes: 16 << 20, shown: vec![], network, remote }
}

fn assert_arrived(dir: &Path, console: &str) {
    let there: PathBuf = dir.join("guest/dump");
    let sent = fs::read(there.join("vmcore")).unwrap_or_else(|e| panic!("{e}: {console}"));
    assert!(sent == noise(16 << 20), "{console}");
    assert_eq!(fs::read(there.join("dmesg.txt")).unwrap(), b"panic");
}

/// Check that the device is found by its MAC address, not as the first, and that a dump goes over it in TLS, through a
/// break; then that what was set up is recorded as it was.
#[test]
#[ignore = "boots a kernel in QEMU; `make test` runs it"]
fn fixed_addresses_are_set_on_the_device_that_had_them() {
    let dir = tempfile::tempdir().unwrap();
    let certificates = Certificates::make(dir.path());
    let key = Secret::new(fs::read_to_string(certificates.key()).unwrap());
    let identity = (fs::read_to_string(certificates.chain()).unwrap(), key);
    let address = receive(dir.path(), "127.0.0.1:0", Some(identity));
    let way = proxy::start(address, &[5 << 20]);
    let network = NetworkConfig {
        nameservers: vec![],
        reach: vec![SocketAddr::new(ip("10.0.2.2"), way.port())],
        links: vec![device("enp3s0", MAC)],
        addresses: vec![Address { link: 0, ip: ip("10.0.2.77"), prefix: 24 }],
        routes: vec![
            Route { link: 0, to: ip("10.0.2.2"), prefix: 32, via: None, source: Some(ip("10.0.2.77")) },
            Route { link: 0, to: ip("0.0.0.0"), prefix: 0, via: Some(ip("10.0.2.2")), source: None },
        ],
        ..NetworkConfig::default()
    };
    let mut orders = orders(network.clone(), format!("tls://10.0.2.2:{}/guest", way.port()));
    orders.remote.ca = certificates.ca;
    let [a, b] = ["u0", "u1"].map(|id| format!("{NET4}={id}"));
    let ([o0, o1], [n0, n1]) = (nic("u0", OTHER_MAC), nic("u1", MAC));
    let console = boot("fixed", "6.12", &[], orders, &["-netdev", &a, "-netdev", &b, &o0, &o1, &n0, &n1]);
    assert_arrived(dir.path(), &console);
    let again = recorded(&console);
    assert_eq!((again.links.len(), again.links[0].mtu), (1, 1400));
    assert_eq!(again.links[0].what, network.links[0].what);
    assert_eq!((&again.addresses, &again.routes), (&network.addresses, &network.routes), "{console}");
}

/// Check that a leased address is asked for again, where the one that was recorded would not work.
#[test]
#[ignore = "boots a kernel in QEMU; `make test` runs it"]
fn a_leased_address_is_leased_again() {
    let dir = tempfile::tempdir().unwrap();
    let address = receive(dir.path(), "127.0.0.1:0", None);
    let network = NetworkConfig {
        reach: vec![SocketAddr::new(ip("10.0.2.2"), address.port())],
        links: vec![Link { is_dhcp: true, ..device("eth0", MAC) }],
        addresses: vec![Address { link: 0, ip: ip("192.0.2.7"), prefix: 24 }],
        ..NetworkConfig::default()
    };
    let orders = orders(network, format!("tcp://10.0.2.2:{}/guest", address.port()));
    let (net, [n0, n1]) = (format!("{NET}=u0"), nic("u0", MAC));
    let console = boot("dhcp", "5.10", &[], orders, &["-netdev", &net, &n0, &n1]);
    assert!(console.contains("kdump-init: ") && console.contains("/24 by DHCP"), "{console}");
    assert_arrived(dir.path(), &console);
}

/// Check a bond of two devices, and a VLAN on it.
#[test]
#[ignore = "boots a kernel in QEMU; `make test` runs it"]
fn a_bond_and_a_vlan_are_made() {
    let dir = tempfile::tempdir().unwrap();
    let address = receive(dir.path(), "127.0.0.1:0", None);
    let bond = Bond { members: vec![0, 1], mac: MAC.into(), mode: 1, miimon: 100, ..Bond::default() };
    let link = |name: &str, what| Link { what, ..device(name, MAC) };
    let network = NetworkConfig {
        reach: vec![SocketAddr::new(ip("10.0.2.2"), address.port())],
        links: vec![
            device("eth0", MAC),
            device("eth1", OTHER_MAC),
            link("bond0", What::Bond(bond)),
            link("bond0.42", What::Vlan { below: 2, id: 42, protocol: 0x8100 }),
        ],
        addresses: vec![
            Address { link: 2, ip: ip("10.0.2.77"), prefix: 24 },
            Address { link: 3, ip: ip("10.42.0.7"), prefix: 24 },
        ],
        ..NetworkConfig::default()
    };
    let mut orders = orders(network.clone(), format!("tcp://10.0.2.2:{}/guest", address.port()));
    orders.shown = vec!["/proc/net/vlan/config".into(), "/proc/net/bonding/kdump2".into()];
    let net = format!("{NET}=u0");
    let ports = ["h0,netdev=u0", "h1", "h2"].map(|port| format!("hubport,hubid=0,id={port}"));
    let ([a0, a1], [b0, b1]) = (nic("h1", MAC), nic("h2", OTHER_MAC));
    let mut qemu = vec!["-netdev", &net];
    ports.iter().for_each(|port| qemu.extend(["-netdev", port]));
    qemu.extend([&a0, &a1, &b0, &b1].map(String::as_str));
    let console = boot("bond", "7.3", &["bonding", "8021q"], orders, &qemu);
    assert_arrived(dir.path(), &console);
    for line in ["kdump3         | 42  | kdump2", "Bonding Mode: fault-tolerance (active-backup)"] {
        assert!(console.contains(line), "{line}: {console}");
    }
    let again = recorded(&console);
    let macs: Vec<_> = again.links.iter().map(|link| &link.what).collect();
    let [What::Device { macs: one }, What::Device { macs: two }, What::Bond(bond)] = macs.as_slice() else {
        panic!("{console}");
    };
    assert_eq!(one[0], MAC);
    assert!(two.contains(&OTHER_MAC.to_owned()), "{two:?}");
    assert_eq!((bond.mode, bond.miimon, bond.members.len()), (1, 100, 2));
}

/// Check addresses of the other family.
#[test]
#[ignore = "boots a kernel in QEMU; `make test` runs it"]
fn a_receiver_is_reached_by_ipv6() {
    let dir = tempfile::tempdir().unwrap();
    let address = receive(dir.path(), "[::1]:0", None);
    let network = NetworkConfig {
        reach: vec![SocketAddr::new(ip("fec0::2"), address.port())],
        links: vec![device("eth0", MAC)],
        addresses: vec![Address { link: 0, ip: ip("fec0::77"), prefix: 64 }],
        ..NetworkConfig::default()
    };
    let orders = orders(network, format!("tcp://[fec0::2]:{}/guest", address.port()));
    let (net, [n0, n1]) = (format!("{NET}=u0"), nic("u0", MAC));
    let console = boot("ipv6", "6.1", &[], orders, &["-netdev", &net, &n0, &n1]);
    assert_arrived(dir.path(), &console);
}

/// Check that the time is kept, and what is said, where nothing is as it was.
#[test]
#[ignore = "boots a kernel in QEMU; `make test` runs it"]
fn a_device_that_is_gone_is_named() {
    let network = NetworkConfig {
        links: vec![device("eth7", "02:00:00:00:00:07")],
        addresses: vec![Address { link: 0, ip: ip("10.0.2.77"), prefix: 24 }],
        ..NetworkConfig::default()
    };
    let orders = Orders { budget: 4, ..orders(network, String::new()) };
    let (net, [n0, n1]) = (format!("{NET}=u0"), nic("u0", MAC));
    let console = boot("gone", "6.12", &[], orders, &["-netdev", &net, &n0, &n1]);
    let said = console.lines().find(|line| line.contains("failed: ")).unwrap_or_else(|| panic!("{console}"));
    assert!(said.contains("no device has the MAC address of eth7 (02:00:00:00:00:07)"), "{said}");
    assert!(said.contains(&format!("eth0 {MAC}")), "{said}");
}

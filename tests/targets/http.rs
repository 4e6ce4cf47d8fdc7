//! nginx, which knows nothing of dumps.

use std::fs;
use std::io::{self, Write as _};
use std::net::SocketAddr;

use kdump_capture::remote::{Remote, RemoteOptions, Secret, open};
use serde_json::Value;

use crate::servers::{self, Certificates};
use crate::{noise, proxy};

fn remote(way: SocketAddr, certificates: &Certificates, word: &str, parts: bool) -> Box<dyn Remote> {
    let options = RemoteOptions {
        directory: "20261123T134501Z-1f3a9c04".into(),
        ca: certificates.ca.clone(),
        authorization: Secret::new(format!("Bearer {word}")),
        parts,
        patience: 20,
        ..RemoteOptions::default()
    };
    open(&format!("https://{way}/crash/web 1"), &options).unwrap()
}

/// Check both ways to send: whole, which a break ends, and in parts, which it does not.
#[test]
#[ignore = "needs nginx; `make test` runs it"]
fn nginx_takes_a_dump_whole_or_in_parts() {
    let dir = tempfile::tempdir().unwrap();
    let certificates = Certificates::make(dir.path());
    let (_server, address) = servers::nginx(dir.path(), &certificates);
    let there = dir.path().join("files/crash/web 1/20261123T134501Z-1f3a9c04");
    let bytes = noise(40 << 20);

    let mut whole = remote(address, &certificates, "sesame", false);
    whole.put("dmesg.txt", b"panic").unwrap();
    let mut upload = whole.begin("vmcore").unwrap();
    upload.write_all(&bytes).unwrap();
    assert!(!there.join("vmcore").exists(), "not before it is whole");
    assert_eq!(upload.finish().unwrap(), bytes.len() as u64);
    assert!(fs::read(there.join("vmcore")).unwrap() == bytes);
    assert_eq!(fs::read(there.join("dmesg.txt")).unwrap(), b"panic");

    let mut cut = remote(proxy::start(address, &[10 << 20]), &certificates, "sesame", false);
    let mut upload = cut.begin("cut").unwrap();
    let error = upload.write_all(&bytes).unwrap_err();
    assert!(error.to_string().contains("cannot go on"), "{error}");
    drop(upload);
    assert!(!there.join("cut").exists());

    let way = proxy::start(address, &[5 << 20, 100, 12 << 20, 9 << 20, 300]);
    let mut parts = remote(way, &certificates, "sesame", true);
    let mut upload = parts.begin("vmcore2").unwrap();
    upload.write_all(&bytes).unwrap();
    assert!(!there.join("vmcore2.parts.json").exists());
    assert_eq!(upload.finish().unwrap(), bytes.len() as u64);
    let list: Value = serde_json::from_slice(&fs::read(there.join("vmcore2.parts.json")).unwrap()).unwrap();
    assert_eq!(list["length"], bytes.len() as u64);
    let names = list["parts"].as_array().unwrap().iter().map(|part| part["name"].as_str().unwrap());
    let joined: Vec<u8> = names.flat_map(|name| fs::read(there.join(name)).unwrap()).collect();
    assert!(joined == bytes);

    let error = remote(address, &certificates, "simsim", false).put("x", b"y").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}");
    let error = remote(address, &certificates, "simsim", false).begin("x").err().map(|e| e.kind());
    assert_eq!(error, Some(io::ErrorKind::PermissionDenied), "before anything is sent");
}

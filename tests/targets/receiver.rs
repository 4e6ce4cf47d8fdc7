//! `kdump-rs receive`: broken connections, a receiver that is killed, and who is not let in.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use kdump_capture::remote::{RemoteOptions, Secret, open};

use crate::common::KDUMP_RS;
use crate::servers::{self, Certificates};
use crate::{noise, proxy};

/// Check that the file is whole after breaks on the way and a receiver that was killed twice, once with what it had
/// called durable, and that only who knows token and certificate sends.
#[test]
#[ignore = "needs openssl; `make test` runs it"]
fn a_dump_survives_breaks_and_a_killed_receiver() {
    let dir = tempfile::tempdir().unwrap();
    let certificates = Certificates::make(dir.path());
    let token = dir.path().join("token");
    fs::write(&token, "sesame\n").unwrap();
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    let [chain, key] = [certificates.chain(), certificates.key()].map(|path| path.display().to_string());
    let arguments = ["--tls-cert", &chain, "--tls-key", &key, "--token-file", token.to_str().unwrap()];
    let (mut server, address) = servers::receive(
        &dir.path().join("dumps"),
        &format!("127.0.0.1:{}", servers::free_port()),
        &arguments,
    );

    let options = RemoteOptions {
        directory: "20261123T134501Z-1f3a9c04".into(),
        ca: certificates.ca.clone(),
        token: Secret::new("sesame".into()),
        ..RemoteOptions::default()
    };
    let way = proxy::start(address, &[3 << 20, 100, 7 << 20, 2 << 20, 1 << 20]);
    let mut remote = open(&format!("tls://{way}/web1"), &options).unwrap();
    remote.put("dmesg.txt", b"panic").unwrap();
    let bytes = noise(96 << 20);
    let mut upload = remote.begin("vmcore").unwrap();
    for (number, piece) in bytes.chunks(32 << 20).enumerate() {
        upload.write_all(piece).unwrap();
        if number < 2 {
            drop(server);
            let listen = address.to_string();
            server = servers::receive(&dir.path().join("dumps"), &listen, &arguments).0;
        }
    }
    assert_eq!(upload.finish().unwrap(), bytes.len() as u64);
    let there = dir.path().join("dumps/web1/20261123T134501Z-1f3a9c04");
    assert!(fs::read(there.join("vmcore")).unwrap() == bytes);
    let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(there.join("vmcore")), mode(there.clone())), (0o600, 0o700));

    // The fingerprint alone is enough, and another is not.
    let pinned = |fingerprint: &str| RemoteOptions {
        directory: "other".into(),
        ca: String::new(),
        fingerprint: fingerprint.to_owned(),
        patience: 5,
        ..options.clone()
    };
    let url = format!("tls://{address}/web1");
    open(&url, &pinned(&certificates.fingerprint)).unwrap().put("x", b"y").unwrap();
    let error = open(&url, &pinned(&"00".repeat(32))).unwrap().put("x", b"z").unwrap_err();
    assert!(error.to_string().contains("another fingerprint"), "{error}");
    let wrong = RemoteOptions { token: Secret::new("simsim".into()), ..options.clone() };
    let error = open(&url, &wrong).unwrap().put("x", b"z").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}");
    let other = Certificates::make(tempfile::tempdir_in(dir.path()).unwrap().path());
    let stranger = RemoteOptions { ca: other.ca, ..options };
    let error = open(&url, &stranger).unwrap().put("x", b"z").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
    assert_eq!(fs::read(dir.path().join("dumps/web1/other/x")).unwrap(), b"y");
    drop(server);
}

/// Check what the command says of arguments with which it will not do.
#[test]
#[ignore = "needs openssl; `make test` runs it"]
fn a_receiver_that_would_be_open_by_mistake_does_not_start() {
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    fs::write(&token, "sesame").unwrap();
    fs::set_permissions(&token, fs::Permissions::from_mode(0o644)).unwrap();
    let token = token.to_str().unwrap();
    for (arguments, says) in [
        (vec![], "--token-file"),
        (vec!["--token-file", token], "chmod 600"),
        (vec!["--from-anybody", "--tls-cert", token], "--tls-key"),
        (vec!["--from-anybody", "--dir", "/proc/none"], "/proc/none"),
        (vec!["--from-anybody", "--listen", "nowhere.invalid"], "nowhere.invalid"),
    ] {
        let mut command = Command::new(KDUMP_RS);
        command.arg("receive");
        if !arguments.contains(&"--dir") {
            command.arg("--dir").arg(dir.path());
        }
        let out = command.args(&arguments).output().unwrap();
        let text = String::from_utf8_lossy(&out.stderr);
        assert!(!out.status.success() && text.contains(says), "{arguments:?}: {text}");
    }
}

//! A bucket, of a server that checks signatures.

use std::fs;
use std::io::{self, Write as _};
use std::net::SocketAddr;

use kdump_capture::remote::{Remote, RemoteOptions, S3Options, Secret, open};

use crate::servers::{self, Certificates};
use crate::{noise, proxy};

fn remote(way: SocketAddr, certificates: &Certificates, key: &str, secret: &str) -> Box<dyn Remote> {
    let options = RemoteOptions {
        directory: "20261123T134501Z-1f3a9c04".into(),
        ca: certificates.ca.clone(),
        patience: 30,
        s3: S3Options {
            endpoint: format!("https://{way}"),
            region: "eu-central-1".into(),
            access_key: key.into(),
            secret_key: Secret::new(secret.into()),
            session_token: Secret::default(),
        },
        ..RemoteOptions::default()
    };
    open("s3://dumps/web 1", &options).unwrap()
}

/// Check that a file of several parts arrives through breaks, that one that is not ended leaves nothing, and that
/// another's signature is refused.
#[test]
#[ignore = "needs moto; `make test` runs it"]
fn a_bucket_has_a_dump_when_it_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let certificates = Certificates::make(dir.path());
    let (_server, address, key, secret) = servers::moto(dir.path(), &certificates);
    let way = proxy::start(address, &[3 << 20, 9 << 20, 200, 8 << 20]);
    let mut bucket = remote(way, &certificates, &key, &secret);
    bucket.put("dmesg.txt", b"panic").unwrap();
    let bytes = noise((20 << 20) + 12345);
    let mut upload = bucket.begin("vmcore").unwrap();
    upload.write_all(&bytes).unwrap();
    assert_eq!(upload.finish().unwrap(), bytes.len() as u64);
    let mut upload = bucket.begin("small").unwrap();
    upload.write_all(b"of one part").unwrap();
    upload.finish().unwrap();
    let mut upload = bucket.begin("cut").unwrap();
    upload.write_all(&bytes).unwrap();
    drop(upload);

    let copy = dir.path().join("copy");
    for (name, expected) in [("vmcore", bytes.as_slice()), ("dmesg.txt", b"panic"), ("small", b"of one part")]
    {
        let object = format!("web 1/20261123T134501Z-1f3a9c04/{name}");
        let begun = servers::read_object(address, &certificates, (&key, &secret), &object, &copy);
        assert!(fs::read(&copy).unwrap() == expected, "{name}");
        assert_eq!(begun, 0, "an upload that was begun and not ended is aborted");
    }
    let error = remote(address, &certificates, &key, "another").put("x", b"y").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}");
    assert!(error.to_string().contains("SignatureDoesNotMatch"), "{error}");
    let error = remote(address, &certificates, &key, "another").begin("x").map(|mut u| u.write_all(&bytes));
    assert!(error.unwrap().is_err());
}

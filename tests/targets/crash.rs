//! A panic, and the dump on a server: all the way from the configuration file.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::armed::{self, Armed};
use crate::common::KDUMP_RS;
use crate::proxy;
use crate::servers::{self, Certificates};

/// Check that a dump gets to a receiver in TLS, whole though the connection breaks three times, and that arm, status and
/// doctor name the server and no secret.
#[test]
#[ignore = "boots a kernel in QEMU; `make test` runs it"]
fn a_dump_gets_to_a_receiver_through_breaks() {
    let dir = tempfile::tempdir().unwrap();
    let certificates = Certificates::make(dir.path());
    let token = dir.path().join("token");
    servers::write_private(&token, "sesame-4711\n");
    let [chain, key] = [certificates.chain(), certificates.key()].map(|path| path.display().to_string());
    let arguments = ["--tls-cert", &chain, "--tls-key", &key, "--token-file", token.to_str().unwrap()];
    let dumps = dir.path().join("dumps");
    let (_server, address) = servers::receive(&dumps, "127.0.0.1:0", &arguments);
    let way = armed::seen_by_the_guest(proxy::start(address, &[3 << 20, 500, 5 << 20]));
    let armed = Armed {
        config: format!(
            "[[target]]\nurl = \"tls://{way}/web1\"\nca = \"/etc/kdump-rs/ca.pem\"\n\
             token-file = \"/etc/kdump-rs/token\"\ntime-budget = \"4m\"\n[[target]]\ndirectory = \"/var/crash\"\n"
        ),
        files: vec![("ca.pem", certificates.ca.clone(), 0o644), ("token", "sesame-4711\n".into(), 0o600)],
        ..Armed::default()
    };
    let crashed = armed.crash("tls", "6.12");
    crashed.assert_sent(&["sesame-4711"]);
    for asked in ["status", "doctor", "arm --explain"] {
        assert!(crashed.answer(asked).contains(&format!("tls://{way}/web1")), "{}", crashed.answer(asked));
    }
    assert!(crashed.answer("arm --explain").contains("virtio_net.ko"), "{}", crashed.console);
    let there = dumps.join("web1").join(crashed.directory());
    for name in ["dmesg.txt", "report.json", "report.txt", "capture.log"] {
        assert!(fs::metadata(there.join(name)).unwrap().len() > 0, "{name}");
    }
    let dump = there.join("vmcore.flat");
    let manifest = armed::assert_manifest(&there.join("manifest.json"), "vmcore.flat", &dump);
    assert!(manifest["not_read_back"].as_str().unwrap().contains("server"), "{manifest:#}");
    assert!(armed::assert_opens(&dump).starts_with(&format!("pages {} ", manifest["pages"]["written"])));
    assert!(crashed.outcome.is_err(), "nothing went to the second target");
}

/// Check that a bucket has an encrypted dump of several parts, which age(1) opens, and that it is what the same pages
/// give in the clear.
#[test]
#[ignore = "boots a kernel in QEMU; `make test` runs it"]
fn an_encrypted_dump_gets_to_a_bucket_and_age_opens_it() {
    let dir = tempfile::tempdir().unwrap();
    let certificates = Certificates::make(dir.path());
    let (_server, address, key, secret) = servers::moto(dir.path(), &certificates);
    let private = dir.path().join("age.key");
    let public = armed::key(&private);
    let armed = Armed {
        config: format!(
            "[arm]\nencrypt-to = [{public:?}]\n[[target]]\nurl = \"s3://dumps/web1\"\n\
             endpoint = \"https://{}\"\nregion = \"eu-central-1\"\nca = \"/etc/kdump-rs/ca.pem\"\n\
             credentials-file = \"/etc/kdump-rs/keys\"\n",
            armed::seen_by_the_guest(address)
        ),
        files: vec![
            ("ca.pem", certificates.ca.clone(), 0o644),
            ("keys", format!("access_key = {key:?}\nsecret_key = {secret:?}\n"), 0o600),
        ],
        ..Armed::default()
    };
    let crashed = armed.crash("s3", "6.12");
    crashed.assert_sent(&[&secret]);
    let fetch = |name: &str| {
        let (object, to) = (format!("web1/{}/{name}", crashed.directory()), dir.path().join(name));
        servers::read_object(address, &certificates, (&key, &secret), &object, &to);
        to
    };
    let dump = fetch("vmcore.flat.age");
    assert!(fs::metadata(&dump).unwrap().len() > 8 << 20, "of several parts");
    let manifest = armed::assert_manifest(&fetch("manifest.json"), "vmcore.flat.age", &dump);
    assert_eq!(manifest["encryption"], "age");
    for (name, says) in [("report.txt.age", "sysrq triggered crash"), ("dmesg.txt.age", "Linux version")] {
        let sealed = fetch(name);
        let has = |path: &Path| String::from_utf8_lossy(&fs::read(path).unwrap()).contains(says);
        assert!(!has(&sealed) && has(&armed::open_by_age(&private, &sealed)), "{name}");
    }
    let opened = armed::open_by_age(&private, &dump);
    let pages = armed::assert_opens(&opened);
    assert!(pages.starts_with(&format!("pages {} ", manifest["pages"]["written"])), "{pages}");

    // The same by hand: what is encrypted is what would have been written.
    let [plain, sealed] = ["plain", "sealed.age"].map(|name| dir.path().join(name));
    let capture = |more: &[&str], to: &Path| {
        let out = fs::File::create(to).unwrap();
        let mut command = Command::new(KDUMP_RS);
        let status = command.arg("capture").arg(&opened).args(["-o", "-"]).args(more).stdout(out).status();
        assert!(status.unwrap().success());
    };
    capture(&[], &plain);
    capture(&["--encrypt-to", &public], &sealed);
    assert!(fs::read(armed::open_by_age(&private, &sealed)).unwrap() == fs::read(&plain).unwrap());
    assert_eq!(armed::assert_opens(&plain), pages);
}

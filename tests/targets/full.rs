//! More targets all the way from the configuration file; `make test-full` runs them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[allow(dead_code, reason = "the other tests use the rest")]
mod armed;
#[path = "../common/mod.rs"]
mod common;
mod nfs;
#[allow(dead_code, reason = "the other tests use the rest")]
mod servers;

use std::fs;

use armed::Armed;
use servers::Certificates;

/// Check that a server that knows nothing of dumps has one, after a target that does not answer.
#[test]
#[ignore = "boots a kernel in QEMU; `make test-full` runs it"]
fn a_dump_gets_to_nginx_when_the_first_server_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let certificates = Certificates::make(dir.path());
    let (_server, address) = servers::nginx(dir.path(), &certificates);
    let way = armed::seen_by_the_guest(address);
    let armed = Armed {
        config: format!(
            "[[target]]\nurl = \"tcp://10.0.2.2:{}/gone\"\npatience = 3\n\
             [[target]]\nurl = \"https://{way}/crash\"\nfingerprint = {:?}\n\
             authorization-file = \"/etc/kdump-rs/authorization\"\n",
            servers::free_port(),
            certificates.fingerprint
        ),
        files: vec![("authorization", "Bearer sesame\n".into(), 0o600)],
        ..Armed::default()
    };
    let crashed = armed.crash("https", "5.10");
    crashed.assert_sent(&["sesame"]);
    assert!(crashed.console.contains("the next target is tried"), "{}", crashed.console);
    let there = dir.path().join("files/crash").join(crashed.directory());
    let dump = there.join("vmcore.flat");
    armed::assert_manifest(&there.join("manifest.json"), "vmcore.flat", &dump);
    armed::assert_opens(&dump);
    assert!(fs::metadata(there.join("report.txt")).unwrap().len() > 0);
}

/// Check that a directory holds nothing but the manifest and the log of the capture in the clear.
#[test]
#[ignore = "boots a kernel in QEMU; `make test-full` runs it"]
fn a_directory_takes_an_encrypted_dump() {
    let dir = tempfile::tempdir().unwrap();
    let private = dir.path().join("age.key");
    let public = armed::key(&private);
    let armed = Armed { config: format!("[arm]\nencrypt-to = [{public:?}]\n"), ..Armed::default() };
    let crashed = armed.crash("sealed", "7.3");
    let there = crashed.outcome.unwrap_or_else(|e| panic!("{e}\n{}", crashed.console)).dump_dir;
    let names = fs::read_dir(&there).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    let expected = ["capture.log", "dmesg.txt.age", "manifest.json", "report.json.age", "report.txt.age"];
    assert_eq!(names, [&expected[..], &["vmcore.flat.age"]].concat());
    let dump = there.join("vmcore.flat.age");
    let manifest = armed::assert_manifest(&there.join("manifest.json"), "vmcore.flat.age", &dump);
    assert!(manifest["not_read_back"].as_str().unwrap().contains("encrypted"), "{manifest:#}");
    let pages = armed::assert_opens(&armed::open_by_age(&private, &dump));
    assert!(pages.starts_with(&format!("pages {} ", manifest["pages"]["written"])), "{pages}");
    let report = armed::open_by_age(&private, &there.join("report.txt.age"));
    assert!(fs::read_to_string(report).unwrap().contains("sysrq triggered crash"));
}

/// Check that a directory of an NFS server takes a dump as a local one does, and is read back.
#[test]
#[ignore = "boots a kernel in QEMU; `make test-full` runs it"]
fn a_dump_gets_to_a_directory_of_an_nfs_server() {
    let dir = tempfile::tempdir().unwrap();
    let (_server, address) = nfs::ganesha(dir.path());
    let armed = Armed {
        config: format!(
            "[[target]]\nnfs = \"10.0.2.2:/crash\"\noptions = \"vers=4.1,port={}\"\n",
            address.port()
        ),
        modules: ["nfs", "nfsv4"].map(str::to_owned).to_vec(),
        ..Armed::default()
    };
    let crashed = armed.crash("nfs", "6.12");
    crashed.assert_sent(&[]);
    assert!(crashed.answer("status").contains("10.0.2.2:/crash (nfs4, 10.0.2.2)"), "{}", crashed.console);
    let there = dir.path().join("exported").join(crashed.directory());
    let manifest = armed::assert_manifest(&there.join("manifest.json"), "vmcore", &there.join("vmcore"));
    assert_eq!(manifest["log_reads_back"], true, "{manifest:#}");
    armed::assert_opens(&there.join("vmcore"));
    for name in ["dmesg.txt", "report.json", "report.txt", "capture.log"] {
        assert!(fs::metadata(there.join(name)).unwrap().len() > 0, "{name}");
    }
}

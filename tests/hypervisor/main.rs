//! What QEMU's own `dump-guest-memory` writes of a running guest, in each of its formats.
//!
//! Needs QEMU and the 6.12 kernel (`scripts/fetch-kernel.sh`); `make test` sees to both and runs this; a plain
//! `cargo test` lists it as ignored.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../common/mod.rs"]
mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use kdump_rehearse::{Held, Plan, Progress, Scene};
use kdump_vmcore::image::Wrapping;
use kdump_vmcore::{Dump, Format};
use serde_json::Value;

use common::{KDUMP_RS, Turn};

/// QEMU's option, and what it makes. There are `-l` and `-s`, too: Debian builds QEMU without LZO and Snappy, and it
/// refuses them.
const FORMATS: [(&str, Format, Wrapping); 2] =
    [("", Format::Elf, Wrapping::Plain), ("-z", Format::Kdump, Wrapping::Flattened)];

/// How long writing one may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// Has the guest dumped, which then goes on as ever.
struct Hypervisor {
    dumps: Vec<PathBuf>,
}

impl Progress for Hypervisor {
    fn held(&mut self, guest: &Held<'_>) {
        // The dumps are of one moment.
        guest.monitor("stop").unwrap();
        for (path, (option, ..)) in self.dumps.iter().zip(FORMATS) {
            guest.monitor(&format!("dump-guest-memory -d {option} {}", path.display())).unwrap();
            let begin = Instant::now();
            let said = loop {
                let said = guest.monitor("info dump").unwrap();
                if !said.contains("active") {
                    break said;
                }
                assert!(begin.elapsed() < LIMIT, "dump-guest-memory {option}: {said}");
                std::thread::sleep(Duration::from_millis(200));
            };
            assert!(said.contains("completed"), "dump-guest-memory {option}: {said}");
        }
        guest.monitor("cont").unwrap();
    }
}

fn kdump_rs(args: &[&str], dump: &Path) -> Output {
    let out = Command::new(KDUMP_RS).args(args).arg(dump).output().unwrap();
    assert!(out.status.code().is_some_and(|code| code < 2), "{args:?} {}: {out:?}", dump.display());
    out
}

#[test]
#[ignore = "boots a kernel in QEMU; `make test` runs it"]
fn every_format_of_a_hypervisor_is_read_and_says_the_same() {
    let turn = Turn::wait();
    let out = turn.directory(env!("CARGO_CRATE_NAME"));
    std::fs::create_dir_all(&out).unwrap();
    let monitor = format!("unix:{},server=on,wait=off", out.join("monitor").display());
    let scene = Scene { is_held: true, qemu: vec!["-monitor".to_owned(), monitor], ..Scene::default() };
    let plan = Plan { scene, ..Plan::new(common::kernel("6.12"), common::programs(), out.clone()) };
    let dumps = (0..FORMATS.len()).map(|nr| out.join(format!("hypervisor-{nr}"))).collect();
    let mut hypervisor = Hypervisor { dumps };
    plan.run(&mut hypervisor).unwrap_or_else(|error| panic!("{error}\n{}", common::serial_of(&out)));
    let release = std::fs::read_to_string(plan.kernel.with_file_name("release")).unwrap();

    let mut digests = Vec::new();
    for (path, (option, format, wrapping)) in hypervisor.dumps.iter().zip(FORMATS) {
        let dump = Dump::open(path).unwrap_or_else(|e| panic!("{option}: {e}"));
        assert_eq!((dump.format(), dump.wrapping()), (format, wrapping), "{option}");
        assert_eq!(dump.prstatus().len() as u32, plan.cpus, "{option}");
        assert!(!dump.is_incomplete(), "{option}");
        // No guest of this kind tells QEMU where its VMCOREINFO is.
        let asked = kdump_rs(&["analyze", "--json"], path);
        assert!(String::from_utf8_lossy(&asked.stderr).contains("it was found in the dumped memory"));
        let report: Value = serde_json::from_slice(&asked.stdout).unwrap();
        assert_eq!(report["system"]["data"]["release"], release.trim(), "{option}");
        let tasks = report["tasks"]["data"]["list"].as_array().unwrap();
        assert!(tasks.len() > 20 && tasks.iter().any(|t| t["pid"] == 1), "{option}: {} tasks", tasks.len());
        let log = kdump_rs(&["analyze"], path).stdout;
        assert!(String::from_utf8_lossy(&log).contains(release.trim()));
        digests.push(String::from_utf8(kdump_rs(&["capture", "--digest"], path).stdout).unwrap());
    }
    assert!(digests.iter().all(|d| *d == digests[0] && d.contains("sha256")), "{digests:#?}");
    for path in &hypervisor.dumps {
        std::fs::remove_file(path).unwrap();
    }
}

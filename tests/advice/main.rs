//! What the program says about a machine before it crashes: `doctor` on a good and on a bad one, `arm --explain`,
//! `reserve` and `status`, in guests.
//!
//! Needs QEMU and the kernels; `make test` runs these tests, a plain `cargo test` lists them as ignored.

#[path = "../common/mod.rs"]
mod common;

use std::time::Duration;

use kdump_loader::initramfs::{self, CaptureConfig};
use kdump_loader::modules::Tree;
use kdump_rehearse::scene::answer;
use kdump_rehearse::{Error, Outcome, Plan, Scene};
use serde_json::Value;

use common::{KDUMP_INIT, Quiet, Turn, scratch};

/// What an initramfs without modules may have.
const BUDGET: u64 = 4 << 20;
/// What that is unpacked: kdump-init, which reaches servers.
const UNPACKED_BUDGET: u64 = 7 << 20;

fn run(name: &str, kernel: &str, crashkernel: &str, scene: Scene) -> (Result<Outcome, Error>, String) {
    let _turn = Turn::wait();
    let out = scratch(&format!("advice-{name}"));
    let plan = Plan {
        scene,
        crashkernel: crashkernel.to_owned(),
        ..Plan::new(common::kernel(kernel), common::programs(), out.clone())
    };
    let result = plan.run(&mut Quiet);
    (result, common::serial_of(&out))
}

/// The whole of what lies in the initramfs when no driver is needed, with the real kdump-init.
#[test]
#[cfg_attr(debug_assertions, ignore = "the budget is that of a release build")]
fn an_initramfs_without_modules_stays_within_its_budget() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("modules.dep"), "").unwrap();
    let tree = Tree::open(dir.path()).unwrap();
    let init = std::fs::read(KDUMP_INIT).unwrap();
    let built = initramfs::build(&init, None, &tree, vec![], vec![], &[], CaptureConfig::default()).unwrap();
    let (packed, unpacked) = (built.packed.len() as u64, built.unpacked_len);
    assert!(packed < BUDGET && unpacked < UNPACKED_BUDGET, "packed {packed}, unpacked {unpacked}");
    assert!(built.took < Duration::from_secs(1), "{:?}", built.took);
}

/// A guest that is armed, with all it needs: nothing fails, what is only policy of the site is warned of, and each
/// file of the initramfs has its reason.
#[test]
#[ignore = "boots a kernel in QEMU; `make test` runs it"]
fn an_armed_guest_is_explained_and_found_well() {
    let asked = [
        "doctor",
        "doctor --json",
        "arm --explain",
        "arm --explain --json",
        "reserve",
        "reserve --json",
        "status --json",
    ];
    let scene = Scene {
        asked: asked.map(str::to_owned).to_vec(),
        cmdline: "oops=panic softlockup_panic=1 sysctl.kernel.hardlockup_panic=1".to_owned(),
        ..Scene::default()
    };
    let (result, serial) = run("good", "6.12", Plan::CRASHKERNEL, scene);
    result.unwrap_or_else(|error| panic!("{error}\n{serial}"));
    let answer = |asked: &str| answer(&serial, asked).unwrap_or_else(|| panic!("{asked}: {serial}"));
    let json = |asked: &str| -> (Value, i32) {
        let (text, code) = answer(asked);
        let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('[')).collect();
        (serde_json::from_str(&lines.join("\n")).unwrap_or_else(|e| panic!("{asked}: {e}\n{text}")), code)
    };

    let (text, code) = answer("doctor");
    assert_eq!(code, 1, "{text}");
    assert!(text.contains(" 0 fail: a panic will be dumped, but see above"), "{text}");
    let (report, _) = json("doctor --json");
    let status = |name: &str| {
        let check = report["checks"].as_array().unwrap().iter().find(|check| check["name"] == name).unwrap();
        check["status"].as_str().unwrap().to_owned()
    };
    for name in [
        "root",
        "reservation",
        "size",
        "kernel",
        "init",
        "target",
        "drivers",
        "space",
        "armed",
        "stale",
        "hotplug",
        "console",
        "panic-on-oops",
        "panic-timeout",
    ] {
        assert_eq!(status(name), "pass", "{name}: {text}");
    }
    for name in ["service", "rehearsed"] {
        assert_eq!(status(name), "warn", "{name}: {text}");
    }

    let (text, code) = answer("arm --explain");
    assert_eq!(code, 0, "{text}");
    assert_explained(
        text,
        &[
            ("init", "init: kdump-init"),
            ("dev/console", "device node"),
            ("lib/modules/virtio_blk.ko", "driver of /sys/devices/pci0000:00/"),
            ("etc/kdump-rs/capture.toml", "configuration"),
        ],
    );
    let (report, _) = json("arm --explain --json");
    let members = report["members"].as_array().unwrap();
    let without_modules: u64 = members
        .iter()
        .filter(|member| member["why"]["kind"] != "module")
        .map(|member| member["bytes"].as_u64().unwrap())
        .sum();
    assert!(members.len() > 10 && without_modules < UNPACKED_BUDGET, "{without_modules}: {text}");

    let (text, code) = answer("reserve");
    assert_eq!(code, 0, "192 MiB are enough: {text}");
    for item in
        ["kernel, unpacked", "initramfs, unpacked", "kdump-init", "page structures", "together", "rounded up"]
    {
        assert!(text.contains(item), "{item}: {text}");
    }
    let (report, _) = json("reserve --json");
    assert_eq!(report["reserved_bytes"], 192 << 20);
    // Measured: 88 MiB are enough for this kernel, 80 are not.
    let recommended = report["need"]["recommended"].as_u64().unwrap();
    assert!((88 << 20..=144 << 20).contains(&recommended), "{text}");

    let (report, code) = json("status --json");
    assert_eq!((code, &report["is_armed"]), (0, &Value::Bool(true)), "{report:#}");
    assert_eq!(report["hotplug"]["cpus"], true, "{report:#}");
    assert!(report["rehearsed"].is_null(), "{report:#}");
    assert!(serial.contains("  rehearsed  never on this machine\n"), "{serial}");
    assert!(serial.contains("  hotplug    the kernel keeps elfcorehdr up to date"), "{serial}");
}

/// Holds each file's line against its reason.
#[track_caller]
fn assert_explained(text: &str, files: &[(&str, &str)]) {
    for (file, why) in files {
        let line = text.lines().find(|line| line.contains(&format!(" {file} ")));
        let line = line.unwrap_or_else(|| panic!("{file}: {text}"));
        assert!(line.contains(why), "{line}");
    }
}

/// A guest without memory for a capture kernel, where nothing may be loaded: each reason is named with its remedy,
/// and what would be loaded is explained all the same.
#[test]
#[ignore = "boots a kernel in QEMU; `make test` runs it"]
fn a_guest_that_cannot_be_armed_is_told_why() {
    let scene = Scene {
        loader: [KDUMP_RS_THERE, "arm", "--explain"].map(str::to_owned).to_vec(),
        asked: vec!["doctor".to_owned(), "arm".to_owned()],
        cmdline: "sysctl.kernel.kexec_load_disabled=1 crash_kexec_post_notifiers".to_owned(),
        ..Scene::default()
    };
    // There is no room for it in 1 GiB.
    let (result, serial) = run("bad", "6.1", "1000M", scene);
    assert!(result.is_err(), "nothing is armed, so its panic ends in a reset: {serial}");

    // The bus is a module of this kernel, and has others below it.
    assert_explained(
        &serial,
        &[
            ("lib/modules/virtio_pci.ko", "driver of /sys/devices/pci0000:00/"),
            ("lib/modules/virtio_ring.ko", "dependency of virtio_pci"),
            ("lib/modules/virtio_blk.ko", "driver of /sys/devices/pci0000:00/"),
        ],
    );
    let (text, code) = answer(&serial, "doctor").unwrap_or_else(|| panic!("{serial}"));
    assert_eq!(code, 2, "{text}");
    for (check, found) in [
        ("FAIL  reservation ", "none, though crashkernel=1000M was asked for; the kernel says: "),
        ("FAIL  size ", "nothing is reserved"),
        ("FAIL  load-disabled ", "kernel.kexec_load_disabled is 1"),
        ("FAIL  armed ", "no capture kernel is loaded"),
        ("WARN  notifiers ", "crash_kexec_post_notifiers is on"),
        ("WARN  panic-on-oops ", "kernel.panic_on_oops is 0"),
        ("pass  target ", "/var/crash"),
    ] {
        let line =
            text.lines().find(|line| line.contains(check)).unwrap_or_else(|| panic!("{check}: {text}"));
        assert!(line.contains(found), "{line}");
    }
    assert!(text.contains("-> kdump-rs reserve --size "), "{text}");
    assert!(text.contains("fail: a panic now would not be dumped"), "{text}");
    let (text, code) = answer(&serial, "arm").unwrap_or_else(|| panic!("{serial}"));
    assert_eq!(code, 2, "{text}");
}

/// Where our program is in the guest.
const KDUMP_RS_THERE: &str = kdump_rehearse::initramfs::KDUMP_RS;

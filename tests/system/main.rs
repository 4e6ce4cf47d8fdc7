//! The program as part of a Debian system, in guests that boot from their own disks.
//!
//! Needs QEMU, debootstrap and root (scripts/debian-guest.sh); `make test-full` runs these tests.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod guest;

use std::path::{Path, PathBuf};
use std::process::Command;

/// The package, built from the programs under test.
fn package() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let programs = Path::new(env!("CARGO_BIN_EXE_kdump-rs")).parent().unwrap();
    let out = Command::new(root.join("scripts/package.sh")).arg(programs).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    root.join("target/package").join(concat!("kdump-rs_", env!("CARGO_PKG_VERSION"), "_amd64.deb"))
}

/// Installed, reserved, rebooted, armed by the service, crashed, dumped, rebooted by itself, read, removed.
#[test]
#[ignore = "boots Debian in QEMU; `make test-full` runs it"]
fn a_debian_system_is_installed_armed_crashed_and_explained() {
    let said = guest::run("install", "plain", include_str!("install.sh"), &[("kdump-rs.deb", &package())]);
    said.has("== enabled: enabled");
    said.has("== active without a reservation: inactive");
    said.has("== active when started without a reservation: inactive");
    said.has("== units verified");
    said.has("== rules verified");

    said.has("== active: active");
    said.has("== status: 0");
    said.has("== armed before basic.target");
    said.has("== failed units: 0");
    said.has("== memory blocks gone and back: 3");
    said.has("== arms where the kernel updates elfcorehdr: 0");
    said.has("== arms after udevadm trigger: 0");
    said.has("== arms after a burst of memory: 1");
    said.has("== arms after another kernel came: 0");
    said.has("== arms after the running kernel came anew: 1");
    said.has("== arms after kernel-install: 2");
    said.has("== a wrong configuration is refused");
    said.has("== still armed: 1, active");
    said.has("== arms after an upgrade: 1, active");

    assert!(said.console.contains("kdump-rs panic-kernel"), "{}", said.console);
    said.has("== active after the crash: active");
    let report = said.between("== report", "== analyze: 0");
    assert!(report.contains("sysrq triggered crash") && report.contains("sysrq_handle_crash"), "{report}");
    said.has("== loaded after removal: 0");
    said.has("== left after purge: nothing");
    said.has("== dumps: 1");
    assert!(
        !said.orders.lines().any(|line| line.starts_with("== ") && line.ends_with(" failed")),
        "{}",
        said.orders
    );
}

/// Debian's own kdump-tools with our program in the place of /sbin/kexec and makedumpfile: armed, unloaded, rebooted by
/// systemctl kexec, armed again, crashed, dumped; Debian's makedumpfile reads what was written.
#[test]
#[ignore = "boots Debian in QEMU; `make test-full` runs it"]
fn kdump_tools_and_systemctl_kexec_work_with_it_in_the_place_of_kexec_and_makedumpfile() {
    let program = Path::new(env!("CARGO_BIN_EXE_kdump-rs"));
    let said =
        guest::run("kdump-tools", "kdump-tools", include_str!("kdump-tools.sh"), &[("kdump-rs", program)]);
    let grub = said.between("== boot 1", "== kexec -l");
    assert!(grub.contains("== loaded by 7"), "{grub}");
    assert!(grub.contains("== modified files of kdump-tools: 0"), "{grub}");
    assert!(grub.contains("== active: active") && grub.contains("ready to kdump"), "{grub}");
    said.has("== loaded after unload: 0");
    said.has("== loaded: 1");

    let kexec = said.between("== boot 2", "== panic");
    assert!(kexec.contains("== loaded by d"), "{kexec}");
    assert!(kexec.contains("current state   : ready to kdump"), "{kexec}");
    assert!(said.console.contains("kdump-rs panic-kernel"), "{}", said.console);
    let report = said.between("== report", "== analyze: 0");
    assert!(report.contains("sysrq triggered crash") && report.contains("sysrq_handle_crash"), "{report}");

    said.has(concat!("== makedumpfile: kdump-rs ", env!("CARGO_PKG_VERSION")));
    let pages = said.between("== pages", "== mem-usage: 0");
    assert!(pages.contains("KERN_DATA") && pages.contains("Total pages on system:"), "{pages}");
    assert!(said.console.contains("The dmesg log is saved to /var/crash/"), "{}", said.console);
    assert!(said.console.contains("The dumpfile is saved to STDOUT."), "{}", said.console);
    said.has("== Debian's makedumpfile -R: done");
    said.has("== ours is the same");
    said.has("== log: 1");
    said.has("== the log is as Debian's makedumpfile has it");
    said.has("== Debian's makedumpfile reads it");
}

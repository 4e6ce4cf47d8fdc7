//! The fast reboot and the other ways to load, in guests: the same system booted by kexec several times, programs that
//! are no Linux kernel, kexec_file_load, and the program under kexec-tools' name.
//!
//! Needs QEMU and the kernels; `make test` runs these tests, a plain `cargo test` lists them as ignored.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../payload/programs.rs"]
#[allow(dead_code, reason = "the others are for the time after a panic")]
mod programs;

use std::path::{Path, PathBuf};

use kdump_loader::initramfs::{self, CaptureConfig, DumpConfig, EndConfig, TargetConfig};
use kdump_loader::modules::{Reason, Tree};
use kdump_rehearse::{Error, Outcome, Plan, Scene};
use serde_json::Value;

use common::{KDUMP_INIT, KDUMP_RS, Quiet, Turn, cache, scratch};

/// UUID of the disk that a rehearsal makes.
const DISK_UUID: &str = "6b64756d-702d-7265-6865-617273616c21";

struct Guest {
    out: PathBuf,
    kernel: &'static str,
    arm: Vec<String>,
    scene: Scene,
}

impl Guest {
    fn new(name: &str) -> Self {
        let out = scratch(&format!("kexec-{name}"));
        Self { out, kernel: "6.12", arm: vec![], scene: Scene::default() }
    }

    fn run(self) -> (Result<Outcome, Error>, String) {
        let _turn = Turn::wait();
        let plan = Plan {
            arm: self.arm,
            scene: self.scene,
            ..Plan::new(common::kernel(self.kernel), common::programs(), self.out.clone())
        };
        let result = plan.run(&mut Quiet);
        (result, common::serial_of(&self.out))
    }

    /// Runs it, and reads the report of the dump.
    fn report(self) -> (Value, String) {
        let (result, serial) = self.run();
        let outcome = result.unwrap_or_else(|error| panic!("{error}\n{serial}"));
        let report = std::fs::read(outcome.dump_dir.join("report.json")).unwrap();
        let report: Value = serde_json::from_slice(&report).unwrap();
        assert_eq!(report["panic"]["data"]["message"], "sysrq triggered crash", "{serial}");
        assert_eq!(report["complete"], true, "{:#}", report["warnings"]);
        (report, serial)
    }
}

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

/// The system that came up by kexec for the third time is armed, crashed and dumped: nothing of it was lost on the way.
#[test]
#[ignore = "boots a kernel in QEMU; `make test` runs it"]
fn a_system_boots_itself_three_times_in_a_row_and_is_dumped_then() {
    let mut guest = Guest::new("three-times");
    guest.scene.reboots = 3;
    let (_, serial) = guest.report();
    for done in 0..=3 {
        assert!(serial.contains(&format!("booted by kexec {done} of 3 times")), "{serial}");
    }
    let boots = serial.lines().filter(|line| line.contains("Linux version ")).count();
    assert_eq!(boots, 5, "the first, three by kexec, the capture kernel: {serial}");
}

/// memtest86+ is a bzImage of another kind: not relocatable, and with a memory map to show.
#[test]
#[ignore = "boots a kernel in QEMU; `make test` runs it"]
fn memtest86_is_started() {
    let image = cache().join("memtest86+/memtest86+x64.bin");
    assert!(image.exists(), "{} is missing: run scripts/fetch-memtest.sh", image.display());
    let mut guest = Guest::new("memtest");
    guest.scene.files.push(("boot/memtest".to_owned(), image));
    guest.scene.kexec = strings(&["/boot/memtest", "--append=console=ttyS0,115200"]);
    guest.scene.stop_at = Some("Memtest86+".to_owned());
    let (result, serial) = guest.run();
    assert!(result.is_err(), "it was stopped");
    let (_, after) = serial.split_once("entering the image").expect(&serial);
    assert!(after.contains("Memtest86+"), "{serial}");
}

/// Check what programs that are no kernel are given, by what they say themselves.
#[test]
#[ignore = "boots a kernel in QEMU; `make test` runs it"]
fn a_static_elf_and_a_multiboot_image_are_started() {
    for (name, file, option, says) in [
        ("elf64", programs::elf64(), "--register=rdi=0x1234abcd", "000000001234ABCD"),
        ("multiboot2", programs::multiboot2(), "--append=hello two", "36D76289 "),
    ] {
        let path = scratch(&format!("kexec-{name}.elf"));
        std::fs::write(&path, file).unwrap();
        let mut guest = Guest::new(name);
        guest.scene.files.push(("boot/program".to_owned(), path));
        guest.scene.kexec = strings(&["/boot/program", option]);
        let (result, serial) = guest.run();
        // It resets the machine and takes no dump: to a rehearsal that is an error.
        assert!(result.is_err(), "{serial}");
        let (_, after) = serial.split_once("entering the image").expect(&serial);
        let said = after.lines().find_map(|line| line.strip_prefix("payload: "));
        let said = said.unwrap_or_else(|| panic!("{name} said nothing: {serial}"));
        assert!(said.starts_with(says), "{name}: {said}");
        if let Some(text) = option.strip_prefix("--append=") {
            assert!(said.contains(text), "{name}: {said}");
        }
    }
}

/// Where lockdown demands it, the kernel's own loader and purgatory are used; our initramfs goes in all the same.
#[test]
#[ignore = "boots a kernel in QEMU; `make test` runs it"]
fn kexec_file_load_captures() {
    let mut guest = Guest::new("file-load");
    guest.arm = strings(&["--syscall=file"]);
    let (report, serial) = guest.report();
    assert!(serial.contains("loaded by  kexec_file_load"), "{serial}");
    assert!(!serial.contains("kdump-rs panic-kernel"), "{serial}");
    assert_eq!(report["panic_path"]["status"], "absent", "{:#}", report["panic_path"]);
}

/// What a locked-down kernel says of an image that nobody it knows has signed, and what is made of that.
#[test]
#[ignore = "boots a kernel in QEMU; `make test` runs it"]
fn lockdown_is_told_from_other_refusals() {
    let mut guest = Guest::new("lockdown");
    guest.scene.cmdline = "lockdown=integrity".to_owned();
    let (result, serial) = guest.run();
    assert!(result.is_err(), "{serial}");
    assert!(serial.contains("for its signature (errno"), "{serial}");
    assert!(serial.contains("kdump-rs arm ended with exit status: 2"), "{serial}");
}

/// A load that the kernel refuses after it has freed the old image: what was armed before is armed again.
#[test]
#[ignore = "boots a kernel in QEMU; `make test` runs it"]
fn a_failed_reload_arms_what_was_armed_before() {
    let mut guest = Guest::new("reload");
    guest.scene.failing_arm = strings(&["--load-test"]);
    let (_, serial) = guest.report();
    assert!(serial.contains("the capture kernel of before is armed again"), "{serial}");
    assert!(serial.contains("(EADDRNOTAVAIL)"), "{serial}");
}

/// Under kexec-tools' name, with an initramfs and a command line of the caller's own making.
#[test]
#[ignore = "boots a kernel in QEMU; `make test` runs it"]
fn called_as_kexec_it_loads_what_it_is_given() {
    let mut guest = Guest::new("as-kexec");
    let initrd = scratch("given-initrd");
    let kernels = cache().join("kernels/6.12");
    let release = std::fs::read_to_string(kernels.join("release")).unwrap();
    let release = release.trim();
    std::fs::write(&initrd, given_initrd(&kernels.join("lib/modules").join(release))).unwrap();
    guest.scene.files.push(("boot/given-initrd".to_owned(), initrd));
    guest.scene.files.push(("usr/sbin/kexec".to_owned(), KDUMP_RS.into()));
    let kernel = format!("/boot/vmlinuz-{release}");
    guest.scene.loader = strings(&[
        "/usr/sbin/kexec",
        "-p",
        "--command-line=console=ttyS0,115200 nr_cpus=1 reset_devices given=words",
        "--initrd=/boot/given-initrd",
        &kernel,
    ]);
    let (report, serial) = guest.report();
    assert!(serial.contains("kdump-rs panic-kernel: entering capture kernel"), "{serial}");
    let capture = serial.rsplit("Command line: ").next().unwrap().lines().next().unwrap();
    assert!(
        capture.starts_with("elfcorehdr=0x") && capture.ends_with("reset_devices given=words"),
        "{capture}"
    );
    assert_eq!(report["panic_path"]["data"]["complete"], true);
}

/// kdump-init with what it needs for the rehearsal's disk, as if somebody else had made it.
fn given_initrd(modules: &Path) -> Vec<u8> {
    let tree = Tree::open(modules).unwrap();
    let config = CaptureConfig {
        modules: vec![],
        boot_id: "00000000-0000-0000-0000-000000000000".to_owned(),
        targets: vec![TargetConfig {
            kind: "directory".to_owned(),
            uuid: DISK_UUID.to_owned(),
            fstype: "ext4".to_owned(),
            path: "/crash".into(),
            ..TargetConfig::default()
        }],
        dump: DumpConfig {
            level: 31,
            format: "kdump".to_owned(),
            compression: "zstd".to_owned(),
            ..DumpConfig::default()
        },
        end: EndConfig { action: "reboot".to_owned() },
        ..CaptureConfig::default()
    };
    let names = ["virtio_pci", "virtio_blk", "ext4"].map(|name| (name.to_owned(), Reason::Named));
    let wanted = tree.wanted(&names).unwrap();
    initramfs::build(&std::fs::read(KDUMP_INIT).unwrap(), None, &tree, wanted, vec![], &[], config)
        .unwrap()
        .packed
}

//! Capture kernels that do not lie in the reservation, or are not entered by the 64-bit protocol, under real panics:
//! what they displace must be in the dump, byte by byte.
//!
//! Needs QEMU and the kernels; `make test` runs these tests, a plain `cargo test` lists them as ignored.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../common/mod.rs"]
mod common;
mod programs;

use std::collections::BTreeMap;
use std::path::Path;

use kdump_arch_x86::PhysAddr;
use kdump_rehearse::scene::{PATTERN_PAGE, pattern, pattern_number};
use kdump_rehearse::{Error, Held, Outcome, Plan, Progress, Scene};
use kdump_vmcore::{Dump, PhysMem as _};
use serde_json::Value;

use common::{Quiet, Turn, scratch};

const MIB: u64 = 1 << 20;
/// Where the bzImage is put: with `nokaslr` the crashed kernel is at 16 MiB, and this is in the middle of user memory.
const PAYLOAD_AT: u64 = 640 * MIB;
/// Bytes from there on that any of the kernels displaces.
const DISPLACED: u64 = 48 * MIB;
/// Pattern pages that must lie there, for the test to have shown anything.
const ENOUGH: usize = 500;

/// Finds the pattern pages in the memory that will be displaced, before it is.
#[derive(Default)]
struct Snapshot {
    pages: BTreeMap<u64, u64>,
}

impl Progress for Snapshot {
    fn held(&mut self, guest: &Held<'_>) {
        let mut memory = vec![0; DISPLACED as usize];
        guest.read(PAYLOAD_AT, &mut memory).unwrap();
        for (i, page) in memory.chunks(PATTERN_PAGE).enumerate() {
            if let Some(number) = pattern_number(page) {
                self.pages.insert(PAYLOAD_AT + (i * PATTERN_PAGE) as u64, number);
            }
        }
    }
}

fn rehearse(name: &str, arm: &[&str], scene: Scene, progress: &mut dyn Progress) -> Outcome {
    let out = scratch(name);
    attempt(&out, arm, scene, progress).unwrap_or_else(|error| panic!("{error}\n{}", common::serial_of(&out)))
}

fn attempt(out: &Path, arm: &[&str], scene: Scene, progress: &mut dyn Progress) -> Result<Outcome, Error> {
    let plan = Plan {
        crashkernel: "320M".to_owned(),
        arm: arm.iter().map(|&a| a.to_owned()).collect(),
        memory: 1280 * MIB,
        scene,
        ..Plan::new(common::kernel("6.12"), common::programs(), out.to_owned())
    };
    plan.run(progress)
}

fn report(outcome: &Outcome) -> Value {
    serde_json::from_slice(&std::fs::read(outcome.dump_dir.join("report.json")).unwrap()).unwrap()
}

/// What holds for every sysrq crash, whatever ran the capture.
fn explains_the_crash(report: &Value) {
    assert_eq!(report["panic"]["data"]["message"], "sysrq triggered crash");
    let frames = report["panic_stack"]["data"]["frames"].as_array().unwrap();
    let functions: Vec<_> = frames.iter().filter_map(|f| f["symbol"].as_str()).collect();
    assert!(functions.contains(&"sysrq_handle_crash"), "{functions:?}");
    assert_eq!(report["complete"], true, "{:#}", report["warnings"]);
}

/// Check that pages of known content, which the capture kernel sat on, are in the dump at their addresses.
#[test]
#[ignore = "boots a kernel in QEMU; `make test` runs it"]
fn memory_under_a_displaced_kernel_is_in_the_dump() {
    let _turn = Turn::wait();
    let at = format!("--payload-at={PAYLOAD_AT:#x}");
    let scene =
        Scene { is_held: true, pattern_bytes: 500 * MIB, cmdline: "nokaslr".to_owned(), ..Scene::default() };
    let mut snapshot = Snapshot::default();
    let outcome = rehearse("displaced", &[&at, "--level=1"], scene, &mut snapshot);
    let report = report(&outcome);
    explains_the_crash(&report);
    let path = &report["panic_path"]["data"];
    assert!(path["relocated_pages"].as_u64().unwrap() * 4096 >= DISPLACED, "{path:#}");
    assert!(snapshot.pages.len() > ENOUGH, "only {} pattern pages were displaced", snapshot.pages.len());
    let dump = Dump::open(&outcome.dump_dir.join("vmcore")).unwrap();
    for (&address, &number) in &snapshot.pages {
        let mut page = [0; PATTERN_PAGE];
        dump.read(PhysAddr(address), &mut page).unwrap();
        assert!(page == pattern(number), "{address:#x} is not page {number} of the pattern");
    }
}

/// The crashed kernel itself lies where the vmlinux is linked: its text, data and log are what is displaced, and the
/// report rests on them.
#[test]
#[ignore = "boots a kernel in QEMU; `make test` runs it"]
fn a_vmlinux_takes_the_place_of_the_kernel_that_crashed() {
    let _turn = Turn::wait();
    let vmlinux = scratch("vmlinux.elf");
    std::fs::write(&vmlinux, unpack(&std::fs::read(common::kernel("6.12")).unwrap())).unwrap();
    let scene = Scene {
        cmdline: "nokaslr".to_owned(),
        files: vec![("boot/vmlinux".to_owned(), vmlinux)],
        ..Scene::default()
    };
    let outcome = rehearse("swapped-vmlinux", &["--kernel=/boot/vmlinux"], scene, &mut Quiet);
    let report = report(&outcome);
    explains_the_crash(&report);
    let path = &report["panic_path"]["data"];
    assert!(path["entry"].as_str().unwrap().starts_with("0x0000000001000"), "{path:#}");
    assert!(path["relocated_pages"].as_u64().unwrap() * 4096 >= DISPLACED, "{path:#}");
}

#[test]
#[ignore = "boots a kernel in QEMU; `make test` runs it"]
fn a_kernel_entered_by_the_32_bit_protocol_captures() {
    let _turn = Turn::wait();
    let outcome = rehearse("entry-32", &["--entry=32"], Scene::default(), &mut Quiet);
    let report = report(&outcome);
    explains_the_crash(&report);
    assert_eq!(report["panic_path"]["data"]["entry_bits"], 32);
}

/// Check what each kind of program is given, by what it says itself.
#[test]
#[ignore = "boots a kernel in QEMU; `make test` runs it"]
fn programs_of_every_kind_are_given_what_they_expect() {
    let _turn = Turn::wait();
    let given = "--register=rdi=0x1234abcd";
    for (name, file, arm, says) in [
        ("multiboot1", programs::multiboot1(), "--append=hello one", "2BADB002 "),
        ("multiboot2", programs::multiboot2(), "--append=hello two", "36D76289 "),
        ("elf32", programs::elf32(), given, "00000000 00000000 1234ABCD "),
        ("elf64", programs::elf64(), given, "000000001234ABCD"),
    ] {
        let path = scratch(&format!("{name}.elf"));
        std::fs::write(&path, file).unwrap();
        let scene = Scene {
            cmdline: "nokaslr".to_owned(),
            files: vec![("boot/program".to_owned(), path)],
            ..Scene::default()
        };
        let out = scratch("program");
        // It resets the machine and takes no dump: to a rehearsal that is an error.
        let end = attempt(&out, &["--kernel=/boot/program", arm], scene, &mut Quiet);
        let serial = common::serial_of(&out);
        assert!(
            matches!(&end, Err(Error::Phase { why, .. }) if why == "the guest reset"),
            "{name}: {serial}"
        );
        let said = serial.lines().find_map(|l| l.strip_prefix("payload: "));
        let said = said.unwrap_or_else(|| panic!("{name} said nothing: {serial}"));
        assert!(said.starts_with(says), "{name}: {said}");
        if let Some(text) = arm.strip_prefix("--append=") {
            assert!(said.contains(&format!("{text} elfcorehdr=0x")), "{name}: {said}");
        }
    }
}

/// The vmlinux in a bzImage: the payload that its header names, compressed with zstd on 6.12.
fn unpack(image: &[u8]) -> Vec<u8> {
    let u32_at = |at: usize| u32::from_le_bytes(*image[at..].first_chunk().unwrap()) as usize;
    let start = (usize::from(image[0x1f1]) + 1) * 512 + u32_at(0x248);
    let payload = &image[start..][..u32_at(0x24c) - 4];
    zstd::decode_all(payload).unwrap()
}

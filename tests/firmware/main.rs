//! Machines whose memory is laid out otherwise: UEFI firmware, a reservation above 4 GiB, one that borrows CMA memory.
//!
//! Needs QEMU, the kernels and OVMF (scripts/fetch-ovmf.sh); `make test-full` runs these tests.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../common/mod.rs"]
mod common;

use kdump_rehearse::Plan;
use serde_json::Value;

use common::{Quiet, Turn, cache, scratch};

/// Runs a guest to the end of its capture; gives the report of its dump and its console.
fn capture(name: &str, kernel: &str, edit: impl FnOnce(&mut Plan)) -> (Value, String) {
    let _turn = Turn::wait();
    let out = scratch(&format!("firmware-{name}"));
    let mut plan = Plan::new(common::kernel(kernel), common::programs(), out.clone());
    edit(&mut plan);
    let result = plan.run(&mut Quiet);
    let serial = common::serial_of(&out);
    let outcome = result.unwrap_or_else(|error| panic!("{error}\n{serial}"));
    let report = std::fs::read(outcome.dump_dir.join("report.json")).unwrap();
    let report: Value = serde_json::from_slice(&report).unwrap();
    assert_eq!(report["panic"]["data"]["message"], "sysrq triggered crash", "{serial}");
    assert_eq!(report["complete"], true, "{:#}", report["warnings"]);
    assert_eq!(report["panic_path"]["data"]["complete"], true, "{serial}");
    (report, serial)
}

/// The guest has firmware of the UEFI kind, with variables of its own.
fn with_ovmf(plan: &mut Plan) {
    let ovmf = cache().join("ovmf");
    assert!(ovmf.exists(), "{} is missing: run scripts/fetch-ovmf.sh", ovmf.display());
    let variables = plan.out.with_extension("vars");
    std::fs::copy(ovmf.join("OVMF_VARS.fd"), &variables).unwrap();
    let release = std::fs::read_to_string(plan.kernel.with_file_name("release")).unwrap();
    let module = "kernel/fs/efivarfs/efivarfs.ko.xz";
    let there = format!("lib/modules/{}/{module}", release.trim());
    plan.scene.files.push((there, plan.kernel.with_file_name("modules").join(module)));
    for (path, rights) in [(ovmf.join("OVMF_CODE.fd"), ",readonly=on"), (variables, "")] {
        let drive = format!("if=pflash,format=raw{rights},file={}", path.display());
        plan.scene.qemu.extend(["-drive".to_owned(), drive]);
    }
    plan.scene.is_efi = true;
}

/// Lines of the console that have a text in them.
fn count(serial: &str, text: &str) -> usize {
    serial.lines().filter(|line| line.contains(text)).count()
}

/// The addresses of a line of the kernel's memory map.
fn e820(line: &str) -> Option<(u64, u64, &str)> {
    let (range, kind) = line.split_once("[mem ")?.1.split_once("] ")?;
    let (first, last) = range.split_once('-')?;
    let number = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).ok();
    Some((number(first)?, number(last)?, kind.trim()))
}

/// RAM in the memory map of the kernel that booted last.
fn last_kernels_ram(serial: &str) -> Vec<(u64, u64)> {
    let last = serial.rsplit("Linux version ").next().unwrap();
    let lines = last.lines().filter(|line| line.contains("BIOS-e820: "));
    lines
        .filter_map(e820)
        // The second is what 7.3 calls it.
        .filter(|(.., kind)| ["usable", "System RAM"].contains(kind))
        .map(|(first, last, _)| (first, last))
        .collect()
}

#[test]
#[ignore = "boots a kernel in QEMU; `make test-full` runs it"]
fn a_machine_with_uefi_is_captured_and_its_acpi_found() {
    let (_, serial) = capture("uefi", "6.12", with_ovmf);
    assert!(serial.contains("efi: EFI v2"), "{serial}");
    // The capture kernel has ACPI, though nothing but boot_params leads to it, and no EFI.
    let last = serial.rsplit("Linux version ").next().unwrap();
    assert!(last.contains("ACPI: RSDP 0x") && last.contains("ACPI: XSDT 0x"), "{last}");
    assert!(!last.contains("efi: EFI v"), "{last}");
}

/// The system that came up by kexec calls firmware: it lists firmware's variables.
#[test]
#[ignore = "boots a kernel in QEMU; `make test-full` runs it"]
fn efi_runtime_services_and_acpi_outlive_a_kexec() {
    let (_, serial) = capture("uefi-kexec", "6.12", |plan| {
        with_ovmf(plan);
        plan.scene.reboots = 1;
    });
    assert_eq!(count(&serial, "efi: EFI v2"), 2, "{serial}");
    assert_eq!(count(&serial, "ACPI: RSDP 0x"), 3, "{serial}");
    assert!(serial.contains("booted by kexec 1 of 1 times"), "{serial}");
    let said = serial.lines().find_map(|line| line.split_once("efi has ")?.1.split(' ').next());
    let variables: u32 = said.expect(&serial).parse().unwrap();
    assert!(variables > 10, "{variables} variables: {serial}");
}

#[test]
#[ignore = "boots a kernel in QEMU; `make test-full` runs it"]
fn a_reservation_above_4_gib_is_armed_and_captures() {
    let (_, serial) = capture("high", "6.12", |plan| {
        plan.memory = 5 << 30;
        plan.crashkernel = "256M,high".to_owned();
    });
    let at = serial.split_once("entering capture kernel at 0x").expect(&serial).1;
    let at = u64::from_str_radix(at.split(',').next().unwrap(), 16).unwrap();
    assert!(at >= 1 << 32, "the capture kernel is at {at:#x}");
    // The low reservation beside it is RAM to the capture kernel, which needs some for DMA.
    let ram = last_kernels_ram(&serial);
    let low = ram.iter().find(|(first, last)| *first >= 1 << 20 && *last < 1 << 32);
    let (first, last) = low.unwrap_or_else(|| panic!("{ram:x?}"));
    assert!(last - first >= 64 << 20, "{ram:x?}");
    assert!(ram.iter().any(|(first, last)| *first >= 1 << 32 && last - first > 128 << 20), "{ram:x?}");
}

/// Memory that the crashed kernel has lent to movable pages is the capture kernel's RAM, and not in the dump.
#[test]
#[ignore = "boots a kernel in QEMU; `make test-full` runs it"]
fn cma_memory_is_the_capture_kernels_ram() {
    const CMA: u64 = 64 << 20;
    let capture = |name: &str, words: &str| {
        capture(name, "7.3", |plan| {
            plan.crashkernel = "160M".to_owned();
            plan.scene.cmdline = words.to_owned();
        })
    };
    let (_, serial) = capture("cma", "crashkernel=64M,cma");
    let ram = last_kernels_ram(&serial);
    let total: u64 = ram.iter().map(|(first, last)| last + 1 - first).filter(|len| *len >= 1 << 20).sum();
    // Without elfcorehdr and record, which the kernel is kept from.
    assert!(
        total > (160 << 20) + CMA - (2 << 20) && total <= (160 << 20) + CMA,
        "{total:#x} in {ram:x?}\n{serial}"
    );
}

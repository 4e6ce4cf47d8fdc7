//! The full cycle on real kernels: boot, arm, panic, capture, analyze, and an independent reader.
//!
//! Needs QEMU, e2fsprogs, the kernels (`scripts/fetch-kernel.sh`) and drgn (`scripts/setup-oracle.sh`);
//! `make test` sees to all of them and runs these tests; a plain `cargo test` lists them as ignored.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../common/mod.rs"]
mod common;
mod dump_dir;
mod guest;
mod oracle;
mod report;

use guest::{Case, Cycle, FOUR_LEVELS, analyze_json, analyze_with_gaps};

/// Check an ELF core, with four CPUs and 4-level page tables.
#[test]
#[ignore = "boots a kernel in QEMU; `make test` runs it"]
fn linux_6_1_is_dumped_and_explained() {
    small(&Case {
        kernel: "6.1",
        arm: &["--level=30", "--format=elf"],
        // Built without CONFIG_MEMORY_FAILURE: there are no such pages.
        absent: &["NUMBER(PG_hwpoison)"],
        cpus: 4,
        cpu: Some(FOUR_LEVELS),
        ..Case::USUAL
    });
}

/// Check the defaults of `arm`: what `make demo` shows.
#[test]
#[ignore = "boots a kernel in QEMU; `make test` runs it"]
fn linux_6_12_is_dumped_and_explained() {
    small(&Case::USUAL);
}

/// Check memory above 4 GiB.
#[test]
#[ignore = "boots a kernel in QEMU; `make test` runs it"]
fn linux_6_12_with_memory_above_4_gib_is_dumped_and_explained() {
    small(&Case { cpus: 1, memory: 4 << 30, ..Case::USUAL });
}

/// Check a kernel whose VMCOREINFO names no symbols: the dump is whole, and the report says what it cannot say.
#[test]
#[ignore = "boots a kernel in QEMU; `make test` runs it"]
fn linux_5_10_is_dumped_and_explained_as_far_as_its_vmcoreinfo_goes() {
    let case = Case { kernel: "5.10", absent: &["NUMBER(PG_hwpoison)"], ..Case::USUAL };
    let cycle = case.run();
    cycle.every_phase_was_seen();
    cycle.the_panic_kernel_spoke();
    cycle.dump.is_complete();
    let vmcore = cycle.dump.vmcore();
    let manifested = oracle::manifest_agrees(&cycle.dump.0, cycle.absent);
    assert_eq!(oracle::pages_agree(&vmcore, None), manifested);
    oracle::logs_agree(&vmcore);
    report::has_what_the_log_says(&cycle.dump.report());
    report::has_what_the_log_says(&analyze_with_gaps(&vmcore));
}

/// Check a dump of everything, of a machine with one CPU, and that filtering it here loses no slab page in any format, where
/// makedumpfile 1.7.8 loses hundreds.
#[test]
#[ignore = "boots a kernel in QEMU; `make test` runs it"]
fn linux_7_3_is_dumped_and_explained_and_no_slab_page_is_lost() {
    let case = Case {
        kernel: "7.3",
        arm: &["--level=1", "--format=kdump", "--compression=none"],
        cpus: 1,
        ..Case::USUAL
    };
    let cycle = case.run();
    explained(&cycle);
    let whole = cycle.dump.vmcore();
    for (format, compression) in [("kdump", "zstd"), ("kdump", "zlib"), ("elf", "none")] {
        let again = cycle.filter_again(31, format, compression);
        assert!(again.metadata().unwrap().len() < whole.metadata().unwrap().len() * 3 / 4);
        oracle::no_slab_page_is_lost(&whole, &again);
        oracle::pages_agree(&again, Some(&whole));
        report::explains_the_crash(&analyze_json(&again), &cycle.outcome.release, cycle.cpus);
        std::fs::remove_file(again).unwrap();
    }
}

/// Checks a filtered dump of a guest, and that it is small.
fn small(case: &Case) {
    let cycle = case.run();
    explained(&cycle);
    let size = cycle.dump.vmcore().metadata().unwrap().len();
    assert!(size < cycle.memory / 4, "{size} bytes of a guest with {}", cycle.memory);
}

/// What holds for every dump of a sysrq crash, whatever its level and format.
fn explained(cycle: &Cycle) {
    cycle.every_phase_was_seen();
    cycle.the_panic_kernel_spoke();
    cycle.dump.is_complete();
    let vmcore = cycle.dump.vmcore();
    let manifested = oracle::manifest_agrees(&cycle.dump.0, cycle.absent);
    assert_eq!(oracle::pages_agree(&vmcore, None), manifested);
    oracle::logs_agree(&vmcore);
    report::explains_the_crash(&cycle.dump.report(), &cycle.outcome.release, cycle.cpus);
    report::explains_the_crash(&analyze_json(&vmcore), &cycle.outcome.release, cycle.cpus);
}

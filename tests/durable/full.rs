//! Power cuts at more moments, and targets of every kind: what is too long for `main.rs`. Needs mkfs and readers of xfs,
//! btrfs and FAT, too; `make test-full` runs it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../common/mod.rs"]
mod common;
mod cut;
mod cuts;
mod disks;
mod kinds;
mod promise;

#[test]
#[ignore = "boots kernels in QEMU; `make test-full` runs it"]
fn twenty_power_cuts_leave_what_was_promised() {
    cuts::check("cuts-full", 20);
}

#[test]
#[ignore = "boots kernels in QEMU; `make test-full` runs it"]
fn a_watchdog_is_fed_while_a_capture_outlasts_it() {
    kinds::watchdog();
}

#[test]
#[ignore = "boots kernels in QEMU; `make test-full` runs it"]
fn xfs_takes_a_dump() {
    kinds::xfs();
}

#[test]
#[ignore = "boots kernels in QEMU; `make test-full` runs it"]
fn btrfs_takes_a_dump() {
    kinds::btrfs();
}

#[test]
#[ignore = "boots kernels in QEMU; `make test-full` runs it"]
fn fat_takes_a_dump() {
    kinds::fat();
}

#[test]
#[ignore = "boots kernels in QEMU; `make test-full` runs it"]
fn a_partition_takes_a_dump_and_its_neighbour_stays() {
    kinds::partition();
}

#[test]
#[ignore = "boots kernels in QEMU; `make test-full` runs it"]
fn a_disk_that_is_too_small_gets_a_higher_level_and_old_dumps_go() {
    kinds::small();
}

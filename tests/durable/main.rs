//! Dumps that get to a disk whatever happens: power that fails, targets that are missing, full, broken or read-only.
//!
//! Needs QEMU, e2fsprogs and the kernels; `make test` runs these tests, a plain `cargo test` lists them as ignored. What
//! takes longer is in `full.rs`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../common/mod.rs"]
mod common;
mod cut;
mod cuts;
mod disks;
mod ladder;
mod promise;

/// Check that each target's failure is said, that the next one gets everything again, and that nothing of a broken one
/// passes for a dump.
#[test]
#[ignore = "boots a kernel in QEMU; `make test` runs it"]
fn a_ladder_of_bad_targets_ends_in_the_good_one() {
    ladder::climb();
}

/// Check four moments; twenty are in `make test-full`.
#[test]
#[ignore = "boots a kernel in QEMU; `make test` runs it"]
fn a_power_cut_leaves_what_was_promised() {
    cuts::check("cuts", 4);
}

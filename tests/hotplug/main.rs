//! Memory and a CPU that come between arming and the panic: they must be in the dump, though they were not there when
//! elfcorehdr was made. The kernel panics on that CPU, and the capture kernel runs on it.
//!
//! Needs QEMU and the kernels; `make test` runs this, a plain `cargo test` lists it as ignored. tests/hotplug/full.rs
//! has the other kernels.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../common/mod.rs"]
mod common;
#[expect(dead_code, reason = "some of it is for full.rs")]
mod guest;

use guest::{Guest, NEW_CPU};

/// Where the kernel rewrites elfcorehdr itself, nothing need be done.
#[test]
#[ignore = "boots a kernel in QEMU; `make test` runs it"]
fn what_came_after_arming_is_in_the_dump_of_linux_6_12() {
    Guest { kernel: "6.12", is_armed_again: false, panic_cpu: NEW_CPU }.run().has_what_came();
}

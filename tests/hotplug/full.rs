//! Memory and CPU hotplug between arming and the panic, on the other kernels: see main.rs.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../common/mod.rs"]
mod common;
mod guest;

use guest::{Guest, NEW_CPU};

/// Another CPU panics, and shoots down the one that came.
#[test]
#[ignore = "boots a kernel in QEMU; `make test-full` runs it"]
fn what_came_after_arming_is_in_the_dump_of_linux_7_3() {
    Guest { kernel: "7.3", is_armed_again: false, panic_cpu: 1 }.run().has_what_came();
}

/// Linux 6.1 leaves elfcorehdr as it was: what the udev rule does makes good for that.
#[test]
#[ignore = "boots a kernel in QEMU; `make test-full` runs it"]
fn what_came_is_in_the_dump_of_linux_6_1_that_was_armed_again() {
    Guest { kernel: "6.1", is_armed_again: true, panic_cpu: NEW_CPU }.run().has_what_came();
}

/// Without that, all is dumped that was there when it was armed.
#[test]
#[ignore = "boots a kernel in QEMU; `make test-full` runs it"]
fn what_was_there_is_in_the_dump_of_linux_6_1_that_was_not_armed_again() {
    Guest { kernel: "6.1", is_armed_again: false, panic_cpu: NEW_CPU }.run().has_only_what_was_there();
}

//! A kernel that dies in several ways: each time a dump, whose report names the cause and the function.
//!
//! Needs QEMU, e2fsprogs, the kernels (`scripts/fetch-kernel.sh`) and the module that crashes them
//! (`scripts/build-guest-module.sh`); `make test` sees to all of them and runs these tests, `make test-full` those of
//! `full.rs` too.

#[path = "../common/mod.rs"]
mod common;
mod named;

use kdump_rehearse::Crash;
use named::named;

/// Check the ways that go wrong in ways of their own: registers of the fault, an invalid opcode that is a BUG, another
/// task's stack, a stack that is no more.
#[test]
#[ignore = "boots a kernel in QEMU; `make test` runs it"]
fn oopses_and_hung_tasks_of_6_12_are_named() {
    for crash in [Crash::NullDeref, Crash::Bug, Crash::HungTask, Crash::StackOverflow] {
        named("6.12", crash, None);
    }
}

/// Check the two ways that come from outside the task that runs.
#[test]
#[ignore = "boots a kernel in QEMU; `make test` runs it"]
fn interrupts_that_panic_6_12_are_named() {
    for crash in [Crash::Nmi, Crash::PanicInIrq] {
        named("6.12", crash, Some(1));
    }
}

/// Check the one that the emulator sends; it needs no module.
#[test]
#[ignore = "boots a kernel in QEMU; `make test` runs it"]
fn an_nmi_from_outside_is_named() {
    named("6.12", Crash::NmiButton, Some(0));
}

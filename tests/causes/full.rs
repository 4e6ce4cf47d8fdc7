//! Kernels that die in every way we know of, on each of their CPUs.

#[path = "../common/mod.rs"]
mod common;
mod named;

use kdump_rehearse::{Crash, Plan};
use named::named;

#[test]
#[ignore = "boots a kernel in QEMU; `make test-full` runs it"]
fn every_crash_of_6_1_is_named_on_every_cpu() {
    every_crash("6.1");
}

#[test]
#[ignore = "boots a kernel in QEMU; `make test-full` runs it"]
fn every_crash_of_6_12_is_named_on_every_cpu() {
    every_crash("6.12");
}

#[test]
#[ignore = "boots a kernel in QEMU; `make test-full` runs it"]
fn every_crash_of_7_3_is_named_on_every_cpu() {
    every_crash("7.3");
}

fn every_crash(kernel: &str) {
    for crash in Crash::ALL {
        for cpu in (0..Plan::CPUS).filter(|&cpu| crash.only_cpu().is_none_or(|only| only == cpu)) {
            named(kernel, crash, Some(cpu));
        }
    }
}

//! Kernels that die in every way we know of, on each of their CPUs.

#[path = "../common/mod.rs"]
mod common;
mod named;

use std::panic::catch_unwind;
use std::time::Instant;

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

/// Goes on after one that is not named, and says of each how it went (`--nocapture` shows it).
fn every_crash(kernel: &str) {
    let mut not_named = Vec::new();
    for crash in Crash::ALL {
        for cpu in (0..Plan::CPUS).filter(|&cpu| crash.only_cpu().is_none_or(|only| only == cpu)) {
            let begin = Instant::now();
            let is_named = catch_unwind(|| named(kernel, crash, Some(cpu))).is_ok();
            let verdict = if is_named { "named" } else { "NOT NAMED" };
            println!("{kernel} {crash:<14} CPU {cpu} {verdict:<9} {:>4} s", begin.elapsed().as_secs());
            if !is_named {
                not_named.push(format!("{crash} on CPU {cpu}"));
            }
        }
    }
    assert!(not_named.is_empty(), "{kernel}: {not_named:?}");
}

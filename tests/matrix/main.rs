//! The support matrix: every kernel with one, two and four CPUs, each with one flavour, number of page table levels and
//! amount of memory, so chosen that any two values of different columns meet in some row. Each row is a guest that is
//! armed, panics and is dumped; what has passed is written to docs/support-matrix.md.
//!
//! Needs QEMU, e2fsprogs, the kernels (`scripts/fetch-kernel.sh`, generic ones too) and drgn: `make test-full` sees to
//! them. `KDUMP_RS_MATRIX=TEXT` runs only the rows whose name contains TEXT.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(dead_code, reason = "not all that tests/cycle has is needed here")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../cycle/dump_dir.rs"]
mod dump_dir;
#[path = "../cycle/guest.rs"]
mod guest;
#[path = "../cycle/oracle.rs"]
mod oracle;
mod page;
#[path = "../cycle/report.rs"]
mod report;
mod row;

use row::{Flavour, Levels, Memory, ROWS};

/// Check every row, and write down those that have passed. One that fails does not keep the others from being run.
#[test]
#[ignore = "boots kernels in QEMU for a quarter of an hour; `make test-full` runs it"]
fn every_row_of_the_matrix_is_dumped_and_explained() {
    let wanted = std::env::var("KDUMP_RS_MATRIX").unwrap_or_default();
    let rows: Vec<_> = ROWS.iter().filter(|row| row.name().contains(&wanted)).collect();
    assert!(!rows.is_empty(), "no row's name contains {wanted:?}");
    let mut failed = Vec::new();
    for row in rows {
        eprintln!("{}", row.name());
        match std::panic::catch_unwind(|| row.check()) {
            Ok(passed) => page::record(row, &passed),
            Err(_) => {
                page::forget(row);
                failed.push(row.name());
            }
        }
        page::write();
    }
    assert!(failed.is_empty(), "failed: {failed:?}");
}

#[test]
fn any_two_values_meet_in_some_row() {
    for row in &ROWS {
        for other in &ROWS {
            let meet = |a: &dyn Fn(&row::Row) -> bool, b: &dyn Fn(&row::Row) -> bool| {
                assert!(ROWS.iter().any(|row| a(row) && b(row)), "{} and {}", row.name(), other.name());
            };
            let kernel = |r: &row::Row| r.kernel == row.kernel;
            meet(&kernel, &|r| r.cpus == other.cpus);
            meet(&kernel, &|r| r.flavour == other.flavour);
            meet(&kernel, &|r| r.levels == other.levels);
            meet(&kernel, &|r| r.memory == other.memory);
            let cpus = |r: &row::Row| r.cpus == row.cpus;
            meet(&cpus, &|r| r.flavour == other.flavour);
            meet(&cpus, &|r| r.levels == other.levels);
            meet(&cpus, &|r| r.memory == other.memory);
            let flavour = |r: &row::Row| r.flavour == row.flavour;
            meet(&flavour, &|r| r.levels == other.levels);
            meet(&flavour, &|r| r.memory == other.memory);
            meet(&|r| r.levels == row.levels, &|r| r.memory == other.memory);
        }
    }
    assert_eq!(ROWS.iter().filter(|r| r.flavour == Flavour::Generic).count(), 6);
    assert!(ROWS.iter().any(|r| r.levels == Levels::Five && r.memory == Memory::Above4GiB));
}

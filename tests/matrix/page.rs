//! docs/support-matrix.md: the rows that have passed, each with its day. What a row said is kept in the build directory,
//! so that rows run on different days make one page.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::row::{Passed, ROWS, Row};

const HEAD: &str = "\
# Support matrix

Written by `make test-full` (`tests/matrix`), not by hand. Each row is a guest in QEMU with a Debian kernel that was armed
by `kdump-rs arm`, panicked (sysrq), and was dumped by kdump-init to its disk with `crashkernel=192M`. The dump was complete, agreed
page by page with what drgn reads from it, and its report was made in the capture kernel; a row that has not passed is not here.

Kernels and numbers of CPUs are combined fully. Of the other columns any two values of different columns meet in some row (15 rows
in place of 120). 4-level page tables are those of `-cpu qemu64`, 5-level ones of `-cpu max,-cx16`; of 4 GiB, one lies above 4 GiB.

The report is *complete* when it names the cause, the panicking task with its whole stack, and every CPU's stack. On 5.10 it is
*from the log*: VMCOREINFO names no symbols there, so cause and time are told, and stacks are said to be missing.

| kernel | CPUs | page tables | memory | dump | report | run on |
|---|---|---|---|---|---|---|
";

fn directory() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("support-matrix")
}

fn file(row: &Row) -> PathBuf {
    directory().join(row.name().replace(' ', "_"))
}

/// Keeps what a row said.
pub fn record(row: &Row, passed: &Passed) {
    let day = Command::new("date").args(["-u", "+%F"]).output().unwrap().stdout;
    let line = format!(
        "| {} | {} | {} | {} | {} pages, {} MB | {} | {} |\n",
        passed.release,
        row.cpus,
        row.levels(),
        row.memory(),
        passed.pages,
        passed.bytes / 1_000_000,
        if passed.is_explained { "complete" } else { "from the log" },
        String::from_utf8(day).unwrap().trim(),
    );
    fs::create_dir_all(directory()).unwrap();
    fs::write(file(row), line).unwrap();
}

/// Forgets what a row said that fails now.
pub fn forget(row: &Row) {
    let _ = fs::remove_file(file(row));
}

/// Writes the page.
pub fn write() {
    let lines: String = ROWS.iter().filter_map(|row| fs::read_to_string(file(row)).ok()).collect();
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/support-matrix.md");
    fs::write(page, format!("{HEAD}{lines}")).unwrap();
}

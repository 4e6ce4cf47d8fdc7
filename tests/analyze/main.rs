//! `kdump-rs analyze` on synthetic dumps, through the command a user runs. No root, no network.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod causes;
mod damage;
mod golden;
mod truth;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Runs `kdump-rs analyze` on a file.
fn analyze(dump: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kdump-rs")).arg("analyze").arg(dump).args(args).output().unwrap()
}

/// Writes a dump into a directory of its own.
fn write(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vmcore");
    std::fs::write(&path, bytes).unwrap();
    (dir, path)
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

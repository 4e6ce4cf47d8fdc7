//! What the views print, word for word: `tests/golden/<kernel>.<view>.txt`.
//!
//! `KDUMP_RS_BLESS=1 cargo test --test analyze` rewrites the files; read the difference before
//! committing it.

use std::path::Path;

use kdump_synth::Machine;

use super::{analyze, write};

fn check(name: &str, machine: &Machine) {
    let (_dir, path) = write(&machine.elf_core().bytes());
    for (view, args) in [
        ("report", &[][..]),
        ("bt-all", &["bt", "--all"]),
        ("ps", &["ps"]),
        ("mod", &["mod"]),
        ("sys", &["sys"]),
        ("log", &["log"]),
    ] {
        let out = analyze(&path, args);
        let text = String::from_utf8(out.stdout).unwrap();
        assert_eq!(out.status.code(), Some(0), "{name} {view}: {}", String::from_utf8_lossy(&out.stderr));
        same(&format!("{name}.{view}.txt"), &text);
    }
}

fn same(file: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file);
    if std::env::var_os("KDUMP_RS_BLESS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let wanted = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(wanted == text, "{file} differs:\n--- wanted\n{wanted}\n--- printed\n{text}");
}

#[test]
fn views_of_6_12() {
    check("6.12", &Machine::linux_6_12());
}

#[test]
fn views_of_7_3() {
    check("7.3", &Machine::linux_7_3());
}

#[test]
fn the_help_is_the_manual() {
    for verb in
        ["analyze", "arm", "capture", "receive", "rehearse", "status", "disarm", "doctor", "kexec", "reserve"]
    {
        let out = std::process::Command::new(env!("CARGO_BIN_EXE_kdump-rs"))
            .args([verb, "--help"])
            .env("COLUMNS", "100")
            .output()
            .unwrap();
        assert!(out.status.success());
        same(&format!("help.{verb}.txt"), &String::from_utf8(out.stdout).unwrap());
    }
}

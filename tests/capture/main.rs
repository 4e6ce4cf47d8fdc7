//! `kdump-rs capture` on the command line: what it writes, what it refuses, how it ends.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use kdump_synth::Machine;

fn capture(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kdump-rs")).arg("capture").args(args).output().unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn digest(path: &Path) -> String {
    let out = capture(&["--digest", text(path)]);
    assert_eq!(out.status.code(), Some(0), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

fn source(dir: &tempfile::TempDir) -> PathBuf {
    let path = dir.path().join("source");
    std::fs::write(&path, Machine::linux_6_12().elf_core().bytes()).unwrap();
    path
}

#[test]
fn formats_convert_into_each_other_without_losing_a_page() {
    let dir = tempfile::tempdir().unwrap();
    let (source, kdump, elf) = (source(&dir), dir.path().join("k"), dir.path().join("e"));
    // Level 0, for an ELF core leaves zero-filled pages out at any odd one.
    let out = capture(&[text(&source), "-o", text(&kdump), "-d", "0", "-z", "zlib"]);
    assert_eq!(out.status.code(), Some(0));
    assert!(out.stdout.is_empty(), "data only goes to stdout");
    let summary = String::from_utf8(out.stderr).unwrap();
    assert!(summary.contains("compression zlib") && summary.contains("slab"), "{summary}");
    assert_eq!(
        capture(&[text(&kdump), "-o", text(&elf), "-d", "0", "--format", "elf"]).status.code(),
        Some(0)
    );
    assert_eq!(digest(&kdump), digest(&elf));
    assert!(digest(&kdump).starts_with("pages "));
}

#[test]
fn an_existing_file_is_replaced_only_by_force() {
    let dir = tempfile::tempdir().unwrap();
    let (source, out) = (source(&dir), dir.path().join("out"));
    std::fs::write(&out, "precious").unwrap();
    let refused = capture(&[text(&source), "-o", text(&out)]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("out exists"));
    assert_eq!(std::fs::read(&out).unwrap(), b"precious");
    assert_eq!(capture(&[text(&source), "-o", text(&out), "--force"]).status.code(), Some(0));
    assert!(!dir.path().join("out.partial").exists());
    let itself = capture(&[text(&out), "-o", text(&out), "--force"]);
    assert_eq!(itself.status.code(), Some(2));
    digest(&out);
}

#[test]
fn what_is_no_dump_is_an_error_with_exit_code_2() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let file = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let core = std::fs::read(source(&dir)).unwrap();
    for (path, why) in [
        (file("zeros", &[0; 8192]), "zero bytes"),
        (file("empty", &[]), "is empty"),
        (file("cut", &core[..100]), "cannot be read"),
        (file("kdump", b"KDUMP   \x06"), "cut within its headers"),
        (file("text", b"not a dump at all"), "neither"),
        (PathBuf::from(env!("CARGO_BIN_EXE_kdump-rs")), "not a core"),
        (dir.path().to_path_buf(), "is a directory"),
        (dir.path().join("absent"), "No such file"),
    ] {
        let result = capture(&[text(&path), "-o", text(&out)]);
        let stderr = String::from_utf8(result.stderr).unwrap();
        assert_eq!(result.status.code(), Some(2), "{}: {stderr}", path.display());
        assert!(stderr.contains(why), "{}: {stderr}", path.display());
        assert!(!out.exists() && !stderr.contains("panicked"));
    }
}

/// Check that a source cut short gives a marked dump and exit code 1.
#[test]
fn a_cut_source_ends_with_exit_code_1() {
    let dir = tempfile::tempdir().unwrap();
    let (cut, out) = (dir.path().join("cut"), dir.path().join("out"));
    let bytes = std::fs::read(source(&dir)).unwrap();
    std::fs::write(&cut, &bytes[..bytes.len() - 3 * 4096]).unwrap();
    let result = capture(&[text(&cut), "-o", text(&out), "-d", "0"]);
    let stderr = String::from_utf8(result.stderr).unwrap();
    assert_eq!(result.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("lost page"), "{stderr}");
    assert_eq!(capture(&["--digest", text(&out)]).status.code(), Some(1));
}

/// Check that the mark of an unfinished source is not lost, though every page it names is there.
#[test]
fn a_source_marked_incomplete_ends_with_exit_code_1() {
    let dir = tempfile::tempdir().unwrap();
    let (marked, out) = (dir.path().join("marked"), dir.path().join("out"));
    let mut bytes = std::fs::read(source(&dir)).unwrap();
    bytes[48] |= 1; // e_flags
    std::fs::write(&marked, bytes).unwrap();
    for source in [&marked, &out] {
        let result = capture(&[text(source), "-o", text(&dir.path().join("out2")), "--force"]);
        let stderr = String::from_utf8(result.stderr).unwrap();
        assert_eq!(result.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains("source is incomplete"), "{stderr}");
        std::fs::rename(dir.path().join("out2"), &out).unwrap();
    }
}

//! Files that are no dumps, cut dumps, changed dumps: an error or an answer, never a panic.

use std::os::unix::fs::symlink;

use kdump_analyze::report::Report;
use kdump_analyze::{Kernel, log::Log};
use kdump_synth::{Compression, Machine};
use kdump_vmcore::Dump;

use super::{analyze, write};

/// Checks exit 2, a message that names the file and says this, and nothing on stdout.
fn refused(path: &std::path::Path, says: &str) {
    for args in [&[][..], &["log"], &["ps", "--json"]] {
        let out = analyze(path, args);
        let err = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(2), "{err}");
        assert!(err.starts_with(&format!("kdump-rs: {}: ", path.display())), "{err}");
        assert!(err.contains(says), "{err}");
        assert!(!err.contains("panicked"), "{err}");
        assert!(out.stdout.is_empty());
    }
}

#[test]
fn what_is_no_dump_is_named() {
    refused(&write(&[0; 8192]).1.with_file_name("none"), "No such file");
    let (dir, path) = write(&[]);
    refused(&path, "empty");
    refused(dir.path(), "directory");
    let (_dir, path) = write(&[0; 8192]);
    refused(&path, "zero bytes");
    let (_dir, path) = write(b"#!/bin/sh\necho hello, this is no dump\n");
    refused(&path, "neither an ELF core nor");
    let (_dir, path) = write(b"\x7fELF");
    refused(&path, "only 4 bytes");
    let (dir, path) = write(&[]);
    std::fs::remove_file(&path).unwrap();
    symlink(env!("CARGO_BIN_EXE_kdump-rs"), dir.path().join("vmcore")).unwrap();
    refused(&path, "not a core");
}

#[test]
fn a_core_of_another_machine_is_named() {
    let mut bytes = Machine::linux_6_12().elf_core().bytes();
    bytes[18] = 183; // EM_AARCH64
    let (_dir, path) = write(&bytes);
    refused(&path, "another machine");
}

#[test]
fn a_core_without_vmcoreinfo_says_so() {
    let mut bytes = Machine::linux_6_12().elf_core().bytes();
    let notes: Vec<usize> =
        (0..bytes.len() - 10).filter(|&at| bytes[at..].starts_with(b"VMCOREINFO")).collect();
    notes.iter().for_each(|&at| bytes[at] = b'X');
    let (_dir, path) = write(&bytes);
    refused(&path, "VMCOREINFO");
}

/// Check a file as a hypervisor writes it, which does not know that its guest is a Linux kernel.
#[test]
fn a_vmcoreinfo_that_only_memory_has_is_found() {
    for machine in [Machine::linux_5_10(), Machine::linux_7_3()] {
        let mut bytes = machine.elf_core().bytes();
        let (_dir, path) = write(&bytes);
        let expect = analyze(&path, &["--json"]);
        let at = bytes.windows(10).position(|w| w == b"VMCOREINFO").unwrap();
        bytes[at] = b'X';
        let (_dir, path) = write(&bytes);
        let out = analyze(&path, &["--json"]);
        let err = String::from_utf8(out.stderr).unwrap();
        assert!(err.contains("it was found in the dumped memory"), "{err}");
        assert_eq!(out.status.code(), expect.status.code());
        assert_eq!(out.stdout, expect.stdout);
    }
}

/// Asks everything; what matters is that it returns.
fn ask(bytes: &[u8]) -> Option<Report> {
    let (_dir, path) = write(bytes);
    let dump = Dump::open(&path).ok()?;
    if let (Some(info), Ok(mem)) = (dump.vmcoreinfo(), dump.kernel()) {
        let _ = Log::read(&mem, info);
    }
    let report = Report::build(&Kernel::open(&dump).ok()?);
    let _ = (report.to_text(), report.to_json());
    Some(report)
}

/// Check that of a dump so short that nothing of the kernel is left, that is said, and exit 2.
#[test]
fn a_dump_cut_down_to_its_headers_is_no_answer() {
    let machine = Machine::linux_6_12();
    for bytes in [machine.elf_core().bytes(), machine.kdump().compression(Compression::Zlib).bytes()] {
        let (_dir, path) = write(&bytes[..16384]);
        let out = analyze(&path, &[]);
        let err = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(2), "{err}");
        assert!(err.contains("nothing of the crashed kernel can be read"), "{err}");
        assert!(err.contains("the file was cut short"), "{err}");
    }
}

#[test]
fn a_dump_cut_anywhere_is_an_error_or_an_answer_with_gaps() {
    let machine = Machine::linux_7_3();
    let whole = machine.spec.tasks.len();
    for bytes in [machine.elf_core().bytes(), machine.kdump().compression(Compression::Zlib).bytes()] {
        for tenth in 0..10 {
            let cut = bytes.len() * tenth / 10;
            if let Some(report) = ask(&bytes[..cut]) {
                assert!(!report.complete, "cut at {cut} of {}", bytes.len());
            }
        }
        assert!(ask(&bytes).unwrap().tasks.data.unwrap().count > whole);
    }
}

/// A deterministic generator: the same changes in every run (xorshift64).
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }
}

/// Check that changed bytes anywhere, many at a time, are survived: in headers, notes, page tables,
/// symbol tables, types, lists and stacks.
#[test]
fn changed_bytes_are_survived() {
    let machine = Machine::linux_6_12();
    let elf = machine.elf_core().bytes();
    let kdump = machine.kdump().bytes();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for good in [&elf, &kdump] {
        // Bytes that are not zero carry meaning; the file is mostly empty otherwise.
        let used: Vec<usize> = (0..good.len()).filter(|&i| good[i] != 0).collect();
        for round in 0..40 {
            let mut bad = good.clone();
            let head = if round % 4 == 0 { 64.min(used.len()) } else { used.len() };
            for _ in 0..1 << (round % 10) {
                bad[used[random.below(head)]] = [0, 0xff, 0x80, 1][random.below(4)];
            }
            ask(&bad);
        }
    }
}

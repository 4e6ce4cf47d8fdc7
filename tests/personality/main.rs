//! The program under the names of makedumpfile and vmcore-dmesg: what it writes and says, and how it ends.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use kdump_synth::Machine;
use tempfile::TempDir;

/// A directory with a machine's core and the program's other names.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["makedumpfile", "vmcore-dmesg"] {
            std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_kdump-rs"), dir.path().join(name)).unwrap();
        }
        std::fs::write(dir.path().join("core"), Machine::linux_6_12().elf_core().bytes()).unwrap();
        Self(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs a line whose first word is the program's name, in this directory.
    fn run(&self, line: &str, stdin: Stdio) -> Output {
        let mut words = line.split_whitespace();
        let program = self.path(words.next().unwrap());
        Command::new(program).args(words).current_dir(self.0.path()).stdin(stdin).output().unwrap()
    }

    fn makedumpfile(&self, line: &str) -> Output {
        self.run(&format!("makedumpfile {line}"), Stdio::null())
    }

    fn succeeds(&self, line: &str, says: &str) {
        let out = self.makedumpfile(line);
        let said = String::from_utf8_lossy(&out.stdout);
        assert_eq!(out.status.code(), Some(0), "{line}: {said}{}", String::from_utf8_lossy(&out.stderr));
        assert!(said.contains(says) && said.ends_with("\nmakedumpfile Completed.\n"), "{line}: {said}");
    }

    fn digest(&self, name: &str) -> String {
        let out = Command::new(env!("CARGO_BIN_EXE_kdump-rs"))
            .args(["capture", "--digest"])
            .arg(self.path(name))
            .output()
            .unwrap();
        assert_eq!(out.status.code(), Some(0), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }
}

fn is_private(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata().unwrap().permissions().mode() & 0o777 == 0o600
}

#[test]
fn every_way_to_write_a_dump_holds_the_same_pages() {
    let place = Place::new();
    place.succeeds("-z -d 31 core plain", "\nThe dumpfile is saved to plain.\n");
    assert!(is_private(&place.path("plain")), "memory is for its owner only");
    let expect = place.digest("plain");
    for how in ["-c", "-l", "-p", "--num-threads 2", "-E"] {
        place.succeeds(&format!("{how} -f -d 31 core other"), "The dumpfile is saved to other.");
        assert_eq!(place.digest("other"), expect, "{how}");
    }
    // As kdump-tools does: flattened, through a pipe, and rearranged later.
    let flat = place.makedumpfile("-F -c -d 31 core");
    assert_eq!(flat.status.code(), Some(0));
    assert!(flat.stdout.starts_with(b"makedumpfile\0"), "nothing but data");
    assert!(String::from_utf8_lossy(&flat.stderr).contains("The dumpfile is saved to STDOUT."));
    std::fs::write(place.path("flat"), &flat.stdout).unwrap();
    let back = place.run("makedumpfile -R back", File::open(place.path("flat")).unwrap().into());
    assert_eq!(back.status.code(), Some(0));
    assert_eq!(place.digest("back"), expect);
    std::fs::write(place.path("cut"), &flat.stdout[..flat.stdout.len() / 2]).unwrap();
    let cut = place.run("makedumpfile -f -R back", File::open(place.path("cut")).unwrap().into());
    assert_eq!(cut.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&cut.stderr).contains("before its end mark"));

    place.succeeds("-d 31 --split core a b c", "The dumpfiles are saved to a, b, and c.");
    place.succeeds("--reassemble c a b whole", "The dumpfile is saved to whole.");
    assert_eq!(place.digest("whole"), expect);
    let part = place.makedumpfile("-f --reassemble a b whole");
    assert_eq!(part.status.code(), Some(1), "c is missing");
}

#[test]
fn the_log_is_written_and_printed() {
    let place = Place::new();
    place.succeeds("--dump-dmesg core dmesg", "The dmesg log is saved to dmesg.");
    let written = std::fs::read_to_string(place.path("dmesg")).unwrap();
    assert!(written.lines().any(|line| line.contains("] [     T77] sysrq: Trigger a crash")), "{written}");
    let printed = place.run("vmcore-dmesg core", Stdio::null());
    assert_eq!(printed.status.code(), Some(0));
    let printed = String::from_utf8(printed.stdout).unwrap();
    assert!(printed.contains("] sysrq: Trigger a crash"), "without callers: {printed}");
    assert_eq!(printed.lines().count(), written.lines().count());
    for (line, code) in
        [("", 1), ("core core", 1), ("absent", 2), ("makedumpfile", 4), ("--version", 0), ("--help", 0)]
    {
        let out = place.run(&format!("vmcore-dmesg {line}"), Stdio::null());
        assert_eq!(out.status.code(), Some(code), "{line}");
    }
}

#[test]
fn what_fails_says_so_and_overwrites_nothing() {
    let place = Place::new();
    std::fs::write(place.path("precious"), "precious").unwrap();
    std::fs::write(place.path("info"), "OSRELEASE=5.4.0-other\n").unwrap();
    for (line, code, why) in [
        ("-d 31 core precious", 1, "Can't open the dump file (precious). File exists"),
        ("--dump-dmesg core precious", 1, "File exists"),
        ("-R precious", 1, "File exists"),
        ("-d 31 absent out", 1, "Can't open the dump memory(absent)"),
        ("-d 31 precious out", 1, "neither an ELF core nor"),
        ("-d 31 -i absent core out", 1, "Can't open the vmcoreinfo file(absent)"),
        ("-d 31 -x absent core out", 1, "Can't open the kernel file(absent)"),
        ("-d 31 -i info core out", 2, "info and core don't match."),
        ("--reassemble core core out", 1, "kdump-compressed"),
    ] {
        let out = place.makedumpfile(line);
        let stderr = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(code), "{line}: {stderr}");
        assert!(stderr.contains(why), "{line}: {stderr}");
        assert_eq!(out.stdout, b"\nmakedumpfile Failed.\n", "{line}");
        assert!(!place.path("out").exists(), "{line}");
    }
    assert_eq!(std::fs::read(place.path("precious")).unwrap(), b"precious");
    let quiet = place.makedumpfile("--message-level 0 -d 31 core out");
    assert_eq!((quiet.status.code(), quiet.stdout.len(), quiet.stderr.len()), (Some(0), 0, 0));
    assert!(place.makedumpfile("--check-params -d 31 core out2").stdout.is_empty());
}

#[test]
fn a_dry_run_counts_what_would_be_written() {
    let place = Place::new();
    let write_bytes = |line: &str| {
        let out = place.makedumpfile(line);
        assert_eq!(out.status.code(), Some(0), "{line}");
        let said = String::from_utf8(out.stdout).unwrap();
        said.lines().find(|l| l.starts_with("Write bytes")).map(str::to_owned).unwrap()
    };
    let dry = write_bytes("--dry-run --show-stats -z -d 31 core out");
    assert!(!place.path("out").exists());
    assert_eq!(write_bytes("--show-stats -z -d 31 core out"), dry);
    let length = place.path("out").metadata().unwrap().len();
    assert_eq!(dry, format!("Write bytes     : {length}"));
}

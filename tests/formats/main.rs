//! Every format on a real dump, against readers and writers of other origin: drgn with libkdumpfile, makedumpfile, zstd.
//!
//! Needs QEMU, the 6.12 kernel, drgn, and makedumpfile (`scripts/setup-peers.sh programs`): `make test-full` sees to
//! them.

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

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use kdump_capture::digest::{LogicalDigest, logical_digest};
use kdump_vmcore::Dump;
use kdump_vmcore::image::Wrapping;

use common::{KDUMP_RS, cache};
use guest::{Case, Cycle};

/// Runs makedumpfile 1.7.8; what it prints goes to `out`.
fn makedumpfile(arguments: &str, paths: &[&Path], input: Option<&Path>, out: &Path) {
    let program = cache().join("peers/makedumpfile");
    assert!(program.exists(), "{} is missing: run scripts/setup-peers.sh programs", program.display());
    let mut command = Command::new(program);
    command.args(arguments.split_whitespace()).args(paths).stdout(File::create(out).unwrap());
    if let Some(input) = input {
        command.stdin(File::open(input).unwrap());
    }
    let done = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "makedumpfile {arguments} {paths:?}: {stderr}");
}

fn digest(dump: &Dump) -> LogicalDigest {
    let digest = logical_digest(dump).unwrap();
    assert_eq!(digest.lost, 0);
    digest
}

fn digest_of(path: &Path) -> LogicalDigest {
    digest(&Dump::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
}

/// Check that whatever the format and the codec, the pages are the same, to us and to others.
#[test]
#[ignore = "boots a kernel in QEMU; `make test-full` runs it"]
fn every_format_has_the_same_pages_for_every_reader() {
    let case = Case { arm: &["--level=1", "--format=kdump", "--compression=none"], cpus: 1, ..Case::USUAL };
    let cycle = case.run();
    let whole = cycle.dump.vmcore();
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    ours_are_read_by_others(&cycle, &whole, dir.path());
    theirs_are_read_by_us(&cycle, dir.path());
}

fn ours_are_read_by_others(cycle: &Cycle, whole: &Path, dir: &Path) {
    let expect = digest_of(&cycle.filter_again(31, "kdump", "none"));
    for compression in ["lzo", "snappy", "zlib", "zstd", "none"] {
        let path = cycle.filter_again(31, "kdump", compression);
        assert_eq!(digest_of(&path), expect, "{compression}");
        assert_eq!(oracle::pages_agree(&path, Some(whole)), expect.pages, "{compression}");
        std::fs::remove_file(path).unwrap();
    }

    // To a pipe, and made a file again by makedumpfile.
    let flat = dir.join("flat");
    let to_pipe = ["capture", "-o", "-"];
    let status = Command::new(KDUMP_RS)
        .args(to_pipe)
        .arg(whole)
        .stdout(File::create(&flat).unwrap())
        .status()
        .unwrap();
    assert!(status.success());
    assert_eq!(Dump::open(&flat).unwrap().wrapping(), Wrapping::Flattened);
    assert_eq!(digest_of(&flat), expect);
    let arranged = dir.join("arranged");
    makedumpfile("-R", &[&arranged], Some(&flat), &dir.join("said"));
    assert_eq!(oracle::pages_agree(&arranged, Some(whole)), expect.pages);

    // In zstd frames, and made an ELF core again by a decoder that knows nothing of their table.
    let elf = cycle.filter_again(31, "elf", "none");
    let framed = cycle.filter_again(31, "elf-zstd", "zstd");
    assert_eq!(Dump::open(&framed).unwrap().wrapping(), Wrapping::SeekableZstd);
    assert_eq!(digest_of(&framed), expect);
    let unpacked = dir.join("unpacked");
    zstd::stream::copy_decode(File::open(&framed).unwrap(), File::create(&unpacked).unwrap()).unwrap();
    assert_eq!(digest_of(&unpacked), expect);
    assert_eq!(unpacked.metadata().unwrap().len(), elf.metadata().unwrap().len());
    assert_eq!(oracle::pages_agree(&unpacked, Some(whole)), expect.pages);
}

fn theirs_are_read_by_us(cycle: &Cycle, dir: &Path) {
    let source = cycle.filter_again(0, "elf", "none");
    let said = dir.join("said");
    let made = |options: &str| {
        let path = dir.join(options.replace(' ', ""));
        let _ = std::fs::remove_file(&path);
        makedumpfile(options, &[&source, &path], None, &said);
        path
    };
    let kdump = made("-z -d 31");
    let expect = digest_of(&kdump);
    assert_eq!(oracle::pages_agree(&kdump, Some(&source)), expect.pages);
    for options in ["-c -d 31", "-l -d 31"] {
        assert_eq!(digest_of(&made(options)), expect, "{options}");
    }
    for (flattened, plain) in
        [("-F -z -d 31", "-z -d 31"), ("-F -c -d 31", "-c -d 31"), ("-F -E -d 31", "-E -d 31")]
    {
        let flat = dir.join("flattened");
        makedumpfile(flattened, &[&source], None, &flat);
        let dump = Dump::open(&flat).unwrap();
        assert!(dump.wrapping() == Wrapping::Flattened && !dump.is_incomplete());
        assert_eq!(digest(&dump), digest_of(&made(plain)), "{flattened}");
    }

    let parts: Vec<PathBuf> = (0..3).map(|nr| dir.join(format!("part-{nr}"))).collect();
    let paths: Vec<&Path> =
        [source.as_path()].into_iter().chain(parts.iter().map(PathBuf::as_path)).collect();
    makedumpfile("--split -z -d 31", &paths, None, &said);
    let set = Dump::open_set(&[&parts[2], &parts[0], &parts[1]]).unwrap();
    assert!(!set.is_incomplete());
    assert_eq!(digest(&set), expect);
    let [first, others @ ..] = &parts[..] else { unreachable!("three files") };
    let mut command = Command::new(KDUMP_RS);
    command.args(["capture", "--digest"]).arg(first);
    others.iter().for_each(|other| _ = command.arg("--with").arg(other));
    let printed = String::from_utf8(command.output().unwrap().stdout).unwrap();
    assert!(printed.contains(&expect.sha256), "{printed}");
    let alone: u64 = parts.iter().map(|p| digest_of(p).pages).sum();
    assert_eq!(alone, expect.pages);

    // What we wrote, filtered once more by makedumpfile.
    for compression in ["lzo", "zlib", "zstd"] {
        let ours = cycle.filter_again(1, "kdump", compression);
        let again = dir.join("again");
        let _ = std::fs::remove_file(&again);
        makedumpfile("-z -d 31", &[&ours, &again], None, &said);
        assert_eq!(digest_of(&again), expect, "{compression}");
        std::fs::remove_file(ours).unwrap();
    }
}

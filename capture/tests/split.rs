//! Split dumps, written and put together again.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs::File;
use std::path::PathBuf;

use kdump_capture::digest::logical_digest;
use kdump_capture::estimate::Estimate;
use kdump_capture::{DumpLevel, Options, Output, Plan, Wanted, capture, write_split};
use kdump_synth::Machine;
use kdump_vmcore::Dump;

fn machines() -> [Machine; 3] {
    [Machine::linux_5_10(), Machine::linux_6_12(), Machine::linux_7_3()]
}

fn options(level: u32) -> Options {
    let selection = DumpLevel::new(level).unwrap().into();
    Options { wanted: Wanted { selection, ..Wanted::default() }, ..Options::default() }
}

fn create(path: &PathBuf) -> File {
    File::options().read(true).write(true).create(true).truncate(true).open(path).unwrap()
}

#[test]
fn parts_have_as_many_pages_each_and_are_one_dump() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: String| dir.path().join(name);
    for machine in machines() {
        std::fs::write(path("source".into()), machine.elf_core().bytes()).unwrap();
        let source = Dump::open(&path("source".into())).unwrap();
        for (level, numbers) in [(0, &[3][..]), (31, &[1, 2, 200])] {
            let whole = path("whole".into());
            capture(&source, &options(level), Output::File(&create(&whole)), &mut |_| ()).unwrap();
            let expect = logical_digest(&Dump::open(&whole).unwrap()).unwrap();
            // With more parts than there are chunks of pages some are empty.
            for &nr in numbers {
                let paths: Vec<_> = (0..nr).map(|i| path(format!("part-{i}"))).collect();
                let files: Vec<_> = paths.iter().map(create).collect();
                let outs: Vec<&File> = files.iter().collect();
                let plan = Plan::new(&source, &options(level).wanted).unwrap();
                let mut last = None;
                let summary = write_split(plan, &options(level), &outs, &mut |p| last = Some(p)).unwrap();
                assert_eq!(summary.written, expect.pages);
                assert_eq!(last.unwrap().done, expect.pages);
                let bytes: u64 = files.iter().map(|file| file.metadata().unwrap().len()).sum();
                assert_eq!(summary.bytes, bytes);

                let set = Dump::open_set(&paths).unwrap();
                assert!(!set.is_incomplete(), "{nr} parts at level {level}");
                assert_eq!(logical_digest(&set).unwrap(), expect, "{nr} parts at level {level}");
                let share = expect.pages / nr;
                for path in &paths {
                    let part = Dump::open(path).unwrap();
                    let (start, end) = part.kdump().unwrap().info().split.unwrap();
                    let pages = part.kdump().unwrap().dumped().count_in(start, end);
                    assert!(pages.abs_diff(share) <= 256, "{pages} of {share}");
                }
            }
        }
    }
}

/// Check against what is then written. A synthetic machine has few pages: all of them are read.
#[test]
fn an_estimate_foretells_pages_and_nearly_the_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("source"), dir.path().join("out"));
    for machine in machines() {
        std::fs::write(&from, machine.elf_core().bytes()).unwrap();
        let source = Dump::open(&from).unwrap();
        let estimate = Estimate::of_dump(&source, &options(31)).unwrap();
        assert!(estimate.troubles.is_empty(), "{:?}", estimate.troubles);
        for level in [0, 1, 16, 30, 31] {
            let predicted = estimate.predict(DumpLevel::new(level).unwrap().into());
            let out = create(&to);
            let written = capture(&source, &options(level), Output::File(&out), &mut |_| ()).unwrap();
            assert_eq!(predicted.pages, written.written, "level {level}");
            if level & 1 == 1 {
                assert!(predicted.zero.abs_diff(written.zero) <= written.zero / 20 + 1, "{predicted:?}");
            }
            let off = predicted.bytes.abs_diff(written.bytes);
            assert!(off * 10 <= written.bytes, "level {level}: {predicted:?}, {} written", written.bytes);
        }
    }
}

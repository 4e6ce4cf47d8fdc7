//! Synthetic machines of four kernels: what is decided, what is written, what is read back.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use kdump_arch_x86::{PAGE_SIZE, PhysAddr};
use kdump_capture::classify::TypeFacts;
use kdump_capture::decide::{Decider, Decision};
use kdump_capture::digest::logical_digest;
use kdump_capture::filter::{Filter, PART};
use kdump_capture::source::SourceMap;
use kdump_capture::{DumpLevel, Kinds, Options, Output, OutputFormat, Selection, Summary, Wanted, capture};
use kdump_synth::Machine;
use kdump_vmcore::kdump::Compression;
use kdump_vmcore::{Dump, PhysMem as _, ReadError};
use tempfile::TempDir;

fn machines() -> [(&'static str, Machine); 4] {
    [
        ("5.10", Machine::linux_5_10()),
        ("6.1", Machine::linux_6_1()),
        ("6.12", Machine::linux_6_12()),
        ("7.3", Machine::linux_7_3()),
    ]
}

fn open(dir: &TempDir, name: &str, bytes: &[u8]) -> Dump {
    let path = dir.path().join(name);
    File::create(&path).unwrap().write_all(bytes).unwrap();
    Dump::open(&path).unwrap()
}

fn level(level: u32) -> Selection {
    DumpLevel::new(level).unwrap().into()
}

fn wanting(selection: Selection, workers: usize) -> Options {
    let workers = std::num::NonZeroUsize::new(workers);
    Options { wanted: Wanted { selection, workers, ..Wanted::default() }, ..Options::default() }
}

/// What is decided of all of memory.
fn decide(dump: &Dump, name: &str, selection: Selection) -> Decision {
    let map = SourceMap::new(dump);
    let max_phys = PhysAddr(map.end() * PAGE_SIZE);
    let filter = Filter::new(dump, dump.vmcoreinfo(), TypeFacts::default(), max_phys, selection);
    assert_eq!(filter.missing, [], "{name}");
    assert!(filter.troubles.is_empty(), "{name}: {:?}", filter.troubles);
    let mut kept = None;
    Decider::new(dump, map, filter, 2, u64::MAX / 2).first_sweep(|d| kept = Some(d.clone()));
    let kept = kept.unwrap();
    assert!(kept.troubles.is_empty(), "{name}: {:?}", kept.troubles);
    kept
}

fn write(dump: &Dump, path: &Path, options: &Options) -> (Summary, Dump) {
    let out = File::options().read(true).write(true).create(true).truncate(true).open(path).unwrap();
    let summary = capture(dump, options, Output::File(&out), &mut |_| ()).unwrap();
    (summary, Dump::open(path).unwrap())
}

fn frames(machine: &Machine) -> impl Iterator<Item = u64> {
    machine.spec.ram.iter().flat_map(|&(start, end)| start / PAGE_SIZE..end / PAGE_SIZE)
}

/// Check each of the 32 levels on each kernel, page by page, against the machine's own account.
#[test]
fn every_level_leaves_out_what_it_should_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    for (name, machine) in machines() {
        let dump = open(&dir, name, &machine.elf_core().bytes());
        for bits in 0..32 {
            let decided = decide(&dump, name, level(bits));
            for pfn in frames(&machine) {
                let expect = !machine.is_excluded(pfn, bits & !1);
                assert_eq!(decided.dumped.get(pfn), expect, "{name}, level {bits}, frame {pfn:#x}");
            }
        }
    }
}

#[test]
fn what_is_written_reads_back_in_every_format() {
    let dir = tempfile::tempdir().unwrap();
    for (name, machine) in machines() {
        let source = open(&dir, name, &machine.elf_core().bytes());
        for (format, compression) in [
            (OutputFormat::Kdump, Compression::Zstd),
            (OutputFormat::Kdump, Compression::Zlib),
            (OutputFormat::Kdump, Compression::None),
            (OutputFormat::Elf, Compression::None),
        ] {
            let options = Options { format, compression, digests: true, ..Options::default() };
            let (summary, written) = write(&source, &dir.path().join("out"), &options);
            assert!(summary.is_complete());
            assert_eq!(summary.digests.iter().map(|d| d.length).sum::<u64>(), summary.bytes);
            assert_eq!(written.notes(), source.notes());
            assert_eq!(
                written.ram().iter().map(|r| r.len()).sum::<u64>(),
                frames(&machine).count() as u64 * 4096
            );
            let (mut page, mut expect) = ([0; 4096], [0; 4096]);
            for pfn in frames(&machine) {
                let at = PhysAddr(pfn * PAGE_SIZE);
                // Zero-filled pages read as such in both formats.
                let level = 30;
                let result = written.read(at, &mut page);
                if machine.is_excluded(pfn, level) {
                    assert!(matches!(result, Err(ReadError::Excluded { .. })), "{name} {pfn:#x}: {result:?}");
                } else {
                    result.unwrap_or_else(|e| panic!("{name} {pfn:#x}: {e}"));
                    source.read(at, &mut expect).unwrap();
                    assert_eq!(page, expect, "{name} {pfn:#x}");
                }
            }
        }
    }
}

/// Check that the header says what crash(8) and makedumpfile look for.
#[test]
fn the_header_names_the_crashed_kernel() {
    let dir = tempfile::tempdir().unwrap();
    for (name, machine) in machines() {
        let source = open(&dir, name, &machine.elf_core().bytes());
        let (_, written) = write(&source, &dir.path().join("out"), &Options::default());
        let info = written.kdump().unwrap().info();
        assert_eq!(Some(info.release().as_str()), source.vmcoreinfo().unwrap().osrelease(), "{name}");
        assert!(info.utsname.machine.starts_with(b"x86_64\0"));
        assert_eq!(info.nr_cpus as usize, source.prstatus().len());
        assert_eq!((info.dump_level, info.is_incomplete), (Some(31), false));
    }
}

/// Check that a dump of a dump is what a dump of the source would have been, to the byte, for any
/// number of threads.
#[test]
fn refiltering_equals_filtering() {
    let dir = tempfile::tempdir().unwrap();
    let (_, machine) = machines().into_iter().next_back().unwrap();
    let source = open(&dir, "source", &machine.elf_core().bytes());
    write(&source, &dir.path().join("direct"), &wanting(level(31), 1));
    let (_, whole) = write(&source, &dir.path().join("whole"), &wanting(level(1), 3));
    write(&whole, &dir.path().join("again"), &wanting(level(31), 2));
    let bytes = |name: &str| std::fs::read(dir.path().join(name)).unwrap();
    assert!(bytes("direct") == bytes("again"));

    // All but the broken and the offline pages, which no level keeps.
    assert_eq!(logical_digest(&whole).unwrap().pages, decide(&source, "source", level(1)).dumped.count());
    assert_eq!(logical_digest(&source).unwrap().pages, frames(&machine).count() as u64);
}

/// Check that a machine gone through in windows gives the same file, whatever was read first.
#[test]
fn windows_change_nothing_of_what_is_written() {
    let dir = tempfile::tempdir().unwrap();
    for (name, machine) in machines() {
        let source = open(&dir, name, &machine.elf_core().bytes());
        let nr_windows = source.ram().last().unwrap().end().0.div_ceil(PART * PAGE_SIZE);
        assert!(nr_windows > 1, "{name}: {nr_windows} windows");
        for format in [OutputFormat::Kdump, OutputFormat::Elf] {
            let written = [PART, u64::MAX / 2].map(|window| {
                let options = Options { format, ..wanting(level(31), 2) };
                let wanted = Wanted { window, first: vec![(0x100, 0x140)], ..options.wanted };
                write(&source, &dir.path().join("out"), &Options { wanted, ..options });
                std::fs::read(dir.path().join("out")).unwrap()
            });
            // An ELF core's segments end with windows.
            if format == OutputFormat::Kdump {
                assert!(written[0] == written[1], "{name}");
            }
            std::fs::write(dir.path().join("windowed"), &written[0]).unwrap();
            let [windowed, whole] = ["windowed", "out"]
                .map(|n| logical_digest(&Dump::open(&dir.path().join(n)).unwrap()).unwrap());
            assert_eq!(windowed, whole, "{name}");
        }
    }
}

/// Check that what a report needs lies before all other pages, and kernel objects before the rest.
#[test]
fn pages_are_written_in_order_of_worth() {
    let dir = tempfile::tempdir().unwrap();
    let machine = Machine::linux_6_12();
    let source = open(&dir, "source", &machine.elf_core().bytes());
    let decided = decide(&source, "source", level(0));
    let dumped: Vec<u64> = decided.dumped.runs().flat_map(|(s, e)| s..e).collect();
    let last = *dumped.last().unwrap();
    let mut options = wanting(level(0), 2);
    options.wanted.first = vec![(last, last + 1)];
    options.compression = Compression::None;
    let (summary, written) = write(&source, &dir.path().join("out"), &options);
    assert_eq!(summary.census.worth[0], 1);
    let file = std::fs::read(dir.path().join("out")).unwrap();
    let mut page = [0; 4096];
    written.read(PhysAddr(last * PAGE_SIZE), &mut page).unwrap();
    let data_at = file.len() - summary.written as usize * 4096;
    assert!(file[data_at..data_at + 4096] == page, "the page that was asked for comes first");
    let slabs = summary.census.worth[1] as usize;
    assert!(slabs > 0);
    let first_slab = dumped.iter().copied().find(|&pfn| machine.is_slab(pfn)).unwrap();
    written.read(PhysAddr(first_slab * PAGE_SIZE), &mut page).unwrap();
    assert!(file[data_at + 4096..data_at + 8192] == page, "the first slab follows");
}

/// Check classes by name: kept and left out in spite of the level.
#[test]
fn kinds_are_kept_and_dropped_by_name() {
    let dir = tempfile::tempdir().unwrap();
    for (name, machine) in machines() {
        let dump = open(&dir, name, &machine.elf_core().bytes());
        let kinds = |names: &[&str]| Kinds::parse(names).unwrap();
        let with_anon = Selection { keep: kinds(&["anon"]), ..level(31) };
        let without_slab = Selection { drop: kinds(&["slab"]), ..level(0) };
        let (kept, dropped) = (decide(&dump, name, with_anon), decide(&dump, name, without_slab));
        let (less, all) = (decide(&dump, name, level(31)), decide(&dump, name, level(0)));
        assert!(kept.dumped.count() > less.dumped.count(), "{name}");
        assert!(dropped.dumped.count() < all.dumped.count(), "{name}");
        for pfn in frames(&machine) {
            assert!(!machine.is_slab(pfn) || !dropped.dumped.get(pfn), "{name}, frame {pfn:#x}");
        }
    }
}

/// Check that pages another program left out stay left out, and that its formats are read.
#[test]
fn pages_absent_in_the_source_stay_absent() {
    let dir = tempfile::tempdir().unwrap();
    for (name, machine) in machines() {
        let filtered = open(&dir, name, &machine.kdump_at_level(31).bytes());
        let (summary, written) = write(&filtered, &dir.path().join("out"), &wanting(level(0), 2));
        assert!(summary.census.absent > 0, "{name}");
        assert_eq!(summary.census.missing, [], "{name}");
        assert_eq!(logical_digest(&written).unwrap(), logical_digest(&filtered).unwrap(), "{name}");
        assert_eq!(written.kdump().unwrap().info().dump_level, Some(31), "{name}");
        assert_eq!(summary.census.source_level, DumpLevel::new(31), "{name}");
    }
}

/// Check that a source cut short yields its pages, a count of the lost ones, and a marked file.
#[test]
fn a_cut_source_is_dumped_as_far_as_it_goes() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = Machine::linux_6_12().kdump().compression(kdump_synth::Compression::None).bytes();
    let cut = open(&dir, "cut", &bytes[..bytes.len() / 2]);
    let (summary, written) = write(&cut, &dir.path().join("out"), &wanting(level(0), 2));
    assert!(summary.nr_lost > 0 && !summary.is_complete(), "{} lost", summary.nr_lost);
    assert!(summary.written > 0);
    assert!(written.kdump().unwrap().info().is_incomplete);
    let (before, after) = (logical_digest(&cut).unwrap(), logical_digest(&written).unwrap());
    assert_eq!(after.lost, summary.nr_lost);
    assert!(after.pages <= before.pages);
}

/// Check that the mark of an unfinished source goes on to what is made of it, though no page is lost.
#[test]
fn a_source_marked_incomplete_gives_a_marked_dump() {
    let dir = tempfile::tempdir().unwrap();
    let machine = Machine::linux_6_12();
    let mut elf = machine.elf_core().bytes();
    elf[48] |= 1; // e_flags
    let mut kdump = machine.kdump().bytes();
    kdump[0x1a8] |= 8; // status
    for (name, bytes) in [("elf", elf), ("kdump", kdump)] {
        let source = open(&dir, name, &bytes);
        for format in [OutputFormat::Kdump, OutputFormat::Elf] {
            let options = Options { format, ..Options::default() };
            let (summary, written) = write(&source, &dir.path().join("out"), &options);
            assert!(summary.nr_lost == 0 && !summary.is_complete(), "{name}");
            assert!(written.is_incomplete(), "{name}");
            assert!(summary.census.troubles.iter().any(|t| t.contains("source is incomplete")), "{name}");
        }
    }
}

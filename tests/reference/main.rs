//! What we stage for the time after a panic beside what kexec-tools stages, from the same arguments in the same guest:
//! boot_params with its memory map, and elfcorehdr, field by field. Each difference has its reason in a table here; one
//! that is not there fails the test, and so does one that is there and not seen.
//!
//! Needs QEMU, the kernels and kexec-tools of Debian sid (scripts/fetch-kexec-tools.sh); `make test` runs this test, a
//! plain `cargo test` lists it as ignored.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../common/mod.rs"]
mod common;
mod staged;

use std::collections::BTreeSet;

use kdump_rehearse::{Held, Plan, Progress, Scene};

use common::{KDUMP_RS, cache, scratch};
use staged::{Facts, Staged};

/// What kexec-tools says of where boot_params is.
const BOOT_PARAMS: &str = "Loaded real_mode_data and command line at 0x";

/// A difference: the fact's name, ours and theirs (`-` for none, `*` for any text), and why it is good.
struct Expected(&'static str, &'static str, &'static str, &'static str);

const DIFFERENCES: [Expected; 19] = [
    Expected(
        "PT_LOAD 0x1000+0x9ec00",
        "-",
        "flags 7 *",
        "kexec-tools' purgatory saves the first 640 KiB and the copy is dumped; kernels from 5.13 on keep nothing there, \
         and their own loader leaves them out as we do",
    ),
    Expected("PT_NOTE *+0x1000", "flags 0 *", "-", "our panic record"),
    Expected(
        "command line",
        "kdump-rs.record=0x* console=ttyS0,115200 nr_cpus=1 reset_devices",
        "console=ttyS0,115200 nr_cpus=1 reset_devices acpi_rsdp=0x*",
        "ours says where the panic record is; theirs where the ACPI root is, which a kernel finds by itself with a BIOS, \
         and we put into boot_params where firmware is of the EFI kind",
    ),
    Expected("e820_entries", "0xa", "0x9", "what differs in memory, below"),
    Expected(
        "memory 0x9f000-0x9fc00",
        "-",
        "0x1",
        "we give RAM in whole pages, which is all that a kernel uses of it",
    ),
    Expected(
        "memory of our record and elfcorehdr",
        "0x2",
        "0x1",
        "reserved and not a gap, so that /dev/mem shows the record; elfcorehdr as large as crash hotplug wants it",
    ),
    Expected(
        "memory of their elfcorehdr and backup",
        "0x1",
        "-",
        "theirs, kept from the kernel as a gap; we have RAM there",
    ),
    Expected("edid_info", "13*", "0", "the running kernel's; kexec-tools passes none on"),
    Expected(
        "hdr.boot_flag",
        "0xaa55",
        "0x55",
        "kexec-tools clears the byte of protocol 2.00 that said whether there is a mouse, and is half of this field now",
    ),
    Expected("hdr.cmd_line_ptr", "0x*", "0x*", "each has its own place"),
    Expected("hdr.ramdisk_image", "0x*", "0x*", "each has its own place"),
    Expected("hdr.loadflags", "0x1", "0", "the image's own: code that runs in real mode alone looks at it"),
    Expected("hdr.root_dev", "0", "0x300", "kexec-tools presets /dev/hda, we leave it to root="),
    Expected("hdr.root_flags", "0x1", "0xffff", "read-only, both; ours is the image's own"),
    Expected("hdr.setup_data", "0", "0x*", "as setup_data"),
    Expected(
        "setup_data",
        "-",
        "type 9 of 32 bytes",
        "a seed for the random numbers of a kernel that takes a dump and reboots: it needs none from us",
    ),
    Expected("screen_info.cl_magic", "0", "0xa33f", "the way to the command line before protocol 2.02"),
    Expected("screen_info.cl_offset", "0", "0x*", "the way to the command line before protocol 2.02"),
    Expected(
        "screen_info.ext_mem_k",
        "0xfc00",
        "0",
        "the running kernel's screen_info, whole; as a size of memory it is not looked at where there is a memory map",
    ),
];

/// Reads what was staged each time that the guest waits: ours, then theirs.
#[derive(Default)]
struct Both {
    theirs_at: Option<u64>,
    staged: Vec<Staged>,
    /// Our record, elfcorehdr and the room that it may grow into.
    our_kept: (u64, u64),
}

impl Progress for Both {
    fn line(&mut self, line: &str) {
        if let Some((_, at)) = line.split_once(BOOT_PARAMS) {
            self.theirs_at = u64::from_str_radix(at.trim(), 16).ok();
        }
    }

    fn held(&mut self, guest: &Held<'_>) {
        let ours = |tag| guest.staged(tag).unwrap().start;
        let at = match self.staged.is_empty() {
            true => ours("boot_params"),
            false => self.theirs_at.expect("kexec-tools said where boot_params is"),
        };
        self.our_kept = (ours("record"), ours("parity"));
        self.staged.push(staged::read(guest, at));
    }
}

#[test]
#[ignore = "boots a kernel in QEMU; `make test` runs it"]
fn every_difference_from_kexec_tools_has_a_reason() {
    let tools = cache().join("kexec-tools");
    let version = std::fs::read_to_string(tools.join("version"));
    let version = version.unwrap_or_else(|_| panic!("run scripts/fetch-kexec-tools.sh"));
    println!("beside {}", version.trim());
    let out = scratch("reference");
    let initrd = out.with_extension("initrd");
    std::fs::write(&initrd, vec![0x5a; 300_000]).unwrap();
    let kernels = cache().join("kernels/6.12");
    let release = std::fs::read_to_string(kernels.join("release")).unwrap();
    let arguments = [
        "--load-panic",
        "--kexec-syscall",
        "--debug",
        "--command-line=console=ttyS0,115200 nr_cpus=1 reset_devices",
        "--initrd=/boot/given",
    ];
    let image = format!("/boot/vmlinuz-{}", release.trim());
    let command = |program: &str| -> Vec<String> {
        [program].iter().chain(&arguments).map(|&word| word.to_owned()).chain([image.clone()]).collect()
    };
    let mut files = vec![("boot/given".to_owned(), initrd), ("usr/sbin/kexec".to_owned(), KDUMP_RS.into())];
    files.push(("opt/kexec".to_owned(), tools.join("root/sbin/kexec")));
    for dir in ["lib64", "lib/x86_64-linux-gnu"] {
        for file in std::fs::read_dir(tools.join("root").join(dir)).unwrap().flatten() {
            files.push((format!("{dir}/{}", file.file_name().to_string_lossy()), file.path()));
        }
    }
    let scene = Scene {
        is_held: true,
        files,
        loader: command("/usr/sbin/kexec"),
        second_loader: command("/opt/kexec"),
        stop_at: Some("kdump-rs-rehearse: crash sysrq".to_owned()),
        ..Scene::default()
    };
    let plan = Plan { scene, ..Plan::new(kernels.join("vmlinuz"), common::programs(), out.clone()) };
    let mut both = Both::default();
    let result = plan.run(&mut both);
    let serial = String::from_utf8_lossy(&std::fs::read(out.join("serial.log")).unwrap()).into_owned();
    let [ours, theirs] = both.staged.as_mut_slice() else { panic!("{}\n{serial}", result.err().unwrap()) };
    assert!(theirs.memory.len() > 4, "{:x?}", theirs.memory);
    assert!(
        theirs.facts.keys().filter(|name| name.starts_with("PT_LOAD ")).count() > 2,
        "{:#?}",
        theirs.facts
    );
    let backup = theirs.low_copy.expect("a copy of the first MiB").1;
    let named = [
        ("our record and elfcorehdr", both.our_kept),
        ("their elfcorehdr and backup", (theirs.elfcorehdr, backup)),
    ];
    compare_memory(ours, theirs, &named);
    compare(&ours.facts, &theirs.facts);
}

/// Adds a fact for each stretch of memory that the two maps differ in.
fn compare_memory(ours: &mut Staged, theirs: &mut Staged, named: &[(&str, (u64, u64))]) {
    let all = || ours.memory.iter().chain(&theirs.memory);
    let borders: BTreeSet<u64> = all().flat_map(|(start, end, _)| [*start, *end]).collect();
    let borders: Vec<_> = borders.into_iter().collect();
    let kind_at = |map: &[(u64, u64, u32)], at: u64| {
        map.iter().find(|(start, end, _)| (*start..*end).contains(&at)).map_or(0, |(.., kind)| *kind)
    };
    let mut differ: Vec<(u64, u64, [u32; 2])> = Vec::new();
    for pair in borders.windows(2) {
        let kinds = [kind_at(&ours.memory, pair[0]), kind_at(&theirs.memory, pair[0])];
        match differ.last_mut() {
            _ if kinds[0] == kinds[1] => {}
            Some(last) if last.1 == pair[0] && last.2 == kinds => last.1 = pair[1],
            _ => differ.push((pair[0], pair[1], kinds)),
        }
    }
    for (start, end, [our, their]) in differ {
        let name = match named.iter().find(|(_, range)| *range == (start, end)) {
            Some((name, _)) => format!("memory of {name}"),
            None => format!("memory {start:#x}-{end:#x}"),
        };
        for (staged, kind) in [(&mut *ours, our), (&mut *theirs, their)] {
            if kind != 0 {
                staged.facts.insert(name.clone(), format!("{kind:#x}"));
            }
        }
    }
}

fn compare(ours: &Facts, theirs: &Facts) {
    let mut unexplained = Vec::new();
    let mut seen = BTreeSet::new();
    let names: BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
    for name in names {
        let value = |facts: &Facts| facts.get(name).map_or("-".to_owned(), Clone::clone);
        let (our, their) = (value(ours), value(theirs));
        if our == their {
            continue;
        }
        let fits = |pattern: &str, text: &str| match pattern.split_once('*') {
            Some((start, end)) => text.strip_prefix(start).is_some_and(|rest| rest.ends_with(end)),
            None => text == pattern,
        };
        let found = DIFFERENCES.iter().position(|Expected(named, ours, theirs, _)| {
            fits(named, name) && fits(ours, &our) && fits(theirs, &their)
        });
        match found {
            Some(nr) => {
                println!("{name}: {our} beside {their}: {}", DIFFERENCES[nr].3);
                seen.insert(nr);
            }
            None => unexplained.push(format!("{name}: {our} beside {their}")),
        }
    }
    assert!(unexplained.is_empty(), "differences without a reason:\n{}", unexplained.join("\n"));
    let unseen = (0..DIFFERENCES.len()).filter(|nr| !seen.contains(nr)).map(|nr| DIFFERENCES[nr].0);
    assert_eq!(unseen.collect::<Vec<_>>(), [""; 0], "in the table, and not seen");
}

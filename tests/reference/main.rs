//! What we stage for the time after a panic beside what kexec-tools stages, from the same arguments in the same guest:
//! boot_params with its memory map, and elfcorehdr, field by field. Each difference has its reason in a table here; one
//! that is not there fails the test, and so does one that is there and not seen.
//!
//! Needs QEMU, the kernels and kexec-tools of Debian sid (scripts/fetch-kexec-tools.sh); `make test` runs this test, a
//! plain `cargo test` lists it as ignored.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod staged;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use kdump_rehearse::{Held, Plan, Programs, Progress, Scene};
use staged::Facts;

const KDUMP_RS: &str = env!("CARGO_BIN_EXE_kdump-rs");
const KDUMP_INIT: &str = env!("CARGO_BIN_EXE_kdump-init");

/// What kexec-tools says of where boot_params is.
const BOOT_PARAMS: &str = "Loaded real_mode_data and command line at 0x";

/// A difference: the fact's name up to `*`, ours and theirs (`-` for none, `*` for anything), and why it is good.
struct Expected(&'static str, &'static str, &'static str, &'static str);

const DIFFERENCES: [Expected; 0] = [];

/// Reads what was staged each time that the guest waits: ours, then theirs.
#[derive(Default)]
struct Both {
    theirs_at: Option<u64>,
    staged: Vec<Facts>,
}

impl Progress for Both {
    fn line(&mut self, line: &str) {
        if let Some((_, at)) = line.split_once(BOOT_PARAMS) {
            self.theirs_at = u64::from_str_radix(at.trim(), 16).ok();
        }
    }

    fn held(&mut self, guest: &Held<'_>) {
        let at = match self.staged.is_empty() {
            true => guest.staged("boot_params").unwrap().start,
            false => self.theirs_at.expect("kexec-tools said where boot_params is"),
        };
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
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("reference");
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
    let programs = Programs { kdump_rs: KDUMP_RS.into(), kdump_init: KDUMP_INIT.into() };
    let plan = Plan { scene, ..Plan::new(kernels.join("vmlinuz"), programs, out.clone()) };
    let mut both = Both::default();
    let result = plan.run(&mut both);
    let serial = String::from_utf8_lossy(&std::fs::read(out.join("serial.log")).unwrap()).into_owned();
    let [ours, theirs] = both.staged.as_slice() else { panic!("{}\n{serial}", result.err().unwrap()) };
    assert!(theirs.keys().filter(|name| name.starts_with("e820 ")).count() > 4, "{theirs:#?}");
    assert!(theirs.keys().filter(|name| name.starts_with("PT_LOAD ")).count() > 2, "{theirs:#?}");
    compare(ours, theirs);
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
        let fits = |pattern: &str, text: &str| match pattern.strip_suffix('*') {
            Some(start) => text.starts_with(start),
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

fn cache() -> PathBuf {
    let base = match std::env::var_os("XDG_CACHE_HOME") {
        Some(dir) if !dir.is_empty() => PathBuf::from(dir),
        _ => PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache"),
    };
    base.join("kdump-rs")
}

//! One guest: how it is damaged, and how it has to end.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use kdump_rehearse::{Error, Held, Phase, Plan, Programs, Progress, Scene};
use serde_json::Value;

const KDUMP_RS: &str = env!("CARGO_BIN_EXE_kdump-rs");
const KDUMP_INIT: &str = env!("CARGO_BIN_EXE_kdump-init");

/// Guests take two CPUs each: one after the other is as fast as all at once, and steadier.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// What is done to the guest's memory: every byte inverted, or one bit.
#[derive(Clone, Copy, Debug)]
pub enum Damage {
    /// A bit of the byte at an offset of what was staged under a name.
    Bit(&'static str, u64),
    /// Bytes from an offset on.
    Bytes(&'static str, u64, u64),
    /// Bytes from so far before its end on.
    BytesBeforeEnd(&'static str, u64, u64),
}

/// How it ends.
#[derive(Clone, Copy, Debug)]
pub enum End {
    /// A complete dump, and a record of what was repaired: regions and their pages; 0 for some.
    Captured {
        repaired: &'static [(&'static str, u64)],
    },
    /// A complete dump in spite of damage.
    CapturedDamaged,
    /// A complete dump in spite of an exception.
    CapturedAfterException {
        vector: u64,
    },
    Reset,
    Halted,
}

/// A row.
pub struct Case<'a> {
    pub kernel: &'static str,
    pub cpu: Option<&'static str>,
    pub panic_cpu: Option<u32>,
    /// Taken offline and back after arming.
    pub toggled_cpu: Option<u32>,
    pub arm: &'a [&'a str],
    pub damage: &'a [Damage],
    /// What the console says, in this order, after the crash.
    pub says: &'a [&'a str],
    /// What it must not say after that.
    pub never: &'a [&'a str],
    pub end: End,
}

impl Case<'static> {
    pub const NEW: Self = Self {
        kernel: "6.12",
        cpu: None,
        panic_cpu: None,
        toggled_cpu: None,
        arm: &[],
        damage: &[],
        says: &[],
        never: &[],
        end: End::Reset,
    };
}

impl Case<'_> {
    /// Runs the guest and holds its end against the row.
    pub fn run(&self) {
        let _lock = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let kernel = cache().join("kernels").join(self.kernel).join("vmlinuz");
        assert!(kernel.exists(), "{} is missing: run scripts/fetch-kernel.sh", kernel.display());
        let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("panic-path");
        let programs = Programs { kdump_rs: KDUMP_RS.into(), kdump_init: KDUMP_INIT.into() };
        let plan = Plan {
            cpu: self.cpu.map(str::to_owned),
            arm: self.arm.iter().map(|&a| a.to_owned()).collect(),
            scene: Scene {
                is_held: true,
                panic_cpu: self.panic_cpu,
                toggled_cpu: self.toggled_cpu,
                stop_at: matches!(self.end, End::Halted).then(|| "panic-kernel: halted".to_owned()),
                ..Scene::default()
            },
            ..Plan::new(kernel, programs, out.clone())
        };
        let mut hand = Hand { damage: self.damage, was_held: false };
        let result = plan.run(&mut hand);
        let serial = std::fs::read(out.join("serial.log")).unwrap();
        let serial = String::from_utf8_lossy(&serial);
        assert!(hand.was_held, "the guest was never armed: {serial}");
        self.check_console(&serial);
        match (result, self.end) {
            (
                Ok(outcome),
                End::Captured { .. } | End::CapturedDamaged | End::CapturedAfterException { .. },
            ) => {
                assert!(outcome.dump_dir.join("manifest.json").exists());
                self.check_record(&outcome.dump_dir);
            }
            (Err(Error::Phase { phase: Phase::PanicKernel | Phase::Panic, why, .. }), End::Reset) => {
                assert_eq!(why, "the guest reset", "{serial}");
            }
            (Err(Error::Phase { phase: Phase::PanicKernel, why, .. }), End::Halted) => {
                assert!(why.contains("where it was to be stopped"), "{why}");
            }
            (Ok(_), end) => panic!("it was captured, expected {end:?}: {serial}"),
            (Err(error), end) => panic!("{error}, expected {end:?}: {serial}"),
        }
    }

    fn check_console(&self, serial: &str) {
        let mut rest = serial.split_once("let go: go").unwrap().1;
        for text in self.says {
            let (_, after) =
                rest.split_once(text).unwrap_or_else(|| panic!("no {text:?} (in this order) in {serial}"));
            rest = after;
        }
        for text in self.never {
            assert!(!rest.contains(text), "{text:?} in {serial}");
        }
    }

    /// The record came through the capture kernel into the report that was made there.
    fn check_record(&self, dump_dir: &Path) {
        let report = std::fs::read(dump_dir.join("report.json")).unwrap();
        let report: Value = serde_json::from_slice(&report).unwrap();
        let path = &report["panic_path"]["data"];
        // And into the dump, for whoever looks later.
        let view = Command::new(KDUMP_RS)
            .args(["analyze", "--json"])
            .arg(dump_dir.join("vmcore"))
            .arg("panic-path")
            .output()
            .unwrap();
        let view: Value = serde_json::from_slice(&view.stdout).unwrap();
        assert_eq!(&view["data"], path);
        assert_eq!((&path["intact"], &path["complete"]), (&true.into(), &true.into()), "{path:#}");
        match self.end {
            End::Captured { repaired } => {
                let regions: Vec<_> = path["regions"].as_array().unwrap().iter().collect();
                let found: Vec<_> = regions.iter().filter(|r| r["outcome"] != "ok").collect();
                assert_eq!(found.len(), repaired.len(), "{path:#}");
                for (tag, pages) in repaired {
                    let region = found.iter().find(|r| r["tag"] == *tag).unwrap();
                    assert_eq!(region["outcome"], "repaired");
                    let nr = region["repaired_pages"].as_u64().unwrap();
                    assert!(nr == *pages || *pages == 0 && nr > 0, "{region:#}");
                }
                assert_eq!(path["booted_damaged"], false);
            }
            End::CapturedDamaged => assert_eq!(path["booted_damaged"], true),
            End::CapturedAfterException { vector } => {
                assert_eq!(path["exceptions"][0]["vector"], vector);
            }
            End::Reset | End::Halted => unreachable!("there is no dump"),
        }
    }
}

/// Does the damage.
struct Hand<'a> {
    damage: &'a [Damage],
    was_held: bool,
}

impl Progress for Hand<'_> {
    fn held(&mut self, guest: &Held<'_>) {
        self.was_held = true;
        let of = |tag: &str| guest.staged(tag).unwrap_or_else(|| panic!("no {tag} in {:?}", guest.staged));
        for damage in self.damage {
            let (start, len, mask) = match *damage {
                Damage::Bit(tag, at) => (of(tag).start + at, 1, 0x10),
                Damage::Bytes(tag, at, len) => (of(tag).start + at, len, 0xff),
                Damage::BytesBeforeEnd(tag, before, len) => (of(tag).start + of(tag).len - before, len, 0xff),
            };
            let mut bytes = vec![0; len as usize];
            guest.read(start, &mut bytes).unwrap();
            assert!(bytes.iter().any(|&byte| byte != 0) || len == 1, "{damage:?} hits nothing");
            for byte in &mut bytes {
                *byte ^= mask;
            }
            guest.write(start, &bytes).unwrap();
        }
    }
}

/// Where the scripts put kernels.
fn cache() -> PathBuf {
    let base = match std::env::var_os("XDG_CACHE_HOME") {
        Some(dir) if !dir.is_empty() => PathBuf::from(dir),
        _ => PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache"),
    };
    base.join("kdump-rs")
}

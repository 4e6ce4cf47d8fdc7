//! One guest: how it is damaged, and how it has to end.

use std::path::Path;
use std::process::Command;

use kdump_rehearse::{Error, Held, Outcome, Phase, Plan, Progress, Scene};
use serde_json::Value;

use crate::common::{self, KDUMP_RS, Turn};

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
#[derive(Clone, Copy)]
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

/// A guest whose turn it is.
pub struct Guest {
    kernel: &'static str,
    pub cpu: Option<&'static str>,
    turn: Turn,
}

/// What came of it.
pub struct Ended {
    pub result: Result<Outcome, Error>,
    /// All that was on its console.
    pub serial: String,
}

impl Guest {
    pub fn wait(kernel: &'static str) -> Self {
        Self { kernel, cpu: None, turn: Turn::wait() }
    }

    pub fn run(&self, arm: &[&str], scene: Scene, progress: &mut dyn Progress) -> Ended {
        let out = self.turn.directory("panic-path");
        let plan = Plan {
            cpu: self.cpu.map(str::to_owned),
            arm: arm.iter().map(|&a| a.to_owned()).collect(),
            scene,
            ..Plan::new(common::kernel(self.kernel), common::programs(), out.clone())
        };
        let result = plan.run(progress);
        Ended { result, serial: common::serial_of(&out) }
    }
}

impl Case<'_> {
    /// Runs the guest and holds its end against the row.
    pub fn run(&self) {
        let scene = Scene {
            is_held: true,
            panic_cpu: self.panic_cpu,
            toggled_cpu: self.toggled_cpu,
            stop_at: matches!(self.end, End::Halted).then(|| "panic-kernel: halted".to_owned()),
            ..Scene::default()
        };
        let mut hand = Hand { damage: self.damage, was_held: false };
        let guest = Guest { cpu: self.cpu, ..Guest::wait(self.kernel) };
        let Ended { result, serial } = guest.run(self.arm, scene, &mut hand);
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

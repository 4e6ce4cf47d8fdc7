//! A guest to which a DIMM comes while it is held, and its dump.

use kdump_arch_x86::{PhysAddr, PhysRange};
use kdump_rehearse::scene::{PATTERN_PAGE, pattern_number};
use kdump_rehearse::{Added, Held, Plan, Progress, Scene};
use kdump_vmcore::{Dump, PhysMem as _};
use serde_json::Value;

use crate::common::{self, Turn};

const MIB: u64 = 1 << 20;
const DIMM: u64 = 512 * MIB;
/// Where the pc machine puts the first DIMM when the rest of the memory lies below 4 GiB.
const DIMM_AT: u64 = 4 << 30;
/// Pattern pages, in pages: user memory goes to the movable zone first, which is the DIMM.
const PATTERN: u64 = 256 * MIB / PATTERN_PAGE as u64;
/// Of these, so many must lie in the DIMM for the test to have shown anything.
const ENOUGH: u64 = PATTERN / 4;

/// What is tested.
pub struct Guest {
    pub kernel: &'static str,
    pub is_armed_again: bool,
}

/// Adds the devices.
struct Hand;

impl Progress for Hand {
    fn held(&mut self, guest: &Held<'_>) {
        for command in [
            format!("object_add memory-backend-ram,id=dimm,size={}M", DIMM / MIB),
            "device_add pc-dimm,id=dimm0,memdev=dimm".to_owned(),
        ] {
            guest.monitor(&command).unwrap_or_else(|error| panic!("{command}: {error}"));
        }
    }
}

impl Guest {
    pub fn run(self) -> Dumped {
        let turn = Turn::wait();
        let out = turn.directory(env!("CARGO_CRATE_NAME"));
        let machine = ["-m", "slots=2,maxmem=4G"].map(str::to_owned);
        let scene = Scene {
            is_held: true,
            added: Added { cpus: 0, memory: DIMM, is_armed_again: self.is_armed_again },
            panic_cpu: Some(1),
            pattern_bytes: PATTERN * PATTERN_PAGE as u64,
            qemu: machine.to_vec(),
            ..Scene::default()
        };
        // Level 23 keeps the processes' pages.
        let plan = Plan {
            arm: vec!["--level=23".to_owned()],
            scene,
            ..Plan::new(common::kernel(self.kernel), common::programs(), out.clone())
        };
        let outcome =
            plan.run(&mut Hand).unwrap_or_else(|error| panic!("{error}\n{}", common::serial_of(&out)));
        let report = std::fs::read(outcome.dump_dir.join("report.json")).unwrap();
        Dumped {
            dump: Dump::open(&outcome.dump_dir.join("vmcore")).unwrap(),
            report: serde_json::from_slice(&report).unwrap(),
        }
    }
}

/// The dump of the guest.
pub struct Dumped {
    dump: Dump,
    report: Value,
}

impl Dumped {
    /// The DIMM with its pages, and everything else.
    pub fn has_what_came(&self) {
        let dimm = PhysRange::new(DIMM_AT, DIMM_AT + DIMM);
        assert!(self.dump.ram().iter().any(|range| range.covers(dimm)), "{:?}", self.dump.ram());
        let there = self.patterns(dimm);
        assert!(there >= ENOUGH, "{there} pattern pages in the DIMM");
        let below = self.patterns(PhysRange::new(0, DIMM_AT));
        assert!(there + below >= PATTERN, "{there} and {below} of {PATTERN} pattern pages");

        assert_eq!(self.report["complete"], true, "{:#}", self.report["warnings"]);
        let cpus = self.report["cpus"]["data"].as_array().unwrap();
        assert_eq!(cpus.len(), 2);
        for cpu in cpus {
            assert_eq!((&cpu["online"], &cpu["registers_saved"]), (&true.into(), &true.into()), "{cpu:#}");
            assert_eq!(cpu["stack"]["clean"], true, "{cpu:#}");
        }
        assert_eq!(cpus[1]["panicked"], true, "{:#}", cpus[1]);
        self.names_the_crash();
    }

    /// Nothing of the DIMM, everything else.
    pub fn has_only_what_was_there(&self) {
        assert!(
            self.dump.ram().iter().all(|range| range.end() <= PhysAddr(DIMM_AT)),
            "{:?}",
            self.dump.ram()
        );
        assert!(self.dump.ram().iter().map(|range| range.len()).sum::<u64>() > 800 * MIB);
        self.names_the_crash();
    }

    fn names_the_crash(&self) {
        let panic = &self.report["panic"]["data"];
        assert_eq!(panic["message"], "sysrq triggered crash", "{panic:#}");
        assert_eq!(panic["task"]["comm"], "kdump-crasher", "{panic:#}");
    }

    /// The different pattern pages in a stretch of memory.
    fn patterns(&self, range: PhysRange) -> u64 {
        let mut found = vec![false; PATTERN as usize];
        let mut page = [0; PATTERN_PAGE];
        for piece in self.dump.ram().iter().filter_map(|ram| ram.overlap(range)) {
            for at in (piece.start().0..piece.end().0).step_by(PATTERN_PAGE) {
                if self.dump.read(PhysAddr(at), &mut page).is_ok()
                    && let Some(number) = pattern_number(&page)
                {
                    found[number as usize] = true;
                }
            }
        }
        found.into_iter().filter(|&is_found| is_found).count() as u64
    }
}

//! A guest to which a DIMM and a CPU come while it is held, and its dump.

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

/// The CPU that comes.
pub const NEW_CPU: u32 = Plan::CPUS;

/// Folklore: Linux 6.12 and 7.3 on an emulated machine have no room for more CPUs ("Allowing 2 present CPUs plus 0
/// hotplug CPUs", then "Unable to map lapic to logical cpu number"); 5.10 and 6.1 do. QEMU 7.2 lists CPUs to come as
/// not enabled in a MADT that is older than the bit for "may be enabled later" (ACPI 6.3), and newer kernels believe
/// such an entry only from a hypervisor that they know (arch/x86/kernel/acpi/boot.c, `acpi_is_processor_usable`). TCG
/// is none: its CPUID leaf says TCGTCGTCGTCG. VMware is one, and without CPUID's hypervisor bit it is known by the
/// serial number in SMBIOS and by a port that QEMU's pc machine answers on as well (arch/x86/kernel/cpu/vmware.c).
/// Under KVM none of this is needed.
const CPU: &str = "max,-cx16,-hypervisor";
const SERIAL_NUMBER: &str = "type=1,serial=VMware-56 4d";

/// What is tested.
pub struct Guest {
    pub kernel: &'static str,
    pub is_armed_again: bool,
    pub panic_cpu: u32,
}

/// Adds the devices.
struct Hand;

impl Progress for Hand {
    fn held(&mut self, guest: &Held<'_>) {
        let tell = |command: &str| guest.monitor(command).unwrap_or_else(|e| panic!("{command}: {e}"));
        tell(&format!("object_add memory-backend-ram,id=dimm,size={}M", DIMM / MIB));
        tell("device_add pc-dimm,id=dimm0,memdev=dimm");
        tell(&device_add(&tell("info hotpluggable-cpus")));
    }
}

/// The command that fills the first empty place of those that the monitor lists.
fn device_add(places: &str) -> String {
    let empty = places.split("type: ").skip(1).find(|place| !place.contains("qom_path"));
    let empty = empty.unwrap_or_else(|| panic!("no room for a CPU: {places}"));
    let mut lines = empty.lines().map(|line| line.trim().replace('"', ""));
    let kind = lines.next().unwrap();
    let place = lines.filter(|line| line.contains("-id: ")).map(|line| line.replace(": ", "="));
    format!("device_add {kind},id=cpu{NEW_CPU},{}", place.collect::<Vec<_>>().join(","))
}

impl Guest {
    pub fn run(self) -> Dumped {
        let turn = Turn::wait();
        let out = turn.directory(env!("CARGO_CRATE_NAME"));
        let max_cpus = format!("maxcpus={}", NEW_CPU + 1);
        let machine = ["-m", "slots=2,maxmem=4G", "-smp", &max_cpus, "-smbios", SERIAL_NUMBER];
        let scene = Scene {
            is_held: true,
            added: Added { cpus: 1, memory: DIMM, is_armed_again: self.is_armed_again },
            panic_cpu: Some(self.panic_cpu),
            pattern_bytes: PATTERN * PATTERN_PAGE as u64,
            qemu: machine.map(str::to_owned).to_vec(),
            ..Scene::default()
        };
        // Level 23 keeps the processes' pages.
        let plan = Plan {
            arm: vec!["--level=23".to_owned()],
            cpu: Some(CPU.to_owned()),
            scene,
            ..Plan::new(common::kernel(self.kernel), common::programs(), out.clone())
        };
        let outcome =
            plan.run(&mut Hand).unwrap_or_else(|error| panic!("{error}\n{}", common::serial_of(&out)));
        let report = std::fs::read(outcome.dump_dir.join("report.json")).unwrap();
        Dumped {
            dump: Dump::open(&outcome.dump_dir.join("vmcore")).unwrap(),
            report: serde_json::from_slice(&report).unwrap(),
            panic_cpu: self.panic_cpu,
        }
    }
}

/// The dump of the guest.
pub struct Dumped {
    dump: Dump,
    report: Value,
    panic_cpu: u32,
}

impl Dumped {
    /// The DIMM with its pages, the CPU with its note, and everything else.
    pub fn has_what_came(&self) {
        let dimm = PhysRange::new(DIMM_AT, DIMM_AT + DIMM);
        assert!(self.dump.ram().iter().any(|range| range.covers(dimm)), "{:?}", self.dump.ram());
        let there = self.patterns(dimm);
        assert!(there >= ENOUGH, "{there} pattern pages in the DIMM");
        let below = self.patterns(PhysRange::new(0, DIMM_AT));
        assert!(there + below >= PATTERN, "{there} and {below} of {PATTERN} pattern pages");

        assert_eq!(self.report["dump"]["cpu_notes"], NEW_CPU + 1, "{:#}", self.report["dump"]);
        self.names_the_crash();
    }

    /// Nothing of the DIMM, everything else; of the CPU no note, but that is in the kernel's memory all the same.
    pub fn has_only_what_was_there(&self) {
        assert!(
            self.dump.ram().iter().all(|range| range.end() <= PhysAddr(DIMM_AT)),
            "{:?}",
            self.dump.ram()
        );
        assert!(self.dump.ram().iter().map(|range| range.len()).sum::<u64>() > 800 * MIB);
        assert_eq!(self.report["dump"]["cpu_notes"], NEW_CPU, "{:#}", self.report["dump"]);
        self.names_the_crash();
    }

    /// Cause, task, and every CPU with its registers and its whole stack.
    fn names_the_crash(&self) {
        assert_eq!(self.report["complete"], true, "{:#}", self.report["warnings"]);
        let panic = &self.report["panic"]["data"];
        assert_eq!(panic["message"], "sysrq triggered crash", "{panic:#}");
        assert_eq!(panic["task"]["comm"], "kdump-crasher", "{panic:#}");
        let cpus = self.report["cpus"]["data"].as_array().unwrap();
        assert_eq!(cpus.len() as u32, NEW_CPU + 1);
        for (number, cpu) in (0..).zip(cpus) {
            assert_eq!((&cpu["online"], &cpu["registers_saved"]), (&true.into(), &true.into()), "{cpu:#}");
            assert_eq!(cpu["stack"]["clean"], true, "{cpu:#}");
            assert_eq!(cpu["panicked"], number == self.panic_cpu, "{cpu:#}");
        }
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

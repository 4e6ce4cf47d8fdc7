//! The rows, and what is checked of each.

use crate::guest::{Case, FOUR_LEVELS, analyze_json, analyze_with_gaps};
use crate::{oracle, report};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flavour {
    Cloud,
    Generic,
}

/// Of page tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Levels {
    Four,
    Five,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Memory {
    /// All of it below 4 GiB.
    Gib1,
    /// A quarter of it above.
    Above4GiB,
}

/// A guest.
#[derive(Debug)]
pub struct Row {
    /// As scripts/fetch-kernel.sh names it, without the flavour.
    pub kernel: &'static str,
    pub cpus: u32,
    pub flavour: Flavour,
    pub levels: Levels,
    pub memory: Memory,
}

/// What is told of one that has passed.
pub struct Passed {
    pub release: String,
    pub pages: u64,
    pub bytes: u64,
    pub is_explained: bool,
}

use Flavour::{Cloud, Generic};
use Levels::{Five, Four};
use Memory::{Above4GiB, Gib1};

const fn row(kernel: &'static str, cpus: u32, flavour: Flavour, levels: Levels, memory: Memory) -> Row {
    Row { kernel, cpus, flavour, levels, memory }
}

/// All pairs of values of two columns, in as few rows as the two longest columns allow.
pub const ROWS: [Row; 15] = [
    row("5.10", 1, Generic, Four, Gib1),
    row("5.10", 2, Cloud, Four, Above4GiB),
    row("5.10", 4, Generic, Five, Above4GiB),
    row("6.1", 1, Cloud, Five, Gib1),
    row("6.1", 2, Generic, Five, Gib1),
    row("6.1", 4, Cloud, Four, Above4GiB),
    row("6.12", 1, Cloud, Five, Above4GiB),
    row("6.12", 2, Generic, Four, Gib1),
    row("6.12", 4, Cloud, Four, Gib1),
    row("7.2", 1, Generic, Four, Gib1),
    row("7.2", 2, Cloud, Five, Gib1),
    row("7.2", 4, Cloud, Five, Above4GiB),
    row("7.3", 1, Generic, Five, Above4GiB),
    row("7.3", 2, Cloud, Four, Gib1),
    row("7.3", 4, Cloud, Four, Above4GiB),
];

impl Row {
    /// All of its values in words.
    pub fn name(&self) -> String {
        format!("{} {} {} {} {}", self.kernel, self.flavour(), self.cpus, self.levels(), self.memory())
    }

    pub fn flavour(&self) -> &'static str {
        match self.flavour {
            Cloud => "cloud-amd64",
            Generic => "amd64",
        }
    }

    pub fn levels(&self) -> &'static str {
        match self.levels {
            Four => "4-level",
            Five => "5-level",
        }
    }

    pub fn memory(&self) -> &'static str {
        match self.memory {
            Gib1 => "1 GiB",
            Above4GiB => "4 GiB",
        }
    }

    /// Runs it; panics where anything is not as it should be.
    pub fn check(&self) -> Passed {
        // Names that live as long as the program: one row each.
        let kernel: &'static str = match self.flavour {
            Cloud => self.kernel,
            Generic => format!("{}-amd64", self.kernel).leak(),
        };
        // Before 6.0 VMCOREINFO names no kallsyms tables.
        let is_explained = self.kernel != "5.10";
        let case = Case {
            kernel,
            cpus: self.cpus,
            cpu: (self.levels == Four).then_some(FOUR_LEVELS),
            memory: match self.memory {
                Gib1 => 1 << 30,
                Above4GiB => 4 << 30,
            },
            // The cloud flavour of these two is built without CONFIG_MEMORY_FAILURE: there are no such pages.
            absent: match (self.kernel, self.flavour) {
                ("5.10" | "6.1", Cloud) => &["NUMBER(PG_hwpoison)"],
                _ => &[],
            },
            ..Case::USUAL
        };
        let cycle = case.run();
        cycle.every_phase_was_seen();
        cycle.the_panic_kernel_spoke();
        cycle.dump.is_complete();
        let vmcore = cycle.dump.vmcore();
        let pages = oracle::manifest_agrees(&cycle.dump.0, cycle.absent);
        assert_eq!(oracle::pages_agree(&vmcore, None), pages);
        oracle::logs_agree(&vmcore);
        if is_explained {
            report::explains_the_crash(&cycle.dump.report(), &cycle.outcome.release, self.cpus);
            report::explains_the_crash(&analyze_json(&vmcore), &cycle.outcome.release, self.cpus);
        } else {
            report::has_what_the_log_says(&cycle.dump.report());
            report::has_what_the_log_says(&analyze_with_gaps(&vmcore));
        }
        let bytes = vmcore.metadata().unwrap().len();
        Passed { release: cycle.outcome.release.clone(), pages, bytes, is_explained }
    }
}

//! What the panic path decides: a handoff block and the memory it names into an [`Action`].
//!
//! Safe code over a [`Memory`], so that every verdict is tested on the host. All regions are checked
//! even after the first damaged one: the log is the only witness.

use crate::handoff::{Entry, Handoff, Policy, Region};
use crate::line::Sink;
use crate::messages;
use crate::parity::Page;
use crate::record::{Record, RecordFlags, RegionStatus};
use crate::repair::{Repair, repair_region};
use crate::sha256::{Engine, digest_with};

/// Physical memory as the panic path sees it.
pub trait Memory {
    /// The bytes of a physical range, or nothing where none can be read.
    fn bytes(&self, start: u64, len: u64) -> Option<&[u8]>;
    /// Writes a whole page; false where nothing can be written.
    fn write_page(&mut self, start: u64, page: &Page) -> bool;
}

/// What is done in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Enter the capture kernel, through the control page.
    Enter {
        /// What the control page enters.
        entry: Entry,
        /// Its address.
        control_page: u64,
    },
    /// Reset the machine.
    Reset,
    /// Stop.
    Halt,
}

impl Action {
    fn enter(handoff: &Handoff) -> Self {
        Self::Enter { entry: handoff.entry, control_page: handoff.control_page }
    }

    fn by_policy(handoff: &Handoff) -> Self {
        match handoff.policy {
            Policy::Reset => Self::Reset,
            Policy::Boot => Self::enter(handoff),
            Policy::Halt => Self::Halt,
        }
    }
}

/// How far the panic path has come, for whoever has to judge an exception.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// Nothing is believed yet.
    #[default]
    Handoff,
    /// The handoff block is believed, the regions are being checked.
    Regions,
    /// The control page has been entered, and after it the capture kernel, which may have changed anything.
    Entered,
}

/// The regions of a believed handoff block under inspection.
pub struct Inspection<'a, M, S> {
    /// The block.
    pub handoff: &'a Handoff,
    /// What hashes.
    pub engine: Engine,
    /// Where the regions lie.
    pub memory: &'a mut M,
    /// Where the results go for the dump.
    pub record: &'a mut Record,
    /// Where they go for people.
    pub sink: &'a mut S,
    /// Regions looked at, a bit each.
    seen: u32,
    /// Of those, the ones that are not whole.
    damaged: u32,
    /// Pages rebuilt.
    nr_repaired: u32,
}

impl<'a, M: Memory, S: Sink> Inspection<'a, M, S> {
    /// Begins.
    pub fn new(
        handoff: &'a Handoff,
        engine: Engine,
        memory: &'a mut M,
        record: &'a mut Record,
        sink: &'a mut S,
    ) -> Self {
        Self { handoff, engine, memory, record, sink, seen: 0, damaged: 0, nr_repaired: 0 }
    }

    /// Checks the region that holds `address`, and rebuilds it if it must and can be. Whether it is whole.
    pub fn check_at(&mut self, address: u64) -> bool {
        let place = self.handoff.regions().iter().position(|region| region.contains(address));
        place.is_some_and(|place| self.check(place))
    }

    /// Checks all regions not yet looked at.
    pub fn check_all(&mut self) {
        for place in 0..self.handoff.regions().len() {
            self.check(place);
        }
    }

    /// Regions that are not whole.
    pub fn nr_damaged(&self) -> u32 {
        self.damaged.count_ones()
    }

    /// Pages rebuilt.
    pub fn nr_repaired(&self) -> u32 {
        self.nr_repaired
    }

    /// Decides, when everything has been looked at.
    pub fn conclude(self) -> Action {
        let regions = self.handoff.regions();
        let entry = self.handoff.entry;
        let control_page = self.handoff.control_page;
        if !regions.iter().any(|region| region.contains(control_page)) {
            self.sink.line(&messages::control_page_unchecked(control_page));
            return Action::Reset;
        }
        if entry.nr_relocated == 0 && !regions.iter().any(|region| region.contains(entry.rip)) {
            self.sink.line(&messages::entry_unchecked(entry));
        }
        if self.damaged == 0 {
            return Action::enter(self.handoff);
        }
        let nr_damaged = self.nr_damaged() as usize;
        self.sink.line(&messages::damaged(nr_damaged, regions.len(), self.handoff.policy));
        if self.handoff.policy == Policy::Boot {
            self.record.flag(RecordFlags::BOOTED_DAMAGED);
        }
        Action::by_policy(self.handoff)
    }

    /// Checks the region at a place. `MAX_REGIONS` of them fit the bits.
    fn check(&mut self, place: usize) -> bool {
        let bit = 1 << (place % 32);
        let Some(region) = self.handoff.regions().get(place) else { return false };
        if self.seen & bit == 0 {
            self.seen |= bit;
            if !self.check_region(place, region) {
                self.damaged |= bit;
            }
        }
        self.damaged & bit == 0
    }

    fn check_region(&mut self, place: usize, region: &'a Region) -> bool {
        let found = match self.digest(region) {
            None => {
                self.sink.line(&messages::region_unreadable(region));
                self.record.region(region, RegionStatus::UNREADABLE, 0, 0);
                return false;
            }
            Some(found) if found == region.sha256 => {
                self.sink.line(&messages::region_ok(region, false));
                self.record.region(region, RegionStatus::OK, 0, 0);
                return true;
            }
            Some(found) => found,
        };
        self.sink.line(&messages::region_mismatch(region, &found));
        let repair = self.repair(place, region);
        let is_whole = self.digest(region).is_some_and(|found| found == region.sha256);
        let status = if is_whole { RegionStatus::REPAIRED } else { RegionStatus::DAMAGED };
        self.record.region(region, status, repair.nr_damaged, repair.nr_repaired);
        self.nr_repaired = self.nr_repaired.saturating_add(repair.nr_repaired);
        if is_whole {
            self.sink.line(&messages::region_ok(region, true));
        } else {
            self.sink.line(&messages::region_lost(region, repair));
        }
        is_whole
    }

    fn repair(&mut self, place: usize, region: &Region) -> Repair {
        if !region.is_protected() || self.handoff.parity.nr_parity == 0 {
            return Repair::default();
        }
        // Every page is judged by the digest table, so that comes first.
        let table = self.handoff.parity.table_start;
        if !region.contains(table) {
            self.check_at(table);
        }
        let mut first_repaired = None;
        let record = &mut *self.record;
        let repair = repair_region(self.handoff, place, self.memory, |address, is_repaired| {
            if is_repaired {
                first_repaired.get_or_insert(address);
                record.repaired_page(address);
            }
        });
        if let Some(first) = first_repaired {
            self.sink.line(&messages::region_rebuilt(region, repair, first));
        }
        repair
    }

    fn digest(&self, region: &Region) -> Option<[u8; 32]> {
        let bytes = self.memory.bytes(region.start, region.len)?;
        Some(digest_with(self.engine, bytes))
    }
}

/// Decides what follows an exception.
///
/// Booting anyway makes sense only while the capture kernel has not run yet.
pub fn after_exception(stage: Stage, handoff: Option<&Handoff>) -> Action {
    match (stage, handoff) {
        (Stage::Handoff, _) | (_, None) => Action::Reset,
        (Stage::Regions, Some(handoff)) => Action::by_policy(handoff),
        (Stage::Entered, Some(handoff)) if handoff.policy == Policy::Halt => Action::Halt,
        (Stage::Entered, Some(_)) => Action::Reset,
    }
}

/// How many failures, exceptions or bugs, are reported.
pub const REPORTED_FAILURES: u32 = 1;
/// Up to which failure a reset through ports is tried.
pub const RESET_FAILURES: u32 = 2;

/// What is done about a failure, before the policy has its say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Report it, then follow the policy.
    Report,
    /// Reset through the ports, without console: it came while another one was handled.
    Reset,
    /// Reset the CPU by an exception it cannot deliver: even that failed.
    TripleFault,
}

/// Decides by the number of failures so far, this one included: each answer needs less of the program
/// than the one before, so a failure that repeats itself comes to an end.
pub fn answer(nr_failures: u32) -> Answer {
    if nr_failures <= REPORTED_FAILURES {
        Answer::Report
    } else if nr_failures <= RESET_FAILURES {
        Answer::Reset
    } else {
        Answer::TripleFault
    }
}

#[cfg(test)]
mod tests;

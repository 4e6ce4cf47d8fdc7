//! Which RAM an ordinary kexec may use, and what is left of it.

use kdump_arch_x86::bootparam::E820Type;
use kdump_arch_x86::{PAGE_SIZE, PhysRange, range};

use super::{Error, LOWEST};
use crate::boot_params::MemoryMapEntry;
use crate::machine::Machine;

/// Free RAM, sorted.
#[derive(Clone, Debug)]
pub struct Room {
    free: Vec<PhysRange>,
}

impl Room {
    /// RAM from boot on that the map given to the image calls so too (hot-added and drivers' memory may be gone by
    /// then, and is in no such map), without the first MiB and without crashkernel memory.
    pub(super) fn new(machine: &Machine, map: &[MemoryMapEntry]) -> Self {
        let high = PhysRange::new(LOWEST, u64::MAX);
        let told = map.iter().filter(|entry| entry.kind == E820Type::RAM).map(|entry| entry.range);
        let told: Vec<_> = range::merge(range::intersect(told, [high])).collect();
        let ram: Vec<_> = range::intersect(machine.iomem.boot_ram(), told).collect();
        let crash = range::merge(machine.iomem.crash_kernel());
        let free = range::subtract(ram, crash).filter_map(PhysRange::shrink_to_pages).collect();
        Self { free }
    }

    /// Takes a given range.
    pub(super) fn at(&mut self, tag: &'static str, start: u64, size: u64) -> Result<PhysRange, Error> {
        let end = start.checked_add(size).and_then(|end| end.checked_next_multiple_of(PAGE_SIZE));
        let wanted = PhysRange::new(start - start % PAGE_SIZE, end.unwrap_or(u64::MAX));
        if !self.free.iter().any(|free| free.covers(wanted)) {
            return Err(Error::NotFree { tag, range: wanted });
        }
        Ok(self.take(wanted))
    }

    /// Takes the lowest range at a multiple of `align` from `min` on.
    pub(super) fn low(
        &mut self,
        tag: &'static str,
        size: u64,
        (align, min): (u64, u64),
        below: u64,
    ) -> Result<PhysRange, Error> {
        let size = size.next_multiple_of(PAGE_SIZE);
        let found = self.free.iter().find_map(|free| {
            let start = free.start().0.max(min).checked_next_multiple_of(align)?;
            let range = PhysRange::from_len(start, size)?;
            (free.covers(range) && range.end().0 <= below).then_some(range)
        });
        found.map(|range| self.take(range)).ok_or_else(|| self.no_room(tag, size, below))
    }

    /// Takes the highest range.
    pub(super) fn high(&mut self, tag: &'static str, size: u64, below: u64) -> Result<PhysRange, Error> {
        let size = size.next_multiple_of(PAGE_SIZE).max(PAGE_SIZE);
        let found = self.free.iter().rev().find_map(|free| {
            let end = free.end().0.min(below - below % PAGE_SIZE);
            let range = PhysRange::try_new(end.checked_sub(size)?, end)?;
            free.covers(range).then_some(range)
        });
        found.map(|range| self.take(range)).ok_or_else(|| self.no_room(tag, size, below))
    }

    fn take(&mut self, taken: PhysRange) -> PhysRange {
        self.free = range::subtract(self.free.iter().copied(), [taken]).collect();
        taken
    }

    fn no_room(&self, tag: &'static str, need: u64, below: u64) -> Error {
        let reach = PhysRange::new(0, below);
        let have =
            range::intersect(self.free.iter().copied(), [reach]).map(PhysRange::len).max().unwrap_or(0);
        Error::NoRoom { tag, need, below, have }
    }
}

//! Memory outside the crashkernel reservation that a payload needs: staged inside it, swapped into place at the
//! panic.
//!
//! The payload's pages are staged in one piece. The control page swaps each with the page at its destination, so
//! the crashed kernel's bytes end up in the staging piece, in the same order, and elfcorehdr says so. The
//! list it follows is a piece of its own.

use kdump_arch_x86::{PAGE_SIZE, PhysAddr, PhysRange};
use kdump_panic_kernel::kimage::{self, Pages, Width};

use super::Error;
use super::staging::{Piece, Place};
use crate::iomem::LOW_MEMORY_END;
use crate::machine::Machine;

/// Entries of a list page beside the link.
const ENTRIES: u64 = PAGE_SIZE / 8 - 1;

/// Whether memory may be displaced: RAM that the kernel has had from the start, nobody else's.
///
/// # Errors
/// [`Error::CannotDisplace`].
pub(super) fn check(machine: &Machine, from: PhysRange) -> Result<(), Error> {
    let refuse = |why| Err(Error::CannotDisplace { range: from, why });
    if !from.start().0.is_multiple_of(PAGE_SIZE) {
        return refuse("it does not begin a page");
    }
    if from.is_empty() || from.start().0 < LOW_MEMORY_END {
        return refuse("below 1 MiB firmware has its data");
    }
    if machine.iomem.crash_kernel().into_iter().any(|r| r.overlap(from).is_some()) {
        return refuse("part of it is crashkernel memory");
    }
    if machine.cma_ranges.iter().any(|r| r.overlap(from).is_some()) {
        return refuse("part of it is lent to the capture kernel already (crashkernel=,cma)");
    }
    if !machine.iomem.boot_ram().into_iter().any(|r| r.covers(from)) {
        return refuse("not all of it is System RAM that was there at boot (/proc/iomem)");
    }
    Ok(())
}

/// The piece that the list goes to, for so many bytes displaced.
pub(super) fn list_piece(displaced: u64) -> Piece {
    // One more for the control page that a plan has, which is staged elsewhere.
    let size = ((displaced / PAGE_SIZE + 1).div_ceil(ENTRIES) + 1) * PAGE_SIZE;
    Piece {
        tag: "kimage-list",
        purpose: "which page is swapped with which",
        size,
        content: size,
        place: Place::High,
    }
}

/// The list's first entry and its bytes, for swapping `staging` with `destination`.
///
/// # Errors
/// [`Error::Kimage`].
pub(super) fn list(
    destination: PhysRange,
    staging: PhysRange,
    list: PhysRange,
) -> Result<(u64, Vec<u8>), Error> {
    let pages = |range: PhysRange| Pages::new(range.start().0, range.len() / PAGE_SIZE);
    let destinations: Vec<_> = pages(destination).into_iter().collect();
    let free: Vec<_> = [staging, list].into_iter().filter_map(pages).collect();
    let plan = kimage::stage(&destinations, &free, Width::Bits64)?;
    // What is staged in one piece must leave in one piece, or elfcorehdr would not find it.
    let source = plan.source_of(destination.start().0);
    if plan.placement().len() != 1 || source != Some(staging.start().0) {
        return Err(Error::CannotDisplace { range: destination, why: "it cannot be staged in one piece" });
    }
    let mut bytes = vec![0; list.len() as usize];
    for (address, page) in plan.encode() {
        let at = address.saturating_sub(list.start().0) as usize;
        if let Some(slot) = bytes.get_mut(at..at + page.len()) {
            slot.copy_from_slice(&page);
        }
    }
    Ok((plan.head(), bytes))
}

/// The destination of so many bytes at an address.
///
/// # Errors
/// [`Error::CannotDisplace`].
pub(super) fn destination(at: u64, size: u64) -> Result<PhysRange, Error> {
    let size = size.next_multiple_of(PAGE_SIZE);
    let end = at.checked_add(size).filter(|end| at.is_multiple_of(PAGE_SIZE) && *end < 1 << 52);
    match end {
        Some(end) => Ok(PhysRange::new(at, end)),
        None => {
            let range = PhysRange::new(at, at.saturating_add(1));
            Err(Error::CannotDisplace { range, why: "it does not begin a page, or ends beyond 2^52" })
        }
    }
}

/// Where something staged at `staging` for `destination` will be.
pub(super) fn moved(at: PhysAddr, staging: PhysRange, destination: Option<PhysRange>) -> PhysAddr {
    match destination {
        Some(to) => PhysAddr(to.start().0 + (at.0 - staging.start().0)),
        None => at,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iomem::{Iomem, tests::SAMPLE};

    fn machine() -> Machine {
        Machine {
            iomem: Iomem::parse(SAMPLE.as_bytes()).unwrap(),
            cma_ranges: vec![PhysRange::new(0x1_1000_0000, 0x1_2000_0000)],
            ..Machine::default()
        }
    }

    #[test]
    fn only_plain_ram_is_displaced() {
        let check = |start, end| check(&machine(), PhysRange::new(start, end));
        assert!(check(0x100_0000, 0x400_0000).is_ok());
        for (start, end, why) in [
            (0x8_0000, 0x9_0000, "below 1 MiB"),
            (0x700_0000, 0x900_0000, "crashkernel"),
            (0x1_1fff_f000, 0x1_2000_0000, "lent"),
            (0x1fff_0000, 0x2000_0000, "System RAM"),
            (0xfec0_0000, 0xfec0_1000, "System RAM"),
        ] {
            let error = check(start, end).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    /// Check the list against the interpreter: content arrives, and what it displaced is where it was staged.
    #[test]
    fn the_list_swaps_staging_and_destination() {
        use kimage::{PageMemory, Transfer};
        use std::collections::BTreeMap;

        struct Ram(BTreeMap<u64, [u8; 4096]>);
        impl PageMemory for Ram {
            fn read(&self, address: u64) -> Option<[u8; 4096]> {
                self.0.get(&address).copied()
            }
            fn write(&mut self, address: u64, page: &[u8; 4096]) -> bool {
                self.0.insert(address, *page).is_some()
            }
        }
        let nr = 1500u64;
        let destination = destination(0x100_0000, nr * PAGE_SIZE - 5).unwrap();
        let staging = PhysRange::new(0x900_0000, 0x900_0000 + nr * PAGE_SIZE);
        let piece = list_piece(destination.len());
        let at = PhysRange::new(0xf00_0000, 0xf00_0000 + piece.size);
        let (head, bytes) = list(destination, staging, at).unwrap();
        let mut ram = Ram(BTreeMap::new());
        for i in 0..nr {
            ram.0.insert(destination.start().0 + i * PAGE_SIZE, [i as u8; 4096]);
            ram.0.insert(staging.start().0 + i * PAGE_SIZE, [!(i as u8); 4096]);
        }
        for (i, page) in bytes.as_chunks().0.iter().enumerate() {
            ram.0.insert(at.start().0 + i as u64 * PAGE_SIZE, *page);
        }
        kimage::interpret(&mut ram, head, Width::Bits64, Transfer::Swap, 10_000).unwrap();
        for i in 0..nr {
            assert_eq!(ram.0[&(destination.start().0 + i * PAGE_SIZE)][7], !(i as u8));
            assert_eq!(ram.0[&(staging.start().0 + i * PAGE_SIZE)][7], i as u8);
        }
    }
}

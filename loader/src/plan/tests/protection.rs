//! Damage of what a plan stages, repaired by the panic path's own code.

use super::*;
use kdump_panic_kernel::parity::Page;
use kdump_panic_kernel::repair::{Repair, repair_region};
use kdump_panic_kernel::verify::Memory;

const KIB: u64 = 1 << 10;

/// The region as it is after the load: contents, zeros up to each segment's end, and rubbish between.
#[derive(Clone)]
struct Ram {
    start: u64,
    bytes: Vec<u8>,
}

impl Ram {
    fn new(plan: &LoadPlan<'_>) -> Self {
        let start = plan.region.start().0;
        let mut bytes = vec![0xa5; plan.region.len() as usize];
        for s in &plan.segments {
            let at = (s.range.start().0 - start) as usize;
            bytes[at..at + s.range.len() as usize].fill(0);
            bytes[at..at + s.bytes.len()].copy_from_slice(&s.bytes);
        }
        Self { start, bytes }
    }

    fn damage(&mut self, at: u64, len: u64) {
        let at = (at - self.start) as usize;
        let len = (len as usize).min(self.bytes.len() - at);
        self.bytes[at..at + len].iter_mut().for_each(|byte| *byte = !*byte);
    }
}

impl Memory for Ram {
    fn bytes(&self, start: u64, len: u64) -> Option<&[u8]> {
        let at = start.checked_sub(self.start)? as usize;
        self.bytes.get(at..)?.get(..len as usize)
    }

    fn write_page(&mut self, start: u64, page: &Page) -> bool {
        let at = (start - self.start) as usize;
        self.bytes[at..at + page.len()].copy_from_slice(page);
        true
    }
}

/// Repairs all regions, the digest table first; whether all of them hash to their digests after that.
fn repair(handoff: &Handoff, ram: &mut Ram) -> (Repair, bool) {
    let mut sum = Repair::default();
    let is_table = |i: &usize| handoff.regions()[*i].start == handoff.parity.table_start;
    let (table, rest): (Vec<_>, Vec<_>) = (0..handoff.regions().len()).partition(is_table);
    for region in table.into_iter().chain(rest) {
        let one = repair_region(handoff, region, ram, |_, _| ());
        sum.nr_damaged += one.nr_damaged;
        sum.nr_repaired += one.nr_repaired;
    }
    let is_whole = |r: &kdump_panic_kernel::handoff::Region| {
        ram.bytes(r.start, r.len).is_some_and(|bytes| <[u8; 32]>::from(Sha256::digest(bytes)) == r.sha256)
    };
    (sum, handoff.regions().iter().all(is_whole))
}

/// Check runs of the chosen size at the edges of every segment and at random places.
#[test]
fn any_damaged_run_of_what_is_staged_is_rebuilt() {
    let machine = machine(8 << 30, region(128, 64));
    for (run, initramfs_len) in [(4 * KIB, 3_000_001), (64 * KIB, 700_001), (MIB, 2_500_003)] {
        let mut inputs = Inputs::new(8 << 20, initramfs_len);
        inputs.parity_run = run;
        let plan = inputs.plan(&machine).unwrap();
        let staged = Ram::new(&plan);
        assert_eq!(repair(&plan.handoff, &mut staged.clone()), (Repair::default(), true));
        let mut seed = 77u64;
        let random = (0..12).map(|_| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            plan.region.start().0 + (seed >> 20) % (plan.region.len() - run)
        });
        let edges = plan.segments.iter().flat_map(|s| {
            [s.range.start().0.saturating_sub(run / 2 + 1), s.range.start().0, s.range.end().0 - 1]
        });
        for at in random.chain(edges).filter(|&at| at >= plan.region.start().0) {
            let mut ram = staged.clone();
            ram.damage(at, run);
            let (sum, is_whole) = repair(&plan.handoff, &mut ram);
            assert_eq!(sum.nr_damaged, sum.nr_repaired, "run {run:#x} at {at:#x}");
            assert!(is_whole, "run {run:#x} at {at:#x}");
        }
    }
}

#[test]
fn a_longer_run_than_chosen_is_not_taken_for_repaired() {
    let mut inputs = Inputs::new(8 << 20, 3_000_001);
    inputs.parity_run = 64 * KIB;
    let machine = machine(8 << 30, region(128, 64));
    let plan = inputs.plan(&machine).unwrap();
    let mut ram = Ram::new(&plan);
    ram.damage(segment(&plan, "initramfs").range.start().0, 96 * KIB);
    let (sum, is_whole) = repair(&plan.handoff, &mut ram);
    assert_eq!((sum.nr_damaged, is_whole), (24, false));
    assert!(sum.nr_repaired < 24);
}

#[test]
fn parity_lies_above_all_that_it_protects_and_costs_what_it_says() {
    let machine = machine(8 << 30, region(128, 256));
    let inputs = Inputs::new(55 << 20, 5_000_001);
    let plan = inputs.plan(&machine).unwrap();
    let parity = segment(&plan, "parity");
    for s in plan.segments.iter().filter(|s| s.is_protected) {
        assert!(s.range.end() <= parity.range.start(), "{s:?}");
    }
    assert_eq!(parity.range.len(), MIB + PAGE_SIZE);
    assert_eq!((plan.protection.run_bytes, plan.protection.parity_bytes), (MIB, parity.range.len()));
    assert_eq!(plan.protection.table_bytes, segment(&plan, "digests").range.len());
    let names = ["panic-kernel", "panic-copy"].map(|tag| segment(&plan, tag).range);
    assert!(names[0].start().0 - names[1].end().0 > MIB, "{names:?}");
    assert!(plan.warnings.iter().all(|w| !w.contains("apart")), "{:?}", plan.warnings);
}

#[test]
fn without_parity_there_are_digests_and_nothing_else() {
    let machine = machine(8 << 30, region(128, 256));
    let mut inputs = Inputs::new(55 << 20, 4096);
    inputs.parity_run = 0;
    let plan = inputs.plan(&machine).unwrap();
    assert_loadable(&plan, &machine);
    assert!(plan.segments.iter().all(|s| !["parity", "digests"].contains(&s.tag) && !s.is_protected));
    assert_eq!(plan.protection, Protection::default());
    let mut ram = Ram::new(&plan);
    assert_eq!(repair(&plan.handoff, &mut ram), (Repair::default(), true));
    ram.damage(segment(&plan, "initramfs").range.start().0, 1);
    assert_eq!(repair(&plan.handoff, &mut ram), (Repair::default(), false));
}

#[test]
fn what_the_kernel_rewrites_is_neither_checked_nor_in_the_parity() {
    let mut machine = machine(8 << 30, region(128, 64));
    (machine.elfcorehdr_size, machine.has_crash_hotplug) = (Some(200_000), true);
    let inputs = Inputs::new(8 << 20, 300_000);
    let plan = inputs.plan(&machine).unwrap();
    let mut ram = Ram::new(&plan);
    for tag in ["elfcorehdr", "record"] {
        let range = segment(&plan, tag).range;
        assert!(plan.handoff.regions().iter().all(|r| !range.contains(PhysAddr(r.start))));
        ram.damage(range.start().0, range.len());
    }
    assert_eq!(repair(&plan.handoff, &mut ram), (Repair::default(), true));
    ram.damage(segment(&plan, "cmdline").range.start().0, MIB);
    let (sum, is_whole) = repair(&plan.handoff, &mut ram);
    assert!(is_whole && sum.nr_damaged > 0 && sum.nr_damaged == sum.nr_repaired, "{sum:?}");
}

#[test]
fn a_run_that_could_hit_both_copies_is_warned_of() {
    let machine = machine(8 << 30, region(128, 64));
    let mut inputs = Inputs::new(8 << 20, 4096);
    inputs.parity_run = 48 * MIB;
    let plan = inputs.plan(&machine).unwrap();
    assert_loadable(&plan, &machine);
    assert!(plan.warnings.iter().any(|w| w.contains("--parity")), "{:?}", plan.warnings);
}

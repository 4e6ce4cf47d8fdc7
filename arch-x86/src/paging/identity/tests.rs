//! Every map is walked as the CPU would walk it.

extern crate std;

use super::*;
use crate::addr::VirtAddr;
use crate::paging::{Mode, Step, Walk};
use crate::range::merge;
use std::vec;
use std::vec::Vec;

const MIB: u64 = 1 << 20;
const AT: u64 = 0x1234_5000;

fn r(start: u64, end: u64) -> PhysRange {
    PhysRange::new(start, end)
}

struct Built {
    tables: Vec<Table>,
    roots: Roots,
}

fn build(map: IdentityMap<'_>) -> Built {
    let mut tables = vec![[!0; NR_ENTRIES]; map.nr_tables().unwrap()];
    let roots = map.build(PhysAddr(AT), &mut tables).unwrap();
    Built { tables, roots }
}

impl Built {
    /// What the CPU finds: the answer, and the last entry read.
    fn walk(&self, mode: Mode, virt: u64) -> (Step, u64) {
        let root = if mode == Mode::FourLevel { self.roots.four_level } else { self.roots.five_level };
        let mut walk = Walk::new(mode, root, VirtAddr(virt), 0);
        let (mut step, mut last) = (walk.step(), 0);
        while let Step::Read(at) = step {
            let offset = (at.0 - AT) as usize;
            last = self.tables[offset / 4096][offset % 4096 / 8];
            step = walk.feed(last);
        }
        (step, last)
    }

    /// All that is mapped, uncached or not.
    fn mapped(&self, mode: Mode, want_uncached: bool) -> Vec<PhysRange> {
        let (mut found, mut at) = (Vec::new(), 0);
        while at < END {
            at += match self.walk(mode, at) {
                (Step::Mapped { phys, contiguous }, entry) => {
                    assert_eq!(phys.0, at);
                    assert_eq!(entry & (TO_PAGE | super::super::NX), TO_PAGE);
                    if (entry & UNCACHED == UNCACHED) == want_uncached {
                        found.push(r(at, at + contiguous));
                    }
                    contiguous
                }
                (Step::NotPresent { hole, .. }, _) => hole,
                (Step::Read(_), _) => unreachable!("the walk ends with an answer"),
            };
        }
        merge(found).collect()
    }
}

fn whole_pages(ranges: &[PhysRange]) -> Vec<PhysRange> {
    merge(ranges.iter().filter(|r| !r.is_empty()).map(|r| r.grow_to_pages().unwrap())).collect()
}

/// Check that in both modes exactly the pages asked for are mapped, and the tables are no more than needed.
fn assert_exact(map: IdentityMap<'_>) {
    let built = build(map);
    let uncached = whole_pages(map.uncached);
    let cached: Vec<_> = crate::range::subtract(whole_pages(map.cached), uncached.iter().copied()).collect();
    for mode in [Mode::FourLevel, Mode::FiveLevel] {
        assert_eq!(built.mapped(mode, false), cached, "{mode:?} {map:?}");
        assert_eq!(built.mapped(mode, true), uncached, "{mode:?} {map:?}");
    }
    // Roots; for each range: the tables on the way, a PMD table per GiB, two PTE tables at the edges.
    let bound: u64 = [map.cached, map.uncached].concat().iter().map(|r| 6 + r.len().div_ceil(1 << 30)).sum();
    assert!(built.tables.len() as u64 <= 2 + bound, "{} tables for {map:?}", built.tables.len());
    let far = VirtAddr(0xffff_8880_0000_0000).0;
    assert!(matches!(built.walk(Mode::FourLevel, far).0, Step::NotPresent { .. }));
}

#[test]
fn random_ranges_are_mapped_exactly_and_nothing_else() {
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    for _ in 0..400 {
        let mut ranges = |max: u64| {
            let mut found: Vec<_> = (0..random(5))
                .map(|_| {
                    let top = 1 << (22 + random(24));
                    let align = if random(2) == 0 { 2 * MIB } else { 8 };
                    let start = random(top) & !(align - 1);
                    r(start, start + random(max))
                })
                .collect();
            found.sort_unstable();
            merge(found).collect::<Vec<_>>()
        };
        let (cached, uncached) = (ranges(96 * MIB), ranges(3 * MIB));
        assert_exact(IdentityMap { cached: &cached, uncached: &uncached });
    }
}

#[test]
fn the_map_of_a_crash_load_takes_few_tables() {
    // BIOS area with its VGA window, a low and a high reservation, a UART behind MMIO.
    let cached = [r(0, 2 * MIB), r(0x3000_0000, 0x4000_0000), r(0x2_6000_0000, 0x2_7000_0000)];
    let uncached = [r(0xa_0000, 0xc_0000), r(0xfedc_9000, 0xfedc_9040)];
    let map = IdentityMap { cached: &cached, uncached: &uncached };
    assert_exact(map);
    // Roots, one table of PUDs, PMDs of GiB 0, 3 and 9, PTEs of the first 2 MiB and of the UART's.
    assert_eq!(map.nr_tables(), Ok(2 + 1 + 3 + 2));
    let built = build(map);
    let (step, entry) = built.walk(Mode::FiveLevel, 0x2_6000_0000);
    assert!(matches!(step, Step::Mapped { contiguous, .. } if contiguous == 2 * MIB), "{step:?}");
    assert_eq!(entry & UNCACHED, 0);
}

#[test]
fn pages_shared_by_two_ranges_are_mapped_once() {
    assert_exact(IdentityMap { cached: &[r(0x1100, 0x1200), r(0x1f00, 0x2080)], uncached: &[] });
    assert_exact(IdentityMap { cached: &[r(0, 4 * MIB)], uncached: &[r(0x1010, 0x1020), r(0x1ff0, 0x1ff8)] });
    assert_exact(IdentityMap { cached: &[r(0x5000, 0x5000)], uncached: &[] });
}

#[test]
fn what_cannot_be_mapped_is_an_error_with_the_range() {
    let high = [r(END - 0x1000, END + 1)];
    let map = IdentityMap { cached: &high, uncached: &[] };
    assert_eq!(map.nr_tables(), Err(Error::TooHigh { range: high[0] }));
    let unsorted = [r(0x3000, 0x4000), r(0x1000, 0x2000)];
    let map = IdentityMap { cached: &[], uncached: &unsorted };
    assert_eq!(map.nr_tables(), Err(Error::NotSorted { range: unsorted[1] }));
    let map = IdentityMap { cached: &[r(0, 2 * MIB)], uncached: &[] };
    assert_eq!(map.build(PhysAddr(AT), &mut []), Err(Error::WrongCount { need: 4, have: 0 }));
    let mut tables = [[0; NR_ENTRIES]; 4];
    assert!(matches!(map.build(PhysAddr(AT + 8), &mut tables), Err(Error::BadAddress { .. })));
}

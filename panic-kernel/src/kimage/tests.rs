//! Plans against a simulated memory: thousands of random layouts, each followed as the control page would.

use super::*;
use crate::parity::Page;
use std::collections::BTreeSet;
use std::format;
use std::vec;

/// Pages of the simulated memory. Dense, so that sources, destinations and free pages collide.
const NR_PAGES: u64 = 96;
const BASE: u64 = 0x40_0000;
const CASES: u64 = 4000;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// Runs of pages that do not overlap, in any order.
    fn runs(&mut self, share: u64) -> Vec<Pages> {
        let mut runs = Vec::new();
        let mut page = self.below(4);
        while page < NR_PAGES {
            let nr = (1 + self.below(6)).min(NR_PAGES - page);
            if self.below(100) < share {
                runs.push(Pages::new(address(page), nr).unwrap());
            }
            page += nr;
        }
        self.shuffle(&mut runs);
        runs
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u64 + 1) as usize);
        }
    }
}

fn address(page: u64) -> u64 {
    BASE + page * PAGE_SIZE
}

/// A memory whose pages hold a number each, and list pages as bytes.
#[derive(Clone, PartialEq, Debug)]
struct Ram(BTreeMap<u64, Vec<u8>>);

impl Ram {
    /// Every page holds its own address.
    fn new() -> Self {
        Self((0..NR_PAGES).map(|page| (address(page), address(page).to_le_bytes().to_vec())).collect())
    }

    fn set(&mut self, at: u64, content: u64) {
        self.0.insert(at, content.to_le_bytes().to_vec());
    }

    fn get(&self, at: u64) -> u64 {
        u64::from_le_bytes(*self.0[&at].first_chunk().unwrap())
    }
}

impl PageMemory for Ram {
    fn read(&self, address: u64) -> Option<Page> {
        let mut page = [0; PAGE_SIZE as usize];
        let bytes = self.0.get(&address)?;
        page[..bytes.len()].copy_from_slice(bytes);
        Some(page)
    }

    fn write(&mut self, address: u64, page: &Page) -> bool {
        self.0.insert(address, page.to_vec()).is_some()
    }
}

/// Writes the list and follows it.
fn run(plan: &KimagePlan, ram: &mut Ram, transfer: Transfer) {
    for (page, bytes) in plan.encode() {
        assert!(bytes.len() <= PAGE_SIZE as usize);
        ram.0.insert(page, bytes);
    }
    interpret(ram, plan.head(), plan.width, transfer, 10_000).unwrap();
}

/// Content of an image's page, by its destination.
fn image(destination: u64) -> u64 {
    destination | 0xbeef_0000_0000_0000
}

/// Check that list and control page are free pages outside everything, each used once.
fn check_own_pages(plan: &KimagePlan, free: &[Pages]) {
    let mut own: BTreeSet<u64> = plan.list_pages().iter().copied().collect();
    assert_eq!(own.len(), plan.list_pages().len());
    assert!(own.insert(plan.control_page()));
    for m in plan.placement().iter().copied().chain(plan.moves()) {
        for i in 0..m.nr {
            assert!(!own.contains(&(m.destination + i * PAGE_SIZE)), "{m:?}");
            assert!(!own.contains(&(m.source + i * PAGE_SIZE)), "{m:?}");
        }
    }
    for page in own {
        assert!(free.iter().any(|r| (r.start..r.end()).contains(&page)), "{page:#x} is not free");
    }
}

#[test]
fn staged_images_arrive_whole_and_displaced_pages_are_where_the_plan_says() {
    let mut nr_planned = 0;
    for case in 0..CASES {
        let mut random = Random(case);
        let (share, free_share) = (10 + random.below(60), 20 + random.below(70));
        let (destinations, free) = (random.runs(share), random.runs(free_share));
        let width = if case % 2 == 0 { Width::Bits64 } else { Width::Bits32 };
        let wanted: Vec<u64> = destinations.iter().flat_map(|r| r.addresses()).collect();
        let is_free = |page: u64| free.iter().any(|r| (r.start..r.end()).contains(&page));
        let outside = free.iter().flat_map(|r| r.addresses()).filter(|page| !wanted.contains(page)).count();
        let in_use = wanted.iter().filter(|&&page| !is_free(page)).count();

        let plan = match stage(&destinations, &free, width) {
            Ok(plan) => plan,
            Err(error) => {
                let need = (in_use + usize::from(in_use > 0) + 1) as u64;
                assert_eq!(error, PlanError::TooFewPages { need, have: outside as u64 }, "case {case}");
                assert!((outside as u64) < need);
                continue;
            }
        };
        nr_planned += 1;
        check_own_pages(&plan, &free);
        for transfer in [Transfer::Copy, Transfer::Swap] {
            let mut ram = Ram::new();
            let mut sources = BTreeSet::new();
            for &destination in &wanted {
                let source = plan.source_of(destination).unwrap();
                assert!(is_free(source) && sources.insert(source), "case {case}");
                ram.set(source, image(destination));
            }
            run(&plan, &mut ram, transfer);
            let ends = plan.after_swaps();
            for &destination in &wanted {
                assert_eq!(ram.get(destination), image(destination), "case {case} {transfer:?}");
                if transfer == Transfer::Swap && !is_free(destination) {
                    let source = plan.source_of(destination).unwrap();
                    assert_eq!((ram.get(source), ends[&destination]), (destination, source), "case {case}");
                }
            }
            // Nothing else has changed.
            for page in (0..NR_PAGES).map(address) {
                let is_ours =
                    wanted.contains(&page) || sources.contains(&page) || plan.list_pages().contains(&page);
                assert!(is_ours || ram.get(page) == page, "case {case}: {page:#x}");
            }
        }
    }
    assert!(nr_planned > CASES / 4, "only {nr_planned} cases had enough pages");
}

/// Random moves: chains, trees (copying), circles, pages that stay.
fn random_moves(random: &mut Random, transfer: Transfer) -> Vec<(u64, u64)> {
    let mut pages: Vec<u64> = (0..NR_PAGES - 16).collect();
    random.shuffle(&mut pages);
    let nr = 1 + random.below(NR_PAGES - 17) as usize;
    let destinations = pages[..nr].to_vec();
    let mut sources = match random.below(3) {
        // A permutation of the destinations themselves: circles only.
        0 => destinations.clone(),
        // Anywhere else as well.
        _ => pages.clone(),
    };
    random.shuffle(&mut sources);
    if transfer == Transfer::Copy && random.below(2) == 0 {
        for i in 0..sources.len() {
            sources[i] = sources[random.below(i as u64 + 1) as usize];
        }
    }
    destinations.into_iter().map(address).zip(sources.into_iter().map(address)).collect()
}

#[test]
fn ordered_moves_arrive_whole_through_chains_trees_and_circles() {
    for case in 0..CASES {
        let mut random = Random(case ^ 0x5555);
        let transfer = if case % 2 == 0 { Transfer::Copy } else { Transfer::Swap };
        let width = if case % 3 == 0 { Width::Bits32 } else { Width::Bits64 };
        let pairs = random_moves(&mut random, transfer);
        let moves: Vec<Move> =
            pairs.iter().map(|&(destination, source)| Move { source, destination, nr: 1 }).collect();
        // Spare pages may be among those in use: the planner has to keep off them.
        let spare = [Pages::new(address(NR_PAGES - 40), 40).unwrap()];
        let plan = order(&moves, &spare, transfer, width).unwrap_or_else(|e| panic!("case {case}: {e}"));
        check_own_pages(&plan, &spare);
        let mut ram = Ram::new();
        run(&plan, &mut ram, transfer);
        for &(destination, source) in &pairs {
            assert_eq!(ram.get(destination), source, "case {case} {transfer:?}: {pairs:x?}");
        }
        if transfer == Transfer::Swap {
            for (content, at) in plan.after_swaps() {
                assert_eq!(ram.get(at), content, "case {case}");
            }
            // Not one content is lost.
            let own = plan.list_pages().len();
            let left: BTreeSet<u64> = (0..NR_PAGES).map(|page| ram.get(address(page))).collect();
            assert!(left.len() >= NR_PAGES as usize - own, "case {case}");
        }
    }
}

#[test]
fn runs_stay_runs_and_cost_one_destination_entry() {
    let destinations = [Pages::new(0x100_0000, 1000).unwrap()];
    let free = [Pages::new(0x800_0000, 2000).unwrap()];
    let plan = stage(&destinations, &free, Width::Bits64).unwrap();
    let moves: Vec<Move> = plan.moves().collect();
    assert_eq!(moves, [Move { source: 0x800_0000, destination: 0x100_0000, nr: 1000 }]);
    // 1001 entries, 511 on a page beside the link.
    assert_eq!(plan.list_pages().len(), 2);
    let pages = plan.encode();
    let entries = |page: &[u8]| -> Vec<u64> {
        page.as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect()
    };
    let first = entries(&pages[0].1);
    assert_eq!(first[..2], [0x100_0000 | IND_DESTINATION, 0x800_0000 | IND_SOURCE]);
    assert_eq!(first[511], pages[1].0 | IND_INDIRECTION);
    assert_eq!(entries(&pages[1].1).last(), Some(&IND_DONE));
}

#[test]
fn lists_that_just_fill_their_pages_lose_no_entry() {
    for (width, per_page) in [(Width::Bits64, 511), (Width::Bits32, 1023)] {
        // One entry names the destination.
        for nr in [per_page - 2, per_page - 1, per_page, 2 * per_page - 1, 2 * per_page] {
            let destinations = Pages::new(0x100_0000, nr).unwrap();
            let plan = stage(&[destinations], &[Pages::new(0x800_0000, 3000).unwrap()], width).unwrap();
            assert_eq!(plan.list_pages().len() as u64, (nr + 1).div_ceil(per_page), "{nr} pages");
            let mut ram = Ram::new();
            for page in destinations.addresses() {
                ram.set(page, page);
                ram.set(plan.source_of(page).unwrap(), image(page));
            }
            run(&plan, &mut ram, Transfer::Copy);
            assert!(destinations.addresses().all(|page| ram.get(page) == image(page)), "{nr} pages");
        }
    }
}

#[test]
fn an_image_in_place_needs_no_list() {
    let pages = [Pages::new(0x100_0000, 4).unwrap()];
    let free = [Pages::new(0x100_0000, 5).unwrap()];
    let plan = stage(&pages, &free, Width::Bits32).unwrap();
    assert_eq!((plan.head(), plan.moves().count(), plan.control_page()), (IND_DONE, 0, 0x100_4000));
    assert!(plan.encode().is_empty());
}

#[test]
fn contradictions_are_refused_with_the_address() {
    let run = |start, nr| Pages::new(start, nr).unwrap();
    let overlap = stage(&[run(0x1000, 2), run(0x2000, 1)], &[run(0x8000, 9)], Width::Bits64);
    assert_eq!(overlap, Err(PlanError::Overlap { address: 0x2000 }));
    let high = [run(1 << 32, 1)];
    assert_eq!(
        stage(&high, &[run(0x8000, 9)], Width::Bits32),
        Err(PlanError::OutOfReach { address: 1 << 32 })
    );
    // Free memory above 4 GiB is just of no use.
    assert_eq!(
        stage(&[run(0x1000, 1)], &high, Width::Bits32),
        Err(PlanError::TooFewPages { need: 3, have: 0 })
    );
    let twice = [Move { source: 0x1000, destination: 0x5000, nr: 1 }; 2];
    for transfer in [Transfer::Copy, Transfer::Swap] {
        let error = order(&twice, &[run(0x8000, 9)], transfer, Width::Bits64);
        assert_eq!(error, Err(PlanError::Overlap { address: 0x5000 }));
    }
    let to_two = [
        Move { source: 0x1000, destination: 0x5000, nr: 1 },
        Move { source: 0x1000, destination: 0x6000, nr: 1 },
    ];
    assert!(order(&to_two, &[run(0x8000, 9)], Transfer::Copy, Width::Bits64).is_ok());
    assert_eq!(
        order(&to_two, &[run(0x8000, 9)], Transfer::Swap, Width::Bits64),
        Err(PlanError::Overlap { address: 0x1000 })
    );
    assert_eq!(
        order(&to_two, &[run(0x8000, 1)], Transfer::Copy, Width::Bits64),
        Err(PlanError::TooFewPages { need: 2, have: 1 })
    );
    assert!(Pages::new(0x1001, 1).is_none() && Pages::new(0x1000, 0).is_none());
    assert!(Pages::new(0x1000, u64::MAX).is_none());
}

#[test]
fn a_list_that_is_none_is_refused_where_it_goes_wrong() {
    let follow = |entries: &[u64]| {
        let mut ram = Ram::new();
        let bytes = entries.iter().flat_map(|entry| entry.to_le_bytes()).collect();
        ram.0.insert(BASE, bytes);
        interpret(&mut ram, BASE | IND_INDIRECTION, Width::Bits64, Transfer::Copy, 2000)
    };
    assert_eq!(follow(&[IND_DONE]), Ok(()));
    assert_eq!(follow(&[8]), Err(BadList::NoDestination { entry: 8 }));
    assert_eq!(follow(&[0x1001, 0x2008]), Err(BadList::NoPage { address: 0x2000 }));
    assert_eq!(follow(&[BASE | IND_INDIRECTION]), Err(BadList::TooLong));
    assert_eq!(follow(&vec![BASE | 1; 512]), Err(BadList::NoPage { address: BASE + PAGE_SIZE }));
    assert_eq!(format!("{}", BadList::TooLong), "the list does not end");
}

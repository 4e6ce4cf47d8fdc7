//! Stages an image: what a kernel that uses the library does.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use bare_metal_platform::pattern::{self, Random};
use bare_metal_platform::{PAGE_SIZE, Page, say, table};
use kdump_panic_kernel::kimage::{self, KimagePlan, Move, Pages, PlanError, Transfer};

use crate::case::{Case, Way};
use crate::control_page::EntryMode;
use crate::memory::{self, ARENA, HIGH_ARENA, HIGH_RESERVE, RESERVE, run};
use crate::payload;

/// An image that waits.
pub struct Staged {
    pub plan: KimagePlan,
    /// By destination, the sum over its content; none if that is not known, or changes.
    pub image: BTreeMap<u64, Option<u64>>,
    /// Pages that the planner was allowed to use.
    free: Vec<Pages>,
}

impl Staged {
    pub fn told(&self) -> String {
        let nr_moved: u64 = self.plan.moves().map(|m| m.nr).sum();
        let nr_in_place = self.plan.placement().iter().filter(|m| m.source == m.destination).map(|m| m.nr);
        format!(
            "{} moves of {nr_moved} pages, {} in place, {} pages of list",
            self.plan.moves().count(),
            nr_in_place.sum::<u64>(),
            self.plan.list_pages().len(),
        )
    }

    /// Where the content of a destination waits.
    pub fn source_of(&self, destination: u64) -> u64 {
        self.plan.source_of(destination).expect("every destination has a source")
    }

    /// Check that list and control page are free pages.
    fn check(&self) {
        let own = self.plan.list_pages().iter().copied().chain([self.plan.control_page()]);
        for page in own {
            assert!(is_in(&self.free, page), "{page:#x} is not free");
        }
    }
}

/// Puts the image where the plan says, the list and all; the table is left out.
pub fn stage(case: &Case, random: &mut Random) -> Staged {
    let staged = match case.way {
        Way::Staged => staged(case, random),
        Way::Ordered => ordered(case, random),
    };
    staged.check();
    for (address, bytes) in staged.plan.encode() {
        memory::write_bytes(address, &bytes);
    }
    staged
}

/// Random pages, anywhere; the library finds their sources.
fn staged(case: &Case, random: &mut Random) -> Staged {
    let share = 10 + random.below(80);
    let mut destinations = runs(random, ARENA, share);
    if case.reaches_high() {
        destinations.extend(runs(random, HIGH_ARENA, share));
    }
    if case.is_last {
        destinations.push(memory::kernel_text());
    }
    let mut contents: BTreeMap<u64, Page> = BTreeMap::new();
    for page in destinations.iter().flat_map(|r| r.addresses()) {
        contents.insert(page, pattern::page(random.next()));
    }
    let payload = payload::pages();
    destinations.extend(payload.iter().map(|page| run((page.address, 1))));
    destinations.push(run((table::ADDRESS, table::NR_PAGES)));
    random.shuffle(&mut destinations);

    let (plan, free) = loop {
        let free_share = random.below(90);
        let mut free = runs(random, ARENA, free_share);
        // A control page that enters 32-bit mode has to lie below 4 GiB, so nothing above is offered then.
        let reserve = match case.mode {
            EntryMode::Bits64 if random.below(2) == 0 => {
                free.extend(runs(random, HIGH_ARENA, free_share));
                HIGH_RESERVE
            }
            _ => RESERVE,
        };
        // Often too few.
        free.push(run((reserve.0, 1 + random.below(reserve.1))));
        random.shuffle(&mut free);
        match kimage::stage(&destinations, &free, case.width()) {
            Ok(plan) => break (plan, free),
            Err(error @ PlanError::TooFewPages { need, have }) => {
                let outside = free.iter().flat_map(|r| r.addresses()).filter(|&p| !is_in(&destinations, p));
                assert!(need > have && have == outside.count() as u64, "{error}");
                say!("kernel: drawn again: {error}");
            }
            Err(error) => panic!("{error}"),
        }
    };
    let mut image = BTreeMap::new();
    let mut put = |destination, content: &Page, sum| {
        let source = plan.source_of(destination).expect("every destination has a source");
        assert!(is_in(&free, source), "{source:#x} is not free");
        memory::write(source, content);
        image.insert(destination, sum);
    };
    for (&destination, content) in &contents {
        put(destination, content, Some(pattern::sum(*content)));
    }
    for page in &payload {
        put(page.address, &page.content, (!page.is_variable).then(|| pattern::sum(page.content)));
    }
    image.extend(run((table::ADDRESS, table::NR_PAGES)).addresses().map(|page| (page, None)));
    Staged { plan, image, free }
}

/// Pages that change places, in circles and chains; the library finds the order.
fn ordered(case: &Case, random: &mut Random) -> Staged {
    let mut arena: Vec<u64> = run(ARENA).addresses().collect();
    if case.reaches_high() {
        arena.extend(run(HIGH_ARENA).addresses());
    }
    random.shuffle(&mut arena);
    let nr = 1 + random.below(arena.len() as u64) as usize;
    let mut destinations = arena[..nr].to_vec();
    // Circles only, or chains from anywhere as well.
    let mut sources = if random.below(3) == 0 { destinations.clone() } else { arena };
    random.shuffle(&mut sources);
    sources.truncate(nr);
    if case.transfer == Transfer::Copy && random.below(2) == 0 {
        // Trees: several destinations read one source.
        for i in 0..nr {
            sources[i] = sources[random.below(i as u64 + 1) as usize];
        }
    }
    let mut image: BTreeMap<u64, Option<u64>> =
        destinations.iter().copied().zip(sources.iter().map(|&source| Some(memory::sum(source)))).collect();

    // The payload and its table wait in the reserve, page by page.
    let mut reserve: Vec<u64> = run(RESERVE).addresses().collect();
    random.shuffle(&mut reserve);
    let mut wait = |destination| {
        destinations.push(destination);
        let source = reserve.pop().expect("the reserve is large");
        sources.push(source);
        source
    };
    for page in payload::pages() {
        memory::write(wait(page.address), &page.content);
        image.insert(page.address, (!page.is_variable).then(|| pattern::sum(page.content)));
    }
    for page in run((table::ADDRESS, table::NR_PAGES)).addresses() {
        wait(page);
        image.insert(page, None);
    }
    if case.is_last {
        for page in memory::kernel_text().addresses() {
            image.insert(page, Some(memory::sum(wait(page))));
        }
    }
    let mut moves: Vec<Move> = destinations
        .iter()
        .zip(&sources)
        .map(|(&destination, &source)| Move { source, destination, nr: 1 })
        .collect();
    random.shuffle(&mut moves);
    // Pages that wait are among the spare ones: the planner has to keep off them.
    let free = Vec::from([run(RESERVE)]);
    let plan = kimage::order(&moves, &free, case.transfer, case.width()).unwrap_or_else(|e| panic!("{e}"));
    Staged { plan, image, free }
}

/// Runs of pages that do not overlap, a share of all in percent.
fn runs(random: &mut Random, (start, nr): (u64, u64), share: u64) -> Vec<Pages> {
    let mut runs = Vec::new();
    let mut page = 0;
    while page < nr {
        let length = (1 + random.below(8)).min(nr - page);
        if random.below(100) < share {
            runs.push(run((start + page * PAGE_SIZE, length)));
        }
        page += length;
    }
    runs
}

fn is_in(ranges: &[Pages], page: u64) -> bool {
    ranges.iter().any(|r| (r.start()..r.end()).contains(&page))
}

//! What planning costs: time per page as images grow to 16 GiB, and beside the straightforward way, which
//! looks for a free page by walking them all and asks of each whether it is a destination.
//!
//!     cargo run --release -p kdump-panic-kernel --example kimage_cost
//!
//! The worst case is taken: destinations and free pages alternate page by page, so that no run is longer than
//! one page. Figures are ratios; the machine cancels out.

use std::time::Instant;

use kdump_panic_kernel::kimage::{Pages, Width, stage};

const PAGE: u64 = 4096;

/// `n` destination pages with gaps of a page, of which every second is free; `n` more pages above.
fn scattered(n: u64) -> (Vec<Pages>, Vec<Pages>) {
    let run = |page: u64| Pages::new((16 + page) * PAGE, 1).expect("a page");
    let destinations = (0..n).map(|i| run(2 * i)).collect();
    let free = (0..n).map(|i| run(4 * i + 1)).chain((0..n).map(|i| run(4 * n + 2 * i))).collect();
    (destinations, free)
}

/// The original algorithm's way: for each page, the next free one that is no destination, found by looking.
fn straightforward(destinations: &[Pages], free: &[Pages]) -> Vec<(u64, u64)> {
    let mut used = Vec::new();
    let mut list = Vec::new();
    for destination in destinations {
        let found = free.iter().find(|page| {
            let address = page.start();
            !used.contains(&address) && !destinations.iter().any(|d| d.start() == address)
        });
        if let Some(page) = found {
            used.push(page.start());
            list.push((page.start(), destination.start()));
        }
    }
    list
}

/// Seconds of the fastest of some runs.
fn fastest<T>(runs: u32, mut work: impl FnMut() -> T) -> f64 {
    let times = (0..runs).map(|_| {
        let begin = Instant::now();
        std::hint::black_box(work());
        begin.elapsed().as_secs_f64()
    });
    times.fold(f64::INFINITY, f64::min)
}

/// The yardstick of n log n: sorting as many ranges, shuffled.
fn sort(ranges: &[Pages]) -> Vec<Pages> {
    let mut ranges = ranges.to_vec();
    ranges.sort_unstable();
    ranges
}

fn shuffled(ranges: &[Pages]) -> Vec<Pages> {
    let mut ranges = ranges.to_vec();
    let mut seed = 1u64;
    for i in (1..ranges.len()).rev() {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ranges.swap(i, (seed >> 33) as usize % (i + 1));
    }
    ranges
}

fn main() {
    println!("pages  planning / sorting as many pages   straightforward / planning");
    for shift in [8, 10, 12, 14, 16, 18, 20, 22] {
        let n = 1u64 << shift;
        let (destinations, free) = scattered(n);
        let unsorted = shuffled(&destinations);
        let runs = if shift > 18 { 3 } else { 9 };
        let ours = fastest(runs, || stage(&destinations, &free, Width::Bits64).expect("pages suffice"));
        let sorting = fastest(runs, || sort(&unsorted));
        // The straightforward way takes minutes beyond this.
        let ratio = (shift <= 12).then(|| fastest(1, || straightforward(&destinations, &free)) / ours);
        let ratio = ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.0}x"));
        println!("2^{shift:<4} {:>30.2} {ratio:>28}", ours / sorting);
    }
}

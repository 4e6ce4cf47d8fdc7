//! Damage of every shape against the parity, on a memory of two regions with a gap.

use super::*;
use crate::handoff::{Console, Entry, Handoff, Policy, Region, RegionFlags};
use crate::parity::Geometry;
use crate::sha256::digest;
use std::vec;
use std::vec::Vec;

const BASE: u64 = 0x10_0000;
const PAGE: usize = PAGE_SIZE as usize;

/// Memory from [`BASE`] on.
#[derive(Clone, PartialEq)]
struct Ram(Vec<u8>);

impl Memory for Ram {
    fn bytes(&self, start: u64, len: u64) -> Option<&[u8]> {
        let at = start.checked_sub(BASE)? as usize;
        self.0.get(at..)?.get(..len as usize)
    }

    fn write_page(&mut self, start: u64, page: &Page) -> bool {
        let at = (start - BASE) as usize;
        self.0[at..at + PAGE].copy_from_slice(page);
        true
    }
}

struct Staged {
    handoff: Handoff,
    ram: Ram,
}

/// Kernel of 23.5 pages, gap, initramfs of 9 pages, gap, table; then the parity.
fn staged(nr_parity: u32) -> Staged {
    let mut seed = 0x1234_5678_9abc_def1u64;
    let mut ram = Ram(vec![0; 80 * PAGE]);
    for byte in &mut ram.0 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        *byte = (seed >> 56) as u8;
    }
    let tail = (23 * PAGE + PAGE / 2)..24 * PAGE;
    ram.0[tail].fill(0);
    let table_at = 40 * PAGE;
    ram.0[table_at..table_at + PAGE].fill(0);

    let shapes = [(0u64, 23 * PAGE + PAGE / 2), (30, 9 * PAGE), (40, PAGE)];
    let mut pages: Vec<usize> = Vec::new();
    for (page, len) in shapes {
        pages.extend((0..len.div_ceil(PAGE)).map(|i| page as usize + i));
    }
    let nr_protected = pages.len() as u32;
    let geometry = Geometry {
        parity_start: BASE + 41 * PAGE_SIZE,
        nr_parity,
        nr_protected,
        table_start: BASE + 40 * PAGE_SIZE,
        nr_table: 1,
    };
    for (index, page) in pages.iter().enumerate().take(pages.len() - 1) {
        let page: &Page = ram.0[page * PAGE..].first_chunk().unwrap();
        let digest = page_digest(page);
        ram.0[table_at + 8 * index..][..8].copy_from_slice(&digest);
    }
    let mut parity = vec![[0u8; PAGE]; nr_parity as usize];
    for (index, page) in pages.iter().enumerate() {
        let j = geometry.parity_page(index as u32).unwrap_or(0) as usize;
        if let Some(sum) = parity.get_mut(j) {
            xor_into(sum, ram.0[page * PAGE..].first_chunk().unwrap());
        }
    }
    ram.0[41 * PAGE..][..nr_parity as usize * PAGE].copy_from_slice(parity.as_flattened());

    let mut handoff = Handoff::new(Console::None, Policy::Reset, Entry::default());
    for ((page, len), tag) in shapes.into_iter().zip(["bzImage", "initramfs", "digests"]) {
        let start = BASE + page * PAGE_SIZE;
        let sha256 = digest(ram.bytes(start, len as u64).unwrap());
        handoff
            .push_region(Region::new(start, len as u64, tag, RegionFlags::PROTECTED, sha256).unwrap())
            .unwrap();
    }
    handoff.parity = geometry;
    let table: &Page = ram.0[table_at..].first_chunk().unwrap();
    handoff.set_table_digests(&[page_digest(table)]).unwrap();
    let handoff = Handoff::parse(&handoff.to_bytes()).unwrap();
    Staged { handoff, ram }
}

/// Repairs everything, the table first, and tells what became of it.
fn repair(staged: &Staged, ram: &mut Ram) -> Repair {
    let mut sum = Repair::default();
    for region in [2, 0, 1] {
        let one = repair_region(&staged.handoff, region, ram, |_, _| ());
        sum.nr_damaged += one.nr_damaged;
        sum.nr_repaired += one.nr_repaired;
    }
    sum
}

fn protected(ram: &Ram) -> [&[u8]; 3] {
    [&ram.0[..24 * PAGE], &ram.0[30 * PAGE..39 * PAGE], &ram.0[40 * PAGE..41 * PAGE]]
}

/// Check every run that touches no more pages than there are stripes, at every page and odd offsets.
#[test]
fn any_run_up_to_the_size_chosen_is_rebuilt() {
    for run_pages in [1, 4, 8] {
        let staged = staged(Geometry::parity_pages_for(run_pages * PAGE_SIZE) as u32);
        let run = run_pages as usize * PAGE;
        for start in (0..staged.ram.0.len() - run).step_by(PAGE / 2) {
            let mut ram = staged.ram.clone();
            for byte in &mut ram.0[start..start + run] {
                *byte = !*byte;
            }
            let repair = repair(&staged, &mut ram);
            assert_eq!(repair.nr_damaged, repair.nr_repaired, "{run_pages} pages at {start:#x}");
            assert!(protected(&ram) == protected(&staged.ram), "{run_pages} pages at {start:#x}");
        }
    }
}

#[test]
fn one_bit_anywhere_is_rebuilt() {
    let staged = staged(2);
    for at in (0..24 * PAGE).chain(30 * PAGE..39 * PAGE).chain(40 * PAGE..41 * PAGE).step_by(61) {
        let mut ram = staged.ram.clone();
        ram.0[at] ^= 1 << (at % 8);
        assert_eq!(repair(&staged, &mut ram), Repair { nr_damaged: 1, nr_repaired: 1 }, "{at:#x}");
        assert!(ram == staged.ram);
    }
}

#[test]
fn two_pages_of_a_stripe_are_left_as_they_are() {
    let staged = staged(5);
    let mut ram = staged.ram.clone();
    ram.0[0] ^= 1;
    ram.0[10 * PAGE] ^= 1;
    let damaged = ram.clone();
    assert_eq!(repair(&staged, &mut ram), Repair { nr_damaged: 2, nr_repaired: 0 });
    assert!(ram == damaged);
}

#[test]
fn damaged_parity_makes_nothing_worse() {
    let staged = staged(5);
    let mut ram = staged.ram.clone();
    ram.0[41 * PAGE..46 * PAGE].fill(0x55);
    let damaged = ram.clone();
    assert_eq!(repair(&staged, &mut ram), Repair::default());
    ram.0[7] ^= 1;
    assert_eq!(repair(&staged, &mut ram), Repair { nr_damaged: 1, nr_repaired: 0 });
    assert!(ram.0[8..] == damaged.0[8..]);
}

#[test]
fn without_parity_nothing_is_touched() {
    let mut staged = staged(5);
    staged.handoff.parity.nr_parity = 0;
    let mut ram = staged.ram.clone();
    ram.0[0] ^= 1;
    assert_eq!(repair(&staged, &mut ram), Repair::default());
}

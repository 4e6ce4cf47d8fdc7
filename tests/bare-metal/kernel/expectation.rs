//! What has to be where after the jump: written into the table for the payload, before anything is spoilt.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec;
use alloc::vec::Vec;

use bare_metal_platform::mode::{CODE64, DATA};
use bare_metal_platform::pattern::Random;
use bare_metal_platform::{PAGE_SIZE, Page, say, table};
use kdump_panic_kernel::kimage::{IND_INDIRECTION, Transfer};

use crate::case::{Case, Control};
use crate::control_page::{self, EntryMode, EntryState};
use crate::options::Corrupt;
use crate::staging::Staged;
use crate::{boot, crossing, exceptions, memory, payload};

/// Selectors in a control page that enters 32-bit mode: code, then data.
const CONTROL_PAGE_SELECTORS: u64 = 0x10 | 0x18 << 16;

/// Writes the table and the control page, and spoils what is to be spoilt.
pub fn leave(case: &Case, staged: &Staged, corrupt: Corrupt, random: &mut Random) {
    let entry = entry(case, random);
    let swap = case.transfer == Transfer::Swap;
    let head = staged.plan.head();
    let page = match case.control {
        Control::X86_64 => control_page::x86_64(head, swap, &entry),
        Control::I386(_) => control_page::i386(head as u32, swap, &entry),
    };
    let page = page.unwrap_or_else(|e| panic!("{e}"));
    memory::write_bytes(staged.plan.control_page(), &page);

    let (pages, bystanders) = pages(case, staged);
    let mut words = header(case, &entry);
    assert!(table::ENTRIES + 2 * pages.len() <= table::NR_WORDS, "{} pages to check", pages.len());
    words[table::NR_ENTRIES] = pages.len() as u64;
    for (pair, (address, sum)) in words[table::ENTRIES..].chunks_exact_mut(2).zip(pages) {
        pair.copy_from_slice(&[address, sum]);
    }
    words[table::SUM] = table::sum(&words);
    for (i, page) in words.chunks_exact(512).enumerate() {
        let destination = table::ADDRESS + i as u64 * PAGE_SIZE;
        let page: &Page = page.try_into().expect("512 words");
        memory::write(staged.source_of(destination), page);
    }
    spoil(case, staged, corrupt, &bystanders, random);
}

fn entry(case: &Case, random: &mut Random) -> EntryState {
    let (rip, mask) = match case.mode {
        EntryMode::Bits64 => (payload::ENTRY_64, u64::MAX),
        EntryMode::Bits32 => (payload::ENTRY_32, u32::MAX.into()),
    };
    let mut value = || random.next() & mask;
    EntryState {
        mode: case.mode,
        rip,
        rax: value(),
        rbx: value(),
        rcx: value(),
        rdx: value(),
        rsi: value(),
        rdi: value(),
        rbp: value(),
        rsp: value(),
    }
}

fn header(case: &Case, entry: &EntryState) -> Vec<u64> {
    let mut words = vec![0; table::NR_WORDS];
    words[table::CASE] = case.number;
    words[table::RESUME] = if case.is_last { 0 } else { boot::resume_address() };
    match entry.mode {
        EntryMode::Bits64 => {
            words[table::MODE] = 64;
            [words[table::CR3], words[table::CR4]] = crossing::paging();
            words[table::IDT_BASE] = exceptions::base();
            words[table::SELECTORS] = u64::from(CODE64) | u64::from(DATA) << 16;
        }
        EntryMode::Bits32 => {
            words[table::MODE] = 32;
            words[table::SELECTORS] = CONTROL_PAGE_SELECTORS;
        }
    }
    let EntryState { rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp, .. } = *entry;
    words[table::REGISTERS..][..table::NR_REGISTERS]
        .copy_from_slice(&[rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp]);
    words
}

/// Pages with the sums they have to have, and those among them that nothing should touch.
fn pages(case: &Case, staged: &Staged) -> (Vec<(u64, u64)>, Vec<u64>) {
    let before: BTreeMap<u64, u64> = memory::watched().map(|page| (page, memory::sum(page))).collect();
    // Contents that cannot be checked, by where they wait.
    let unknown: BTreeSet<u64> =
        staged.image.iter().filter(|(_, sum)| sum.is_none()).map(|(&d, _)| staged.source_of(d)).collect();
    let sources: BTreeSet<u64> = staged.image.keys().map(|&d| staged.source_of(d)).collect();
    let mut pages: Vec<(u64, u64)> = staged.image.iter().filter_map(|(&d, &sum)| Some((d, sum?))).collect();
    match case.transfer {
        // Every content that was displaced, where the plan says that it is.
        Transfer::Swap => {
            let ends = staged.plan.after_swaps();
            for &destination in staged.image.keys() {
                let has_moved = staged.source_of(destination) != destination;
                assert!(!has_moved || ends.contains_key(&destination), "{destination:#x} is lost");
            }
            pages.extend(
                ends.iter().filter(|(page, _)| !unknown.contains(page)).map(|(page, &at)| (at, before[page])),
            );
        }
        // Sources are left as they were.
        Transfer::Copy => {
            let left = sources.iter().filter(|&s| !staged.image.contains_key(s) && !unknown.contains(s));
            pages.extend(left.map(|&source| (source, before[&source])));
        }
    }
    let mut touched: BTreeSet<u64> = staged.image.keys().copied().chain(sources).collect();
    for m in staged.plan.moves() {
        touched.extend((0..m.nr).flat_map(|i| [m.source + i * PAGE_SIZE, m.destination + i * PAGE_SIZE]));
    }
    // The control page fills in its pointers; the list is read only, and is among those nothing should touch.
    touched.insert(staged.plan.control_page());
    let bystanders: Vec<u64> = before.keys().copied().filter(|page| !touched.contains(page)).collect();
    pages.extend(bystanders.iter().map(|page| (*page, before[page])));
    (pages, bystanders)
}

/// Flips a bit somewhere, after everything was summed.
fn spoil(case: &Case, staged: &Staged, corrupt: Corrupt, bystanders: &[u64], random: &mut Random) {
    let known = || staged.image.iter().filter(|(_, sum)| sum.is_some()).map(|(&d, _)| d);
    let is_arena = |page: u64| page >= memory::ARENA.0;
    let (candidates, end): (Vec<(u64, u64)>, _) = match corrupt {
        Corrupt::Nothing => return,
        // Where it lies now, and where the payload sees it.
        Corrupt::Image => (known().filter(|&d| is_arena(d)).map(|d| (staged.source_of(d), d)).collect(), 512),
        // Where it lies now, and where swapping puts it.
        Corrupt::Displaced if case.transfer == Transfer::Swap => {
            let ends = staged.plan.after_swaps();
            let is_displaced = |d: &u64| is_arena(*d) && staged.source_of(*d) != *d;
            (known().filter(is_displaced).filter_map(|d| Some((d, *ends.get(&d)?))).collect(), 512)
        }
        Corrupt::Displaced => return,
        Corrupt::Bystander => {
            let list = staged.plan.list_pages();
            let pages = bystanders.iter().filter(|page| is_arena(**page) && !list.contains(page));
            (pages.map(|&page| (page, page)).collect(), 512)
        }
        Corrupt::Table => (Vec::from([(staged.source_of(table::ADDRESS), table::ADDRESS)]), table::ENTRIES),
    };
    if candidates.is_empty() {
        return;
    }
    let (now, then) = candidates[random.below(candidates.len() as u64) as usize];
    let mut page = memory::read(now);
    page[random.below(end as u64) as usize] ^= 1 << random.below(64);
    memory::write(now, &page);
    say!("kernel: spoilt the page at {then:#x}");
}

const _: () = assert!(IND_INDIRECTION == control_page::IND_INDIRECTION);

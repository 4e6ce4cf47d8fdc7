//! The control pages on a CPU: a kernel of ours stages images with the library, dies of an exception, and the payload
//! finds every byte where the plan said, those it displaced included. No Linux, no firmware but the PVH entry.
//!
//! Needs QEMU; `make test` runs these tests, a plain `cargo test` compiles the programs and lists the rest as ignored.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod guest;
mod programs;

use std::collections::BTreeSet;

use guest::{End, boot};

/// Kinds of case: three ways in and out, copying and swapping, both parts of the planner.
const NR_KINDS: usize = 12;
/// Cases of a boot: every kind with every sort of paging that the i386 page may be entered with.
const NR_CASES: usize = 3 * NR_KINDS;

/// Boots with pseudo-random cases, all of which have to pass.
fn passes(cpu: &str, seed: usize, nr_cases: usize) {
    let run = boot(&format!("{cpu}-{seed}"), cpu, &format!("seed={seed} cases={nr_cases}"));
    assert_eq!(run.end, End::Passed, "seed {seed} on {cpu}:\n{}", run.said);
    let nr_ok = run.lines("payload: case").filter(|line| line.contains(" ok, ")).count();
    assert_eq!(nr_ok, nr_cases, "{}", run.said);
    assert_eq!(run.lines("kernel: panic: exception 6 ").count(), nr_cases, "{}", run.said);
    let kinds: BTreeSet<&str> =
        run.lines("kernel: case").filter_map(|line| line.split(": ").nth(2)).collect();
    // The i386 kinds count once for each sort of paging.
    assert!(nr_cases < NR_CASES || kinds.len() == NR_KINDS / 3 * 5, "{kinds:?}");
}

#[test]
fn the_kernel_has_the_note_that_qemu_enters_it_by() {
    let elf = std::fs::read(programs::kernel()).unwrap();
    // Name and descriptor sizes, XEN_ELFNOTE_PHYS32_ENTRY, name.
    let note = [4, 0, 0, 0, 8, 0, 0, 0, 18, 0, 0, 0, b'X', b'e', b'n', 0];
    let at = elf.windows(note.len()).position(|window| window == note).unwrap();
    let field = |at: usize| u64::from_le_bytes(*elf[at..].first_chunk().unwrap());
    assert_eq!(field(at + note.len()), field(0x18), "the note and e_entry name one address");
}

#[test]
#[ignore = "boots a kernel of ours in QEMU; `make test` runs it"]
fn images_arrive_whole_and_nothing_displaced_is_lost() {
    for seed in 1..=4 {
        passes("max,-cx16", seed, NR_CASES);
    }
}

#[test]
#[ignore = "boots a kernel of ours in QEMU; `make test` runs it"]
fn a_cpu_of_the_first_generation_is_enough() {
    passes("qemu64", 5, NR_CASES);
}

/// Each kind once as the last case of a boot, in which the image takes the place of the kernel that staged it.
#[test]
#[ignore = "boots a kernel of ours in QEMU; `make test` runs it"]
fn an_image_takes_the_place_of_the_kernel_that_staged_it() {
    for nr_cases in 1..=NR_KINDS {
        passes("max,-cx16", 100 + nr_cases, nr_cases);
    }
}

/// The tests above could fail: one bit in one page is found, wherever it is, and named.
#[test]
#[ignore = "boots a kernel of ours in QEMU; `make test` runs it"]
fn a_flipped_bit_is_found_by_the_payload() {
    for what in ["image", "displaced", "bystander", "table"] {
        let run = boot(what, "max,-cx16", &format!("seed=7 cases={NR_CASES} corrupt={what}"));
        assert_eq!(run.end, End::Failed, "{what}:\n{}", run.said);
        let spoilt = run.lines("kernel: spoilt the page at ").last().unwrap();
        let page = spoilt.rsplit_once(' ').unwrap().1;
        let named = match what {
            "table" => "payload: failed: the table differs".to_owned(),
            _ => format!("payload: the page at {page} differs"),
        };
        assert!(run.lines("payload: ").any(|line| line == named), "{what}:\n{}", run.said);
    }
}

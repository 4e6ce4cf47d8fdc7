//! The payload: finds out whether it was entered as it should have been, and whether every page is what the table
//! says. It stands at a fixed address, where something else was before.
//!
//! Prints `payload: case N ok` and goes back to the kernel for the next case, or ends QEMU.

#![no_std]
#![no_main]

use bare_metal_platform::ports::{Verdict, exit};
use bare_metal_platform::{say, table};

mod entry;
mod memory;

use entry::State;

fn run(state: &State) -> ! {
    let table = memory::table();
    if table[table::SUM] != table::sum(table) {
        fail("the table differs");
    }
    let case = table[table::CASE];
    if let Err(what) = state.check(table) {
        say!("payload: {state:x?}");
        fail(what);
    }
    let nr_entries = table[table::NR_ENTRIES] as usize;
    let pairs = table[table::ENTRIES..].chunks_exact(2).take(nr_entries);
    let mut nr_checked = 0;
    let mut nr_wrong = 0;
    for pair in pairs {
        if memory::sum(pair[0]) != pair[1] {
            say!("payload: the page at {:#x} differs", pair[0]);
            nr_wrong += 1;
        }
        nr_checked += 1;
    }
    if nr_wrong > 0 || nr_checked != nr_entries {
        fail("pages differ");
    }
    say!("payload: case {case} ok, {nr_checked} pages, entered in {}-bit mode", state.mode);
    match table[table::RESUME] {
        0 => exit(Verdict::Passed),
        resume => entry::resume(resume),
    }
}

fn fail(what: &str) -> ! {
    say!("payload: failed: {what}");
    exit(Verdict::Failed)
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    say!("payload: {info}");
    exit(Verdict::Failed)
}

//! What the main line has found out and the exception handler needs: the believed handoff block, the record.

// UNSAFETY: two static cells shared between the main line and the handler of its exceptions.
#![expect(unsafe_code)]

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

use kdump_panic_kernel::handoff::Handoff;
use kdump_panic_kernel::record::Record;
use kdump_panic_kernel::verify::Stage;

struct Cell<T>(UnsafeCell<T>);

// SAFETY: one CPU runs this program. An exception handler, which runs in the middle of the main line, never
// returns to it (the NMI stub does, and touches a counter only), so no two users of a cell take turns.
unsafe impl<T> Sync for Cell<T> {}

// Uninitialised and not an option, whose `None` is no zero and would be loaded with the image.
static HANDOFF: Cell<MaybeUninit<Handoff>> = Cell(UnsafeCell::new(MaybeUninit::uninit()));
static RECORD: Cell<Record> = Cell(UnsafeCell::new(Record::new()));
static STAGE: AtomicU8 = AtomicU8::new(0);
static FOUND_CR4: AtomicU64 = AtomicU64::new(0);

/// Keeps a handoff block that is believed: it decides about exceptions from here on.
pub fn believe(handoff: Handoff) -> &'static Handoff {
    // SAFETY: called once, before `handoff` has given a reference out; see `Cell`.
    let handoff = unsafe { (*HANDOFF.0.get()).write(handoff) };
    advance(Stage::Regions);
    handoff
}

/// The block that is believed.
pub fn handoff() -> Option<&'static Handoff> {
    if stage() == Stage::Handoff {
        return None;
    }
    // SAFETY: written once, by `believe`, before the stage left `Handoff`.
    Some(unsafe { (*HANDOFF.0.get()).assume_init_ref() })
}

/// The record. The main line takes it once; a handler of exceptions takes it over for good.
pub fn record() -> &'static mut Record {
    // SAFETY: see `Cell`: whoever held the reference before does not go on.
    unsafe { &mut *RECORD.0.get() }
}

/// Notes how far the program has come.
pub fn advance(stage: Stage) {
    let stage = match stage {
        Stage::Handoff => 0,
        Stage::Regions => 1,
        Stage::Entered => 2,
    };
    STAGE.store(stage, Relaxed);
}

/// How far the program has come.
pub fn stage() -> Stage {
    match STAGE.load(Relaxed) {
        1 => Stage::Regions,
        2 => Stage::Entered,
        _ => Stage::Handoff,
    }
}

/// Notes CR4 as the crashed kernel left it.
pub fn set_found_cr4(cr4: u64) {
    FOUND_CR4.store(cr4, Relaxed);
}

/// CR4 as the crashed kernel left it, which the capture kernel gets.
pub fn found_cr4() -> u64 {
    FOUND_CR4.load(Relaxed)
}

//! Milliseconds since entry, from the time stamp counter.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::cpu::rdtsc;

// Atomic only to be safe statics; there is one CPU.
static ENTERED: AtomicU64 = AtomicU64::new(0);
static TSC_KHZ: AtomicU64 = AtomicU64::new(0);

/// Notes when the panic path began.
pub fn begin(tsc: u64) {
    ENTERED.store(tsc, Relaxed);
}

/// Notes how fast the counter is; 0 if nobody knows.
pub fn set_khz(khz: u64) {
    TSC_KHZ.store(khz, Relaxed);
}

/// Milliseconds since entry, where the counter's speed is known.
pub fn millis() -> Option<u64> {
    rdtsc().wrapping_sub(ENTERED.load(Relaxed)).checked_div(TSC_KHZ.load(Relaxed))
}

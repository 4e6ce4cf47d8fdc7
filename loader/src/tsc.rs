//! How fast the time stamp counter runs, so that the panic path can tell milliseconds.
//!
//! Measured against CLOCK_MONOTONIC_RAW, which nobody slews. A counter that changes its speed is worth nothing
//! after months, so it is asked for `constant_tsc`; under a hypervisor that flag is often missing though
//! the host's counter has it, and two measurements that agree are taken for it.
//!
//! Source: Intel SDM vol. 3, "Invariant TSC"; vol. 2, CPUID leaf 15H.

// UNSAFETY: RDTSC is an intrinsic, and clock_gettime(2) writes through a pointer.
#![expect(unsafe_code)]

use std::arch::x86_64::{__cpuid, __get_cpuid_max, _rdtsc};
use std::thread;
use std::time::Duration;

use crate::machine::Machine;

/// How long one measurement takes.
const INTERVAL: Duration = Duration::from_millis(10);
/// Two measurements may differ by one part in so many.
const TOLERANCE: u64 = 200;
/// A sample around which the clock moved further than this was interrupted.
const MAX_SAMPLE_NS: u64 = 20_000;
const MAX_TRIES: usize = 16;

/// Ticks per millisecond; 0 where the counter is no clock.
#[must_use]
pub fn tsc_khz(machine: &Machine) -> u64 {
    let is_steady = machine.has_cpu_flag("constant_tsc") || machine.has_cpu_flag("hypervisor");
    if !machine.has_cpu_flag("tsc") || !is_steady {
        return 0;
    }
    if let Some(khz) = khz_by_cpuid() {
        return khz;
    }
    match (measure(), measure()) {
        (Some(first), Some(second)) if first.abs_diff(second) <= first / TOLERANCE => first.midpoint(second),
        _ => 0,
    }
}

/// Leaf 15H: the crystal's Hz times EBX / EAX. Zeros mean unknown, and what a hypervisor says there is not
/// believed.
fn khz_by_cpuid() -> Option<u64> {
    if __get_cpuid_max(0).0 < 0x15 || __cpuid(1).ecx >> 31 & 1 == 1 {
        return None;
    }
    let leaf = __cpuid(0x15);
    let khz = u64::from(leaf.ecx) * u64::from(leaf.ebx) / u64::from(leaf.eax).max(1) / 1000;
    (leaf.eax != 0 && khz != 0).then_some(khz)
}

fn measure() -> Option<u64> {
    let (start_ns, start) = sample()?;
    thread::sleep(INTERVAL);
    let (end_ns, end) = sample()?;
    khz(end.checked_sub(start)?, end_ns.checked_sub(start_ns)?)
}

fn khz(ticks: u64, ns: u64) -> Option<u64> {
    let khz = u128::from(ticks) * 1_000_000 / u128::from(ns.max(1));
    u64::try_from(khz).ok().filter(|&khz| khz != 0)
}

/// The clock in nanoseconds and the counter, of the same moment: the counter is read between two looks at the
/// clock, and the closest of a few tries counts.
fn sample() -> Option<(u64, u64)> {
    let mut best: Option<(u64, u64, u64)> = None;
    for _ in 0..MAX_TRIES {
        let (before, tsc, after) = (clock_ns()?, rdtsc(), clock_ns()?);
        let width = after.checked_sub(before)?;
        if best.is_none_or(|(least, ..)| width < least) {
            best = Some((width, before + width / 2, tsc));
        }
    }
    best.filter(|&(width, ..)| width <= MAX_SAMPLE_NS).map(|(_, ns, tsc)| (ns, tsc))
}

fn rdtsc() -> u64 {
    // SAFETY: RDTSC touches no memory. The kernel may forbid it to this process (PR_SET_TSC), then it ends in
    // a signal; nobody does that to the program that arms.
    unsafe { _rdtsc() }
}

fn clock_ns() -> Option<u64> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a timespec of our own, valid for writing during the call.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_RAW, &raw mut time) };
    if result != 0 {
        return None;
    }
    u64::try_from(time.tv_sec)
        .ok()?
        .checked_mul(1_000_000_000)?
        .checked_add(u64::try_from(time.tv_nsec).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_and_nanoseconds_give_kilohertz() {
        assert_eq!(khz(24_000_000, 10_000_000), Some(2_400_000));
        assert_eq!(khz(u64::MAX, 1), None);
        assert_eq!(khz(0, 10), None);
    }

    #[test]
    fn a_counter_that_may_change_its_speed_is_no_clock() {
        let with = |flags: &str| {
            let cpu_flags = flags.split(' ').map(str::to_owned).collect();
            tsc_khz(&Machine { cpu_flags, ..Machine::default() })
        };
        assert_eq!(with("fpu tsc"), 0);
        assert_eq!(with("fpu constant_tsc"), 0);
        // 1 MHz to 10 GHz, wherever this runs; 0 if it was too busy to tell.
        let khz = with("fpu tsc constant_tsc");
        assert!(khz == 0 || (1000..10_000_000).contains(&khz), "{khz}");
    }
}

//! What happened between the crash and the capture kernel, from the record that the panic path left, and when
//! it began by the crashed kernel's own clock.
//!
//! The record knows time by the time stamp counter alone. The kernel's log knows it by `local_clock()`: with a
//! stable counter, what `cyc2ns` of the CPU makes of the counter, and an offset. Where the kernel kept its time
//! another way (paravirtual clocks, unstable counters) nothing is derived: a time that does not fit the end of
//! the log is given up.
//!
//! Source: arch/x86/kernel/tsc.c (`__cyc2ns_read`, `native_sched_clock`), kernel/sched/clock.c.

use kdump_vmcore::record::{self, PanicRecord};

use crate::kernel::{Gap, Kernel};
use crate::log::Log;
use crate::percpu::Cpus;

/// How long after the last line of the log the panic path may begin: the crashed kernel waits a second for
/// its other CPUs, ten with crashkernel memory lent out (`,cma`), and slow consoles take their time.
const LATEST_NS: u64 = 60_000_000_000;
/// How much earlier, for the last line may be of another CPU.
const EARLIEST_NS: u64 = 1_000_000_000;

/// The record, and the kernel's time when it was begun.
#[derive(Clone, PartialEq, Debug)]
pub struct PanicPath {
    /// What the program wrote.
    pub record: PanicRecord,
    /// Nanoseconds on the clock of the kernel's log, or why they are not known.
    pub entered_ns: Result<u64, Gap>,
}

impl PanicPath {
    /// Reads the record and derives the time.
    ///
    /// # Errors
    /// If there is no record to be read.
    pub fn read(
        k: &Kernel<'_>,
        cpus: Option<&Cpus>,
        cpu: Option<u32>,
        log: Option<&Log>,
    ) -> Result<Self, record::Error> {
        let record = PanicRecord::find(k.dump.notes())?;
        let entered_ns = entered_ns(k, &record, cpus, cpu, log);
        Ok(Self { record, entered_ns })
    }
}

fn entered_ns(
    k: &Kernel<'_>,
    record: &PanicRecord,
    cpus: Option<&Cpus>,
    cpu: Option<u32>,
    log: Option<&Log>,
) -> Result<u64, Gap> {
    let other = |text: &str| Gap::Other(text.into());
    let tsc = record.tsc_of(1).ok_or_else(|| other("the record does not say when it began"))?;
    let cpu = cpu.ok_or_else(|| other("the panicking CPU is unknown"))?;
    let offset = cpus.and_then(|c| c.offset(cpu)).ok_or_else(|| other("per-CPU memory is unknown"))?;
    let last = log.and_then(|l| l.records.last()).map(|r| r.ts_ns);
    let last = last.ok_or_else(|| other("there is no log to hold the time against"))?;

    let at = k.symbol("cyc2ns")?.wrapping_add(offset);
    // The counter of a latch: its lowest bit says which of two copies is valid.
    let sequence = ["seq.seqcount.sequence", "seq.sequence"];
    let copy = k.mem.read_u32(at.wrapping_add(k.offset_any("cyc2ns", &sequence)?))? & 1;
    let data = at.wrapping_add(k.offset("cyc2ns", "data")? + u64::from(copy) * k.size("cyc2ns_data")?);
    let mul = k.mem.read_u32(data.wrapping_add(k.offset("cyc2ns_data", "cyc2ns_mul")?))?;
    let shift = k.mem.read_u32(data.wrapping_add(k.offset("cyc2ns_data", "cyc2ns_shift")?))?;
    let base = k.mem.read_u64(data.wrapping_add(k.offset("cyc2ns_data", "cyc2ns_offset")?))?;
    let since_boot = u64::try_from((u128::from(tsc) * u128::from(mul)) >> shift.min(127));
    let scheduler_offset =
        k.symbol("__sched_clock_offset").and_then(|at| Ok(k.mem.read_u64(at)?)).unwrap_or(0);
    let ns =
        since_boot.ok().filter(|_| mul != 0).map(|ns| ns.wrapping_add(base).wrapping_add(scheduler_offset));
    ns.filter(|ns| (last.saturating_sub(EARLIEST_NS)..last.saturating_add(LATEST_NS)).contains(ns))
        .ok_or_else(|| other("the kernel did not keep its time by the time stamp counter"))
}

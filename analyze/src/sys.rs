//! The system as a whole: which kernel, on what, since when, how tainted.

use std::fmt::Write as _;

use kdump_arch_x86::{PAGE_SIZE, VirtAddr};

use crate::kernel::{Gap, Kernel};

/// Letters of the taint bits, from bit 0; a clear bit 0 prints as 'G', which is left out here.
///
/// Source: kernel/panic.c, `taint_flags`; Documentation/admin-guide/tainted-kernels.rst.
const TAINT_LETTERS: &[u8] = b"PFSRMBUDAWCIOELKXTNJ";

/// What the system was.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct System {
    /// `uname -r`.
    pub release: Option<String>,
    /// `uname -v`.
    pub version: Option<String>,
    /// `uname -n`.
    pub hostname: Option<String>,
    /// `uname -m`.
    pub machine: Option<String>,
    /// The kernel command line.
    pub cmdline: Option<String>,
    /// Build ID, hexadecimal.
    pub build_id: Option<String>,
    /// Taint letters; empty if not tainted.
    pub taints: Option<String>,
    /// Seconds since 1970 at the crash.
    pub crash_time: Option<i64>,
    /// Seconds since boot, suspended time included.
    pub uptime: Option<u64>,
    /// Load averages over 1, 5 and 15 minutes, in hundredths.
    pub load: Option<[u64; 3]>,
    /// Bytes of memory that the dump describes.
    pub memory: u64,
    /// Bytes of memory that the kernel managed (MemTotal).
    pub memory_total: Option<u64>,
    /// Bytes of it that were free.
    pub memory_free: Option<u64>,
    /// What is missing, and why.
    pub gaps: Vec<Gap>,
}

impl System {
    /// Reads what can be read.
    #[must_use]
    pub fn read(k: &Kernel<'_>) -> Self {
        let mut gaps = Vec::new();
        let [_, hostname, release, version, machine] = kept(uts_names(k), &mut gaps).unwrap_or_default();
        let cmdline = kept(command_line(k), &mut gaps);
        let mask = k.symbol("tainted_mask").and_then(|at| Ok(k.mem.read_u64(at)?));
        let taints = kept(mask.map(taint_letters), &mut gaps);
        let times = kept(times(k), &mut gaps);
        let load = kept(load_average(k), &mut gaps);
        Self {
            release: release.or_else(|| k.info.osrelease().map(Into::into)),
            version,
            hostname,
            machine,
            cmdline,
            build_id: k.info.build_id().map(Into::into),
            taints,
            crash_time: k.info.crash_time().or(times.map(|t| t.0)),
            uptime: times.map(|t| t.1),
            load,
            memory: k.dump.ram().iter().map(|r| r.len()).sum(),
            memory_total: pages(k, "_totalram_pages", 0).ok(),
            memory_free: k.info.number("NR_FREE_PAGES").and_then(|i| pages(k, "vm_zone_stat", i as u64).ok()),
            gaps,
        }
    }
}

/// What could be had; what not, becomes a gap.
fn kept<T>(result: Result<T, Gap>, gaps: &mut Vec<Gap>) -> Option<T> {
    result.map_err(|e| gaps.push(e)).ok()
}

/// The letters of a taint mask.
#[must_use]
pub fn taint_letters(mask: u64) -> String {
    let mut out = String::new();
    for bit in (0..64).filter(|bit| mask >> bit & 1 == 1) {
        match TAINT_LETTERS.get(bit) {
            Some(&letter) => out.push(char::from(letter)),
            None => {
                let _ = write!(out, "({bit})"); // newer than this table
            }
        }
    }
    out
}

/// sysname, nodename, release, version, machine of the first UTS namespace: 65 bytes each.
fn uts_names(k: &Kernel<'_>) -> Result<[Option<String>; 5], Gap> {
    let ns = k.info.symbol("init_uts_ns").map(VirtAddr).ok_or_else(|| Gap::Symbol("init_uts_ns".into()))?;
    // 5.10 does not export the offset: a kref of 4 bytes came first.
    let name = ns.wrapping_add(k.info.offset("uts_namespace.name").unwrap_or(4));
    let read = |i: u64| Ok(Some(k.mem.read_cstr(name.wrapping_add(i * 65), 65)?));
    let all: Result<Vec<_>, Gap> = (0..5).map(read).collect();
    all?.try_into().map_err(|_| Gap::Other("utsname".into()))
}

fn command_line(k: &Kernel<'_>) -> Result<String, Gap> {
    let at = k.mem.read_ptr(k.symbol("saved_command_line")?)?;
    Ok(k.mem.read_cstr(at, 4096)?.trim_end().to_string())
}

/// Wall clock in seconds since 1970, and seconds since boot.
fn times(k: &Kernel<'_>) -> Result<(i64, u64), Gap> {
    // Since 6.17 an array `timekeeper_data`, element 0; before, the variable `tk_core`. A struct
    // tk_data since 6.13; before, an anonymous one: a sequence counter, padded to 8 bytes.
    let base = k.symbol("timekeeper_data").or_else(|_| k.symbol("tk_core"))?;
    let keeper = base.wrapping_add(k.offset("tk_data", "timekeeper").unwrap_or(8));
    let word = |m: &str| Ok::<_, Gap>(k.mem.read_u64(keeper.wrapping_add(k.offset("timekeeper", m)?))?);
    let monotonic = word("ktime_sec")?;
    let asleep = word("offs_boot")? / 1_000_000_000;
    Ok((word("xtime_sec")? as i64, monotonic.saturating_add(asleep)))
}

/// Bytes of the pages that an element of an array of counters counts. A counter that is briefly below
/// zero, since CPUs add their parts later, is zero.
fn pages(k: &Kernel<'_>, counters: &str, index: u64) -> Result<u64, Gap> {
    let at = k.symbol(counters)?.wrapping_add(index.wrapping_mul(8));
    Ok((k.mem.read_u64(at)? as i64).max(0).cast_unsigned().saturating_mul(PAGE_SIZE))
}

/// `avenrun`: three fixed-point numbers with 11 fraction bits.
fn load_average(k: &Kernel<'_>) -> Result<[u64; 3], Gap> {
    let at = k.symbol("avenrun")?;
    let mut out = [0; 3];
    for (i, value) in out.iter_mut().enumerate() {
        let raw = k.mem.read_u64(at.wrapping_add(i as u64 * 8))?;
        // Rounded as the kernel rounds for /proc/loadavg: half of a hundredth is added.
        *value = raw.saturating_add(10).saturating_mul(100) >> 11;
    }
    Ok(out)
}

/// `seconds` since 1970 as `YYYY-MM-DD HH:MM:SS`, UTC.
#[must_use]
pub fn utc(seconds: i64) -> String {
    let (days, time) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days are counted from 1 March of year 0, so that the leap day is a year's last: eras of 400
    // years are alike, and months follow a line. The dump is hostile: far years are clamped.
    let z = days.clamp(-1_000_000_000, 1_000_000_000) + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let m = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * m + 2) / 5 + 1;
    let month = if m < 10 { m + 3 } else { m - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}", time / 3600, time / 60 % 60, time % 60)
}

/// Seconds as `3 days 04:05:06` or `0:05:06`.
#[must_use]
pub fn span(seconds: u64) -> String {
    let (days, h, m, s) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    match days {
        0 => format!("{h}:{m:02}:{s:02}"),
        1 => format!("1 day {h}:{m:02}:{s:02}"),
        n => format!("{n} days {h}:{m:02}:{s:02}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_across_leap_years() {
        assert_eq!(utc(0), "1970-01-01 00:00:00");
        assert_eq!(utc(951_827_696), "2000-02-29 12:34:56");
        assert_eq!(utc(1_772_323_199), "2026-02-28 23:59:59");
        assert_eq!(utc(-1), "1969-12-31 23:59:59");
        let _ = (utc(i64::MAX), utc(i64::MIN));
    }

    #[test]
    fn taints_are_letters_and_unknown_bits_numbers() {
        assert_eq!(taint_letters(0), "");
        assert_eq!(taint_letters(1 | 1 << 12 | 1 << 13), "POE");
        assert_eq!(taint_letters(1 << 40), "(40)");
    }

    #[test]
    fn spans() {
        assert_eq!(span(65), "0:01:05");
        assert_eq!(span(86_400 * 3 + 3661), "3 days 1:01:01");
    }
}

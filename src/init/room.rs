//! Room for the dump: what is free, which old dumps go, and the level that fits.

use std::path::Path;

use kdump_capture::config::RetentionConfig;
use kdump_capture::retention::{self, Circumstances};
use kdump_capture::room::Prediction;
use kdump_capture::source::pages_of;
use kdump_capture::{DumpLevel, Options, filter};
use kdump_vmcore::Dump;

use crate::console::say;
use crate::target::{DumpDir, now};

/// Pages of metadata, report and log: what is written beside the dump.
const SLACK: u64 = 4 << 20;
/// FAT keeps a file's length in 32 bits.
const FAT_FILE_MAX: u64 = u32::MAX as u64;

/// Bytes that root may still write below `dir`, in one file.
pub fn free(dir: &Path, fstype: &str) -> std::io::Result<u64> {
    let stat = rustix::fs::statvfs(dir)?;
    // btrfs counts as free what only one of its kinds of block could take.
    let blocks = if fstype == "btrfs" { stat.f_bavail } else { stat.f_bfree };
    let free = blocks.saturating_mul(stat.f_frsize).saturating_sub(SLACK);
    Ok(if fstype == "vfat" { free.min(FAT_FILE_MAX) } else { free })
}

/// Makes room as far as it is needed, and chooses the level. Where nothing can be found out, the level is the one
/// asked for.
pub fn make(dir: &DumpDir, dump: &Dump, options: &Options, limits: &RetentionConfig) -> Room {
    let unknown = Room { level: options.level, prediction: None };
    let mut has = match free(&dir.path, &dir.fstype) {
        Ok(free) => free,
        Err(e) => {
            say!("how much is free is not known: {e}");
            return unknown;
        }
    };
    let memory: u64 = dump.ram().iter().map(|range| range.len()).sum();
    if has > memory + memory / 64 + limits.min_free {
        // It fits whatever it is.
        return unknown;
    }
    let Ok(pages) = pages_of(dump) else { return unknown };
    let prediction = Prediction::new(&filter::plan(dump, dump.vmcoreinfo(), pages, options.level), options);
    let least = prediction.bytes(DumpLevel::MAX);
    if has < least.saturating_add(limits.min_free) {
        // Not even the smallest fits.
        prune(dir, limits, least);
        has = free(&dir.path, &dir.fstype).unwrap_or(has);
    }
    let level = prediction.level_that_fits(options.level, has.saturating_sub(limits.min_free));
    let (asked, as_asked) = (options.level.bits(), prediction.bytes(options.level) >> 20);
    match level {
        Some(level) if level == options.level => {}
        Some(level) => say!(
            "{} MiB are free, and a dump at level {asked} may take {as_asked}: taking level {}",
            has >> 20,
            level.bits()
        ),
        None => say!(
            "{} MiB are free, and a dump may take {} even at level 31: taking level 31, as far as it goes",
            has >> 20,
            least >> 20
        ),
    }
    Room { level: level.unwrap_or(DumpLevel::MAX), prediction: Some(prediction) }
}

/// What came of looking for room.
#[derive(Clone, Debug)]
pub struct Room {
    /// The level to write at.
    pub level: DumpLevel,
    prediction: Option<Prediction>,
}

impl Room {
    /// The level to try next where `bytes` for `pages` have filled the disk: one above `level` at which such pages would
    /// have fitted into what those took and what is free now.
    pub fn after_full(&self, level: DumpLevel, bytes: u64, pages: u64, free: u64) -> Option<DumpLevel> {
        let room = free.saturating_add(bytes);
        let seen = self.prediction.as_ref()?.measured(bytes, pages);
        let mut above = kdump_capture::room::levels_from(level).filter(|above| *above != level);
        above.find(|above| seen.bytes(*above) <= room)
    }
}

/// Removes what the limits say, and what stands in the way of `wanted` bytes.
pub fn prune(dir: &DumpDir, limits: &RetentionConfig, wanted: u64) {
    let found = match retention::scan(&dir.above) {
        Ok(found) => found,
        Err(e) => return say!("older dumps cannot be listed: {e}"),
    };
    let free = free(&dir.path, &dir.fstype).unwrap_or(u64::MAX);
    let circumstances = Circumstances { current: Some(&dir.name), now: now(), free, wanted };
    for (dump, why) in retention::plan(&found, limits, circumstances) {
        match retention::remove(&dir.above, dump) {
            Ok(()) => say!("removed {} ({} MiB): {}", dump.name, dump.bytes >> 20, why.text()),
            Err(e) => say!("cannot remove {}: {e}", dump.name),
        }
    }
}

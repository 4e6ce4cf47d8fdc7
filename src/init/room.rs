//! Room for the dump: what is free, which old dumps go, and the level that fits.

use std::path::Path;

use kdump_capture::config::RetentionConfig;
use kdump_capture::retention::{self, Circumstances};
use kdump_capture::room::{Prediction, raised};
use kdump_capture::{Census, DumpLevel, Options, Selection};

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

/// Makes room as far as it is needed, and chooses what fits: what was asked for, or the same at a higher level.
pub fn make(dir: &DumpDir, census: &Census, options: &Options, limits: &RetentionConfig) -> Selection {
    let asked = options.wanted.selection;
    let mut has = match free(&dir.path, &dir.fstype) {
        Ok(free) => free,
        Err(e) => {
            say!("how much is free is not known: {e}");
            return asked;
        }
    };
    let prediction = Prediction::new(census, options);
    let highest = Selection { level: DumpLevel::MAX, ..asked };
    let least = prediction.bytes(highest);
    if has < least.saturating_add(limits.min_free) {
        // Not even the smallest fits.
        prune(dir, limits, least);
        has = free(&dir.path, &dir.fstype).unwrap_or(has);
    }
    let fits = prediction.that_fits(asked, has.saturating_sub(limits.min_free));
    match fits {
        Some(selection) if selection == asked => {}
        Some(selection) => say!(
            "{} MiB are free, and a dump at level {} may take {}: taking level {}",
            has >> 20,
            asked.level.bits(),
            prediction.bytes(asked) >> 20,
            selection.level.bits()
        ),
        None => say!(
            "{} MiB are free, and a dump may take {} even at level {}: as much of it as there is room for",
            has >> 20,
            least >> 20,
            highest.level.bits()
        ),
    }
    fits.unwrap_or(highest)
}

/// What to try next where `bytes` for `pages` have filled the disk: a higher level, at which such pages would have fitted
/// into what those took and what is free now.
pub fn after_full(
    dir: &DumpDir,
    census: &Census,
    options: &Options,
    bytes: u64,
    pages: u64,
) -> Option<Selection> {
    let room = free(&dir.path, &dir.fstype).unwrap_or(0).saturating_add(bytes);
    let seen = Prediction::new(census, options).measured(bytes, pages);
    let mut higher = raised(options.wanted.selection).skip(1);
    higher.find(|selection| seen.bytes(*selection) <= room)
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

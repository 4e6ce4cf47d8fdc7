//! `manifest.json`: what was written, what was left out and why.
//!
//! Written last, so its presence says that the dump beside it was completed.

use serde::Serialize;

use kdump_vmcore::VmcoreInfo;

use crate::capture::Summary;
use crate::classify::PageClass;
use crate::digest::Piece;
use crate::selection::DumpLevel;

/// The file. Numbers of pages are pages of 4096 bytes.
#[derive(Clone, Debug, Serialize)]
pub struct Manifest<'a> {
    /// Version of this schema.
    pub schema: u32,
    /// Program and version that wrote it.
    pub writer: &'static str,
    /// Name of the dump, in the same directory.
    pub file: &'a str,
    /// Its bytes.
    pub bytes: u64,
    /// Its digests, piece by piece, without gaps.
    pub digests: &'a [Piece],
    /// `kdump` or `elf`.
    pub format: &'static str,
    /// How pages are compressed.
    pub compression: &'static str,
    /// Dump level, as in the file's header: what was asked for, and what the source lacked already.
    pub dump_level: u32,
    /// The level at which the source was filtered before; absent if it does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_dump_level: Option<u32>,
    /// The crashed kernel's release.
    pub osrelease: Option<&'a str>,
    /// Its build ID.
    pub build_id: Option<&'a str>,
    /// When it crashed, seconds since 1970.
    pub crash_time: Option<i64>,
    /// Whether every page that was to be written was, from a source that was complete.
    pub complete: bool,
    /// Whether the file was opened again and the kernel log read from it as from the source; absent if
    /// that was not tried.
    pub log_reads_back: Option<bool>,
    /// What the self-check found: whether the report made from the dump is the one made from memory, and whether the slab
    /// allocator's lists can be walked in it. `failures` is empty in a dump to be trusted; `null`: not checked.
    pub self_check: Option<serde_json::Value>,
    /// Why that was not tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_read_back: Option<&'static str>,
    /// `age`, if the dump is encrypted: bytes and digests are those of the file as it lies there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encryption: Option<&'static str>,
    /// Counts.
    pub pages: Pages,
    /// Pages that could not be read, the first of them, and why.
    pub lost: Vec<Lost>,
    /// Facts that the kernel did not give, and what was therefore kept.
    pub missing_facts: Vec<Missing<'a>>,
    /// What else went wrong.
    pub troubles: &'a [String],
    /// Durations.
    pub timings_ms: Timings,
    /// Threads that compressed.
    pub workers: usize,
}

/// Counts of pages.
#[derive(Clone, Debug, Serialize)]
pub struct Pages {
    /// That were memory.
    pub ram: u64,
    /// That the source did not hold.
    pub absent_in_source: u64,
    /// That the dump holds.
    pub written: u64,
    /// Of these, zero-filled ones that take no space.
    pub zero: u64,
    /// That could not be read.
    pub lost: u64,
    /// By class: how many there were, and whether they were left out.
    pub classes: Vec<Class>,
}

/// One class.
#[derive(Clone, Debug, Serialize)]
pub struct Class {
    /// Its name.
    pub class: &'static str,
    /// Pages that the source held.
    pub found: u64,
    /// Whether they were left out.
    pub excluded: bool,
}

/// A page that could not be read.
#[derive(Clone, Debug, Serialize)]
pub struct Lost {
    /// Its physical address, hexadecimal.
    pub phys: String,
    /// Why.
    pub reason: String,
}

/// A missing fact.
#[derive(Clone, Debug, Serialize)]
pub struct Missing<'a> {
    /// The key in VMCOREINFO.
    pub fact: &'a str,
    /// What follows.
    pub effect: &'static str,
}

/// Durations in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Timings {
    /// Deciding what to write.
    pub filter: u64,
    /// Reading, compressing, writing.
    pub write: u64,
}

impl<'a> Manifest<'a> {
    /// Describes a dump named `file`.
    #[must_use]
    pub fn new(file: &'a str, summary: &'a Summary, info: Option<&'a VmcoreInfo>) -> Self {
        let classes = PageClass::ALL
            .into_iter()
            .map(|c| Class {
                class: c.name(),
                found: summary.census.found(c),
                excluded: summary.census.selection.excludes(c),
            })
            .collect();
        let lost = summary.lost.iter().map(|(pfn, reason)| Lost {
            phys: format!("0x{:016x}", pfn.saturating_mul(4096)),
            reason: reason.to_string(),
        });
        Self {
            schema: 1,
            writer: concat!("kdump-rs ", env!("CARGO_PKG_VERSION")),
            file,
            bytes: summary.bytes,
            digests: &summary.digests,
            format: summary.options.format.name(),
            compression: summary.options.compression.name(),
            dump_level: summary.census.level_in_file(),
            source_dump_level: summary.census.source_level.map(DumpLevel::bits),
            osrelease: info.and_then(|i| i.osrelease()),
            build_id: info.and_then(|i| i.build_id()),
            crash_time: info.and_then(|i| i.crash_time()),
            complete: summary.is_complete(),
            log_reads_back: None,
            self_check: None,
            not_read_back: None,
            encryption: summary.options.encryption.as_ref().map(|_| "age"),
            pages: Pages {
                ram: summary.census.ram,
                absent_in_source: summary.census.absent,
                written: summary.written,
                zero: summary.zero,
                lost: summary.nr_lost,
                classes,
            },
            lost: lost.collect(),
            missing_facts: summary
                .census
                .missing
                .iter()
                .map(|m| Missing { fact: &m.fact, effect: m.effect })
                .collect(),
            troubles: &summary.census.troubles,
            timings_ms: Timings { filter: millis(summary.filter_time), write: millis(summary.write_time) },
            workers: summary.workers,
        }
    }

    /// The file's contents.
    ///
    /// # Panics
    /// Never: nothing in it can fail to be JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("numbers, texts and lists");
        text.push('\n');
        text
    }
}

fn millis(d: std::time::Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

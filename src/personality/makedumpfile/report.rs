//! Counts of pages, as `--show-stats` shows them.
//!
//! Source: makedumpfile `print_report`.

use std::fmt::Write as _;

use kdump_capture::Summary;
use kdump_capture::classify::PageClass;
use kdump_capture::source::SourceMap;
use kdump_vmcore::Dump;

/// What was left out of the dump that was written.
pub fn text(dump: &Dump, summary: &Summary) -> String {
    let selection = summary.census.selection;
    let excluded = |classes: &[PageClass]| -> u64 {
        let left_out = classes.iter().filter(|class| selection.excludes(**class));
        left_out.map(|class| summary.census.found(*class)).sum()
    };
    let frames = SourceMap::new(dump).end();
    let original = summary.census.ram;
    let zero = if selection.excludes_zero() { summary.zero } else { 0 };
    let rows = [
        ("Pages filled with zero  ", zero),
        ("Non-private cache pages ", excluded(&[PageClass::Cache, PageClass::DirtyCache])),
        ("Private cache pages     ", excluded(&[PageClass::CachePrivate, PageClass::DirtyCachePrivate])),
        ("User process data pages ", excluded(&[PageClass::Anon, PageClass::Hugetlb])),
        ("Free pages              ", excluded(&[PageClass::Free, PageClass::Unaccepted])),
        ("Hwpoison pages          ", excluded(&[PageClass::HwPoison])),
        ("Offline pages           ", excluded(&[PageClass::Offline])),
        ("Not in the source       ", summary.census.absent),
    ];
    let all: u64 = rows.iter().map(|(_, pages)| pages).sum();
    let remaining = original.saturating_sub(all);
    let mut out = format!("\nOriginal pages  : {original:#018x}\n  Excluded pages   : {all:#018x}\n");
    for (name, pages) in rows {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "    {name}: {pages:#018x}");
    }
    let percent = (remaining * 100).checked_div(original).unwrap_or(100);
    let hole = frames.saturating_sub(original);
    let _ = write!(
        out,
        "  Remaining pages  : {remaining:#018x}\n  (The number of pages is reduced to {percent}%.)\n\
         Memory Hole     : {hole:#018x}\n--------------------------------------------------\n\
         Total pages     : {frames:#018x}\nWrite bytes     : {}\n\n",
        summary.bytes
    );
    out
}

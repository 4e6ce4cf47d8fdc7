//! One dump in several kdump-compressed files: each has headers and both bitmaps of the whole, and the descriptors and
//! bytes of the pages of a run of frames.
//!
//! All files are written at once: what a report needs is in them first, whichever it belongs to.
//!
//! Source: makedumpfile `setup_splitting`, `writeout_multiple_dumpfiles`.

use std::fs::File;

use kdump_vmcore::kdump::write::KdumpWriter;

use super::kdump::{Ranks, head};
use super::{Sink as _, Tally};
use crate::capture::{Error, Options};
use crate::decide::Worth;
use crate::pipeline::{CHUNK, Coding, Pipeline, Source};
use crate::plan::Plan;

/// Where a part ends: one past its last frame, and how many pages of the dump come before that.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Cut {
    pfn: u64,
    rank: u64,
}

/// Cuts the dump into `nr` parts of as many pages, but for what it takes to have each of the pipeline's chunks in one.
fn cuts(plan: &Plan<'_>, nr: u64) -> Vec<Cut> {
    let total = plan.census.dumped;
    let end = plan.decider.map().end();
    let targets: Vec<u64> = (1..nr).map(|i| share(total, i, nr)).collect();
    let mut cuts = Vec::new();
    let mut before = 0;
    let swept: Result<(), std::convert::Infallible> = plan.decider.sweep(|decision| {
        let dumped = &decision.dumped;
        let mut rank = before;
        for (start, stop) in dumped.runs() {
            let after = rank + (stop - start);
            while let Some(&target) = targets.get(cuts.len()).filter(|t| **t < after) {
                let pfn = start.saturating_add(target.saturating_sub(rank)).next_multiple_of(CHUNK).min(end);
                cuts.push(Cut { pfn, rank: before + dumped.count_in(dumped.first(), pfn) });
            }
            rank = after;
        }
        before = rank;
        Ok(())
    });
    let Ok(()) = swept;
    cuts.resize(targets.len() + 1, Cut { pfn: end, rank: total });
    cuts
}

/// `total * part / of`, which is no more than `total`.
fn share(total: u64, part: u64, of: u64) -> u64 {
    u64::try_from(u128::from(total) * u128::from(part) / u128::from(of)).unwrap_or(total)
}

/// A file on the way.
struct Part<'a> {
    writer: KdumpWriter<&'a File>,
    /// One past its last frame.
    end: u64,
    /// Pages of the dump that come before its first.
    first_rank: u64,
}

/// Writes all parts. Returns the bytes of all files.
pub(crate) fn write_parts(
    plan: &Plan<'_>,
    options: &Options,
    outs: &[&File],
    tally: &mut Tally<'_>,
) -> Result<u64, Error> {
    assert!(!outs.is_empty(), "there is a file to write to");
    let share_zero = plan.census.selection.excludes_zero();
    let coding = Coding {
        compression: options.compression,
        find_zero: share_zero,
        level: options.level,
        frames: None,
    };
    let mut pipeline = Pipeline::new(coding, plan.workers).map_err(Error::Start)?;
    let mut parts = Vec::with_capacity(outs.len());
    let mut from = Cut { pfn: 0, rank: 0 };
    for (out, cut) in outs.iter().zip(cuts(plan, outs.len() as u64)) {
        let head = head(plan, options, Some((from.pfn, cut.pfn)));
        let nr = cut.rank - from.rank;
        let writer = KdumpWriter::begin(*out, &head, plan.decider.map().end(), nr, share_zero)
            .map_err(Error::at(0))?;
        parts.push(Part { writer, end: cut.pfn, first_rank: from.rank });
        from = cut;
    }
    let result = (|| {
        plan.decider.sweep(|decision| {
            parts.iter_mut().try_for_each(|part| part.writer.put_bitmaps(&decision.ram, &decision.dumped))
        })?;
        for worth in Worth::ALL.into_iter().filter(|w| plan.census.worth[*w as usize] > 0) {
            let mut before = 0;
            plan.decider.sweep(|decision| {
                let pages = decision.of_worth(worth, &plan.first);
                let mut ranks = Ranks::new(&decision.dumped, before);
                before = ranks.end();
                let source = Source { mem: plan.dump, ram: plan.dump.ram(), pages: &pages };
                pipeline.run(source, |chunk| {
                    let at = parts.partition_point(|part| part.end <= chunk.first_pfn);
                    if let Some(part) = parts.get_mut(at) {
                        let indices = ranks.of(chunk, &pages).map(|rank| rank - part.first_rank);
                        part.writer.push(&chunk.pages, indices, &chunk.data)?;
                    }
                    tally.take(chunk, bytes(&parts));
                    Ok(())
                })
            })?;
            for part in &mut parts {
                part.writer.flush_descs()?;
                if worth == Worth::First {
                    part.writer.out_mut().settle()?;
                }
            }
        }
        Ok(())
    })();
    let written = bytes(&parts);
    if let Err(source) = result {
        for part in &mut parts {
            let _ = part.writer.flush_descs();
            let _ = part.writer.out_mut().settle();
        }
        return Err(Error::Write { written, source });
    }
    for part in parts {
        part.writer.finish(tally.has_gaps()).map_err(Error::at(written))?;
    }
    Ok(written)
}

fn bytes(parts: &[Part<'_>]) -> u64 {
    parts.iter().map(|part| part.writer.position()).sum()
}

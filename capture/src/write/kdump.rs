//! A kdump-compressed file, its pages in order of worth.

use kdump_arch_x86::PAGE_SIZE;
use kdump_vmcore::kdump::bitmap::PageBitmap;
use kdump_vmcore::kdump::write::{Head, KdumpWriter};

use super::{Sink, Tally, Written};
use crate::capture::{Error, Options};
use crate::decide::Worth;
use crate::digest::PieceDigests;
use crate::pipeline::{Chunk, Coding, Pipeline, Source};
use crate::plan::Plan;
use crate::uts;

pub(super) fn write<S: Sink>(
    plan: &Plan<'_>,
    options: &Options,
    out: S,
    tally: &mut Tally<'_>,
) -> Result<(S, Written), Error> {
    let share_zero = plan.census.selection.excludes_zero();
    let coding = Coding {
        compression: options.compression,
        find_zero: share_zero,
        level: options.level,
        frames: None,
    };
    let mut pipeline = Pipeline::new(coding, plan.workers).map_err(Error::Start)?;
    let nr_pages = plan.census.dumped;
    let head = head(plan, options, None);
    let mut writer = KdumpWriter::begin(out, &head, plan.decider.map().end(), nr_pages, share_zero)
        .map_err(Error::at(0))?;
    let data_at = writer.layout().data_at();
    let mut digests = options.digests.then(|| PieceDigests::new(data_at));
    if let (Some(d), true) = (&mut digests, share_zero) {
        d.update(&[0; PAGE_SIZE as usize]);
    }
    let result = (|| {
        let mut are_bitmaps_there = false;
        for worth in Worth::ALL.into_iter().filter(|w| plan.census.worth[*w as usize] > 0) {
            let mut before = 0;
            plan.decider.sweep(|decision| {
                if !are_bitmaps_there {
                    writer.put_bitmaps(&decision.ram, &decision.dumped)?;
                }
                let pages = decision.of_worth(worth, &plan.first);
                let mut ranks = Ranks::new(&decision.dumped, before);
                before = ranks.end();
                let source = Source { mem: plan.dump, ram: plan.dump.ram(), pages: &pages };
                pipeline.run(source, |chunk| {
                    writer.push(&chunk.pages, ranks.of(chunk, &pages), &chunk.data)?;
                    if let Some(d) = &mut digests {
                        d.update(&chunk.data);
                    }
                    tally.take(chunk, writer.position());
                    Ok(())
                })
            })?;
            are_bitmaps_there = true;
            writer.flush_descs()?;
            if worth == Worth::First {
                // What a report needs survives whatever comes now.
                writer.out_mut().settle()?;
            }
        }
        if !are_bitmaps_there {
            // Not one page: readers still learn what was memory.
            plan.decider.sweep(|decision| writer.put_bitmaps(&decision.ram, &decision.dumped))?;
        }
        Ok(())
    })();
    if let Err(source) = result {
        // The disk is full, most likely. The descriptors' place lies before the data: try to fill it.
        let _ = writer.flush_descs();
        let _ = writer.out_mut().settle();
        return Err(Error::Write { written: writer.position(), source });
    }
    let written = writer.position();
    let (out, bytes) = writer.finish(tally.has_gaps()).map_err(Error::at(written))?;
    Ok((out, Written { bytes, data_at, digests }))
}

/// The headers' contents, of a whole dump or of the file of a split set that has the pages of these frames.
pub(super) fn head(plan: &Plan<'_>, options: &Options, split: Option<(u64, u64)>) -> Head {
    let dump = plan.dump;
    let info = dump.vmcoreinfo();
    let nr_cpus = match dump.kdump() {
        Some(kdump) => u32::try_from(kdump.info().nr_cpus).unwrap_or(1),
        None => u32::try_from(dump.prstatus().len()).unwrap_or(u32::MAX),
    };
    Head {
        utsname: uts::read(dump),
        timestamp: info.and_then(|i| i.crash_time()).unwrap_or(0),
        compression: options.compression,
        dump_level: plan.census.level_in_file(),
        phys_base: info.and_then(|i| i.number("phys_base")).map_or(0, |n| n as u64),
        nr_cpus,
        split,
        notes: dump.notes().to_vec(),
    }
}

/// Where the descriptors of a window's pages stand, asked in ascending order.
pub(super) struct Ranks<'a> {
    dumped: &'a PageBitmap,
    /// Frames counted, and how many of them are in the file.
    pfn: u64,
    rank: u64,
    end: u64,
}

impl<'a> Ranks<'a> {
    /// `before` pages are in the file from windows before.
    pub(super) fn new(dumped: &'a PageBitmap, before: u64) -> Self {
        Self { dumped, pfn: dumped.first(), rank: before, end: before + dumped.count() }
    }

    /// What the next window begins with.
    pub(super) const fn end(&self) -> u64 {
        self.end
    }

    fn at(&mut self, pfn: u64) -> u64 {
        self.rank += self.dumped.count_in(self.pfn, pfn);
        self.pfn = pfn;
        self.rank
    }

    /// The indices of a chunk's pages, which are those of `pages`.
    pub(super) fn of(
        &mut self,
        chunk: &Chunk,
        pages: &PageBitmap,
    ) -> impl Iterator<Item = u64> + use<'_, 'a> {
        let runs: Vec<_> = chunk.runs(pages).map(|(start, end)| (self.at(start), end - start)).collect();
        runs.into_iter().flat_map(|(first, len)| first..first + len)
    }
}

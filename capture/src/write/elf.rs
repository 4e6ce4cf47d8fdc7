//! An ELF core, by ascending address.

use std::convert::Infallible;
use std::io;

use kdump_arch_x86::{PAGE_SIZE, PhysRange, VirtAddr};
use kdump_vmcore::Dump;
use kdump_vmcore::elf::write::{ElfWriter, Layout, Segment};
use kdump_vmcore::kdump::Compression;
use kdump_vmcore::kdump::write::Page;
use kdump_vmcore::sink::WriteAt;

use super::{Sink, Tally, Written};
use crate::capture::{Error, Options};
use crate::compress::Level;
use crate::decide::Decision;
use crate::digest::PieceDigests;
use crate::pipeline::{Coding, Pipeline, Source};
use crate::plan::Plan;

/// Whether a page's bytes are among its chunk's data.
const fn is_stored(page: &Page) -> bool {
    matches!(page, Page::Stored { .. })
}

/// Counts the segments, and the bytes they have in the file.
pub(super) fn layout(plan: &Plan<'_>) -> (Layout, u64) {
    let (mut nr_segments, mut bytes) = (0, 0);
    let counted: Result<(), Infallible> = plan.decider.sweep(|decision| {
        segments(decision, &|_| VirtAddr(0), |s| {
            nr_segments += 1;
            bytes += s.file_size;
            Ok(())
        })
    });
    let Ok(()) = counted;
    (Layout::plan(plan.dump.notes().len() as u64, nr_segments), bytes)
}

/// Names all segments.
pub(super) fn name_segments<W: WriteAt>(plan: &Plan<'_>, writer: &mut ElfWriter<W>) -> io::Result<()> {
    let virt_of = virtual_addresses(plan.dump);
    plan.decider.sweep(|decision| segments(decision, &virt_of, |s| writer.segment(&s)))
}

pub(super) fn write<S: Sink>(
    plan: &Plan<'_>,
    options: &Options,
    out: S,
    tally: &mut Tally<'_>,
) -> Result<(S, Written), Error> {
    let dump = plan.dump;
    // A core cannot tell a zero-filled page from one that is left out: both would be memory without
    // bytes in the file. So zero-filled ones stay, as holes, which take no space on the disk.
    let coding = Coding {
        compression: Compression::None,
        find_zero: plan.census.selection.excludes_zero(),
        level: Level::Usual,
        frames: None,
    };
    let mut pipeline = Pipeline::new(coding, plan.workers).map_err(Error::Start)?;
    let (layout, _) = layout(plan);
    let mut writer = ElfWriter::begin(out, layout, true).map_err(Error::at(0))?;
    name_segments(plan, &mut writer).and_then(|()| writer.end_headers(dump.notes())).map_err(Error::at(0))?;
    let data_at = layout.data_at();
    let mut digests = options.digests.then(|| PieceDigests::new(data_at));
    let result = plan.decider.sweep(|decision| {
        let source = Source { mem: dump, ram: dump.ram(), pages: &decision.dumped };
        pipeline.run(source, |chunk| {
            let mut rest = chunk.data.as_slice();
            for same in chunk.pages.chunk_by(|a, b| is_stored(a) == is_stored(b)) {
                let len = same.len() * PAGE_SIZE as usize;
                match rest.split_at_checked(len) {
                    Some((bytes, later)) if same.first().is_some_and(is_stored) => {
                        rest = later;
                        writer.push(bytes)?;
                        if let Some(d) = &mut digests {
                            d.update(bytes);
                        }
                    }
                    // A core has no way to say that a page was lost, either: it reads as zeros, and the
                    // file keeps its incomplete mark.
                    _ => {
                        writer.skip(len as u64);
                        if let Some(d) = &mut digests {
                            same.iter().for_each(|_| d.update(&[0; PAGE_SIZE as usize]));
                        }
                    }
                }
            }
            tally.take(chunk, writer.position());
            Ok(())
        })
    });
    let written = writer.position();
    result.map_err(Error::at(written))?;
    let (out, bytes) = writer.finish(tally.has_gaps()).map_err(Error::at(written))?;
    Ok((out, Written { bytes, data_at, digests }))
}

/// The PT_LOADs of a window: each begins with pages that are held and ends with the excluded ones behind them.
fn segments<E>(
    decision: &Decision,
    virt_of: &impl Fn(PhysRange) -> VirtAddr,
    mut take: impl FnMut(Segment) -> Result<(), E>,
) -> Result<(), E> {
    let mut push = |start: u64, held_end: u64, end: u64| {
        // Frame numbers are below 2^52, as those of any address are.
        let phys = PhysRange::new(start * PAGE_SIZE, end * PAGE_SIZE);
        let file_size = (held_end - start) * PAGE_SIZE;
        take(Segment { phys, virt: virt_of(phys), file_size })
    };
    for (ram_start, ram_end) in decision.ram.runs() {
        let mut runs = decision.dumped.runs_in(ram_start, ram_end).peekable();
        match runs.peek() {
            Some(&(first, _)) if first == ram_start => {}
            first => push(ram_start, ram_start, first.map_or(ram_end, |r| r.0))?,
        }
        while let Some((start, held_end)) = runs.next() {
            push(start, held_end, runs.peek().map_or(ram_end, |r| r.0))?;
        }
    }
    Ok(())
}

/// What virtual address a physical range has: what the source's segments say, else the direct map's.
fn virtual_addresses(dump: &Dump) -> impl Fn(PhysRange) -> VirtAddr + '_ {
    let base = dump.kernel().ok().and_then(|k| k.space().page_offset_base);
    move |phys| {
        let at = phys.start();
        match (dump.load_at(at), base) {
            (Some(l), _) => l.virt.wrapping_add(at.0 - l.phys.start().0),
            (None, Some(base)) => base.wrapping_add(at.0),
            (None, None) => VirtAddr(0),
        }
    }
}

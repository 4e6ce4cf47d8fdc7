//! From an open dump to a finished file: plan, write, count.

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use kdump_arch_x86::{PAGE_SIZE, PhysRange, VirtAddr};
use kdump_vmcore::elf::write::{ElfWriter, Layout, Segment};
use kdump_vmcore::kdump::Compression;
use kdump_vmcore::kdump::bitmap::PageBitmap;
use kdump_vmcore::kdump::write::{Head, KdumpWriter, Page};
use kdump_vmcore::{Dump, ReadError};

use crate::digest::{Piece, PieceDigests};
use crate::filter::{self, DumpLevel, FilterPlan};
use crate::pipeline::{self, Chunk, Coding, Source};
use crate::source::{TooHigh, pages_of};
use crate::uts;

/// Why no dump was written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The source cannot be described.
    #[error(transparent)]
    TooHigh(#[from] TooHigh),
    /// Writing failed. What was written before can be read: the file is marked as incomplete.
    #[error("cannot write the dump after {written} bytes")]
    Write {
        /// Bytes that were written.
        written: u64,
        /// What the operating system said.
        source: io::Error,
    },
    /// Threads cannot be started, or compression set up.
    #[error("cannot start to read and compress")]
    Start(#[source] io::Error),
}

/// The format to write.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OutputFormat {
    /// kdump-compressed.
    #[default]
    Kdump,
    /// ELF core.
    Elf,
}

impl OutputFormat {
    /// Its name on the command line and in manifests.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kdump => "kdump",
            Self::Elf => "elf",
        }
    }
}

/// What to write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// What to leave out.
    pub level: DumpLevel,
    /// The format.
    pub format: OutputFormat,
    /// How to compress pages. An ELF core is never compressed.
    pub compression: Compression,
    /// Threads that read and compress; `None`: one per CPU.
    pub workers: Option<NonZeroUsize>,
    /// Whether to digest the file, for a manifest.
    pub digests: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            level: DumpLevel::MAX,
            format: OutputFormat::Kdump,
            compression: Compression::Zstd,
            workers: None,
            digests: false,
        }
    }
}

/// How far writing has come.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Pages done.
    pub done: u64,
    /// Pages to do.
    pub total: u64,
    /// Bytes written.
    pub bytes: u64,
}

/// What was written.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The options in force.
    pub options: Options,
    /// What was decided, with counts by class.
    pub plan: FilterPlan,
    /// Pages the dump holds.
    pub written: u64,
    /// Zero-filled pages among them, which take no space: one page that all share, or holes in an ELF core.
    pub zero: u64,
    /// Pages that could not be read.
    pub nr_lost: u64,
    /// The first of them.
    pub lost: Vec<(u64, ReadError)>,
    /// Bytes of the file.
    pub bytes: u64,
    /// Digests of the file, if asked for.
    pub digests: Vec<Piece>,
    /// Whether the source itself was never finished, or was cut: then pages are missing that nothing names.
    pub is_source_incomplete: bool,
    /// Time it took to decide.
    pub filter_time: Duration,
    /// Time it took to write.
    pub write_time: Duration,
    /// Threads that worked.
    pub workers: usize,
}

impl Summary {
    /// Whether every page that was to be written was, from a source that was complete.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.nr_lost == 0 && !self.is_source_incomplete
    }
}

/// Lost pages are named up to this number, and counted beyond.
const LOST_NAMED: usize = 64;

/// Writes what `options` want of `dump` to `out`, an empty file. Nothing is synced.
///
/// # Errors
/// If the source describes more than can be handled, or writing fails; `out` then holds what was
/// written, marked as incomplete.
pub fn capture(
    dump: &Dump,
    options: &Options,
    out: &File,
    progress: &mut dyn FnMut(Progress),
) -> Result<Summary, Error> {
    let mut options = options.clone();
    if options.format == OutputFormat::Elf {
        options.compression = Compression::None;
    }
    let options = &options;
    let begin = Instant::now();
    let mut plan = filter::plan(dump, dump.vmcoreinfo(), pages_of(dump)?, options.level);
    plan.source_level = source_level(dump);
    let is_source_incomplete = dump.is_incomplete();
    if is_source_incomplete {
        plan.troubles.push("the source is incomplete: it was never finished, or was cut".to_string());
    }
    let filter_time = begin.elapsed();
    let workers =
        options.workers.or_else(|| std::thread::available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN);

    let begin = Instant::now();
    let mut tally = Tally {
        progress,
        done: 0,
        total: plan.dumped.count(),
        zero: 0,
        nr_lost: 0,
        lost: vec![],
        is_source_incomplete,
    };
    let write = match options.format {
        OutputFormat::Kdump => write_kdump,
        OutputFormat::Elf => write_elf,
    };
    let (bytes, digests) = write(dump, &plan, options, workers, out, &mut tally)?;
    Ok(Summary {
        options: options.clone(),
        written: tally.total.saturating_sub(tally.nr_lost),
        zero: tally.zero,
        nr_lost: tally.nr_lost,
        lost: tally.lost,
        plan,
        bytes,
        digests,
        is_source_incomplete,
        filter_time,
        write_time: begin.elapsed(),
        workers: workers.get(),
    })
}

/// The level at which the source was filtered already, where it says so and can be believed.
fn source_level(dump: &Dump) -> Option<DumpLevel> {
    DumpLevel::new(u32::try_from(dump.kdump()?.info().dump_level?).ok()?)
}

/// Counts on the way.
struct Tally<'a> {
    progress: &'a mut dyn FnMut(Progress),
    done: u64,
    total: u64,
    zero: u64,
    nr_lost: u64,
    lost: Vec<(u64, ReadError)>,
    is_source_incomplete: bool,
}

impl Tally<'_> {
    /// Whether the dump is to keep its incomplete mark.
    const fn has_gaps(&self) -> bool {
        self.nr_lost > 0 || self.is_source_incomplete
    }

    fn take(&mut self, chunk: &Chunk, bytes: u64) {
        self.done += chunk.pages.len() as u64;
        self.zero += chunk.pages.iter().filter(|p| **p == Page::Zero).count() as u64;
        self.nr_lost += chunk.lost.len() as u64;
        let room = LOST_NAMED.saturating_sub(self.lost.len());
        self.lost.extend(chunk.lost.iter().take(room).copied());
        (self.progress)(Progress { done: self.done, total: self.total, bytes });
    }
}

fn write_kdump(
    dump: &Dump,
    plan: &FilterPlan,
    options: &Options,
    workers: NonZeroUsize,
    out: &File,
    tally: &mut Tally<'_>,
) -> Result<(u64, Vec<Piece>), Error> {
    let info = dump.vmcoreinfo();
    let nr_cpus = match dump.kdump() {
        Some(kdump) => u32::try_from(kdump.info().nr_cpus).unwrap_or(1),
        None => u32::try_from(dump.prstatus().len()).unwrap_or(u32::MAX),
    };
    let head = Head {
        utsname: uts::read(dump),
        timestamp: info.and_then(|i| i.crash_time()).unwrap_or(0),
        compression: options.compression,
        dump_level: plan.level_in_file(),
        phys_base: info.and_then(|i| i.number("phys_base")).map_or(0, |n| n as u64),
        nr_cpus,
        notes: dump.notes().to_vec(),
    };
    let share_zero = options.level.excludes_zero();
    let mut writer = KdumpWriter::begin(out, &head, &plan.ram, &plan.dumped, share_zero)
        .map_err(|source| Error::Write { written: 0, source })?;
    let data_at = writer.layout().data_at();
    let mut digests = options.digests.then(|| PieceDigests::new(data_at));
    if let (Some(d), true) = (&mut digests, share_zero) {
        d.update(&[0; PAGE_SIZE as usize]);
    }
    let source = Source { mem: dump, ram: dump.ram(), pages: &plan.dumped };
    let coding = Coding { compression: options.compression, find_zero: share_zero };
    let result = pipeline::run(source, coding, workers, |chunk| {
        writer.push(&chunk.pages, &chunk.data)?;
        if let Some(d) = &mut digests {
            d.update(&chunk.data);
        }
        tally.take(chunk, writer.position());
        Ok(())
    });
    if let Err(source) = result {
        // The disk is full, most likely. The descriptors' place lies before the data: try to fill it.
        let _ = writer.flush_descs();
        return Err(Error::Write { written: writer.position(), source });
    }
    let written = writer.position();
    let fail = |source| Error::Write { written, source };
    let (_, len) = writer.finish(tally.has_gaps()).map_err(fail)?;
    Ok((len, finish_digests(digests, out, data_at).map_err(fail)?))
}

/// Whether a page's bytes are among its chunk's data.
const fn is_stored(page: &Page) -> bool {
    matches!(page, Page::Stored { .. })
}

fn write_elf(
    dump: &Dump,
    plan: &FilterPlan,
    options: &Options,
    workers: NonZeroUsize,
    out: &File,
    tally: &mut Tally<'_>,
) -> Result<(u64, Vec<Piece>), Error> {
    // A core cannot tell a zero-filled page from one that is left out: both would be memory without
    // bytes in the file. So zero-filled ones stay, as holes, which take no space on the disk.
    let coding = Coding { compression: Compression::None, find_zero: options.level.excludes_zero() };
    let layout = Layout::plan(dump.notes().len() as u64, segments(dump, &plan.ram, &plan.dumped));
    let mut writer =
        ElfWriter::begin(out, dump.notes(), &layout).map_err(|source| Error::Write { written: 0, source })?;
    let data_at = layout.data_at();
    let mut digests = options.digests.then(|| PieceDigests::new(data_at));
    let source = Source { mem: dump, ram: dump.ram(), pages: &plan.dumped };
    let result = pipeline::run(source, coding, workers, |chunk| {
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
    });
    let written = writer.position();
    let fail = |source| Error::Write { written, source };
    result.map_err(fail)?;
    let (_, len) = writer.finish(tally.has_gaps()).map_err(fail)?;
    Ok((len, finish_digests(digests, out, data_at).map_err(fail)?))
}

/// Reads back what lies before the pages, which is final only now, and digests it, too.
fn finish_digests(digests: Option<PieceDigests>, out: &File, data_at: u64) -> io::Result<Vec<Piece>> {
    let Some(digests) = digests else { return Ok(Vec::new()) };
    let mut head = vec![0; usize::try_from(data_at).map_err(io::Error::other)?];
    let mut done = 0;
    while done < head.len() {
        // A dump without any page ends within its padding.
        match out.read_at(&mut head[done..], done as u64)? {
            0 => break,
            n => done += n,
        }
    }
    head.truncate(done);
    Ok(digests.finish(&head))
}

/// The PT_LOADs: each begins with pages that are held and ends with the excluded ones behind them.
fn segments(dump: &Dump, ram: &PageBitmap, held: &PageBitmap) -> Vec<Segment> {
    let virt_of = virtual_addresses(dump);
    let mut out = Vec::new();
    let mut push = |start: u64, held_end: u64, end: u64| {
        // Frame numbers are below 2^34.
        let phys = PhysRange::new(start * PAGE_SIZE, end * PAGE_SIZE);
        let file_size = (held_end - start) * PAGE_SIZE;
        out.push(Segment { phys, virt: virt_of(phys), file_size });
    };
    for (ram_start, ram_end) in ram.runs() {
        let mut runs = held.runs_in(ram_start, ram_end).peekable();
        match runs.peek() {
            Some(&(first, _)) if first == ram_start => {}
            first => push(ram_start, ram_start, first.map_or(ram_end, |r| r.0)),
        }
        while let Some((start, held_end)) = runs.next() {
            push(start, held_end, runs.peek().map_or(ram_end, |r| r.0));
        }
    }
    out
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

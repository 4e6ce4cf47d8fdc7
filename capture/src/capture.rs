//! From an open dump to a finished file: plan, write, count.

use std::fs::File;
use std::io;
use std::time::{Duration, Instant};

use kdump_vmcore::kdump::Compression;
use kdump_vmcore::{Dump, ReadError};

use crate::compress::Level;
use crate::digest::Piece;
use crate::encrypt::Recipients;
use crate::plan::{Census, Plan, Wanted};
use crate::source::TooHigh;
use crate::write::{Tally, write_parts, write_to};

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

impl Error {
    /// What writing fails with after so many bytes.
    pub(crate) fn at(written: u64) -> impl Fn(io::Error) -> Self {
        move |source| Self::Write { written, source }
    }
}

/// The format to write.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OutputFormat {
    /// kdump-compressed.
    #[default]
    Kdump,
    /// ELF core.
    Elf,
    /// An ELF core in zstd frames with a seek table: `zstd -d` gives the core.
    ElfZstd,
}

impl OutputFormat {
    /// Its name on the command line and in manifests.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kdump => "kdump",
            Self::Elf => "elf",
            Self::ElfZstd => "elf-zstd",
        }
    }
}

/// Where to.
pub enum Output<'a> {
    /// An empty file.
    File(&'a File),
    /// Something that takes bytes in order. What a file would get at offsets, it gets as makedumpfile's flattened
    /// stream.
    Stream(&'a mut dyn io::Write),
}

/// What to write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// Which pages, and in what order.
    pub wanted: Wanted,
    /// The format.
    pub format: OutputFormat,
    /// How to compress pages. An ELF core is never compressed, one in zstd frames always by zstd.
    pub compression: Compression,
    /// How hard to try at that.
    pub level: Level,
    /// Whether to digest the file, for a manifest.
    pub digests: bool,
    /// Whether what is written reaches the disk in an order that leaves a readable file when the power fails, and what a
    /// report needs as soon as it is written.
    pub is_ordered: bool,
    /// To whom to encrypt it; a file then is what a stream would be.
    pub encryption: Option<Encryption>,
}

/// To whom a dump is encrypted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Encryption {
    /// Who can open it.
    pub recipients: Recipients,
    /// Whether zeros are added up to a whole chunk: where something may follow, the end of a chunk that is not whole is
    /// not found.
    pub is_padded: bool,
}

impl Options {
    /// The dump's name in its directory.
    #[must_use]
    pub const fn file_name(&self, is_stream: bool) -> &'static str {
        match (self.format, self.encryption.is_some()) {
            (OutputFormat::ElfZstd, true) => "vmcore.age",
            (_, true) => "vmcore.flat.age",
            (OutputFormat::Kdump | OutputFormat::Elf, false) if is_stream => "vmcore.flat",
            (_, false) => "vmcore",
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            wanted: Wanted::default(),
            format: OutputFormat::Kdump,
            compression: Compression::Zstd,
            level: Level::Usual,
            digests: false,
            is_ordered: false,
            encryption: None,
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
    pub census: Census,
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

/// Writes what `options` want of `dump` to `out`. Nothing is synced, unless it is to be in order.
///
/// # Errors
/// If the source describes more than can be handled, or writing fails; `out` then holds what was
/// written, marked as incomplete.
pub fn capture(
    dump: &Dump,
    options: &Options,
    out: Output<'_>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Summary, Error> {
    write(Plan::new(dump, &options.wanted)?, options, out, progress)
}

/// The same, of a dump that is decided on.
///
/// # Errors
/// As [`capture`].
pub fn write(
    plan: Plan<'_>,
    options: &Options,
    out: Output<'_>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Summary, Error> {
    let mut options = options.clone();
    match options.format {
        OutputFormat::Kdump => {}
        OutputFormat::Elf => options.compression = Compression::None,
        OutputFormat::ElfZstd => options.compression = Compression::Zstd,
    }
    summarize(plan, options, progress, |plan, options, tally| write_to(plan, options, out, tally))
}

/// Writes a dump that is decided on into several files of the kdump-compressed format, each with the pages of a run of
/// frames, cut so that each has as many. No single digest is taken.
///
/// # Errors
/// As [`capture`]; if it is to be encrypted, which is not done.
///
/// # Panics
/// If there is no file.
pub fn write_split(
    plan: Plan<'_>,
    options: &Options,
    outs: &[&File],
    progress: &mut dyn FnMut(Progress),
) -> Result<Summary, Error> {
    if options.encryption.is_some() {
        let why = "a dump in several files cannot be encrypted";
        return Err(Error::Start(io::Error::new(io::ErrorKind::Unsupported, why)));
    }
    let options = Options { format: OutputFormat::Kdump, digests: false, ..options.clone() };
    summarize(plan, options, progress, |plan, options, tally| {
        Ok((write_parts(plan, options, outs, tally)?, Vec::new()))
    })
}

/// Has `write` write, and says what was written: its bytes and digests come from there.
fn summarize(
    plan: Plan<'_>,
    options: Options,
    progress: &mut dyn FnMut(Progress),
    write: impl FnOnce(&Plan<'_>, &Options, &mut Tally<'_>) -> Result<(u64, Vec<Piece>), Error>,
) -> Result<Summary, Error> {
    let begin = Instant::now();
    let is_source_incomplete = plan.dump.is_incomplete();
    let mut tally = Tally {
        progress,
        done: 0,
        total: plan.census.dumped,
        zero: 0,
        nr_lost: 0,
        lost: vec![],
        is_source_incomplete,
        bytes: 0,
    };
    let (bytes, digests) = write(&plan, &options, &mut tally)?;
    Ok(Summary {
        options,
        written: tally.total.saturating_sub(tally.nr_lost),
        zero: tally.zero,
        nr_lost: tally.nr_lost,
        lost: tally.lost,
        bytes,
        digests,
        is_source_incomplete,
        filter_time: plan.time,
        write_time: begin.elapsed(),
        workers: plan.workers.get(),
        census: plan.census,
    })
}

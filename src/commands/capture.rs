//! `capture`: a filtered, compressed dump from /proc/vmcore or from an existing dump.

pub mod estimate;

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use kdump_capture::classify::PageClass;
use kdump_capture::config::{parse_compression, parse_format};
use kdump_capture::durable::DurableFile;
use kdump_capture::encrypt::Recipients;
use kdump_capture::{
    DumpLevel, Encryption, Kinds, Level, Options, Output, OutputFormat, Plan, Selection, Summary, Wanted,
};
use kdump_vmcore::Dump;
use kdump_vmcore::kdump::Compression;

use super::bar::Bar;
use crate::exit::Exit;

/// Arguments.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The dump to read: an ELF core or a kdump-compressed file [default: /proc/vmcore; with --estimate the running
    /// machine]
    source: Option<PathBuf>,

    /// Another file of a source that was split into several; once for each
    #[arg(long, value_name = "FILE")]
    with: Vec<PathBuf>,

    /// The file to write; it has this name only once it is complete and on the disk. `-`: standard output, which gets
    /// the flattened form that `makedumpfile -F` writes
    #[arg(short, long, required_unless_present_any = ["digest", "estimate"])]
    output: Option<PathBuf>,

    /// What to leave out, added up: 1 zero-filled pages, 2 page cache, 4 also with private data,
    /// 8 memory of processes, 16 free pages
    #[arg(short = 'd', long, default_value_t = 31, value_parser = clap::value_parser!(u32).range(0..=31))]
    dump_level: u32,

    /// Kinds of pages to keep, whatever the level says: zero, free, file-cache, dirty-cache, anon, hugetlb, slab,
    /// page-tables
    #[arg(long, value_name = "KIND,...", value_delimiter = ',')]
    keep: Vec<String>,

    /// Kinds of pages to leave out, whatever the level says; of `file-cache` and `dirty-cache` the narrower counts
    #[arg(long, value_name = "KIND,...", value_delimiter = ',')]
    drop: Vec<String>,

    /// kdump, elf, or elf-zstd: an ELF core in zstd frames
    #[arg(long, default_value = "kdump", value_parser = format)]
    format: OutputFormat,

    /// zstd, zlib, lzo, snappy or none; elf has none, elf-zstd is zstd
    #[arg(short = 'z', long, default_value = "zstd", value_parser = compression)]
    compression: Compression,

    /// How hard to compress: zstd -50 (fast) to 19, zlib 1 to 9
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    compression_level: Option<i32>,

    /// The fastest compression: snappy; two to three times as fast as zstd, for files up to a half larger
    #[arg(long, conflicts_with_all = ["compression", "compression_level"])]
    fast: bool,

    /// Encrypt to this public key (age1...), of which there may be several: `age -d` gives the flattened form, or the
    /// core in zstd frames
    #[arg(long, value_name = "RECIPIENT", conflicts_with = "digest")]
    encrypt_to: Vec<String>,

    /// Threads that compress; as many as there are CPUs, if not given
    #[arg(long)]
    threads: Option<std::num::NonZeroUsize>,

    /// Write N files, OUTPUT-1 to OUTPUT-N, each with a part of the pages: for several disks. `makedumpfile --reassemble`
    /// makes one of them
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=64), conflicts_with = "digest")]
    split: Option<u32>,

    /// Replace the output if it exists
    #[arg(long)]
    force: bool,

    /// Write nothing; print number and SHA-256 of the pages that the source holds
    #[arg(long, conflicts_with = "output")]
    digest: bool,

    /// Write nothing; predict pages and bytes of each class and dump level. Without SOURCE of the running machine, which
    /// needs root
    #[arg(long, conflicts_with_all = ["output", "digest", "split"])]
    estimate: bool,

    /// The estimate as JSON
    #[arg(long, requires = "estimate")]
    json: bool,
}

fn format(name: &str) -> Result<OutputFormat, String> {
    parse_format(name).ok_or_else(|| "kdump, elf or elf-zstd".into())
}

fn compression(name: &str) -> Result<Compression, String> {
    parse_compression(name).ok_or_else(|| "zstd, zlib, lzo, snappy or none".into())
}

/// Runs it.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    let options = options(args)?;
    let source = args.source.as_deref().unwrap_or(Path::new("/proc/vmcore"));
    let sources: Vec<&Path> = std::iter::once(source).chain(args.with.iter().map(PathBuf::as_path)).collect();
    if args.estimate {
        return estimate::run(args.source.as_ref().map(|_| sources.as_slice()), &options, args.json);
    }
    let mut dump = open(&sources)?;
    let Some(output) = &args.output else { return digest(&dump) };
    dump.read_in_pieces();
    if let Some(nr) = args.split {
        return split(&dump, &options, output, nr, args.force);
    }
    if output.as_os_str() == "-" {
        return to_stdout(&dump, &options);
    }
    let is_source = sources.iter().any(|source| is_same_file(source, output));
    anyhow::ensure!(!is_source, "{} is the source itself", output.display());
    let out = DurableFile::create(output, args.force)?;
    let mut bar = Bar::new();
    let written = kdump_capture::capture(&dump, &options, Output::File(out.file()), &mut |progress| {
        bar.tell(progress);
    });
    drop(bar);
    let summary = written.with_context(|| out.partial_path().display().to_string())?;
    out.commit().with_context(|| output.display().to_string())?;
    print_summary(&summary);
    Ok(exit(&summary))
}

/// Opens a dump, which may be several files.
fn open(sources: &[&Path]) -> anyhow::Result<Dump> {
    Dump::open_set(sources).with_context(|| match sources {
        [source] if *source == Path::new("/proc/vmcore") => {
            "/proc/vmcore, which only a capture kernel has".to_string()
        }
        _ => sources.iter().map(|source| source.display().to_string()).collect::<Vec<_>>().join(", "),
    })
}

/// Writes several files, which get their names one after the other when all of them are complete.
fn split(dump: &Dump, options: &Options, output: &Path, nr: u32, is_forced: bool) -> anyhow::Result<Exit> {
    anyhow::ensure!(
        options.format == OutputFormat::Kdump,
        "only the kdump format can be split into several files"
    );
    anyhow::ensure!(
        options.encryption.is_none(),
        "a dump in several files cannot be encrypted: leave --split out"
    );
    anyhow::ensure!(output.as_os_str() != "-", "standard output takes one file: name one with -o");
    let name = |part: u32| {
        let mut name = output.as_os_str().to_owned();
        name.push(format!("-{part}"));
        PathBuf::from(name)
    };
    let outs: Vec<DurableFile> =
        (1..=nr).map(|part| DurableFile::create(&name(part), is_forced)).collect::<Result<_, _>>()?;
    let files: Vec<_> = outs.iter().map(DurableFile::file).collect();
    let mut bar = Bar::new();
    let plan = Plan::new(dump, &options.wanted)?;
    let written = kdump_capture::write_split(plan, options, &files, &mut |progress| bar.tell(progress));
    drop(bar);
    let summary = written.with_context(|| output.display().to_string())?;
    for (out, part) in outs.into_iter().zip(1..) {
        out.commit().with_context(|| name(part).display().to_string())?;
    }
    print_summary(&summary);
    Ok(exit(&summary))
}

const fn exit(summary: &Summary) -> Exit {
    if summary.is_complete() { Exit::Complete } else { Exit::Gaps }
}

/// What the arguments say.
fn options(args: &Args) -> anyhow::Result<Options> {
    let level = DumpLevel::new(args.dump_level).context("dump level")?;
    let keep = Kinds::parse(&args.keep).context("--keep")?;
    let drop = Kinds::parse(&args.drop).context("--drop")?;
    let selection = Selection { level, keep, drop }.check()?;
    let compression = if args.fast { Compression::Snappy } else { args.compression };
    let level = args.compression_level.map_or(Level::Usual, Level::Number);
    if args.format != OutputFormat::Elf {
        let packed = if args.format == OutputFormat::ElfZstd { Compression::Zstd } else { compression };
        level.number(packed)?;
    }
    let recipients =
        Some(&args.encrypt_to).filter(|texts| !texts.is_empty()).map(|texts| Recipients::parse(texts));
    let encryption = recipients.transpose()?.map(|recipients| Encryption { recipients, is_padded: false });
    Ok(Options {
        wanted: Wanted { selection, workers: args.threads, ..Wanted::default() },
        format: args.format,
        compression,
        level,
        digests: false,
        is_ordered: false,
        encryption,
    })
}

/// Writes to a pipe or whatever standard output is.
fn to_stdout(dump: &Dump, options: &Options) -> anyhow::Result<Exit> {
    let out = std::io::stdout();
    anyhow::ensure!(!out.is_terminal(), "standard output is a terminal: redirect it, or name a file with -o");
    let mut out = std::io::BufWriter::with_capacity(1 << 20, out.lock());
    let summary = kdump_capture::capture(dump, options, Output::Stream(&mut out), &mut |_| ())
        .context("standard output")?;
    out.flush().context("standard output")?;
    print_summary(&summary);
    Ok(exit(&summary))
}

fn digest(dump: &Dump) -> anyhow::Result<Exit> {
    let digest = kdump_capture::digest::logical_digest(dump)?;
    writeln!(std::io::stdout(), "pages {} sha256 {}", digest.pages, digest.sha256)?;
    if digest.lost > 0 {
        eprintln!("kdump-rs: {} pages that the dump should hold cannot be read", digest.lost);
        return Ok(Exit::Gaps);
    }
    Ok(Exit::Complete)
}

fn is_same_file(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

/// Lost pages that the summary names.
const LOST_NAMED: usize = 4;

fn print_summary(s: &Summary) {
    let mib = |pages: u64| pages as f64 / 256.0;
    let written_mib = s.bytes as f64 / 1048576.0;
    let of = mib(s.written);
    eprintln!(
        "{} pages ({of:.1} MiB) of {} ({:.1} MiB) written as {written_mib:.1} MiB ({}, compression {}, {:.0}%) in {:.2} s",
        s.written,
        s.census.ram,
        mib(s.census.ram),
        s.options.format.name(),
        s.options.compression.name(),
        if of > 0.0 { 100.0 * written_mib / of } else { 0.0 },
        (s.filter_time + s.write_time).as_secs_f64(),
    );
    let kept = |excluded: bool| {
        let classes = PageClass::ALL.into_iter().filter(|c| s.census.found(*c) > 0);
        let named = classes
            .filter(|c| s.census.selection.excludes(*c) == excluded)
            .map(|c| format!("{} {}", c.name(), s.census.found(c)));
        named.collect::<Vec<_>>().join(", ")
    };
    eprintln!("  kept: {}; zero-filled among them {}", kept(false), s.zero);
    let left_out = kept(true);
    if !left_out.is_empty() {
        eprintln!("  left out: {left_out}");
    }
    if s.census.absent > 0 {
        eprintln!("  not in the source: {}", s.census.absent);
    }
    for m in &s.census.missing {
        eprintln!("  VMCOREINFO has no {}: {}", m.fact, m.effect);
    }
    for trouble in &s.census.troubles {
        eprintln!("  {trouble}");
    }
    for (pfn, why) in s.lost.iter().take(LOST_NAMED) {
        eprintln!("  lost page {pfn:#x}: {why}");
    }
    if s.nr_lost > LOST_NAMED as u64 {
        eprintln!("  and {} more lost pages", s.nr_lost - LOST_NAMED as u64);
    }
}

//! `capture`: a filtered, compressed dump from /proc/vmcore or from an existing dump.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use kdump_capture::classify::PageClass;
use kdump_capture::config::{parse_compression, parse_format};
use kdump_capture::durable::DurableFile;
use kdump_capture::encrypt::Recipients;
use kdump_capture::{
    DumpLevel, Encryption, Kinds, Level, Options, Output, OutputFormat, Selection, Summary, Wanted,
};
use kdump_vmcore::Dump;
use kdump_vmcore::kdump::Compression;

use super::bar::Bar;
use crate::exit::Exit;

/// Arguments.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The dump to read: /proc/vmcore, an ELF core or a kdump-compressed file
    #[arg(default_value = "/proc/vmcore")]
    source: PathBuf,

    /// Another file of a source that was split into several; once for each
    #[arg(long, value_name = "FILE")]
    with: Vec<PathBuf>,

    /// The file to write; it has this name only once it is complete and on the disk. `-`: standard output, which gets
    /// the flattened form that `makedumpfile -F` writes
    #[arg(short, long, required_unless_present = "digest")]
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

    /// The fastest compression: snappy; two to three times as fast as zstd, for files a third larger
    #[arg(long, conflicts_with_all = ["compression", "compression_level"])]
    fast: bool,

    /// Encrypt to this public key (age1...), of which there may be several: `age -d` gives the flattened form, or the
    /// core in zstd frames
    #[arg(long, value_name = "RECIPIENT", conflicts_with = "digest")]
    encrypt_to: Vec<String>,

    /// Threads that compress; as many as there are CPUs, if not given
    #[arg(long)]
    threads: Option<std::num::NonZeroUsize>,

    /// Replace the output if it exists
    #[arg(long)]
    force: bool,

    /// Write nothing; print number and SHA-256 of the pages that the source holds
    #[arg(long, conflicts_with = "output")]
    digest: bool,
}

fn format(name: &str) -> Result<OutputFormat, String> {
    parse_format(name).ok_or_else(|| "kdump, elf or elf-zstd".into())
}

fn compression(name: &str) -> Result<Compression, String> {
    parse_compression(name).ok_or_else(|| "zstd, zlib, lzo, snappy or none".into())
}

/// Runs it.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    let sources: Vec<&Path> = std::iter::once(&args.source).chain(&args.with).map(PathBuf::as_path).collect();
    let mut dump = Dump::open_set(&sources).with_context(|| match args.source.to_str() {
        Some("/proc/vmcore") => "/proc/vmcore, which only a capture kernel has".to_string(),
        _ => args.source.display().to_string(),
    })?;
    let Some(output) = &args.output else { return digest(&dump) };
    let options = options(args)?;
    dump.read_in_pieces();
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

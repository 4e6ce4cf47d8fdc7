//! `capture --estimate`: what dumps would hold, and how large they would be, before any is written.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, ensure};
use kdump_arch_x86::range;
use kdump_capture::classify::PageClass;
use kdump_capture::estimate::Estimate;
use kdump_capture::estimate::live::estimate;
use kdump_capture::{DumpLevel, Options, Selection};
use kdump_loader::iomem::Iomem;
use kdump_vmcore::{Dump, PhysMem};
use serde::Serialize;

use crate::exit::Exit;

/// Levels that the text shows, each leaving out more than the one before.
const LEVELS: [(u32, &str); 5] = [
    (0, "nothing"),
    (1, "zero-filled"),
    (17, "also free"),
    (23, "also page cache"),
    (31, "also memory of processes"),
];

/// Runs it.
pub fn run(sources: Option<&[&Path]>, options: &Options, is_json: bool) -> anyhow::Result<Exit> {
    let estimate = match sources {
        Some(paths) => Estimate::of_dump(&super::open(paths)?, options)?,
        None => live(options)?,
    };
    let source = sources.and_then(<[_]>::first).copied();
    let shown = Shown::new(source, &estimate, options);
    let mut out = std::io::stdout().lock();
    if is_json {
        serde_json::to_writer_pretty(&mut out, &shown)?;
        writeln!(out)?;
    } else {
        out.write_all(shown.to_text(options).as_bytes())?;
    }
    for trouble in &estimate.troubles {
        eprintln!("kdump-rs: {trouble}");
    }
    Ok(if estimate.troubles.is_empty() { Exit::Complete } else { Exit::Gaps })
}

/// Counts the pages of the running machine. What its crash kernel has is in no dump.
pub fn live(options: &Options) -> anyhow::Result<Estimate> {
    let read = |path: &str| std::fs::read(path).with_context(|| path.to_owned());
    let iomem = Iomem::parse(&read("/proc/iomem")?)?;
    ensure!(
        !iomem.is_hidden(),
        "/proc/iomem hides addresses: counting the running machine's pages needs root"
    );
    let ram: Vec<_> = range::subtract(iomem.ram(), iomem.crash_kernel())
        .filter_map(|range| range.shrink_to_pages())
        .filter(|range| !range.is_empty())
        .collect();
    let flags = File::open("/proc/kpageflags")
        .context("/proc/kpageflags, which tells pages apart: it needs root, and a kernel with CONFIG_PROC_PAGE_MONITOR")?;
    let core = Dump::open(Path::new("/proc/kcore"));
    let contents = core.as_ref().ok().map(|core| core as &dyn PhysMem);
    let mut estimate = estimate(&ram, &flags, contents, options)?;
    if let Err(why) = core {
        estimate.troubles.push(format!("/proc/kcore {why}"));
    }
    Ok(estimate)
}

#[derive(Serialize)]
struct Shown {
    /// The dump; null: the running machine.
    source: Option<String>,
    format: &'static str,
    compression: &'static str,
    classes: Vec<Class>,
    /// Pages that were memory and that the source does not hold.
    absent: u64,
    levels: Vec<AtLevel>,
    /// What `-d`, `--keep` and `--drop` select.
    selected: AtLevel,
    troubles: Vec<String>,
}

#[derive(Serialize)]
struct Class {
    name: &'static str,
    pages: u64,
    /// Zero-filled ones among them, as far as was seen.
    zero: u64,
    /// Pages that were read.
    sampled: u64,
    /// Bytes that each of the others takes in the dump.
    page_bytes: u64,
    /// Whether what is selected holds them.
    is_kept: bool,
}

#[derive(Serialize)]
struct AtLevel {
    level: u32,
    pages: u64,
    zero: u64,
    bytes: u64,
}

impl Shown {
    fn new(source: Option<&Path>, estimate: &Estimate, options: &Options) -> Self {
        let asked = options.wanted.selection;
        let at = |selection: Selection| {
            let seen = estimate.predict(selection);
            AtLevel { level: selection.level.bits(), pages: seen.pages, zero: seen.zero, bytes: seen.bytes }
        };
        let levels =
            (0..=31).filter_map(DumpLevel::new).map(|level| at(Selection { level, ..asked })).collect();
        let classes = PageClass::ALL.into_iter().filter(|class| estimate.found[*class as usize] > 0);
        Self {
            source: source.map(|path| path.display().to_string()),
            format: options.format.name(),
            compression: options.compression.name(),
            classes: classes
                .map(|class| Class {
                    name: class.name(),
                    pages: estimate.found[class as usize],
                    zero: estimate.zero(class),
                    sampled: estimate.seen[class as usize].sampled,
                    page_bytes: estimate.page_bytes(class).round() as u64,
                    is_kept: !asked.excludes(class),
                })
                .collect(),
            absent: estimate.absent,
            levels,
            selected: at(asked),
            troubles: estimate.troubles.clone(),
        }
    }

    fn to_text(&self, options: &Options) -> String {
        let mut out = format!(
            "{:<20} {:>12} {:>12} {:>12} {:>10}\n",
            "CLASS", "PAGES", "MIB", "ZERO-FILLED", "PACKED TO"
        );
        for class in &self.classes {
            let packed = match class.sampled {
                0 => "-".to_owned(),
                _ => format!("{}%", class.page_bytes * 100 / 4096),
            };
            out.push_str(&format!(
                "{:<20} {:>12} {:>12.1} {:>12} {packed:>10}\n",
                class.name,
                class.pages,
                mib(class.pages * 4096),
                class.zero,
            ));
        }
        if self.absent > 0 {
            out.push_str(&format!("{:<20} {:>12}\n", "not in the source", self.absent));
        }
        let left_out = "LEFT OUT";
        let how = format!("{} {}", self.format, self.compression);
        out.push_str(&format!("\nLEVEL  {left_out:<24} {:>12} {:>12}  DUMP ({how}), MIB\n", "PAGES", "MIB"));
        for (level, what) in LEVELS {
            if let Some(at) = self.levels.iter().find(|at| at.level == level) {
                out.push_str(&at.line(what));
            }
        }
        let selection = options.wanted.selection;
        let is_shown = LEVELS.iter().any(|(level, _)| *level == self.selected.level);
        if !is_shown || !selection.keep.is_empty() || !selection.drop.is_empty() {
            out.push_str(&self.selected.line("as asked for"));
        }
        out
    }
}

impl AtLevel {
    fn line(&self, what: &str) -> String {
        let Self { level, pages, bytes, .. } = *self;
        format!("{level:>5}  {what:<24} {pages:>12} {:>12.1} {:>12.1}\n", mib(pages * 4096), mib(bytes))
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / 1_048_576.0
}

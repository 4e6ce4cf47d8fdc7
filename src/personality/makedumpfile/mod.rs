//! `makedumpfile`, with its options: dumps of /proc/vmcore as distributions' scripts have them written, the flattened
//! form for pipes, split files, the kernel log.
//!
//! Source: makedumpfile(8) of makedumpfile 1.7.8.

mod create;
mod memory;
mod message;
mod options;
mod report;
mod usage;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use kdump_analyze::log::Record;
use kdump_capture::{DumpLevel, Wanted};
use kdump_vmcore::Dump;
use kdump_vmcore::flat::rearrange::rearrange;
use kdump_vmcore::kdump::Compression;

use super::vmcore_dmesg;
use create::{Outputs, check_outputs, open_output};
use message::Voice;
use options::{Asked, Job, To};

/// What makedumpfile is taken for.
const VERSION: &str = "makedumpfile: version 1.7.8 (released on 30 Oct 2025)";

/// A dump and a file about its kernel that are of different kernels: exit code 2.
#[derive(Debug)]
struct WrongRelease(String);

impl std::fmt::Display for WrongRelease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for WrongRelease {}

/// Runs with the arguments that follow the name; exits with 0, 1 for what failed, 2 for a VMCOREINFO file of another
/// kernel.
pub fn main(args: &[OsString]) -> ExitCode {
    let asked = match Asked::parse(args) {
        Ok(asked) => asked,
        Err(refused) => {
            refused.voice.common(&refused.text);
            if !refused.is_check {
                refused.voice.common("\nmakedumpfile Failed.");
            }
            return ExitCode::from(1);
        }
    };
    let voice = asked.voice;
    match asked.job {
        Job::Help => {
            voice.common(usage::HELP);
            return ExitCode::SUCCESS;
        }
        Job::Version => {
            voice.common(&format!(
                "{VERSION}\nlzo\tenabled\nsnappy\tenabled\nzstd\tenabled\n\nkdump-rs {}\n",
                env!("CARGO_PKG_VERSION")
            ));
            return ExitCode::SUCCESS;
        }
        Job::Check => return ExitCode::SUCCESS,
        _ => {}
    }
    match run(&asked) {
        Ok(()) => {
            if !matches!(asked.job, Job::MemUsage { .. }) {
                voice.common("\nmakedumpfile Completed.");
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            voice.error(&format!("{error:#}"));
            voice.common("\nmakedumpfile Failed.");
            ExitCode::from(if error.is::<WrongRelease>() { 2 } else { 1 })
        }
    }
}

fn run(asked: &Asked) -> anyhow::Result<()> {
    match &asked.job {
        Job::Help | Job::Version | Job::Check => Ok(()),
        Job::Create { from, to } => create::create(asked, from, to),
        Job::Rearrange { to } => rearrange_stdin(asked, to),
        Job::Reassemble { from, to } => reassemble(asked, from, to),
        Job::Dmesg { from, to } => dmesg(asked, from, to),
        Job::MemUsage { from } => memory::show(asked.voice, from),
    }
}

/// `-R`: what it makes of a stream that is cut stays, for all of it that can be read.
fn rearrange_stdin(asked: &Asked, to: &Path) -> anyhow::Result<()> {
    check_outputs(asked, &[to])?;
    let mut file = open_output(asked, to)?;
    let mut stdin = io::BufReader::with_capacity(1 << 20, io::stdin().lock());
    rearrange(&mut stdin, &mut file).with_context(|| to.display().to_string())?;
    file.sync_all().with_context(|| to.display().to_string())?;
    asked.voice.common(&format!("\nThe dumpfile is saved to {}.", to.display()));
    Ok(())
}

/// `--reassemble`: the same pages, compressed as they were, in one file.
fn reassemble(asked: &Asked, from: &[PathBuf], to: &Path) -> anyhow::Result<()> {
    check_outputs(asked, &[to])?;
    let names = || from.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
    let dump = Dump::open_set(from).with_context(names)?;
    let Some(info) = dump.kdump().map(kdump_vmcore::kdump::read::KdumpFile::info) else {
        bail!("{} is not the kdump-compressed format.", names());
    };
    if let Some((start, end)) = info.split {
        bail!("{} are not all files of the dump: they have the frames {start:#x} to {end:#x} only", names());
    }
    // Zero-filled pages share one, as they did; nothing more is left out.
    let bits = info.dump_level.and_then(|level| u32::try_from(level).ok()).unwrap_or(0) & DumpLevel::ZERO;
    let level = DumpLevel::new(bits).unwrap_or_default();
    let compression = info.compression.unwrap_or(Compression::Zlib);
    let wanted = Wanted { selection: level.into(), workers: asked.threads, ..Wanted::default() };
    let outputs = Outputs::open(asked, &To::File(to.to_owned()))?;
    let options = kdump_capture::Options { wanted, compression, ..kdump_capture::Options::default() };
    create::write_once(asked.voice, &dump, &options, &outputs)?.check(asked.voice)?;
    asked.voice.common(&format!("\nThe dumpfile is saved to {}.", to.display()));
    Ok(())
}

/// `--dump-dmesg`.
fn dmesg(asked: &Asked, from: &Path, to: &To) -> anyhow::Result<()> {
    if let To::File(path) = to {
        check_outputs(asked, &[path])?;
    }
    let log =
        vmcore_dmesg::read(create::open_memory(asked, from)?).with_context(|| from.display().to_string())?;
    let text = vmcore_dmesg::text(&log, stamp, true);
    match to {
        To::File(path) => {
            let write = |mut file: File| file.write_all(&text).and_then(|()| file.sync_all());
            write(open_output(asked, path)?).with_context(|| path.display().to_string())?;
            asked.voice.common(&format!("\nThe dmesg log is saved to {}.", path.display()));
        }
        To::Stdout | To::Split(_) => {
            io::stdout().lock().write_all(&text).context("standard output")?;
            asked.voice.common("\nThe dmesg log is saved to STDOUT.");
        }
    }
    if log.lost > 0 {
        asked.voice.error(&format!("{} records of the log have lost their text", log.lost));
    }
    Ok(())
}

/// `[    1.234567] [      T1] `.
fn stamp(record: &Record) -> String {
    format!("{}[{:>8}] ", vmcore_dmesg::stamp(record), record.caller.to_string())
}

/// Says that an option changes nothing, where somebody wants to know.
fn explain(voice: Voice, option: &str, why: &str) {
    voice.debug(&format!("{option}: {why}"));
}

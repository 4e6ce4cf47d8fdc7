//! What is written, from the small and certain to the large: log, report, dump, manifest.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use kdump_analyze::log::Log;
use kdump_capture::config::CaptureConfig;
use kdump_capture::durable::DurableFile;
use kdump_capture::encrypt::Recipients;
use kdump_capture::manifest::Manifest;
use kdump_capture::meter::Meter;
use kdump_capture::{Encryption, Error, Options, Output, Plan, Progress, Summary, Wanted};
use kdump_vmcore::Dump;

use crate::console::{self, say};
use crate::record::{SOURCE, open_source};
use crate::room;
use crate::settle::Settling;
use crate::store::Store;
use crate::target::DumpDir;
use crate::{selfcheck, worth};

/// Why a dump was not read back.
const NOT_OPENED: &str = "it is encrypted, and nothing on this machine can open it";
pub const NOT_ASKED: &str = "it went to a server, which is not asked for it";

/// Writes everything to `dir`, as far as it goes; true if the dump is complete.
pub fn write_all(dir: &DumpDir, config: &CaptureConfig) -> bool {
    let (options, privacy) = match options(config) {
        Ok(options) => options,
        Err(e) => {
            say!("nothing is written: {e}");
            return false;
        }
    };
    let dump = match open_source() {
        Ok(dump) => dump,
        Err(e) => {
            say!("{SOURCE}: {e}: there is nothing to dump");
            return false;
        }
    };
    let log = read_log(&dump);
    let mut store = Store::Directory(&dir.path);
    if let Some(log) = &log {
        // What became of it was said; the dump may find room all the same.
        let _ = store.save_for(privacy.reports(), "dmesg.txt", log);
    }
    store.report(privacy.reports());
    let name = options.file_name(false);
    let (summary, checked) = match write_file(dir, &dump, options, config, log.as_deref()) {
        Ok(written) => written,
        Err(e) => {
            say!("no complete dump: {e:#}");
            return false;
        }
    };
    tell(&summary);
    if checked.log_reads_back == Some(false) {
        say!("the kernel log does not read from the dump as it did from memory");
    }
    console::sync_log();
    let mut manifest = Manifest::new(name, &summary, dump.vmcoreinfo());
    manifest.log_reads_back = checked.log_reads_back;
    manifest.self_check = checked.self_check;
    manifest.not_read_back = summary.options.encryption.as_ref().map(|_| NOT_OPENED);
    let _ = store.save("manifest.json", manifest.to_json().as_bytes());
    room::prune(dir, &config.retention, 0);
    true
}

/// What was found when the written dump was read.
struct Checked {
    log_reads_back: Option<bool>,
    self_check: Option<serde_json::Value>,
}

/// Writes the dump under its name, as much of it as there is room for; and tells whether `log` could be read from it again.
fn write_file(
    dir: &DumpDir,
    dump: &Dump,
    mut options: Options,
    config: &CaptureConfig,
    log: Option<&[u8]>,
) -> anyhow::Result<(Summary, Checked)> {
    let plan = decide(dump, &options)?;
    let chosen = room::make(dir, &plan.census, &options, &config.retention);
    let mut planned = (chosen == options.wanted.selection).then_some(plan);
    options.wanted.selection = chosen;
    loop {
        let plan = planned.take().map_or_else(|| decide(dump, &options), Ok)?;
        let census = plan.census.clone();
        // An earlier attempt at a lower level may have left its beginning.
        let out = DurableFile::create(&dir.path.join(options.file_name(false)), true)?;
        let mut reporter = Reporter::new();
        let settling = Settling::begin(out.partial_path());
        let written = write_vmcore(plan, Output::File(out.file()), &options, &mut reporter);
        drop(settling);
        let error = match written {
            Ok(summary) => {
                let is_readable = options.encryption.is_none();
                let checked = Checked {
                    log_reads_back: log
                        .filter(|_| is_readable)
                        .map(|log| reads_back(out.partial_path(), log)),
                    self_check: is_readable.then(|| selfcheck::run(out.partial_path(), &dir.path)).flatten(),
                };
                let begin = Instant::now();
                out.commit().context("vmcore.partial cannot be brought to the disk")?;
                say!("sync {:.2} s", begin.elapsed().as_secs_f64());
                return Ok((summary, checked));
            }
            Err(error) => error,
        };
        let Progress { done, bytes, .. } = reporter.last;
        if let Some(selection) =
            is_full(&error).then(|| room::after_full(dir, &census, &options, bytes, done)).flatten()
        {
            say!("{error:#}: pages like these fit at dump level {}", selection.level.bits());
            options.wanted.selection = selection;
            continue;
        }
        let partial = PathBuf::from(out.partial_path().file_name().unwrap_or_default());
        if let Err(e) = out.leave() {
            say!("{} may not be on the disk: {e}", partial.display());
        }
        return Err(error.context(format!("{done} pages are in {}", partial.display())));
    }
}

/// Writes the dump into something that takes bytes in order.
pub fn write_stream(dump: &Dump, out: &mut dyn io::Write, options: &Options) -> anyhow::Result<Summary> {
    write_vmcore(decide(dump, options)?, Output::Stream(out), options, &mut Reporter::new())
}

/// Decides which pages are written; a bug in that is an error.
fn decide<'a>(dump: &'a Dump, options: &Options) -> anyhow::Result<Plan<'a>> {
    let wanted = Wanted { first: worth::take(), ..options.wanted.clone() };
    let plan = catch_unwind(AssertUnwindSafe(|| Plan::new(dump, &wanted)));
    Ok(plan.map_err(|_| anyhow::anyhow!("a bug in deciding what to write"))??)
}

/// Who may read what is beside the dump.
#[derive(Clone, Debug)]
pub struct Privacy(Option<Recipients>);

impl Privacy {
    /// To whom log and report are encrypted; nobody if they are written in the clear.
    pub const fn reports(&self) -> Option<&Recipients> {
        self.0.as_ref()
    }
}

/// The options of the configuration.
///
/// # Errors
/// If it names somebody to encrypt to, and that cannot be done.
pub fn options(config: &CaptureConfig) -> anyhow::Result<(Options, Privacy)> {
    let (mut options, complaints) = config.dump.options();
    for complaint in complaints {
        say!("{complaint}");
    }
    (options.digests, options.is_ordered) = (true, true);
    let recipients =
        config.dump.recipients().context("what is to be encrypted is not written in the clear")?;
    let privacy = Privacy(recipients.clone().filter(|_| config.dump.encrypt_reports));
    options.encryption = recipients.map(|recipients| Encryption { recipients, is_padded: false });
    Ok((options, privacy))
}

/// Whether the target has no room left.
fn is_full(e: &anyhow::Error) -> bool {
    let full = |e: &io::Error| {
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        matches!(e.kind(), StorageFull | QuotaExceeded | FileTooLarge)
    };
    matches!(e.downcast_ref(), Some(Error::Write { source, .. }) if full(source))
}

/// The kernel log, if it can be read. A bug in reading it must not cost the dump: it ends here.
pub fn read_log(dump: &Dump) -> Option<Vec<u8>> {
    let result = catch_unwind(AssertUnwindSafe(|| -> Result<Vec<u8>, String> {
        let mem = dump.kernel().map_err(|e| e.to_string())?;
        let info = dump.vmcoreinfo().ok_or("no VMCOREINFO")?;
        Ok(Log::read(&mem, info).map_err(|e| e.to_string())?.to_text())
    }));
    match result {
        Ok(Ok(log)) => return Some(log),
        Ok(Err(e)) => say!("no kernel log: {e}"),
        Err(_) => say!("no kernel log: a bug in reading it"),
    }
    None
}

/// Writes the dump; a bug in that is an error.
fn write_vmcore(
    plan: Plan<'_>,
    out: Output<'_>,
    options: &Options,
    reporter: &mut Reporter,
) -> anyhow::Result<Summary> {
    let level = options.wanted.selection.level.bits();
    say!("writing vmcore: dump level {level}, {}, {} pages", options.format.name(), plan.census.dumped);
    let result = catch_unwind(AssertUnwindSafe(|| {
        kdump_capture::write(plan, options, out, &mut |p| reporter.tell(p))
    }));
    Ok(result.map_err(|_| anyhow::anyhow!("a bug in writing the dump"))??)
}

/// Says what a dump holds.
pub fn tell(summary: &Summary) {
    say!(
        "vmcore is complete: {} pages, {} bytes; filter {:.2} s, write {:.2} s",
        summary.written,
        summary.bytes,
        summary.filter_time.as_secs_f64(),
        summary.write_time.as_secs_f64()
    );
    if let Some(peak) = peak_memory() {
        say!("peak memory of this program: {peak}");
    }
    if summary.nr_lost > 0 {
        say!("{} pages could not be read; the manifest names them", summary.nr_lost);
    }
    for m in &summary.census.missing {
        say!("VMCOREINFO has no {}: {}", m.fact, m.effect);
    }
    for trouble in &summary.census.troubles {
        say!("{trouble}");
    }
}

/// Whether the written file, opened as any reader would, gives the same log: headers, bitmaps,
/// descriptors, page tables and pages all have a part in that.
fn reads_back(path: &Path, log: &[u8]) -> bool {
    let read = || -> Option<Vec<u8>> {
        let dump = Dump::open(path).ok()?;
        Some(Log::read(&dump.kernel().ok()?, dump.vmcoreinfo()?).ok()?.to_text())
    };
    catch_unwind(read).is_ok_and(|found| found.as_deref() == Some(log))
}

/// The most memory this process held, as the kernel words it.
pub fn peak_memory() -> Option<String> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    Some(line.trim().to_string())
}

/// Says every few seconds how far the dump is.
struct Reporter {
    next: Instant,
    meter: Meter,
    last: Progress,
}

impl Reporter {
    const EVERY: Duration = Duration::from_secs(5);

    fn new() -> Self {
        let last = Progress { done: 0, total: 0, bytes: 0 };
        Self { next: Instant::now() + Self::EVERY, meter: Meter::default(), last }
    }

    fn tell(&mut self, p: Progress) {
        console::moved();
        if self.last.done == 0 {
            // The rate counts from here.
            self.meter.line(p, console::elapsed());
        }
        self.last = p;
        if Instant::now() >= self.next {
            self.next = Instant::now() + Self::EVERY;
            say!("writing: {}", self.meter.line(p, console::elapsed()));
        }
    }
}

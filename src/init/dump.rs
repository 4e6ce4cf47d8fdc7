//! What is written, from the small and certain to the large: log, report, dump, manifest.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use kdump_analyze::log::Log;
use kdump_capture::config::CaptureConfig;
use kdump_capture::durable::{DurableFile, write_small};
use kdump_capture::manifest::Manifest;
use kdump_capture::{DumpLevel, Error, Options, Output, Progress, Summary};
use kdump_vmcore::Dump;

use crate::console::{self, say};
use crate::record::{SOURCE, open_source};
use crate::triage;

/// Writes everything to `dir`, as far as it goes.
pub fn write_all(dir: &Path, config: &CaptureConfig) {
    let dump = match open_source() {
        Ok(dump) => dump,
        Err(e) => return say!("{SOURCE}: {e}: there is nothing to dump"),
    };
    let log = read_log(&dump);
    if let Some(log) = &log {
        save(&dir.join("dmesg.txt"), log);
    }
    triage::run(Some(dir));
    let (mut options, complaints) = config.dump.options();
    for complaint in complaints {
        say!("{complaint}");
    }
    options.digests = true;
    let path = dir.join("vmcore");
    let log = log.as_deref();
    let result = match write_vmcore(&dump, &path, &options, log) {
        Err(e) if is_full(&e) && options.wanted.selection.level != DumpLevel::MAX => {
            say!(
                "the target is full at dump level {}: trying level 31",
                options.wanted.selection.level.bits()
            );
            options.wanted.selection.level = DumpLevel::MAX;
            write_vmcore(&dump, &path, &options, log)
        }
        result => result,
    };
    match result {
        Ok((summary, log_reads_back)) => {
            let mut manifest = Manifest::new("vmcore", &summary, dump.vmcoreinfo());
            manifest.log_reads_back = log_reads_back;
            save(&dir.join("manifest.json"), manifest.to_json().as_bytes());
        }
        Err(e) => say!("no complete dump: {e:#}; what was written of it is vmcore.partial"),
    }
}

/// Writes a small file and says how that went.
pub fn save(path: &Path, bytes: &[u8]) {
    let name = path.file_name().unwrap_or(path.as_os_str()).display();
    match write_small(path, bytes) {
        Ok(()) => say!("wrote {name}, {} bytes", bytes.len()),
        Err(e) => say!("cannot write {name}: {e}"),
    }
}

/// Whether the target has no room left.
fn is_full(e: &anyhow::Error) -> bool {
    let full = |e: &io::Error| matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    matches!(e.downcast_ref(), Some(Error::Write { source, .. }) if full(source))
}

/// The kernel log, if it can be read. A bug in reading it must not cost the dump: it ends here.
fn read_log(dump: &Dump) -> Option<Vec<u8>> {
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

/// Writes the dump; says what it holds, and whether `log` could be read from it again.
fn write_vmcore(
    dump: &Dump,
    path: &Path,
    options: &Options,
    log: Option<&[u8]>,
) -> anyhow::Result<(Summary, Option<bool>)> {
    say!("writing vmcore: dump level {}, {}", options.wanted.selection.level.bits(), options.format.name());
    // An earlier attempt at a lower level may have left its beginning.
    let out = DurableFile::create(path, true)?;
    let mut progress = Reporter { next: Instant::now() + Reporter::EVERY };
    let result = catch_unwind(AssertUnwindSafe(|| {
        kdump_capture::capture(dump, options, Output::File(out.file()), &mut |p| progress.tell(p))
    }));
    let summary = result.map_err(|_| anyhow::anyhow!("a bug in writing the dump"))??;
    let log_reads_back = log.map(|log| reads_back(out.partial_path(), log));
    if log_reads_back == Some(false) {
        say!("the kernel log does not read from the dump as it did from memory");
    }
    let begin = Instant::now();
    out.commit()?;
    say!(
        "vmcore is complete: {} pages, {} bytes; filter {:.2} s, write {:.2} s, sync {:.2} s",
        summary.written,
        summary.bytes,
        summary.filter_time.as_secs_f64(),
        summary.write_time.as_secs_f64(),
        begin.elapsed().as_secs_f64()
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
    Ok((summary, log_reads_back))
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
}

impl Reporter {
    const EVERY: Duration = Duration::from_secs(5);

    fn tell(&mut self, p: Progress) {
        console::moved();
        if Instant::now() < self.next {
            return;
        }
        self.next = Instant::now() + Self::EVERY;
        let percent = p.done.saturating_mul(100).checked_div(p.total).unwrap_or(100);
        say!("{percent}% ({} of {} pages, {} MiB written)", p.done, p.total, p.bytes >> 20);
    }
}

//! The self-check of a written dump, by a child as the report is: it needs the same memory and time, and may fail in the
//! same ways.

use std::fs::File;
use std::io::Read as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use kdump_analyze::selfcheck::SelfCheck;
use kdump_vmcore::Dump;
use serde_json::Value;

use crate::child::{self, End, Limits};
use crate::console::say;
use crate::store::Store;
use crate::triage;

/// First argument of the child. After the time come the dump and the report that was made from memory.
pub const ROLE: &str = "selfcheck";

/// Where the child leaves what it found.
const FOUND: &str = "/run/selfcheck.json";
/// What the check may take.
const DEADLINE: Duration = Duration::from_secs(60);
/// A file from a child that went wrong is not believed to be short.
const FOUND_MAX: u64 = 1 << 20;

/// Checks `dump` against the report in `dir`. What is wrong is said, goes into the report there, and into the manifest
/// by what is returned.
pub fn run(dump: &Path, dir: &Path) -> Option<Value> {
    let begin = Instant::now();
    let _ = std::fs::remove_file(FOUND);
    let limits = Limits { time: Some(DEADLINE), still: None };
    let report = dir.join("report.json");
    let ended =
        child::start(ROLE, [dump, report.as_path()]).and_then(|mut c| child::supervise(&mut c, limits));
    match ended {
        Ok(End::Exited(status)) if status.success() => {}
        Ok(End::Exited(status)) => say!("the self-check failed ({status})"),
        Ok(_) => say!("the self-check was not done in {} s", DEADLINE.as_secs()),
        Err(e) => say!("no self-check: {e}"),
    }
    let mut text = String::new();
    File::open(FOUND).ok()?.take(FOUND_MAX).read_to_string(&mut text).ok()?;
    let found: Value = serde_json::from_str(&text).ok()?;
    say!(
        "self-check, {:.2} s: {}",
        begin.elapsed().as_secs_f64(),
        found["summary"].as_str().unwrap_or_default()
    );
    let failures = found["failures"].as_array().map_or(&[][..], Vec::as_slice);
    if !failures.is_empty() {
        warn(&dir.join("report.txt"), failures);
    }
    Some(found)
}

/// Adds to the report that the dump is not to be trusted.
fn warn(report: &Path, failures: &[Value]) {
    let mut text = std::fs::read_to_string(report).unwrap_or_default();
    text.push_str("\nTHE DUMP BESIDE THIS REPORT IS NOT WHOLE\n");
    for failure in failures.iter().filter_map(Value::as_str) {
        text.push_str(&format!("  {failure}\n"));
    }
    if let Some(dir) = report.parent() {
        // What became of it was said.
        let _ = Store::Directory(dir).save("report.txt", text.as_bytes());
    }
}

/// What the child does, with the arguments after its role and the time.
pub fn child_main(mut args: impl Iterator<Item = String>) -> ExitCode {
    triage::limit_memory();
    let (Some(dump), Some(report)) = (args.next(), args.next()) else { return ExitCode::from(2) };
    let check = catch_unwind(AssertUnwindSafe(|| -> Result<SelfCheck, String> {
        let written = Dump::open(Path::new(&dump)).map_err(|e| format!("{dump}: {e}"))?;
        Ok(SelfCheck::new(&written, std::fs::read_to_string(report).ok().as_deref()))
    }));
    let check = match check {
        Ok(Ok(check)) => check,
        Ok(Err(e)) => SelfCheck { failures: vec![e], ..SelfCheck::default() },
        Err(_) => {
            SelfCheck { unchecked: vec!["the check ended in a bug".to_owned()], ..SelfCheck::default() }
        }
    };
    let summary = check.summary();
    let Ok(mut found) = serde_json::to_value(&check) else { return ExitCode::FAILURE };
    found["summary"] = Value::from(summary);
    match std::fs::write(FOUND, found.to_string()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            say!("{FOUND}: {e}");
            ExitCode::FAILURE
        }
    }
}

//! Power cuts at moments spread over a capture, and what is on the disk then.

use std::path::Path;
use std::time::Duration;

use kdump_vmcore::Dump;

use crate::common::{self, Turn};
use crate::cut::Stopped;
use crate::disks;
use crate::promise::{self, Promise};

/// The disk's file system in a rehearsal has them here.
const DUMPS: &str = "/crash";

/// Cuts the power at so many moments, each in the middle of an equal part of the capture.
pub fn check(name: &str, moments: u32) {
    let _turn = Turn::wait();
    let stopped = Stopped::new(name);
    let (whole_time, disk) = stopped.go_on("whole", None);
    let out = common::scratch(&format!("{name}-found"));
    disks::assert_clean(&disk);
    let dumps = disks::directories(&disks::take_ext(&disk, DUMPS, &out));
    assert_eq!(dumps.len(), 1, "{dumps:?}");
    let whole = promise::read(&dumps[0].join("vmcore")).unwrap();
    assert!(
        !whole.is_incomplete && whole.pages.len() == whole.wanted,
        "{} of {}",
        whole.pages.len(),
        whole.wanted
    );
    std::fs::remove_file(&disk).unwrap();

    let (mut began, mut opened, mut most) = (0, 0, 0);
    for moment in 0..moments {
        let cut = whole_time * (2 * moment + 1) / (2 * moments);
        let (ran, disk) = stopped.go_on("cut", Some(cut));
        let mended = disks::mended(&disk);
        assert!(mended.is_empty(), "after {ran:?} e2fsck had to mend: {mended:?}");
        disks::assert_clean(&disk);
        let found = look(&disk, &out, &whole, ran);
        eprintln!(
            "{name}: cut after {:.1} of {:.1} s: {}",
            ran.as_secs_f64(),
            whole_time.as_secs_f64(),
            found.text()
        );
        began += usize::from(found.has_report);
        opened += usize::from(found.pages.is_some());
        most = most.max(found.pages.unwrap_or(0));
        std::fs::remove_file(&disk).unwrap();
    }
    assert!(began > 0, "no cut came after the report: nothing was shown");
    assert!(opened > 0, "no cut left pages: nothing was shown");
    eprintln!(
        "{name}: {moments} cuts, {began} with a report, {opened} with pages, {most} of {} at most",
        whole.wanted
    );
}

/// What a cut left.
struct Found {
    has_report: bool,
    /// Pages that can be read, of a dump that was begun.
    pages: Option<usize>,
    is_complete: bool,
}

impl Found {
    fn text(&self) -> String {
        let report = if self.has_report { "a report" } else { "no report" };
        match (self.pages, self.is_complete) {
            (None, _) => format!("{report}, no dump"),
            (Some(pages), false) => format!("{report}, {pages} pages in vmcore.partial"),
            (Some(pages), true) => format!("{report}, a complete dump of {pages} pages"),
        }
    }
}

fn look(disk: &Path, out: &Path, whole: &Promise, ran: Duration) -> Found {
    let mut found = Found { has_report: false, pages: None, is_complete: false };
    for dir in disks::directories(&disks::take_ext(disk, DUMPS, out)) {
        found.has_report |= dir.join("report.txt").exists();
        let (full, partial) = (dir.join("vmcore"), dir.join("vmcore.partial"));
        found.is_complete = full.exists();
        let path = if full.exists() { full } else { partial };
        // One that was created, and whose headers had not come to the disk, promises nothing.
        let Some(promise) = path.exists().then(|| promise::read(&path)).flatten() else {
            assert!(!found.is_complete, "after {ran:?} a vmcore without headers");
            continue;
        };
        let (broken, which) = promise.broken(whole);
        assert_eq!(
            broken,
            0,
            "after {ran:?} {} of {} promised pages are not there: {which:?}",
            broken,
            promise.pages.len()
        );
        if found.is_complete {
            assert!(
                !promise.is_incomplete && promise.pages.len() == whole.wanted,
                "after {ran:?} vmcore is not complete"
            );
            manifest_agrees(&dir);
        } else {
            assert!(promise.is_incomplete, "after {ran:?} vmcore.partial has no incomplete mark");
            assert!(!dir.join("manifest.json").exists(), "after {ran:?} a manifest without a dump");
        }
        // Any reader has to take it as it is.
        Dump::open(&path).unwrap_or_else(|e| panic!("after {ran:?}: {e}"));
        found.pages = Some(promise.pages.len());
    }
    found
}

/// The manifest, if the cut let it be written, is of this dump, digests and all.
pub fn manifest_agrees(dir: &Path) {
    if !dir.join("manifest.json").exists() {
        return;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle/manifest.py");
    disks::run(disks::tool("python3").arg("-B").arg(script).arg(dir));
}

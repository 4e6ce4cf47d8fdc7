//! What an independent reader says about a dump: drgn, with page reads by libkdumpfile, and our
//! own small Python programs on top of it, which share no code with what they judge.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use crate::common::cache;
use crate::guest::kdump_rs;

/// Runs `tests/oracle/SCRIPT` and gives what it prints.
fn ask(script: &str, args: &[&OsStr]) -> String {
    let python = cache().join("drgn-0.3.0/bin/python");
    assert!(python.exists(), "{} is missing: run scripts/setup-oracle.sh", python.display());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle").join(script);
    let out = Command::new(python).arg("-B").arg(&script).args(args).output().unwrap();
    let stderr = String::from_utf8_lossy(&out.stderr);
    let stdout = String::from_utf8(out.stdout).unwrap();
    assert!(out.status.success(), "{} {args:?}: {stderr}{stdout}", script.display());
    stdout.trim_end().to_owned()
}

/// Every page that drgn reads from the file is the page that we read, and there are no others;
/// and each is as in `whole`, where one is given. Gives their number.
pub fn pages_agree(vmcore: &Path, whole: Option<&Path>) -> u64 {
    let ours = kdump_rs(&["capture".as_ref(), "--digest".as_ref(), vmcore.as_ref()]).stdout;
    let mut args = vec![vmcore.as_os_str()];
    args.extend(whole.map(Path::as_os_str));
    let theirs = ask("pages.py", &args);
    assert_eq!(String::from_utf8_lossy(&ours).trim_end(), theirs);
    number_after("pages", &theirs)
}

/// The manifest is of this dump, digests and all, and finds nothing wanting but `facts`, which this
/// kernel does not have. Gives the number of pages it speaks of.
pub fn manifest_agrees(dump_dir: &Path, facts: &[&str]) -> u64 {
    let mut args = vec![dump_dir.as_os_str()];
    args.extend(facts.iter().map(OsStr::new));
    number_after("pages", &ask("manifest.py", &args))
}

/// `filtered`, made from `whole`, has every page of every slab that is not filled with zeros.
pub fn no_slab_page_is_lost(whole: &Path, filtered: &Path) {
    let said = ask("slab.py", &[whole.as_os_str(), filtered.as_os_str()]);
    assert!(number_after("slab", &said) > 1000, "the oracle finds no slabs: {said}");
    assert_eq!(number_after("lost", &said), 0, "{said}");
}

fn number_after(word: &str, said: &str) -> u64 {
    let number = said.split_whitespace().skip_while(|w| *w != word).nth(1).and_then(|n| n.parse().ok());
    number.unwrap_or_else(|| panic!("no number after {word} in {said:?}"))
}

/// The log read through drgn's memory equals ours, byte for byte.
pub fn logs_agree(vmcore: &Path) {
    let ours = kdump_rs(&["analyze".as_ref(), vmcore.as_ref(), "log".as_ref()]).stdout;
    let ours = String::from_utf8_lossy(&ours);
    let theirs = ask("log.py", &[vmcore.as_os_str()]);
    assert!(theirs.contains("Kernel panic - not syncing: sysrq triggered crash"), "{theirs}");
    for (our, their) in ours.lines().zip(theirs.lines()) {
        assert_eq!(our, their);
    }
    assert_eq!(ours.trim_end(), theirs);
}

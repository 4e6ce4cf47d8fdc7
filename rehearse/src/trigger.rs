//! The kernel module that crashes the guest in ways that no program can: found beside the kernel, or
//! built here against the kernel's headers. Its source is in `tests/guest/`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Error;

/// The module's file.
pub const FILE: &str = "kdump_trigger.ko";
/// Where it is in the guest.
pub(crate) const GUEST_PATH: &str = "/usr/lib/kdump-rs/kdump_trigger.ko";
/// What it listens to there: one of the [names](crate::Crash::name).
pub(crate) const GUEST_CONTROL: &str = "/proc/kdump_trigger";

const SOURCE: &str = include_str!("../../tests/guest/kdump_trigger.c");
const MAKEFILE: &str = include_str!("../../tests/guest/Makefile");
/// Lines of the compiler that an error carries.
const TAIL: usize = 20;

/// Gives the module for a kernel: the one beside its image, or one built from the headers that its
/// module directory names, in `work`.
///
/// # Errors
/// [`Error::NoHeaders`] where neither is, and those of building.
pub fn find_or_build(kernel: &Path, release: &str, modules: &Path, work: &Path) -> Result<PathBuf, Error> {
    let beside = kernel.with_file_name(FILE);
    if beside.exists() {
        return Ok(beside);
    }
    let headers = modules.join("build");
    if !headers.join("Makefile").exists() {
        return Err(Error::NoHeaders { release: release.to_owned(), headers });
    }
    build(&headers, work)
}

/// Builds it: the kernel's own makefiles do the work.
fn build(headers: &Path, work: &Path) -> Result<PathBuf, Error> {
    fs::create_dir_all(work).map_err(Error::file("create", work))?;
    let work = fs::canonicalize(work).map_err(Error::file("find", work))?;
    for (name, text) in [("kdump_trigger.c", SOURCE), ("Makefile", MAKEFILE)] {
        let path = work.join(name);
        fs::write(&path, text).map_err(Error::file("write", &path))?;
    }
    let mut in_work = std::ffi::OsString::from("M=");
    in_work.push(&work);
    let out = Command::new("make")
        .arg("-C")
        .arg(headers)
        .arg(in_work)
        .arg("modules")
        .stdin(Stdio::null())
        .output()
        .map_err(|source| Error::NoProgram { program: "make", package: "make", source })?;
    let module = work.join(FILE);
    if out.status.success() && module.exists() {
        return Ok(module);
    }
    let said = [out.stdout, out.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let lines: Vec<_> = said.lines().collect();
    let stderr = lines[lines.len().saturating_sub(TAIL)..].join("\n");
    Err(Error::Program { program: "make", status: out.status.to_string(), stderr })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Crash;

    #[test]
    fn the_module_knows_every_crash_that_needs_it() {
        for crash in Crash::ALL.into_iter().filter(|crash| crash.needs_module()) {
            assert!(SOURCE.contains(&format!("strcmp(word, \"{crash}\")")), "{crash}");
            assert!(SOURCE.contains(&format!(" {}(", crash.function().unwrap())), "{crash}");
        }
    }

    #[test]
    fn a_built_module_is_taken_and_missing_headers_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let kernel = dir.path().join("vmlinuz");
        let find = || find_or_build(&kernel, "0.0-none", dir.path(), &dir.path().join("work"));
        let error = find().unwrap_err();
        assert!(matches!(error, Error::NoHeaders { .. }));
        assert!(error.to_string().contains("linux-headers-0.0-none"), "{error}");
        fs::write(dir.path().join(FILE), "").unwrap();
        assert_eq!(find().unwrap(), dir.path().join(FILE));
    }
}

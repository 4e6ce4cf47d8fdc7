//! Why a rehearsal did not get to its end.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::phase::Phase;

/// What went wrong, and where.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the host could not be read, written or made.
    #[error("cannot {action} {path}", path = path.display())]
    File {
        /// What was tried: "read", "create".
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The kernel is no bzImage, or not one that can be loaded.
    #[error("{path} is no kernel image that can be armed", path = path.display())]
    NotAKernel {
        /// The image.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: kdump_loader::bzimage::Error,
    },
    /// The kernel image does not say its version.
    #[error("{path} names no version in its header", path = path.display())]
    NoRelease {
        /// The image.
        path: PathBuf,
    },
    /// No module directory was named, and none is at the usual places.
    #[error("no modules of {release} beside the kernel or in /lib/modules; name them with --modules")]
    NoModules {
        /// The kernel's release.
        release: String,
    },
    /// A crash needs a module, which needs the kernel's headers.
    #[error("no headers of {release} in {headers}; they are in Debian's package linux-headers-{release}", headers = headers.display())]
    NoHeaders {
        /// The kernel's release.
        release: String,
        /// Where they would be.
        headers: PathBuf,
    },
    /// A crash needs the module, and the plan has none.
    #[error("to crash by {crash} takes the module {file}", file = crate::trigger::FILE)]
    NoTrigger {
        /// The way to crash.
        crash: crate::Crash,
    },
    /// A program of the host is missing.
    #[error("cannot run {program}; it is in Debian's package {package}")]
    NoProgram {
        /// Its name.
        program: &'static str,
        /// Where it comes from.
        package: &'static str,
        /// Why it does not start.
        #[source]
        source: io::Error,
    },
    /// A program of the host ran and failed.
    #[error("{program} failed ({status}): {stderr}")]
    Program {
        /// Its name.
        program: &'static str,
        /// Its exit status.
        status: String,
        /// What it said.
        stderr: String,
    },
    /// The kernel's modules cannot be used.
    #[error("the guest's modules")]
    Modules(#[from] kdump_loader::modules::Error),
    /// The guest's initramfs cannot be built.
    #[error("the guest's initramfs")]
    Initramfs(#[from] kdump_loader::cpio::Error),
    /// The guest did not get through a phase.
    #[error("the rehearsal failed in phase `{phase}` after {:.1} s: {why}", after.as_secs_f64())]
    Phase {
        /// Which.
        phase: Phase,
        /// Time since QEMU was started.
        after: Duration,
        /// What was seen, or not.
        why: String,
        /// The last lines of the serial console.
        tail: Vec<String>,
    },
    /// The guest ended as it should, but no dump directory is on its disk.
    #[error("the capture kernel left no dump directory on its disk")]
    NoDump,
    /// The file system of the dump was not unmounted.
    #[error("the capture kernel left the file system of its disk unclean: {0}")]
    Unclean(String),
}

impl Error {
    pub(crate) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { action, path, source }
    }
}

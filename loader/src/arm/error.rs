//! Why arming failed.

use std::io;
use std::path::PathBuf;

use crate::{
    bzimage, image, initramfs, machine, modules, network, panic_image, plan, preflight, syscall, target,
};

/// Why arming failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A precondition.
    #[error(transparent)]
    Preflight(#[from] preflight::Error),
    /// The running system.
    #[error(transparent)]
    Machine(#[from] machine::Error),
    /// Nothing at the usual places.
    #[error("{what} not found: tried {}; name it with {flag}", tried.join(", "))]
    NotFound {
        /// What it is.
        what: &'static str,
        /// The flag that names it.
        flag: &'static str,
        /// Where it was looked for.
        tried: Vec<String>,
    },
    /// A file is missing or unreadable.
    #[error("{what} {path} cannot be read", path = path.display())]
    File {
        /// What it is for.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file that is no kernel image, or a bad one.
    #[error("{path} cannot be loaded", path = path.display())]
    Kernel {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: image::Error,
    },
    /// A kernel image that this machine cannot enter.
    #[error("{path} cannot be the capture kernel", path = path.display())]
    Image {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: bzimage::Error,
    },
    /// Modules of another kernel.
    #[error("modules in {dir} are for {modules}, the capture kernel is {kernel}: pass --modules", dir = dir.display())]
    OtherModules {
        /// The directory.
        dir: PathBuf,
        /// Its release.
        modules: String,
        /// The image's release.
        kernel: String,
    },
    /// The modules.
    #[error(transparent)]
    Modules(#[from] modules::Error),
    /// The target.
    #[error(transparent)]
    Target(#[from] target::Error),
    /// The way to a server.
    #[error("a target cannot be reached by the capture kernel")]
    Network(#[from] network::Error),
    /// An end in a shell, and none to run.
    #[error("the capture cannot end in a shell without one: name a static program with --shell (busybox)")]
    NoShell,
    /// The initramfs.
    #[error("the capture initramfs cannot be built")]
    Initramfs(#[from] initramfs::Error),
    /// The panic-path program.
    #[error("the panic-path program in this executable is damaged")]
    PanicImage(#[from] panic_image::Error),
    /// The plan.
    #[error(transparent)]
    Plan(#[from] plan::Error),
    /// The system call; nothing is loaded now if `is_disarmed`.
    #[error("{}", if *.is_disarmed { "no capture kernel is loaded now" } else { "nothing was changed" })]
    Load {
        /// Whether the machine is without a capture kernel.
        is_disarmed: bool,
        /// Why.
        #[source]
        source: syscall::Error,
    },
    /// Only kexec_load(2) can do it.
    #[error(
        "{what} cannot be loaded by kexec_file_load, which takes files and uses the kernel's own purgatory: pass --syscall load, where the kernel is not locked down"
    )]
    NotByFile {
        /// What it is.
        what: &'static str,
    },
    /// The call succeeded and nothing is there.
    #[error("the system call succeeded, but /sys/kernel/kexec_crash_loaded does not read 1")]
    NotLoaded,
}

//! What the user wants.

use std::path::PathBuf;
use std::time::Duration;

use super::{EntryState, Policy, TestHook, Via};
use crate::console;
use crate::initramfs::RetentionConfig;
use crate::target::{Client, Wish};

/// What the user wants, defaults filled in.
#[derive(Clone, Debug)]
pub struct Settings {
    /// bzImage of the capture kernel; else that of the running kernel, where distributions put it.
    pub kernel: Option<PathBuf>,
    /// Its modules; else those of the running kernel.
    pub modules: Option<PathBuf>,
    /// kdump-init; else the one beside this program, or the installed one.
    pub init: Option<PathBuf>,
    /// Where dumps go: the first that takes them.
    pub targets: Vec<Wish>,
    /// What looks at those that are uploads.
    pub client: Client,
    /// How long all of them together may take.
    pub total_budget: Option<Duration>,
    /// What is kept of older dumps.
    pub retention: RetentionConfig,
    /// Dump level, 0 to 31.
    pub level: u8,
    /// `kdump` or `elf`.
    pub format: String,
    /// `zstd`, `zlib` or `none`.
    pub compression: String,
    /// Public keys that all is encrypted to; in the clear if there are none.
    pub encrypt_to: Vec<String>,
    /// Whether log and report are, too.
    pub encrypt_reports: bool,
    /// `reboot`, `poweroff`, `halt` or `shell`.
    pub end: String,
    /// The static program that `shell` runs.
    pub shell: Option<PathBuf>,
    /// Words for the capture kernel's command line.
    pub append: String,
    /// Where the panic path prints.
    pub console: console::Choice,
    /// What it does with memory that is damaged beyond repair.
    pub on_corruption: Policy,
    /// Longest damaged run that it can rebuild, in bytes; 0 for none.
    pub parity_run: u64,
    /// A failure that the panic path brings about itself, for tests.
    pub test_hook: TestHook,
    /// Physical address that the kernel is put at, displacing what is there; else it lies in the reservation.
    pub payload_at: Option<u64>,
    /// Enter the kernel by the 32-bit boot protocol.
    pub is_32_bit: bool,
    /// Load the probe in its place.
    pub is_probe: bool,
    /// Registers that a plain ELF executable is entered with.
    pub registers: EntryState,
    /// An initramfs and a command line of somebody else's making, in place of kdump-init and what goes with it.
    pub given: Option<Given>,
    /// By which system call.
    pub via: Via,
}

/// Somebody else's capture: what `kexec -p` is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Given {
    /// Its initramfs; none for a kernel that needs none.
    pub initrd: Option<PathBuf>,
    /// Its command line, whole; only where elfcorehdr is gets added.
    pub cmdline: String,
}

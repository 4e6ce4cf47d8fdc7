//! By which of the two system calls a capture kernel is loaded.
//!
//! kexec_load(2) takes our panic path, which verifies, repairs and records. kexec_file_load(2) takes files, and
//! the kernel puts its own purgatory in: it checks one digest and hangs if that fails. Only where a locked-down
//! kernel forbids the first is the second the better one.
//!
//! Source: kernel/kexec.c, kernel/kexec_file.c, security/lockdown; arch/x86/kernel/kexec-bzimage64.c.

use std::fs::File;
use std::path::Path;

use kdump_arch_x86::PhysAddr;
use serde_json::{Value, json};

use super::{Error, Policy, Settings, TestHook};
use crate::machine::Machine;
use crate::plan::{KEXEC_ON_CRASH, LoadPlan, PlanView};
use crate::syscall;
use crate::sysfs::Lockdown;

/// What the kernel puts before our words: `elfcorehdr=0x… ` with 16 digits, and `dmcryptkeys=0x… `.
pub(super) const PREPENDED_MAX: usize = 64;

/// What the user wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Via {
    /// What fits this machine.
    #[default]
    Auto,
    /// This one.
    Only(Call),
}

/// The system calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// kexec_load(2).
    KexecLoad,
    /// kexec_file_load(2).
    KexecFileLoad,
}

impl Call {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::KexecLoad => "kexec_load",
            Self::KexecFileLoad => "kexec_file_load",
        }
    }
}

/// Which one it is, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decided {
    /// The call.
    pub call: Call,
    /// The reason.
    pub reason: &'static str,
}

/// Decides.
#[must_use]
pub fn decide(wanted: Via, machine: &Machine) -> Decided {
    let is_locked = match machine.lockdown {
        Some(level) => level != Lockdown::None,
        // Without securityfs: Secure Boot is on (3), and distributions' kernels then lock down.
        None => machine.boot_params.as_ref().is_some_and(|params| params.secure_boot == 3),
    };
    match wanted {
        Via::Only(call) => Decided { call, reason: "as asked for" },
        Via::Auto if is_locked => Decided {
            call: Call::KexecFileLoad,
            reason: "the kernel is locked down; the kernel's own purgatory takes the place of our panic path",
        },
        Via::Auto => {
            Decided { call: Call::KexecLoad, reason: "not locked down, so our panic path can be loaded" }
        }
    }
}

/// Refuses what only kexec_load(2) can do.
pub(super) fn check(settings: &Settings, is_other_image: bool) -> Result<(), Error> {
    let what = if is_other_image {
        "an image that is no bzImage"
    } else if settings.payload_at.is_some() {
        "--payload-at"
    } else if settings.is_32_bit {
        "--entry 32"
    } else if settings.is_probe {
        "--probe"
    } else if settings.test_hook != TestHook::default() {
        "--panic-test"
    } else if settings.on_corruption != Policy::Reset {
        "--on-corruption other than reset"
    } else {
        return Ok(());
    };
    Err(Error::NotByFile { what })
}

/// What kexec_file_load(2) is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePlan<'a> {
    /// The bzImage's file.
    pub kernel: &'a Path,
    /// The bzImage itself, where the file has it compressed or in a UKI.
    pub unwrapped: Option<&'a [u8]>,
    /// The initramfs.
    pub initramfs: &'a [u8],
    /// The command line, to which the kernel adds where elfcorehdr is.
    pub cmdline: String,
}

impl FilePlan<'_> {
    pub(super) fn load(&self, machine: &Machine) -> Result<syscall::Loaded, syscall::Error> {
        let kernel = match self.unwrapped {
            Some(bytes) => syscall::memory_file(bytes)?,
            None => File::open(self.kernel).map_err(syscall::Error::Other)?,
        };
        syscall::load_files(&kernel, self.initramfs, &self.cmdline, KEXEC_ON_CRASH, machine)
    }
}

/// A plan for either call.
#[derive(Debug)]
pub enum Planned<'a> {
    /// For kexec_load(2).
    Segments(Box<LoadPlan<'a>>),
    /// For kexec_file_load(2).
    Files(FilePlan<'a>),
}

impl Planned<'_> {
    /// Names an entry outside the crashkernel memory, for tests: the kernel refuses it, but not before it has
    /// freed what was loaded.
    pub fn spoil(&mut self) {
        if let Self::Segments(plan) = self {
            plan.entry = PhysAddr(0);
        }
    }

    /// What is not as it should be, but does not prevent the load.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        match self {
            Self::Segments(plan) => &plan.warnings,
            Self::Files(_) => &[],
        }
    }

    /// For `--json` and `status`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        match self {
            Self::Segments(plan) => serde_json::to_value(PlanView::from(plan.as_ref())).unwrap_or_default(),
            Self::Files(plan) => json!({
                "kernel": plan.kernel,
                "initramfs_bytes": plan.initramfs.len(),
                "cmdline": plan.cmdline,
            }),
        }
    }
}

impl std::fmt::Display for Planned<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Segments(plan) => plan.fmt(f),
            Self::Files(plan) => write!(
                f,
                "kexec_file_load: the kernel places everything itself, with its own purgatory\n  kernel     {}\n  \
                 initramfs  {} bytes\n  cmdline    {}\n",
                plan.kernel.display(),
                plan.initramfs.len(),
                plan.cmdline
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lockdown_leads_to_files() {
        let of = |wanted, lockdown| decide(wanted, &Machine { lockdown, ..Machine::default() }).call;
        assert_eq!(of(Via::Auto, None), Call::KexecLoad);
        assert_eq!(of(Via::Auto, Some(Lockdown::None)), Call::KexecLoad);
        assert_eq!(of(Via::Auto, Some(Lockdown::Integrity)), Call::KexecFileLoad);
        assert_eq!(of(Via::Only(Call::KexecLoad), Some(Lockdown::Integrity)), Call::KexecLoad);
        assert_eq!(of(Via::Only(Call::KexecFileLoad), None), Call::KexecFileLoad);
    }
}

//! The ways to bring a guest down, and what a report of each must say.

use std::fmt;
use std::str::FromStr;

/// How the guest is brought down.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Crash {
    /// `echo c > /proc/sysrq-trigger`, from a process called `kdump-crasher`.
    #[default]
    Sysrq,
    /// A write through a null pointer.
    NullDeref,
    /// BUG().
    Bug,
    /// panic() in an interrupt that the CPU sent to itself.
    PanicInIrq,
    /// A non-maskable interrupt that nobody claims.
    Nmi,
    /// A non-maskable interrupt from outside, as a machine's NMI button sends it: to the first CPU.
    NmiButton,
    /// A task that waits for ever.
    HungTask,
    /// A task that never gives up its CPU.
    SoftLockup,
    /// A process that takes all memory.
    Oom,
    /// The first process ends.
    KilledInit,
    /// A function that calls itself.
    StackOverflow,
}

/// What the guest's kernel is told beforehand: sysctls, as paths below /proc/sys.
type Sysctls = &'static [(&'static str, &'static str)];

/// An oops enters the capture kernel only where it would end in a panic.
const PANIC_ON_OOPS: Sysctls = &[("kernel/panic_on_oops", "1")];

impl Crash {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Sysrq,
        Self::NullDeref,
        Self::Bug,
        Self::PanicInIrq,
        Self::Nmi,
        Self::NmiButton,
        Self::HungTask,
        Self::SoftLockup,
        Self::Oom,
        Self::KilledInit,
        Self::StackOverflow,
    ];

    /// The word for it on a command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sysrq => "sysrq",
            Self::NullDeref => "null-deref",
            Self::Bug => "bug",
            Self::PanicInIrq => "panic-in-irq",
            Self::Nmi => "nmi",
            Self::NmiButton => "nmi-button",
            Self::HungTask => "hung-task",
            Self::SoftLockup => "soft-lockup",
            Self::Oom => "oom",
            Self::KilledInit => "killed-init",
            Self::StackOverflow => "stack-overflow",
        }
    }

    /// Whether it takes a [module](crate::trigger) of ours in the guest.
    #[must_use]
    pub fn needs_module(self) -> bool {
        !matches!(self, Self::Sysrq | Self::NmiButton | Self::Oom | Self::KilledInit)
    }

    /// The cause that a report must give (docs/report-schema.md).
    #[must_use]
    pub fn cause(self) -> &'static str {
        match self {
            Self::Sysrq => "sysrq",
            Self::NullDeref => "null-dereference",
            Self::Bug => "bug",
            Self::PanicInIrq => "panic-in-interrupt",
            Self::Nmi | Self::NmiButton => "nmi",
            Self::HungTask => "hung-task",
            Self::SoftLockup => "soft-lockup",
            Self::Oom => "out-of-memory",
            Self::KilledInit => "init-killed",
            Self::StackOverflow => "stack-overflow",
        }
    }

    /// The function that it must blame; none where the crash strikes whatever runs.
    #[must_use]
    pub fn function(self) -> Option<&'static str> {
        Some(match self {
            Self::Sysrq => "sysrq_handle_crash",
            Self::NullDeref => "kdump_trigger_null_deref",
            Self::Bug => "kdump_trigger_bug",
            Self::PanicInIrq => "kdump_trigger_panic_in_irq",
            Self::Nmi => "kdump_trigger_nmi",
            Self::NmiButton => return None,
            Self::HungTask => "kdump_trigger_hung_task",
            Self::SoftLockup => "kdump_trigger_soft_lockup",
            Self::Oom => "out_of_memory",
            Self::KilledInit => "do_exit",
            Self::StackOverflow => "kdump_trigger_stack_overflow",
        })
    }

    /// The only CPU that it can happen on, if there is but one.
    ///
    /// The kernel lets the NMI line through on the boot CPU (arch/x86/kernel/apic/apic.c, `setup_local_APIC`).
    #[must_use]
    pub fn only_cpu(self) -> Option<u32> {
        (self == Self::NmiButton).then_some(0)
    }

    /// The name of the task that is to blame.
    #[must_use]
    pub fn comm(self) -> &'static str {
        match self {
            Self::KilledInit => "kdump-rs",
            _ => "kdump-crasher",
        }
    }

    /// What the kernel must be told for this to be a panic, and a soon one.
    pub(crate) fn sysctls(self) -> Sysctls {
        match self {
            Self::NullDeref | Self::Bug | Self::StackOverflow => PANIC_ON_OOPS,
            Self::Nmi | Self::NmiButton => &[("kernel/unknown_nmi_panic", "1")],
            Self::HungTask => &[("kernel/hung_task_panic", "1"), ("kernel/hung_task_timeout_secs", "4")],
            // A lock-up is reported after twice this. Much less, and an emulated CPU that the host
            // leaves waiting would be taken for one.
            Self::SoftLockup => &[("kernel/softlockup_panic", "1"), ("kernel/watchdog_thresh", "5")],
            Self::Oom => &[("vm/panic_on_oom", "2")],
            Self::Sysrq | Self::PanicInIrq | Self::KilledInit => &[],
        }
    }

    /// Whether a report's cause and function are those of this crash, `function` without what the compiler adds to
    /// its name.
    #[must_use]
    pub fn is_named_by(self, cause: Option<&str>, function: Option<&str>) -> bool {
        let stem = |name: &str| name.split_once('.').map_or(name.to_owned(), |(stem, _)| stem.to_owned());
        let is_function = |blamed| function.map(stem).as_deref() == Some(blamed);
        cause == Some(self.cause()) && self.function().is_none_or(is_function)
    }
}

impl fmt::Display for Crash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A way to crash that is not known.
#[derive(Debug, thiserror::Error)]
#[error("{text:?} is no way to crash; known: {}", Crash::ALL.map(Crash::name).join(", "))]
pub struct UnknownCrash {
    text: String,
}

impl FromStr for Crash {
    type Err = UnknownCrash;

    fn from_str(text: &str) -> Result<Self, UnknownCrash> {
        Self::ALL
            .into_iter()
            .find(|crash| crash.name() == text)
            .ok_or_else(|| UnknownCrash { text: text.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crashes_have_names() {
        for crash in Crash::ALL {
            assert_eq!(crash.to_string().parse::<Crash>().unwrap(), crash);
        }
        let error = "fire".parse::<Crash>().unwrap_err().to_string();
        assert!(error.starts_with("\"fire\" is no way to crash; known: sysrq, null-deref, "), "{error}");
    }

    #[test]
    fn a_report_names_a_crash_by_cause_and_function() {
        assert!(Crash::KilledInit.is_named_by(Some("init-killed"), Some("do_exit.cold")));
        assert!(!Crash::KilledInit.is_named_by(Some("init-killed"), Some("do_exit_group")));
        assert!(!Crash::Bug.is_named_by(Some("oops"), Some("kdump_trigger_bug")));
        assert!(!Crash::Bug.is_named_by(Some("bug"), None));
        assert!(Crash::NmiButton.is_named_by(Some("nmi"), None));
        assert!(!Crash::NmiButton.is_named_by(Some("oops"), None));
    }
}

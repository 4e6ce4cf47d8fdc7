//! May an image be loaded, and would it be entered?

use super::{Facts, Verdict, fail, pass, warn};
use crate::arm::{Call, Via, decide};
use crate::sysfs::Lockdown;

/// Guests whose memory or registers are encrypted.
pub(super) fn guest(facts: &Facts) -> Verdict {
    match facts.machine.encrypted_guest() {
        Some(kind) => fail(
            format!("a {kind} guest: after a panic the capture kernel would not be reached"),
            "have the host dump this guest instead",
        ),
        None if facts.machine.has_cpu_flag("hypervisor") => pass("a guest without encrypted registers"),
        None => pass("no guest"),
    }
}

/// Secure Boot and lockdown.
pub(super) fn lockdown(facts: &Facts) -> Verdict {
    let level = match facts.machine.lockdown {
        Some(Lockdown::None) => "not locked down",
        Some(Lockdown::Integrity) => "locked down (integrity)",
        Some(Lockdown::Confidentiality) => "locked down (confidentiality)",
        None => "securityfs does not tell",
    };
    match decide(Via::Auto, &facts.machine).call {
        Call::KexecLoad => pass(format!("{level}: kexec_load with our panic path")),
        Call::KexecFileLoad => warn(
            format!(
                "{level}: kexec_file_load with the kernel's purgatory, which hangs silently if anything is damaged; \
                 the capture kernel must be signed"
            ),
            "mokutil --disable-validation",
        ),
    }
}

/// kernel.kexec_load_disabled.
pub(super) fn load_disabled(facts: &Facts) -> Verdict {
    if facts.machine.is_load_disabled {
        return fail(
            "kernel.kexec_load_disabled is 1: nothing can be loaded until the next boot",
            "grep -rl kexec_load_disabled /etc/sysctl.conf /etc/sysctl.d /usr/lib/sysctl.d",
        );
    }
    pass("kernel.kexec_load_disabled is 0")
}

/// kernel.kexec_load_limit_panic.
pub(super) fn load_limit(facts: &Facts) -> Verdict {
    match facts.machine.load_limit {
        None => pass("this kernel counts no loads"),
        Some(-1) => pass("kernel.kexec_load_limit_panic is -1: no limit"),
        // What is loaded stays; only the next load is refused.
        Some(0) if facts.machine.is_crash_loaded == Some(true) => warn(
            "kernel.kexec_load_limit_panic is 0: what is armed cannot be armed anew before the next boot",
            "reboot",
        ),
        Some(0) => fail("kernel.kexec_load_limit_panic is 0: no load is left in this boot", "reboot"),
        Some(left) => pass(format!("kernel.kexec_load_limit_panic leaves {left} loads")),
    }
}

//! Which troubles become a panic, and what may stand between the panic and the dump.

use super::{Facts, Verdict, pass, warn};

/// How long the capture kernel may well take until kdump-init feeds the watchdog, in seconds.
const BOOT_SECONDS: u64 = 30;

/// Sets sysctls now and for later boots.
fn set(assignments: &[&str]) -> String {
    const FILE: &str = "/etc/sysctl.d/90-kdump-rs.conf";
    format!("printf '%s\\n' {} >> {FILE} && sysctl -p {FILE}", assignments.join(" "))
}

/// An oops in a process.
pub(super) fn panic_on_oops(facts: &Facts) -> Verdict {
    match facts.system.sysctl("kernel.panic_on_oops") {
        Some(0) => warn(
            "kernel.panic_on_oops is 0: an oops kills a process, and the kernel goes on damaged, without a dump",
            set(&["kernel.panic_on_oops=1"]),
        ),
        Some(value) => pass(format!("kernel.panic_on_oops is {value}")),
        None => pass("this kernel has no kernel.panic_on_oops"),
    }
}

/// What follows a panic that brings no dump.
pub(super) fn panic_timeout(facts: &Facts) -> Verdict {
    match facts.system.sysctl("kernel.panic") {
        Some(0) => warn(
            "kernel.panic is 0: a panic without a capture kernel hangs for ever",
            set(&["kernel.panic=10"]),
        ),
        Some(seconds @ 1..) => {
            pass(format!("kernel.panic is {seconds}: without a dump it reboots after so many seconds"))
        }
        Some(value) => pass(format!("kernel.panic is {value}: without a dump it reboots at once")),
        None => pass("this kernel has no kernel.panic"),
    }
}

/// CPUs that hang in the kernel.
pub(super) fn lockups(facts: &Facts) -> Verdict {
    let value = |name| facts.system.sysctl(name);
    let mut off = Vec::new();
    let mut wanted = Vec::new();
    let mut check = |name: &'static str, assignment| {
        if value(name) == Some(0) {
            off.push(name);
            wanted.push(assignment);
        }
    };
    check("kernel.watchdog", "kernel.watchdog=1");
    check("kernel.softlockup_panic", "kernel.softlockup_panic=1");
    check("kernel.hardlockup_panic", "kernel.hardlockup_panic=1");
    let nmi = match value("kernel.nmi_watchdog") {
        Some(0) => "; kernel.nmi_watchdog is 0, so a CPU with interrupts off is not noticed",
        _ => "",
    };
    if off.is_empty() {
        let seconds = value("kernel.watchdog_thresh").unwrap_or(10);
        return pass(format!("a CPU that hangs panics, after {} s{nmi}", 2 * seconds));
    }
    let verb = if off.len() == 1 { "is" } else { "are" };
    warn(format!("{} {verb} 0: a CPU that hangs is only logged{nmi}", off.join(", ")), set(&wanted))
}

/// Policies that differ from site to site: said, not judged, but for those that panic.
pub(super) fn hung_tasks(facts: &Facts) -> Verdict {
    let names = [
        ("kernel.hung_task_panic", "hung tasks"),
        ("vm.panic_on_oom", "out of memory"),
        ("kernel.unknown_nmi_panic", "unknown NMIs (a management board's NMI button)"),
        ("kernel.panic_on_io_nmi", "I/O check NMIs"),
        ("kernel.panic_on_warn", "warnings"),
    ];
    let known = names.iter().filter_map(|&(name, text)| Some((facts.system.sysctl(name)?, text)));
    let (on, off): (Vec<_>, Vec<_>) = known.partition(|(value, _)| *value != 0);
    let list = |of: Vec<(i64, &str)>| match of.as_slice() {
        [] => "nothing".to_owned(),
        some => some.iter().map(|(_, text)| *text).collect::<Vec<_>>().join(", "),
    };
    pass(format!("panic on: {}; no panic, so no dump, on: {}", list(on), list(off)))
}

/// crash_kexec_post_notifiers.
pub(super) fn notifiers(facts: &Facts) -> Verdict {
    if facts.system.has_post_notifiers {
        return warn(
            "crash_kexec_post_notifiers is on: notifiers run in the crashed kernel first, and may hang there",
            "echo N > /sys/module/kernel/parameters/crash_kexec_post_notifiers",
        );
    }
    pass("crash_kexec_post_notifiers is off: nothing comes between the panic and the capture kernel")
}

/// Watchdog devices go on counting.
pub(super) fn watchdog(facts: &Facts) -> Verdict {
    // That of a timer of the crashed kernel is gone with it.
    let is_hardware = |identity: &str| !identity.eq_ignore_ascii_case("Software Watchdog");
    let biting: Vec<_> = facts
        .system
        .watchdogs
        .iter()
        .filter(|dog| is_hardware(&dog.identity) && dog.is_active != Some(false))
        .filter(|dog| dog.timeout.is_none_or(|seconds| seconds < BOOT_SECONDS))
        .map(|dog| {
            let timeout = dog.timeout.map_or("an unknown time".to_owned(), |seconds| format!("{seconds} s"));
            let doubt = if dog.is_active.is_none() { ", if it counts" } else { "" };
            format!("{} ({}) resets the machine after {timeout}{doubt}", dog.name, dog.identity)
        })
        .collect();
    if biting.is_empty() {
        return pass("no watchdog that would reset the machine before kdump-init feeds it");
    }
    warn(
        format!("{}: that may be before the capture kernel feeds it", biting.join("; ")),
        format!(
            "mkdir -p /etc/systemd/system.conf.d && printf '[Manager]\\nRuntimeWatchdogSec={BOOT_SECONDS}\\n' > \
             /etc/systemd/system.conf.d/kdump-rs.conf && systemctl daemon-reexec"
        ),
    )
}

//! What is armed now, whether it still fits, and whether it was ever tried.

use std::cmp::Ordering;

use super::system::compare;
use super::{Facts, Verdict, fail, pass, warn};
use crate::arm::Call;
use crate::state;

const ARM: &str = "kdump-rs arm";

/// A capture kernel is loaded, and it is ours.
pub(super) fn armed(facts: &Facts) -> Verdict {
    match (facts.machine.is_crash_loaded, &facts.state) {
        (None, _) => {
            fail("this kernel has no crash kexec", "boot a kernel with CONFIG_KEXEC and CONFIG_CRASH_DUMP")
        }
        (Some(false), _) => fail("no capture kernel is loaded", ARM),
        (Some(true), Err(why)) => {
            warn(format!("something is loaded, but {} cannot be used: {why}", state::STATE_PATH), ARM)
        }
        (Some(true), Ok(None)) => warn("a capture kernel is loaded, but by another program", ARM),
        (Some(true), Ok(Some(state))) => match &state.panic_test {
            Some(kind) => fail(format!("armed to fail on purpose ({kind})"), ARM),
            None => pass(format!(
                "{} by {}",
                state
                    .kernel_version
                    .as_deref()
                    .and_then(|v| v.split_whitespace().next())
                    .unwrap_or("unknown kernel"),
                state.via
            )),
        },
    }
}

/// Files that changed since.
pub(super) fn stale(facts: &Facts) -> Verdict {
    match facts.armed() {
        None => pass("nothing of ours is armed"),
        Some(_) if facts.changes.is_empty() => pass("all files are as they were loaded"),
        Some(_) => warn(facts.changes.join("; "), ARM),
    }
}

/// Kernels that were installed since.
pub(super) fn upgrade(facts: &Facts) -> Verdict {
    let running = &facts.machine.release;
    let armed = facts.armed().and_then(|state| state.kernel_version.as_deref()?.split_whitespace().next());
    let newest = facts.system.newest_kernel.as_deref();
    match newest {
        Some(newest) if compare(newest, armed.unwrap_or(running)) == Ordering::Greater => warn(
            format!(
                "{newest} is installed and newer than {}: it is armed after the next boot",
                armed.unwrap_or(running)
            ),
            format!("kdump-rs rehearse --kernel /boot/vmlinuz-{newest}"),
        ),
        _ => match armed {
            Some(armed) if armed != running => warn(format!("{running} is running, {armed} is armed"), ARM),
            _ => pass(format!("{running} is running, and there is no newer one in /boot")),
        },
    }
}

/// Who keeps elfcorehdr current.
pub(super) fn hotplug(facts: &Facts) -> Verdict {
    let Some(state) = facts.armed() else {
        return pass(match facts.machine.has_crash_hotplug {
            true => "this kernel can keep elfcorehdr up to date",
            false => "this kernel needs a reload after CPUs or memory change",
        });
    };
    // With a file for one kind, none for the other means that the other cannot change at all.
    let [cpus, memory] = facts.system.hotplug;
    let lacking = match (cpus, memory) {
        (None, None) => {
            return pass("this kernel needs a reload after CPUs or memory change; the udev rule arms again");
        }
        (Some(false), Some(false)) => "CPUs and memory",
        (Some(false), _) => "CPUs",
        (_, Some(false)) => "memory",
        _ => return pass("the kernel keeps elfcorehdr up to date when CPUs or memory change"),
    };
    warn(format!("elfcorehdr is not kept up to date: arm again when {lacking} change ({})", state.via), ARM)
}

/// Something arms at boot.
pub(super) fn service(facts: &Facts) -> Verdict {
    let system = &facts.system;
    let loads_by_us = system.is_kexec_ours && !system.other_services.is_empty();
    if system.is_service_enabled {
        pass("kdump-rs.service is enabled")
    } else if loads_by_us {
        pass(format!("{} arms at boot, by this program", system.other_services.join(" ")))
    } else if system.has_systemd {
        warn(
            "kdump-rs.service is not enabled: nothing is armed after the next boot",
            "systemctl enable kdump-rs.service",
        )
    } else {
        warn(
            "systemd does not run here: nothing is known to arm at boot",
            "add `kdump-rs arm` to what runs at boot",
        )
    }
}

/// Other tools that load into the same place.
pub(super) fn other_tools(facts: &Facts) -> Verdict {
    let system = &facts.system;
    let names = system.other_services.join(" ");
    if names.is_empty() {
        return pass("no other tool arms here");
    }
    if system.is_kexec_ours && !system.is_service_enabled {
        return pass(format!("{names} loads through this program (kexec)"));
    }
    warn(
        format!("{names} loads a capture kernel too: the last one wins"),
        format!("systemctl disable --now {names}"),
    )
}

/// Where the panic path prints.
pub(super) fn console(facts: &Facts) -> Verdict {
    const REMEDY: &str = "kdump-rs arm --console ttyS0,115200";
    match facts.armed() {
        Some(state) if state.via == Call::KexecFileLoad.name() => {
            pass("the kernel's purgatory prints nothing")
        }
        Some(state) if state.console == "none, as asked for" => pass("none, as asked for"),
        Some(state) if state.console.starts_with("none") => {
            warn(format!("the panic path is silent: {}", state.console), REMEDY)
        }
        Some(state) => pass(state.console.clone()),
        None if facts.console.warning.is_some() => {
            warn(format!("the panic path would be silent: {}", facts.console.text), REMEDY)
        }
        None => pass(facts.console.text.clone()),
    }
}

/// The last rehearsal.
pub(super) fn rehearsed(facts: &Facts) -> Verdict {
    let running = &facts.machine.release;
    let remedy = format!("kdump-rs rehearse --kernel /boot/vmlinuz-{running}");
    match &facts.rehearsed {
        Err(why) => warn(format!("the record of the last rehearsal cannot be used: {why}"), remedy),
        Ok(None) => warn("never on this machine: nobody has seen this kernel dump", remedy),
        Ok(Some(last)) if last.release != *running => {
            warn(format!("with {}, and {running} is running", last.release), remedy)
        }
        Ok(Some(last)) if !last.failed.is_empty() => {
            warn(format!("passed {}; failed {}", last.passed.join(" "), last.failed.join(" ")), remedy)
        }
        Ok(Some(last)) => {
            let days = state::now().saturating_sub(last.at) / 86_400;
            pass(format!("with this kernel, {days} days ago: {}", last.passed.join(" ")))
        }
    }
}

//! Is there memory for a capture kernel, and enough of it?

use super::{Facts, Verdict, chain, fail, pass, warn};
use crate::plan::size_text;
use crate::preflight;
use crate::reserve::Value;

const APPLY: &str = "kdump-rs reserve --apply && reboot";

/// Most of the others need root to see anything.
pub(super) fn root(facts: &Facts) -> Verdict {
    if facts.machine.iomem.is_hidden() || !facts.machine.has_cap_sys_boot {
        return fail("not root: addresses are hidden, and nothing can be loaded", "sudo kdump-rs doctor");
    }
    pass("root: all of it can be seen")
}

/// Memory reserved, or why not.
pub(super) fn reservation(facts: &Facts) -> Verdict {
    let machine = &facts.machine;
    let asked = crate::reserve::effective(&machine.cmdline);
    match preflight::check_reservation(machine, facts.outlook.need.as_ref().map(|need| need.recommended)) {
        Ok(()) => {
            let ranges: Vec<_> = machine.iomem.crash_kernel().iter().map(ToString::to_string).collect();
            let asked = asked.unwrap_or("not on the command line");
            pass(format!("{} at {} (crashkernel={asked})", size_text(facts.reserved()), ranges.join(" and ")))
        }
        Err(preflight::Error::NotRoot) => fail("not visible to this user", "sudo kdump-rs doctor"),
        Err(preflight::Error::NoReservation { .. }) => match &facts.written {
            Some(value) => fail(
                format!("none yet: crashkernel={value} is written and counts from the next boot"),
                "reboot",
            ),
            None => fail("none: the kernel was booted without crashkernel=", APPLY),
        },
        Err(preflight::Error::ReservationFailed { asked }) => {
            let why = why_failed(facts, &asked);
            fail(
                format!("none, though crashkernel={asked} was asked for; {why}"),
                format!("kdump-rs reserve --size {} --apply && reboot", smaller(facts)),
            )
        }
        Err(preflight::Error::NoKexec { release, .. }) => fail(
            format!("none, and {release} could use none: it has no /sys/kernel/kexec_crash_size"),
            "boot a kernel with CONFIG_KEXEC and CONFIG_CRASH_DUMP",
        ),
        Err(error) => fail(chain(&error), APPLY),
    }
}

/// Of a size beyond all RAM the kernel says nothing. Source: kernel/crash_reserve.c (`parse_crashkernel`).
fn why_failed(facts: &Facts, asked: &str) -> String {
    let ram: u64 = facts.machine.iomem.ram().iter().map(|range| range.len()).sum();
    match (facts.system.crashkernel_log.last(), asked.parse::<Value>().ok().and_then(|value| value.bytes())) {
        (Some(line), _) => format!("the kernel says: {line}"),
        (None, Some(bytes)) if bytes >= ram => format!("there are but {} of RAM", size_text(ram)),
        (None, _) => "the kernel log no longer says why".to_owned(),
    }
}

/// What can be asked for where there was no room for what was asked: as much as is needed, anywhere.
fn smaller(facts: &Facts) -> String {
    let bytes = facts.outlook.need.as_ref().map_or(256 << 20, |need| need.recommended);
    format!("{}M", bytes >> 20)
}

/// Enough by the computed number.
pub(super) fn size(facts: &Facts) -> Verdict {
    let Some(need) = &facts.outlook.need else {
        return warn("not known without a capture kernel", "kdump-rs reserve");
    };
    let have = facts.reserved();
    let [staged, sum, recommended, text] = [need.staged, need.sum, need.recommended, have].map(size_text);
    if have == 0 {
        fail(format!("nothing is reserved, {recommended} are needed"), APPLY)
    } else if have < need.staged {
        fail(format!("{text} reserved, {staged} are loaded: it does not fit"), APPLY)
    } else if have < need.recommended {
        warn(format!("{text} reserved, {sum} may be needed: the capture kernel may run out of memory"), APPLY)
    } else {
        pass(format!("{text} reserved, {sum} needed at most (kdump-rs reserve lists them)"))
    }
}

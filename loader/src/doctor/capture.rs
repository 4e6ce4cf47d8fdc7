//! Would what `arm` loads come to a dump?

use super::space::{COMPRESSION, MAX_LEVEL};
use super::{Facts, Verdict, chain, fail, pass, warn};
use crate::arm;
use crate::plan::size_text;

/// The kernel image.
pub(super) fn kernel(facts: &Facts) -> Verdict {
    match &facts.outlook.kernel {
        Ok((path, version)) => {
            let version = version.split_whitespace().next().unwrap_or("version unknown");
            pass(format!("{version} ({})", path.display()))
        }
        Err(error) => fail(chain(error), "kdump-rs arm --kernel /boot/vmlinuz-$(uname -r)"),
    }
}

/// kdump-init.
pub(super) fn init(facts: &Facts) -> Verdict {
    match &facts.outlook.init {
        Ok(path) => pass(format!("{}, static", path.display())),
        Err(error) => fail(chain(error), "kdump-rs arm --init /usr/lib/kdump-rs/kdump-init"),
    }
}

/// Where the dump goes.
pub(super) fn target(facts: &Facts) -> Verdict {
    match &facts.outlook.targets {
        Ok(targets) => {
            let named: Vec<_> = targets.iter().map(crate::target::Rung::describe).collect();
            pass(named.join("; then "))
        }
        Err(error @ crate::target::Error::NoDirectory { path, .. }) => {
            fail(chain(error), format!("mkdir -p {}", path.display()))
        }
        Err(error) => fail(chain(error), "kdump-rs arm --target DIRECTORY"),
    }
}

/// Modules and firmware on the way to it.
pub(super) fn drivers(facts: &Facts) -> Verdict {
    let outlook = &facts.outlook;
    let remedy = "kdump-rs arm --explain";
    match (&outlook.modules, &outlook.initramfs) {
        (None, _) => warn("not known without a capture kernel and a target", remedy),
        (Some(Err(error @ arm::Error::Modules(crate::modules::Error::NoTree { .. }))), _) => {
            fail(chain(error), "depmod")
        }
        (Some(Err(error)), _) => fail(chain(error), remedy),
        (Some(Ok(_)), Some(initramfs)) if !initramfs.warnings.is_empty() => {
            warn(initramfs.warnings.join("; "), remedy)
        }
        (Some(Ok(modules)), Some(_)) if modules.is_empty() => pass("no modules needed: all is built in"),
        (Some(Ok(modules)), Some(initramfs)) => pass(format!(
            "{} modules ({}), initramfs {}",
            modules.len(),
            modules.join(" "),
            size_text(initramfs.packed.len() as u64)
        )),
        (Some(Ok(_)), None) if outlook.init.is_err() => warn("not tried without kdump-init", remedy),
        (Some(Ok(_)), None) => fail("the initramfs cannot be built", remedy),
    }
}

/// Room for the dump that would be taken now.
pub(super) fn space(facts: &Facts) -> Verdict {
    let (Ok(targets), Some(memory)) = (&facts.outlook.targets, facts.system.memory) else {
        return warn("not known without a target and /proc/meminfo", "df -h /var/crash");
    };
    // One that takes the dump is enough.
    let roomiest = targets.iter().filter_map(|t| Some((t.free_bytes()?, t))).max_by_key(|(free, _)| *free);
    let Some((free, target)) = roomiest else { return pass("only the servers know how much room they have") };
    let level = facts.outlook.level;
    let ram = facts.machine.iomem.ram().iter().map(|range| range.len()).sum();
    let ratio = if facts.outlook.is_compressed { COMPRESSION } else { 1 };
    let most = memory.predicted(ram, level);
    // A dump that does not fit is tried again at the highest level.
    let least = memory.predicted(ram, level.max(MAX_LEVEL)) / ratio;
    let found = format!(
        "{} free in {}; a dump now has {} at level {level}, before compression",
        size_text(free),
        target.name(),
        size_text(most)
    );
    let remedy = match level {
        MAX_LEVEL => format!("rm -r {}/OLD-DUMP", target.name()),
        _ => format!("kdump-rs arm --level {MAX_LEVEL}"),
    };
    if free < least {
        fail(format!("{found}, and hardly less than {}: it does not fit", size_text(least)), remedy)
    } else if free < most / ratio {
        warn(format!("{found}: it does not fit at this level, and would be tried at {MAX_LEVEL}"), remedy)
    } else if free < most {
        warn(format!("{found}: it fits only if it compresses well"), remedy)
    } else {
        pass(found)
    }
}

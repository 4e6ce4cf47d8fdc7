//! How far a guest came, read line by line from its serial console.
//!
//! Three programs mark their progress there: our PID 1 in the production guest
//! (`kdump-rs-rehearse: `, through the kernel log, so that no line is torn by kernel messages),
//! the panic-path program (`kdump-rs panic-kernel: `) and PID 1 of the capture kernel
//! (`kdump-init: `).

use std::fmt;
use std::time::Duration;

/// Before each line that the production guest's PID 1 says.
pub const GUEST_PREFIX: &str = "kdump-rs-rehearse: ";
/// What it says when it waits for the host to push the NMI button.
pub(crate) const BUTTON_WANTED: &str = "waiting for an NMI";
/// Before each line of the panic-path program.
pub const PANIC_KERNEL_PREFIX: &str = "kdump-rs panic-kernel: ";
/// Before each line of the capture kernel's PID 1.
pub const CAPTURE_PREFIX: &str = "kdump-init: ";

/// A stretch of the rehearsal, in the order in which they come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Phase {
    /// From QEMU's start to PID 1 of the production guest.
    Boot,
    /// Modules, file systems, some load.
    Prepare,
    /// `kdump-rs arm`.
    Arm,
    /// From the crash to the first word of the panic-path program.
    Panic,
    /// The panic-path program.
    PanicKernel,
    /// From the capture kernel's first message to its PID 1.
    CaptureKernel,
    /// kdump-init, until the machine resets.
    Capture,
    /// Checking the disk and taking the dump directory out of it.
    Collect,
}

impl Phase {
    /// All of them, in order.
    pub const ALL: [Self; 8] = [
        Self::Boot,
        Self::Prepare,
        Self::Arm,
        Self::Panic,
        Self::PanicKernel,
        Self::CaptureKernel,
        Self::Capture,
        Self::Collect,
    ];

    /// The name people read.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Boot => "boot",
            Self::Prepare => "prepare",
            Self::Arm => "arm",
            Self::Panic => "panic",
            Self::PanicKernel => "panic-kernel",
            Self::CaptureKernel => "capture kernel",
            Self::Capture => "capture",
            Self::Collect => "collect",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Where a running rehearsal tells how far it is. All methods do nothing unless overridden.
pub trait Progress {
    /// Something worth knowing about this run, such as the accelerator.
    fn note(&mut self, _text: &str) {}
    /// A phase began.
    fn started(&mut self, _phase: Phase) {}
    /// A phase ended well, after so long.
    fn ended(&mut self, _phase: Phase, _took: Duration) {}
    /// The guest is armed and waits: it goes on when this returns. Only with [`Scene::is_held`](crate::Scene).
    fn held(&mut self, _guest: &crate::Held<'_>) {}
    /// A line on the serial console.
    fn line(&mut self, _line: &str) {}
}

/// Tells nobody.
#[derive(Debug, Default)]
pub struct Silent;

impl Progress for Silent {}

/// What a line on the console means.
#[derive(Debug, PartialEq, Eq)]
pub enum Sign {
    /// Nothing for us.
    None,
    /// This phase has begun.
    Began(Phase),
    /// The guest will not get further, and why.
    Failed(String),
}

/// Reads one console line in the light of the phase that runs.
///
/// A phase may be passed over (its mark was lost): the next one that is seen counts.
#[must_use]
pub fn read_line(current: Phase, line: &str) -> Sign {
    let after = |prefix: &str| line.find(prefix).and_then(|at| line.get(at + prefix.len()..));
    if let Some(text) = after(GUEST_PREFIX) {
        if let Some(why) = text.strip_prefix("failed: ") {
            return Sign::Failed(why.to_owned());
        }
        return match text.split_whitespace().take(2).collect::<Vec<_>>()[..] {
            ["up"] => forward(current, Phase::Prepare),
            ["phase", "prepare"] => forward(current, Phase::Arm),
            ["phase", "arm"] => forward(current, Phase::Panic),
            _ => Sign::None,
        };
    }
    if after(PANIC_KERNEL_PREFIX).is_some() {
        return forward(current, Phase::PanicKernel);
    }
    if after(CAPTURE_PREFIX).is_some() {
        return forward(current, Phase::Capture);
    }
    match current {
        // The production kernel says this too, when it boots.
        Phase::Panic | Phase::PanicKernel if line.contains("Linux version ") => {
            Sign::Began(Phase::CaptureKernel)
        }
        // Expected in `Panic`; anywhere else nobody asked for it.
        Phase::Boot | Phase::Prepare | Phase::Arm | Phase::CaptureKernel | Phase::Capture => {
            match line.find("Kernel panic - not syncing") {
                Some(at) => Sign::Failed(line.get(at..).unwrap_or(line).to_owned()),
                None => Sign::None,
            }
        }
        _ => Sign::None,
    }
}

fn forward(current: Phase, next: Phase) -> Sign {
    if next > current { Sign::Began(next) } else { Sign::None }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that a whole cycle's console lines, timestamps and kernel noise included, walk
    /// through the phases once and in order.
    #[test]
    fn a_cycle_walks_through_the_phases_in_order() {
        let console = [
            "[    0.000000] Linux version 6.12.117+deb13-cloud-amd64 (debian-kernel@lists.debian.org)",
            "[    1.903011] Run /usr/sbin/kdump-rs as init process",
            "[    1.950000] kdump-rs-rehearse: up",
            "[    2.400000] kdump-rs-rehearse: phase prepare 450 ms",
            "armed",
            "[    3.100000] kdump-rs-rehearse: phase arm 612 ms",
            "[    3.200000] sysrq: Trigger a crash",
            "[    3.200100] Kernel panic - not syncing: sysrq triggered crash",
            "kdump-rs panic-kernel: cpu 1 took over",
            "kdump-rs panic-kernel: all regions verified",
            "[    0.000000] Linux version 6.12.117+deb13-cloud-amd64 (debian-kernel@lists.debian.org)",
            "kdump-init: mounted /dev/vda",
            "kdump-init: done",
        ];
        let mut phase = Phase::Boot;
        let mut seen = vec![];
        for line in console {
            match read_line(phase, line) {
                Sign::Began(next) => {
                    phase = next;
                    seen.push(next);
                }
                Sign::Failed(why) => panic!("{why}"),
                Sign::None => {}
            }
        }
        assert_eq!(seen, &Phase::ALL[1..7]);
    }

    #[test]
    fn a_panic_counts_as_failure_except_where_it_was_asked_for() {
        let line = "[    9.1] Kernel panic - not syncing: Out of memory: compulsory panic_on_oom is enabled";
        for phase in [Phase::Boot, Phase::Arm, Phase::CaptureKernel, Phase::Capture] {
            let Sign::Failed(why) = read_line(phase, line) else { panic!("{phase}") };
            assert!(why.starts_with("Kernel panic - not syncing: Out of memory"), "{why}");
        }
        assert_eq!(read_line(Phase::Panic, line), Sign::None);
    }

    #[test]
    fn the_guest_says_itself_why_it_fails() {
        let line = "[    2.0] kdump-rs-rehearse: failed: kdump-rs arm ended with exit status: 2";
        let Sign::Failed(why) = read_line(Phase::Arm, line) else { panic!() };
        assert_eq!(why, "kdump-rs arm ended with exit status: 2");
    }

    #[test]
    fn a_lost_mark_does_not_stop_the_count() {
        assert_eq!(read_line(Phase::Arm, "kdump-init: hello"), Sign::Began(Phase::Capture));
        assert_eq!(read_line(Phase::Capture, "kdump-rs panic-kernel: late"), Sign::None);
    }
}

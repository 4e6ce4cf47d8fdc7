//! A plan for people, and for programs.

use std::fmt;

use kdump_arch_x86::{PAGE_SIZE, PhysRange};
use kdump_panic_kernel::handoff::{Handoff, TestHook};
use serde::Serialize;

use super::{KEXEC_UPDATE_ELFCOREHDR, LoadPlan, Protection, Segment};

/// A plan as `--json` and the state file have it: addresses are hexadecimal text, ends inclusive
/// as in /proc/iomem, sizes numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlanView {
    /// Address of the first instruction.
    pub entry: String,
    /// The crashkernel memory.
    pub region: RangeView,
    /// By address.
    pub segments: Vec<SegmentView>,
    /// What no segment covers.
    pub holes: Vec<RangeView>,
    /// The capture kernel's.
    pub memory_map: Vec<MapView>,
    /// The capture kernel's.
    pub cmdline: String,
    /// What the panic path is told besides the segments.
    pub handoff: HandoffView,
    /// What can be rebuilt.
    pub protection: Protection,
    /// Flags of kexec_load(2).
    pub flags: u64,
    /// Whether the kernel keeps elfcorehdr up to date on hotplug.
    pub is_hotplug_updated: bool,
    /// What is not as it should be.
    pub warnings: Vec<String>,
}

/// What the panic path is told besides the segments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HandoffView {
    /// Address of the payload's first instruction.
    pub entry: String,
    /// What it is given.
    pub argument: String,
    /// 64 or 32.
    pub entry_bits: u32,
    /// Pages that are moved before it is entered.
    pub nr_relocated: u32,
    /// Page tables for 4-level paging.
    pub cr3_4_level: String,
    /// Page tables for 5-level paging.
    pub cr3_5_level: String,
    /// The page of the panic record.
    pub record: String,
    /// Ticks of the time stamp counter per millisecond; null if unknown.
    pub tsc_khz: Option<u64>,
    /// A failure that the panic path brings about itself, for tests.
    pub panic_test: Option<&'static str>,
}

/// An address range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RangeView {
    /// First byte.
    pub start: String,
    /// Last byte.
    pub last: String,
    /// Bytes.
    pub size_bytes: u64,
}

/// A segment without its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SegmentView {
    /// Short name.
    pub tag: &'static str,
    /// What it is for.
    pub purpose: &'static str,
    /// Where.
    #[serde(flatten)]
    pub range: RangeView,
    /// Bytes that are not zero fill.
    pub content_bytes: u64,
    /// Of those, how many the panic path checks, from the first on.
    pub checked_bytes: u64,
    /// Whether they can be rebuilt from parity.
    pub is_protected: bool,
    /// Digest of what is checked.
    pub sha256: Option<String>,
}

/// An entry of the memory map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MapView {
    /// Where.
    #[serde(flatten)]
    pub range: RangeView,
    /// What.
    pub kind: String,
}

impl From<PhysRange> for RangeView {
    fn from(range: PhysRange) -> Self {
        Self {
            start: address(range.start().0),
            last: address(range.end().0.saturating_sub(1)),
            size_bytes: range.len(),
        }
    }
}

impl From<&LoadPlan<'_>> for PlanView {
    fn from(plan: &LoadPlan<'_>) -> Self {
        Self {
            entry: address(plan.entry.0),
            region: plan.region.into(),
            segments: plan.segments.iter().map(SegmentView::from).collect(),
            holes: plan.holes().into_iter().map(RangeView::from).collect(),
            memory_map: plan
                .memory_map
                .iter()
                .map(|e| MapView { range: e.range.into(), kind: e.kind.to_string() })
                .collect(),
            cmdline: plan.cmdline.clone(),
            handoff: HandoffView::from(&plan.handoff),
            protection: plan.protection,
            flags: plan.flags,
            is_hotplug_updated: plan.flags & KEXEC_UPDATE_ELFCOREHDR != 0,
            warnings: plan.warnings.clone(),
        }
    }
}

impl From<&Segment<'_>> for SegmentView {
    fn from(segment: &Segment<'_>) -> Self {
        Self {
            tag: segment.tag,
            purpose: segment.purpose,
            range: segment.range.into(),
            content_bytes: segment.bytes.len() as u64,
            checked_bytes: segment.checked,
            is_protected: segment.is_protected,
            sha256: segment.sha256.map(|digest| hex(&digest)),
        }
    }
}

impl From<&Handoff> for HandoffView {
    fn from(handoff: &Handoff) -> Self {
        Self {
            entry: address(handoff.entry.rip),
            argument: address(handoff.entry.argument),
            entry_bits: handoff.entry.mode.bits(),
            nr_relocated: handoff.entry.nr_relocated,
            cr3_4_level: address(handoff.page_tables.four_level),
            cr3_5_level: address(handoff.page_tables.five_level),
            record: address(handoff.record),
            tsc_khz: Some(handoff.tsc_khz).filter(|&khz| khz != 0),
            panic_test: test_hook_name(handoff.test_hook),
        }
    }
}

/// What the loader calls a test hook; nothing if there is none.
#[must_use]
pub fn test_hook_name(hook: TestHook) -> Option<&'static str> {
    TestHook::NAMES.iter().find(|(_, named)| *named == hook).map(|(name, _)| *name)
}

fn address(value: u64) -> String {
    format!("{value:#018x}")
}

/// Lower-case hexadecimal.
#[must_use]
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Bytes in the unit that leaves at most four digits.
#[must_use]
pub fn size_text(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
        _ => format!("{:.1} GiB", bytes as f64 / 1_073_741_824.0),
    }
}

impl fmt::Display for LoadPlan<'_> {
    /// The memory map of the plan: every segment and hole of the region, by address.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = |f: &mut fmt::Formatter<'_>, range: PhysRange, tag: &str, purpose: &str| {
            writeln!(f, "  {range}  {:>10}  {tag:<13} {purpose}", size_text(range.len()))
        };
        writeln!(f, "crashkernel memory {}, {}", self.region, size_text(self.region.len()))?;
        let mut rows: Vec<(PhysRange, Option<&Segment<'_>>)> =
            self.holes().into_iter().map(|h| (h, None)).collect();
        rows.extend(self.segments.iter().map(|s| (s.range, Some(s))));
        rows.sort_unstable_by_key(|r| r.0);
        for (i, (range, segment)) in rows.iter().enumerate() {
            match segment {
                Some(s) => {
                    let purpose = if s.range.len() - (s.bytes.len() as u64) < PAGE_SIZE {
                        s.purpose.to_owned()
                    } else {
                        format!("{} ({} used)", s.purpose, size_text(s.bytes.len() as u64))
                    };
                    line(f, *range, s.tag, &purpose)?;
                }
                None if i == 0 => {
                    line(f, *range, "(free)", "for the kernel's control pages and page tables")?
                }
                None => line(f, *range, "(free)", "")?,
            }
        }
        writeln!(f, "entry {:#x}, then {:#x}", self.entry, self.handoff.entry.rip)?;
        writeln!(f, "parity {}", self.protection)?;
        let is_left_out = |s: &&Segment<'_>| s.checked != 0 && !s.is_protected;
        if self.protection.run_bytes != 0 && self.segments.iter().any(|s| is_left_out(&s)) {
            let tags: Vec<_> = self.segments.iter().filter(is_left_out).map(|s| s.tag).collect();
            writeln!(f, "above the parity, checked but not rebuilt: {}", tags.join(", "))?;
        }
        let update = self.flags & KEXEC_UPDATE_ELFCOREHDR != 0;
        writeln!(
            f,
            "elfcorehdr {}",
            if update { "kept up to date by the kernel on hotplug" } else { "fixed" }
        )?;
        writeln!(f, "memory map of the capture kernel:")?;
        for entry in &self.memory_map {
            line(f, entry.range, &entry.kind.to_string(), "")?;
        }
        write!(f, "command line: {}", self.cmdline)
    }
}

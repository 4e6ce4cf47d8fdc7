//! A plan for people, and for programs.

use std::fmt;

use kdump_arch_x86::{PAGE_SIZE, PhysRange};
use serde::Serialize;

use super::{KEXEC_UPDATE_ELFCOREHDR, LoadPlan, Segment};

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
    /// Flags of kexec_load(2).
    pub flags: u64,
    /// Whether the kernel keeps elfcorehdr up to date on hotplug.
    pub is_hotplug_updated: bool,
    /// What is not as it should be.
    pub warnings: Vec<String>,
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
    /// Digest of the content, where the panic path checks it.
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
            start: format!("{:#018x}", range.start().0),
            last: format!("{:#018x}", range.end().0.saturating_sub(1)),
            size_bytes: range.len(),
        }
    }
}

impl From<&LoadPlan<'_>> for PlanView {
    fn from(plan: &LoadPlan<'_>) -> Self {
        Self {
            entry: format!("{:#018x}", plan.entry.0),
            region: plan.region.into(),
            segments: plan.segments.iter().map(SegmentView::from).collect(),
            holes: plan.holes().into_iter().map(RangeView::from).collect(),
            memory_map: plan
                .memory_map
                .iter()
                .map(|e| MapView { range: e.range.into(), kind: e.kind.to_string() })
                .collect(),
            cmdline: plan.cmdline.clone(),
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
            sha256: segment.sha256.map(|digest| hex(&digest)),
        }
    }
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
        writeln!(f, "entry {:#x}", self.entry)?;
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

//! A plan for people and for programs.

use std::fmt;

use serde_json::{Value, json};

use super::NormalPlan;

impl fmt::Display for NormalPlan<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "segments of an ordinary kexec, entered by the control page:")?;
        for segment in &self.segments {
            writeln!(f, "  {:<12} {}  {} bytes", segment.tag, segment.range, segment.bytes.len())?;
        }
        writeln!(f, "  entry        {:#018x}, {:?}", self.start.rip, self.start.mode)?;
        writeln!(f, "memory map:")?;
        for entry in &self.memory_map {
            writeln!(f, "  {}  {}", entry.range, entry.kind)?;
        }
        write!(f, "command line: {}", self.cmdline)
    }
}

impl NormalPlan<'_> {
    /// The same as JSON.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let address = |value: u64| format!("{value:#018x}");
        json!({
            "entry": address(self.start.rip),
            "control_page": address(self.entry.0),
            "segments": self.segments.iter().map(|segment| json!({
                "tag": segment.tag,
                "start": address(segment.range.start().0),
                "end": address(segment.range.end().0),
                "content_bytes": segment.bytes.len(),
            })).collect::<Vec<_>>(),
            "memory_map": self.memory_map.iter().map(|entry| json!({
                "start": address(entry.range.start().0),
                "end": address(entry.range.end().0),
                "type": entry.kind.to_string(),
            })).collect::<Vec<_>>(),
            "cmdline": self.cmdline,
        })
    }
}

//! The kernel log: records of the lockless printk ring.
//!
//! It is found by VMCOREINFO alone, so it can be read even of a kernel whose symbols and types are
//! out of reach.

mod ring;

use std::fmt;

use kdump_vmcore::{KernelMem, VmcoreInfo};
use serde::{Serialize, Serializer};

use crate::kernel::Gap;
use ring::Ring;

/// Who printed a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Caller {
    /// A task, by thread id.
    Task(u32),
    /// Not in task context: a CPU.
    Cpu(u32),
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Task(id) => write!(f, "T{id}"),
            Self::Cpu(id) => write!(f, "C{id}"),
        }
    }
}

/// One record.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Record {
    /// Number since boot.
    pub seq: u64,
    /// Nanoseconds since boot, by the local clock.
    pub ts_ns: u64,
    /// syslog level: 0 emergency to 7 debug.
    pub level: u8,
    /// syslog facility: 0 is the kernel.
    pub facility: u8,
    /// Who printed it.
    #[serde(serialize_with = "as_display")]
    pub caller: Caller,
    /// Its text, without the final newline; may have inner ones, and need not be UTF-8.
    #[serde(serialize_with = "as_text")]
    pub text: Vec<u8>,
}

fn as_display<S: Serializer>(value: &Caller, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(value)
}

/// JSON has no bytes: what is not UTF-8 is replaced there.
fn as_text<S: Serializer>(value: &[u8], to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&String::from_utf8_lossy(value))
}

impl Record {
    /// The text for showing.
    #[must_use]
    pub fn text_lossy(&self) -> String {
        String::from_utf8_lossy(&self.text).into_owned()
    }

    /// Appends the record as dmesg(1) prints it: each of its lines with the time before it.
    pub fn format_into(&self, out: &mut Vec<u8>) {
        let stamp = format!("[{:5}.{:06}] ", self.ts_ns / 1_000_000_000, self.ts_ns % 1_000_000_000 / 1000);
        for line in self.text.split(|&b| b == b'\n') {
            out.extend_from_slice(stamp.as_bytes());
            out.extend_from_slice(line);
            out.push(b'\n');
        }
    }
}

/// The log as it could be read.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Log {
    /// Records from the oldest to the newest.
    pub records: Vec<Record>,
    /// Records whose descriptor is there but whose text is not.
    pub lost: u64,
}

impl Log {
    /// Reads the ring.
    ///
    /// # Errors
    /// If VMCOREINFO does not describe it (before 5.10 it was another structure) or its memory
    /// cannot be read.
    pub fn read(mem: &KernelMem<'_>, info: &VmcoreInfo) -> Result<Self, Gap> {
        Ring::locate(mem, info)?.records()
    }

    /// All of it as dmesg(1) prints it.
    #[must_use]
    pub fn to_text(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for record in &self.records {
            record.format_into(&mut out);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_of_a_record_has_its_time() {
        let r = Record {
            seq: 0,
            ts_ns: 12_345_678_901,
            level: 6,
            facility: 0,
            caller: Caller::Task(1),
            text: b"a\nb\xff".to_vec(),
        };
        let mut out = Vec::new();
        r.format_into(&mut out);
        assert_eq!(out, b"[   12.345678] a\n[   12.345678] b\xff\n");
    }
}

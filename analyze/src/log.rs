//! The kernel log: records of the lockless printk ring.
//!
//! Three rings: descriptors (state and where the text is), infos (time, level, caller), data
//! (text). Where everything is comes from VMCOREINFO alone, so the log can be read even of a kernel
//! whose symbols and types are out of reach.
//!
//! Source: kernel/printk/printk_ringbuffer.h, printk_ringbuffer.c, internal.h; 5.10 and later.

use std::fmt;

use kdump_arch_x86::VirtAddr;
use kdump_vmcore::{KernelMem, VmcoreInfo};
use serde::{Serialize, Serializer};

use crate::kernel::Gap;

/// Low bits of a descriptor's state word: its id; the top two are the state.
const ID_MASK: u64 = (1 << 62) - 1;
/// `desc_committed` and `desc_finalized`: the record can be read.
const READABLE: [u64; 2] = [1, 2];
/// More descriptors than any kernel configures (log_buf_len=2G gives 2^26).
const COUNT_BITS_MAX: u32 = 26;
/// `log_buf_len` is at most 2 GiB.
const SIZE_BITS_MAX: u32 = 31;

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

/// Offsets and copies of the three rings.
struct Ring {
    descs: Vec<u8>,
    infos: Vec<u8>,
    data: Vec<u8>,
    count: u64,
    size_bits: u32,
    head: u64,
    tail: u64,
    layout: Layout,
}

struct Layout {
    desc_size: usize,
    state: usize,
    begin: usize,
    next: usize,
    info_size: usize,
    seq: usize,
    ts_nsec: usize,
    text_len: usize,
    caller_id: usize,
}

impl Ring {
    fn locate(mem: &KernelMem<'_>, info: &VmcoreInfo) -> Result<Self, Gap> {
        let missing =
            |key: String| Gap::Other(format!("VMCOREINFO has no {key}: the kernel log cannot be located"));
        let offset = |m: &str| info.offset(m).ok_or_else(|| missing(format!("OFFSET({m})")));
        let small = |m: &str| offset(m).map(|n| n.min(1 << 16) as usize);
        let size = |t: &str| {
            info.size(t)
                .filter(|n| (1..1 << 16).contains(n))
                .map(|n| n as usize)
                .ok_or_else(|| missing(format!("SIZE({t})")))
        };
        let read = |what: &str| {
            let what = what.to_string();
            move |source| Gap::Read { what, source }
        };
        let prb = info.symbol("prb").ok_or_else(|| missing("SYMBOL(prb)".into()))?;
        let ring = mem.read_ptr(VirtAddr(prb)).map_err(read("prb"))?;
        let counter = offset("atomic_long_t.counter")?;
        let desc_ring = ring.wrapping_add(offset("printk_ringbuffer.desc_ring")?);
        let data_ring = ring.wrapping_add(offset("printk_ringbuffer.text_data_ring")?);
        let at = |base: VirtAddr, m: &str| offset(m).map(|o| base.wrapping_add(o));
        let word = |at: VirtAddr| mem.read_u64(at).map_err(read("the printk ring"));

        let count_bits =
            mem.read_u32(at(desc_ring, "prb_desc_ring.count_bits")?).map_err(read("count_bits"))?;
        let size_bits = mem.read_u32(at(data_ring, "prb_data_ring.size_bits")?).map_err(read("size_bits"))?;
        if count_bits > COUNT_BITS_MAX || size_bits > SIZE_BITS_MAX {
            return Err(Gap::Other(format!(
                "the printk ring is damaged: 2^{count_bits} descriptors, 2^{size_bits} bytes of text"
            )));
        }
        let count = 1u64 << count_bits;
        let layout = Layout {
            desc_size: size("prb_desc")?,
            state: small("prb_desc.state_var")? + counter as usize,
            begin: small("prb_desc.text_blk_lpos")? + small("prb_data_blk_lpos.begin")?,
            next: small("prb_desc.text_blk_lpos")? + small("prb_data_blk_lpos.next")?,
            // 112 instead of 88 with CONFIG_PRINTK_EXECUTION_CTX (7.0).
            info_size: size("printk_info")?,
            seq: small("printk_info.seq")?,
            ts_nsec: small("printk_info.ts_nsec")?,
            text_len: small("printk_info.text_len")?,
            caller_id: small("printk_info.caller_id")?,
        };
        let table = |m: &str, each: usize, what: &str| {
            let base = word(at(desc_ring, m)?)?;
            mem.read_vec(VirtAddr(base), count * each as u64, 1 << 33).map_err(read(what))
        };
        Ok(Self {
            descs: table("prb_desc_ring.descs", layout.desc_size, "log descriptors")?,
            infos: table("prb_desc_ring.infos", layout.info_size, "log infos")?,
            data: {
                let base = word(at(data_ring, "prb_data_ring.data")?)?;
                mem.read_vec(VirtAddr(base), 1 << size_bits, 1 << SIZE_BITS_MAX).map_err(read("log text"))?
            },
            count,
            size_bits,
            head: word(at(desc_ring, "prb_desc_ring.head_id")?.wrapping_add(counter))? & ID_MASK,
            tail: word(at(desc_ring, "prb_desc_ring.tail_id")?.wrapping_add(counter))? & ID_MASK,
            layout,
        })
    }

    fn records(&self) -> Result<Log, Gap> {
        let mut log = Log::default();
        // Ids count up for ever and wrap at 2^62; no more than `count` of them are in the ring.
        let span = self.head.wrapping_sub(self.tail) & ID_MASK;
        for i in 0..=span.min(self.count - 1) {
            let id = self.tail.wrapping_add(i) & ID_MASK;
            // Below 2^26, so the cast is exact.
            let index = (id % self.count) as usize;
            let desc = index * self.layout.desc_size;
            let Some(state) = u64_at(&self.descs, desc + self.layout.state) else { continue };
            if state & ID_MASK != id || !READABLE.contains(&(state >> 62)) {
                continue; // reserved by a writer, or reusable: normal at the tail
            }
            match self.record(desc, index * self.layout.info_size) {
                Some(record) => log.records.push(record),
                None => log.lost += 1,
            }
        }
        Ok(log)
    }

    fn record(&self, desc: usize, info: usize) -> Option<Record> {
        let l = &self.layout;
        let text_len = u16_at(&self.infos, info + l.text_len)?;
        let text = self.text(u64_at(&self.descs, desc + l.begin)?, u64_at(&self.descs, desc + l.next)?)?;
        // facility, then flags in bits 0 to 4 and level in bits 5 to 7: they follow text_len in every
        // version, though VMCOREINFO does not name them.
        let facility = *self.infos.get(info + l.text_len + 2)?;
        let level = *self.infos.get(info + l.text_len + 3)? >> 5;
        let caller = u32_at(&self.infos, info + l.caller_id)?;
        Some(Record {
            seq: u64_at(&self.infos, info + l.seq)?,
            ts_ns: u64_at(&self.infos, info + l.ts_nsec)?,
            level,
            facility,
            caller: if caller >> 31 == 1 { Caller::Cpu(caller & 0x7fff_ffff) } else { Caller::Task(caller) },
            text: text.get(..usize::from(text_len)).unwrap_or(text).to_vec(),
        })
    }

    /// The text block between two logical positions: a word with the descriptor's id, then the text.
    fn text(&self, begin: u64, next: u64) -> Option<&[u8]> {
        if begin & 1 == 1 && next & 1 == 1 {
            // No block: 3 and 3 is a line without text; anything else was lost.
            return (begin == 3 && next == 3).then_some(&[]);
        }
        let mask = (1u64 << self.size_bits) - 1;
        let wraps = |lpos: u64| lpos >> self.size_bits;
        // The end is compared by its last byte: a block may end exactly at the end of the ring (7.0).
        let last = next.wrapping_sub(1);
        let (start, end) = if wraps(begin) == wraps(last) {
            (begin & mask, (last & mask) + 1)
        } else if wraps(begin).wrapping_add(1) == wraps(last) {
            (0, (last & mask) + 1) // a block that would cross the end starts over at the beginning
        } else {
            return None;
        };
        self.data.get(usize::try_from(start).ok()? + 8..usize::try_from(end).ok()?)
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}
fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}
fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(data: &[u8]) -> Ring {
        Ring {
            descs: Vec::new(),
            infos: Vec::new(),
            data: data.to_vec(),
            count: 1,
            size_bits: 5,
            head: 0,
            tail: 0,
            layout: Layout {
                desc_size: 24,
                state: 0,
                begin: 8,
                next: 16,
                info_size: 88,
                seq: 0,
                ts_nsec: 8,
                text_len: 16,
                caller_id: 20,
            },
        }
    }

    #[test]
    fn blocks_end_wrap_and_vanish() {
        let bytes: Vec<u8> = (0..32).collect();
        let r = ring(&bytes);
        assert_eq!(r.text(0, 16), Some(&bytes[8..16]));
        assert_eq!(r.text(16, 32), Some(&bytes[24..32]), "ends exactly at the end of the ring");
        assert_eq!(r.text(24, 32 + 16), Some(&bytes[8..16]), "starts over at the beginning");
        assert_eq!(r.text(3, 3), Some(&[][..]), "an empty line");
        assert_eq!(r.text(1, 1), None, "lost");
        assert_eq!(r.text(0, 200), None, "two wraps are damage");
    }

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

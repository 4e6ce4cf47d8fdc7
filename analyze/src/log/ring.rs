//! The lockless printk ring.
//!
//! Three rings: descriptors (state and where the text is), infos (time, level, caller), data (text).
//! They are read as the walk comes to them: the log of a large machine need not fit beside the dump's
//! other tables into a capture kernel's memory.
//!
//! Source: kernel/printk/printk_ringbuffer.h, printk_ringbuffer.c, internal.h; 5.10 and later.

use std::ops::Range;

use kdump_arch_x86::{PAGE_SIZE, VirtAddr};
use kdump_vmcore::{KernelMem, ReadError, VmcoreInfo};

use super::{Caller, Log, Record};
use crate::kernel::Gap;

/// Low bits of a descriptor's state word: its id; the top two are the state.
const ID_MASK: u64 = (1 << 62) - 1;
/// `desc_committed` and `desc_finalized`: the record can be read.
const READABLE: [u64; 2] = [1, 2];
/// More descriptors than any kernel configures (log_buf_len=2G gives 2^26).
const COUNT_BITS_MAX: u32 = 26;
/// `log_buf_len` is at most 2 GiB.
const SIZE_BITS_MAX: u32 = 31;
/// After so many descriptors that cannot be read, the rest is given up.
const UNREADABLE_MAX: u32 = 4096;

/// Where the three rings are.
pub(super) struct Ring<'m, 'd> {
    mem: &'m KernelMem<'d>,
    descs: VirtAddr,
    infos: VirtAddr,
    data: VirtAddr,
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

impl<'m, 'd> Ring<'m, 'd> {
    pub fn locate(mem: &'m KernelMem<'d>, info: &VmcoreInfo) -> Result<Self, Gap> {
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
        let what = "the printk ring's head";
        let word = |at: VirtAddr| mem.read_u64(at).map_err(|e| Gap::Read { what: what.into(), source: e });
        let half = |at: VirtAddr| mem.read_u32(at).map_err(|e| Gap::Read { what: what.into(), source: e });

        let prb = info.symbol("prb").ok_or_else(|| missing("SYMBOL(prb)".into()))?;
        let ring = VirtAddr(word(VirtAddr(prb))?);
        let counter = offset("atomic_long_t.counter")?;
        let desc_ring = ring.wrapping_add(offset("printk_ringbuffer.desc_ring")?);
        let data_ring = ring.wrapping_add(offset("printk_ringbuffer.text_data_ring")?);
        let at = |base: VirtAddr, m: &str| offset(m).map(|o| base.wrapping_add(o));
        let count_bits = half(at(desc_ring, "prb_desc_ring.count_bits")?)?;
        let size_bits = half(at(data_ring, "prb_data_ring.size_bits")?)?;
        if count_bits > COUNT_BITS_MAX || size_bits > SIZE_BITS_MAX {
            return Err(Gap::Other(format!(
                "the printk ring is damaged: 2^{count_bits} descriptors, 2^{size_bits} bytes of text"
            )));
        }
        Ok(Self {
            mem,
            descs: VirtAddr(word(at(desc_ring, "prb_desc_ring.descs")?)?),
            infos: VirtAddr(word(at(desc_ring, "prb_desc_ring.infos")?)?),
            data: VirtAddr(word(at(data_ring, "prb_data_ring.data")?)?),
            count: 1 << count_bits,
            size_bits,
            head: word(at(desc_ring, "prb_desc_ring.head_id")?.wrapping_add(counter))? & ID_MASK,
            tail: word(at(desc_ring, "prb_desc_ring.tail_id")?.wrapping_add(counter))? & ID_MASK,
            layout: Layout {
                desc_size: size("prb_desc")?,
                state: small("prb_desc.state_var")? + small("atomic_long_t.counter")?,
                begin: small("prb_desc.text_blk_lpos")? + small("prb_data_blk_lpos.begin")?,
                next: small("prb_desc.text_blk_lpos")? + small("prb_data_blk_lpos.next")?,
                // 112 instead of 88 with CONFIG_PRINTK_EXECUTION_CTX (7.0).
                info_size: size("printk_info")?,
                seq: small("printk_info.seq")?,
                ts_nsec: small("printk_info.ts_nsec")?,
                text_len: small("printk_info.text_len")?,
                caller_id: small("printk_info.caller_id")?,
            },
        })
    }

    pub fn records(&self) -> Result<Log, Gap> {
        let mut log = Log::default();
        let (mut descs, mut infos, mut data) =
            (Window::new(self.mem), Window::new(self.mem), Window::new(self.mem));
        let (mut unreadable, mut why) = (0, None);
        // Records of an honest ring share its bytes; damage may give them all the same ones.
        let mut text_left = 1usize << self.size_bits.min(31);
        // Ids count up for ever and wrap at 2^62; no more than `count` of them are in the ring.
        let span = self.head.wrapping_sub(self.tail) & ID_MASK;
        for i in 0..=span.min(self.count - 1) {
            let id = self.tail.wrapping_add(i) & ID_MASK;
            let index = id % self.count;
            let desc = match descs.element(self.descs, index, self.layout.desc_size) {
                Ok(desc) => desc,
                Err(e) => {
                    unreadable += 1;
                    log.lost += 1;
                    why = Some(e);
                    if unreadable == UNREADABLE_MAX {
                        break;
                    }
                    continue;
                }
            };
            let Some(state) = u64_at(desc, self.layout.state) else { continue };
            if state & ID_MASK != id || !READABLE.contains(&(state >> 62)) {
                continue; // reserved by a writer, or reusable: normal at the tail
            }
            let info = infos.element(self.infos, index, self.layout.info_size).ok();
            let record = info.and_then(|info| self.record(desc, info, &mut data));
            match record.and_then(|r| Some((text_left.checked_sub(r.text.len())?, r))) {
                Some((left, record)) => {
                    text_left = left;
                    log.records.push(record);
                }
                None => log.lost += 1,
            }
        }
        match why {
            Some(source) if log.records.is_empty() => {
                Err(Gap::Read { what: "the kernel log's descriptors".into(), source })
            }
            _ => Ok(log),
        }
    }

    fn record(&self, desc: &[u8], info: &[u8], data: &mut Window<'_, '_>) -> Option<Record> {
        let l = &self.layout;
        let text_len = usize::from(u16_at(info, l.text_len)?);
        let block = text_block(u64_at(desc, l.begin)?, u64_at(desc, l.next)?, self.size_bits)?;
        // A block is as long as the text at least; the kernel cuts the text if it is not.
        let len = usize::try_from(block.end - block.start).ok()?.min(text_len);
        let text = data.bytes(self.data.wrapping_add(block.start), len).ok()?;
        // facility, then flags in bits 0 to 4 and level in bits 5 to 7: they follow text_len in every
        // version, though VMCOREINFO does not name them.
        let facility = *info.get(l.text_len + 2)?;
        let level = *info.get(l.text_len + 3)? >> 5;
        let caller = u32_at(info, l.caller_id)?;
        Some(Record {
            seq: u64_at(info, l.seq)?,
            ts_ns: u64_at(info, l.ts_nsec)?,
            level,
            facility,
            caller: if caller >> 31 == 1 { Caller::Cpu(caller & 0x7fff_ffff) } else { Caller::Task(caller) },
            text: text.to_vec(),
        })
    }
}

/// Where in the data ring the text between two logical positions is. Before it stands a word with the
/// descriptor's id.
fn text_block(begin: u64, next: u64, size_bits: u32) -> Option<Range<u64>> {
    if begin & 1 == 1 && next & 1 == 1 {
        // No block: 3 and 3 is a line without text; anything else was lost.
        return (begin == 3 && next == 3).then_some(0..0);
    }
    let mask = (1u64 << size_bits) - 1;
    let wraps = |lpos: u64| lpos >> size_bits;
    // The end is compared by its last byte: a block may end exactly at the end of the ring (7.0).
    let last = next.wrapping_sub(1);
    let start = match wraps(last).wrapping_sub(wraps(begin)) {
        0 => begin & mask,
        1 => 0, // a block that would cross the end starts over at the beginning
        _ => return None,
    };
    let (text, end) = (start + 8, (last & mask) + 1);
    (text <= end).then_some(text..end)
}

/// The pages last read of an array: its elements are read in order, and reading /proc/vmcore maps and
/// unmaps a page each time.
struct Window<'m, 'd> {
    mem: &'m KernelMem<'d>,
    start: u64,
    bytes: Vec<u8>,
}

impl<'m, 'd> Window<'m, 'd> {
    fn new(mem: &'m KernelMem<'d>) -> Self {
        Self { mem, start: 0, bytes: Vec::new() }
    }

    fn element(&mut self, array: VirtAddr, index: u64, size: usize) -> Result<&[u8], ReadError> {
        self.bytes(array.wrapping_add(index.wrapping_mul(size as u64)), size)
    }

    /// `len` bytes; at most 64 KiB are ever asked for, the largest size that a text or element can have.
    fn bytes(&mut self, at: VirtAddr, len: usize) -> Result<&[u8], ReadError> {
        let inside = |start: u64, have: usize| {
            let offset = usize::try_from(at.0.checked_sub(start)?).ok()?;
            (offset.checked_add(len)? <= have).then_some(offset)
        };
        let offset = match inside(self.start, self.bytes.len()) {
            Some(offset) => offset,
            None => {
                let start = at.page_down();
                let whole = at.page_offset() as usize + len;
                self.bytes.clear();
                self.bytes.resize(whole.next_multiple_of(PAGE_SIZE as usize), 0);
                self.start = start.0;
                if let Err(e) = self.mem.read(start, &mut self.bytes) {
                    self.bytes.clear();
                    return Err(e);
                }
                at.page_offset() as usize
            }
        };
        Ok(&self.bytes[offset..offset + len])
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

    #[test]
    fn blocks_end_wrap_and_vanish() {
        let block = |begin, next| text_block(begin, next, 5);
        assert_eq!(block(0, 16), Some(8..16));
        assert_eq!(block(16, 32), Some(24..32), "ends exactly at the end of the ring");
        assert_eq!(block(24, 32 + 16), Some(8..16), "starts over at the beginning");
        assert_eq!(block(3, 3), Some(0..0), "an empty line");
        assert_eq!(block(1, 1), None, "lost");
        assert_eq!(block(0, 200), None, "two wraps are damage");
        assert_eq!(block(0, 4), None, "no room for the id");
        assert_eq!(block(2, 0), None, "backwards");
    }
}

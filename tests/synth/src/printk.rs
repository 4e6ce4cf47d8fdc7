//! Writes the printk ring buffer as the kernel would have left it.
//!
//! The ring is simulated: records are reserved, data blocks wrap, old descriptors become reusable and then are reused,
//! and identifiers and positions start where the kernel starts them, just below the overflow of their counters.
//!
//! Source: `kernel/printk/printk_ringbuffer.[ch]`.

use std::collections::VecDeque;

const ID_MASK: u64 = (1 << 62) - 1;
/// Position of a record whose text got no room.
const FAILED_LPOS: u64 = 1;
/// Position of a record without text (`EMPTY_LINE_LPOS` in 6.12).
const NO_LPOS: u64 = 3;

/// State of a descriptor, the upper two bits of `state_var`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DescState {
    /// A writer was interrupted while filling it.
    Reserved = 0,
    /// Readable; may still be continued.
    Committed = 1,
    /// Readable.
    Finalized = 2,
    /// Its data is gone.
    Reusable = 3,
}

/// One log record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Text, without a final newline.
    pub text: String,
    /// Nanoseconds since boot.
    pub ts_nsec: u64,
    /// 0 emergency … 7 debug.
    pub level: u8,
    /// 0 is the kernel.
    pub facility: u8,
    /// Thread, or CPU with bit 31 set.
    pub caller_id: u32,
    /// Structured device information: subsystem and device.
    pub device: Option<(String, String)>,
}

impl Record {
    /// Returns a kernel record of level 6 written by thread 1.
    pub fn new(ts_nsec: u64, text: &str) -> Self {
        Self { text: text.to_owned(), ts_nsec, level: 6, facility: 0, caller_id: 1, device: None }
    }

    /// The same record at another level.
    pub fn level(mut self, level: u8) -> Self {
        self.level = level;
        self
    }

    /// The same record by another caller.
    pub fn caller(mut self, caller_id: u32) -> Self {
        self.caller_id = caller_id;
        self
    }
}

#[derive(Clone, Copy, Debug)]
struct Block {
    id: u64,
    next: u64,
}

/// The three arrays of a ring, and the numbers that go with them.
#[derive(Clone, Debug)]
pub struct PrintkRing {
    count_bits: u32,
    size_bits: u32,
    info_size: usize,
    is_perfect_fit: bool,
    descs: Vec<u8>,
    infos: Vec<u8>,
    data: Vec<u8>,
    head_id: u64,
    tail_id: u64,
    head_lpos: u64,
    tail_lpos: u64,
    blocks: VecDeque<Block>,
}

impl PrintkRing {
    /// Bytes of `struct prb_desc`.
    pub const DESC_SIZE: usize = 24;

    /// Returns an empty ring of `1 << count_bits` descriptors and `1 << size_bits` bytes of text. `info_size` is 88,
    /// or 112 with CONFIG_PRINTK_EXECUTION_CTX. `is_perfect_fit`: from 7.0 on a block may end exactly at the end of the
    /// data ring; before, such a block wrapped.
    pub fn new(count_bits: u32, size_bits: u32, info_size: usize, is_perfect_fit: bool) -> Self {
        let count = 1usize << count_bits;
        let first = (count as u64 + 1).wrapping_neg() & ID_MASK;
        let first_lpos = (1u64 << size_bits).wrapping_neg();
        let mut ring = Self {
            count_bits,
            size_bits,
            info_size,
            is_perfect_fit,
            descs: vec![0; count * Self::DESC_SIZE],
            infos: vec![0; count * info_size],
            data: vec![0; 1 << size_bits],
            head_id: first,
            tail_id: first,
            head_lpos: first_lpos,
            tail_lpos: first_lpos,
            blocks: VecDeque::new(),
        };
        ring.set_desc(first, DescState::Reusable, FAILED_LPOS, FAILED_LPOS);
        ring.infos[..8].copy_from_slice(&(count as u64).wrapping_neg().to_le_bytes());
        ring
    }

    /// Appends a finished record.
    pub fn push(&mut self, record: &Record) -> &mut Self {
        self.push_as(record, DescState::Finalized)
    }

    /// Appends a record in another state, for instance reserved by a writer that never came back.
    pub fn push_as(&mut self, record: &Record, state: DescState) -> &mut Self {
        let (id, seq) = self.reserve_desc();
        let (begin, next) = match record.text.len() {
            0 => (NO_LPOS, NO_LPOS),
            len => self.alloc_block(id, len),
        };
        if begin & 1 == 0 {
            let mask = (1u64 << self.size_bits) - 1;
            let at = if self.wraps(begin) == self.wraps(self.last(next)) { begin & mask } else { 0 } as usize;
            self.data[at..at + 8].copy_from_slice(&id.to_le_bytes());
            self.data[at + 8..at + 8 + record.text.len()].copy_from_slice(record.text.as_bytes());
        }
        self.write_info(id, seq, record);
        self.set_desc(id, state, begin, next);
        self
    }

    /// Appends a record whose text found no room: `text_len` is set, but there is no data.
    pub fn push_lost(&mut self, record: &Record) -> &mut Self {
        let (id, seq) = self.reserve_desc();
        self.write_info(id, seq, record);
        self.set_desc(id, DescState::Finalized, FAILED_LPOS, FAILED_LPOS);
        self
    }

    /// Returns the number of bytes from the head to the end of the data ring.
    pub fn room_before_wrap(&self) -> usize {
        let size = 1u64 << self.size_bits;
        (size - (self.head_lpos & (size - 1))) as usize
    }

    fn reserve_desc(&mut self) -> (u64, u64) {
        let count = 1u64 << self.count_bits;
        let id = (self.head_id + 1) & ID_MASK;
        let previous = id.wrapping_sub(count) & ID_MASK;
        if previous == self.tail_id {
            // The slot's old record goes: first its data, then the descriptor.
            while self.state(self.tail_id) != DescState::Reusable as u64 {
                if !self.blocks.iter().any(|block| block.id == self.tail_id) {
                    self.set_state(self.tail_id, DescState::Reusable);
                    break;
                }
                self.drop_oldest_block();
            }
            self.tail_id = (self.tail_id + 1) & ID_MASK;
        }
        self.head_id = id;
        let slot = self.slot(id) * self.info_size;
        let old = u64::from_le_bytes(self.infos[slot..slot + 8].try_into().expect("8 bytes"));
        // infos[0] is primed with -count; other slots that were never used hold 0 and count from their index.
        let seq = if old == 0 && self.slot(id) != 0 { self.slot(id) as u64 } else { old.wrapping_add(count) };
        (id, seq)
    }

    fn alloc_block(&mut self, id: u64, text_len: usize) -> (u64, u64) {
        let size = (8 + text_len as u64).next_multiple_of(8);
        let ring = 1u64 << self.size_bits;
        assert!(size <= ring / 2, "{text_len} bytes of text do not fit a data ring of {ring}");
        let begin = self.head_lpos;
        let mut next = begin.wrapping_add(size);
        if self.wraps(begin) != self.wraps(self.last(next)) {
            next = (next & !(ring - 1)).wrapping_add(size);
        }
        while next.wrapping_sub(self.tail_lpos) > ring {
            self.drop_oldest_block();
        }
        self.head_lpos = next;
        self.blocks.push_back(Block { id, next });
        if self.wraps(begin) != self.wraps(self.last(next)) {
            let at = (begin & (ring - 1)) as usize;
            self.data[at..at + 8].copy_from_slice(&id.to_le_bytes());
        }
        (begin, next)
    }

    fn drop_oldest_block(&mut self) {
        let block = self.blocks.pop_front().expect("a ring with data in use has a block");
        self.tail_lpos = block.next;
        self.set_state(block.id, DescState::Reusable);
    }

    fn wraps(&self, lpos: u64) -> u64 {
        lpos >> self.size_bits
    }

    fn last(&self, next: u64) -> u64 {
        if self.is_perfect_fit { next.wrapping_sub(1) } else { next }
    }

    fn slot(&self, id: u64) -> usize {
        (id & ((1 << self.count_bits) - 1)) as usize
    }

    fn state(&self, id: u64) -> u64 {
        let at = self.slot(id) * Self::DESC_SIZE;
        u64::from(self.descs[at + 7]) >> 6
    }

    fn set_state(&mut self, id: u64, state: DescState) {
        let at = self.slot(id) * Self::DESC_SIZE;
        self.descs[at..at + 8].copy_from_slice(&((state as u64) << 62 | id).to_le_bytes());
    }

    fn set_desc(&mut self, id: u64, state: DescState, begin: u64, next: u64) {
        self.set_state(id, state);
        let at = self.slot(id) * Self::DESC_SIZE;
        self.descs[at + 8..at + 16].copy_from_slice(&begin.to_le_bytes());
        self.descs[at + 16..at + 24].copy_from_slice(&next.to_le_bytes());
    }

    fn write_info(&mut self, id: u64, seq: u64, record: &Record) {
        let dev_info = self.info_size - 64;
        let at = self.slot(id) * self.info_size;
        let info = &mut self.infos[at..at + self.info_size];
        info.fill(0);
        info[..8].copy_from_slice(&seq.to_le_bytes());
        info[8..16].copy_from_slice(&record.ts_nsec.to_le_bytes());
        info[16..18].copy_from_slice(&(record.text.len() as u16).to_le_bytes());
        info[18] = record.facility;
        info[19] = record.level << 5 | 2; // LOG_NEWLINE
        info[20..24].copy_from_slice(&record.caller_id.to_le_bytes());
        if let Some((subsystem, device)) = &record.device {
            info[dev_info..][..subsystem.len().min(15)]
                .copy_from_slice(&subsystem.as_bytes()[..subsystem.len().min(15)]);
            info[dev_info + 16..][..device.len().min(47)]
                .copy_from_slice(&device.as_bytes()[..device.len().min(47)]);
        }
    }

    /// Returns the descriptor array.
    pub fn descs(&self) -> &[u8] {
        &self.descs
    }

    /// Returns the info array.
    pub fn infos(&self) -> &[u8] {
        &self.infos
    }

    /// Returns the text data ring.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// Returns `struct printk_ringbuffer` with pointers to the three arrays. 5.18 put one more long into the
    /// descriptor ring: `has_last_finalized`.
    pub fn header(&self, descs: u64, infos: u64, data: u64, has_last_finalized: bool) -> Vec<u8> {
        let mut words = vec![u64::from(self.count_bits), descs, infos, self.head_id, self.tail_id];
        if has_last_finalized {
            words.push(0);
        }
        words.extend([u64::from(self.size_bits), data, self.head_lpos, self.tail_lpos, 0]);
        words.into_iter().flat_map(u64::to_le_bytes).collect()
    }
}

#[cfg(test)]
mod tests;

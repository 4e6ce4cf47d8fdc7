//! ORC tables: for every piece of text, where the caller's stack pointer, frame pointer and
//! instruction pointer are.
//!
//! A table is two parallel arrays sorted by address: a self-relative i32 per entry, and the 6-byte
//! entry. Four encodings of the entry exist; they are normalised here, so that no other file knows
//! of them.
//!
//! Source: arch/x86/include/asm/orc_types.h, `struct orc_entry`; arch/x86/kernel/unwind_orc.c,
//! `__orc_find`; tools/objtool/orc_gen.c.

use std::borrow::Cow;

use kdump_arch_x86::VirtAddr;
use kdump_vmcore::{KernelMem, ReadError};

/// Bytes of one entry.
pub const ENTRY_SIZE: usize = 6;
/// More entries than any kernel has; a distribution's have about half a million.
const MAX_ENTRIES: u64 = 1 << 22;

/// The encodings of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// Up to 6.2: the end of a stack is a bit, and interrupt frames are told by their type.
    V1,
    /// 6.3: a bit for signal frames.
    V2,
    /// 6.4 to 7.0: types renumbered, end of stack and undefined among them.
    V3,
    /// From 7.1: registers renumbered.
    V4,
}

impl Format {
    /// The format that a hash in the kernel's .orc_header stands for.
    ///
    /// Source: scripts/orc_hash.sh, the first 20 bytes of a digest of orc_types.h.
    #[must_use]
    pub fn from_hash(hash: &[u8; 20]) -> Option<Self> {
        const V2: [u8; 20] =
            *b"\xdb\x84\xae\xd4\x10\x3b\x31\xdd\x51\xe0\x17\xf8\xf7\x97\x83\xca\x98\x5c\x2c\x51";
        const V3: [u8; 20] =
            *b"\xfe\x5d\x32\xbf\x58\x1b\xd6\x3b\x2c\xa9\xa5\xc6\x5b\xa5\xa6\x25\xea\xb3\xfe\x24";
        const V4: [u8; 20] =
            *b"\x13\x7c\x36\xad\x76\x27\xc4\xdd\x55\x93\x21\x76\xbb\x0e\xcd\xbd\x50\x41\xfc\x82";
        match *hash {
            V2 => Some(Self::V2),
            V3 => Some(Self::V3),
            V4 => Some(Self::V4),
            _ => None,
        }
    }

    /// Guesses the format by majority: most code finds its caller relative to the stack pointer and
    /// was called, so the commonest register number is SP's and the commonest type is CALL's.
    #[must_use]
    pub fn guess_from_entries(entries: &[u8]) -> Option<Self> {
        let mut sp_reg = [0usize; 16];
        let mut kind = [0usize; 8];
        let (mut nr, mut has_v2_end) = (0usize, false);
        for bits in entries.chunks_exact(ENTRY_SIZE).map(|e| u16::from_le_bytes([e[4], e[5]])) {
            sp_reg[usize::from(bits & 0xf)] += 1;
            kind[usize::from(bits >> 8 & 7)] += 1;
            // Bit 11 says "end" in v2, "signal" in v3 and v4, nothing in v1.
            has_v2_end |= bits & 0xf == 0 && bits >> 11 & 1 == 1;
            nr += 1;
        }
        let is_majority = |n: usize| n > nr / 2;
        if is_majority(sp_reg[3]) && is_majority(kind[2]) {
            return Some(Self::V4);
        }
        if !is_majority(sp_reg[5]) {
            return None;
        }
        match () {
            () if is_majority(kind[2]) => Some(Self::V3),
            () if is_majority(kind[0]) && has_v2_end => Some(Self::V2),
            () if is_majority(kind[0]) => Some(Self::V1),
            () => None,
        }
    }
}

/// Where a value is, in terms of this frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)] // the register names say it
pub enum Reg {
    Undefined,
    /// Relative to the caller's stack pointer.
    PrevSp,
    Sp,
    Bp,
    Ax,
    Dx,
    Di,
    R10,
    R13,
    /// In memory at the stack pointer.
    SpIndirect,
    /// In memory relative to the frame pointer.
    BpIndirect,
    /// A number that no known format uses.
    Unknown(u8),
}

/// What is at the caller's stack pointer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Nothing is known.
    Undefined,
    /// There is no caller.
    EndOfStack,
    /// A return address, just below it.
    Call,
    /// `struct pt_regs`.
    Regs,
    /// The five words that an interrupt pushes.
    RegsPartial,
    /// A number that no known format uses.
    Unknown(u8),
}

/// One entry, in no particular kernel's encoding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Added to the stack pointer's base.
    pub sp_offset: i16,
    /// Added to the frame pointer's base.
    pub bp_offset: i16,
    /// Base of the caller's stack pointer.
    pub sp_reg: Reg,
    /// Where the caller's frame pointer was saved.
    pub bp_reg: Reg,
    /// What lies there.
    pub kind: Kind,
    /// Whether the caller's address is exact, not a return address.
    pub signal: bool,
}

impl Entry {
    /// Decodes one entry.
    #[must_use]
    pub fn decode(raw: [u8; ENTRY_SIZE], format: Format) -> Self {
        let bits = u16::from_le_bytes([raw[4], raw[5]]);
        let reg = |n: u16| match (format, n) {
            (_, 0) => Reg::Undefined,
            (_, 2) => Reg::Dx,
            (_, 6) => Reg::R10,
            (_, 7) => Reg::R13,
            (_, 9) => Reg::SpIndirect,
            (Format::V4, 1) => Reg::Ax,
            (Format::V4, 3) => Reg::Sp,
            (Format::V4, 4) => Reg::Bp,
            (Format::V4, 5) => Reg::Di,
            (Format::V4, 8) => Reg::PrevSp,
            (Format::V4, 10) => Reg::BpIndirect,
            (Format::V1 | Format::V2 | Format::V3, 1) => Reg::PrevSp,
            (Format::V1 | Format::V2 | Format::V3, 3) => Reg::Di,
            (Format::V1 | Format::V2 | Format::V3, 4) => Reg::Bp,
            (Format::V1 | Format::V2 | Format::V3, 5) => Reg::Sp,
            (Format::V1 | Format::V2 | Format::V3, 8) => Reg::BpIndirect,
            // Four bits, so the cast is exact.
            (_, n) => Reg::Unknown(n as u8),
        };
        let sp_reg = reg(bits & 0xf);
        let bit = |n: u32| bits >> n & 1 == 1;
        let old_kind = |end: bool| match bits >> 8 & 3 {
            _ if sp_reg == Reg::Undefined && end => Kind::EndOfStack,
            _ if sp_reg == Reg::Undefined => Kind::Undefined,
            0 => Kind::Call,
            1 => Kind::Regs,
            2 => Kind::RegsPartial,
            n => Kind::Unknown(n as u8),
        };
        let (kind, signal) = match format {
            Format::V1 => {
                let kind = old_kind(bit(10));
                (kind, matches!(kind, Kind::Regs | Kind::RegsPartial))
            }
            Format::V2 => (old_kind(bit(11)), bit(10)),
            Format::V3 | Format::V4 => {
                let kind = match bits >> 8 & 7 {
                    0 => Kind::Undefined,
                    1 => Kind::EndOfStack,
                    2 => Kind::Call,
                    3 => Kind::Regs,
                    4 => Kind::RegsPartial,
                    n => Kind::Unknown(n as u8),
                };
                (kind, bit(11))
            }
        };
        Self {
            sp_offset: i16::from_le_bytes([raw[0], raw[1]]),
            bp_offset: i16::from_le_bytes([raw[2], raw[3]]),
            sp_reg,
            bp_reg: reg(bits >> 4 & 0xf),
            kind,
            signal,
        }
    }
}

/// One table, of the kernel image or of a module, as it lay in memory.
#[derive(Debug)]
pub struct Table<'a> {
    /// Address of the first element of the address array; the array is self-relative.
    base: u64,
    ips: Cow<'a, [u8]>,
    entries: Cow<'a, [u8]>,
}

impl<'a> Table<'a> {
    /// Reads a table of `num` entries in two reads; that of a kernel image, of some 4 MB, without a copy where that is
    /// possible.
    ///
    /// # Errors
    /// `Corrupt` if `num` is out of all proportion; else what reading gave.
    pub fn read(mem: &KernelMem<'a>, ips: VirtAddr, entries: VirtAddr, num: u64) -> Result<Self, ReadError> {
        if num > MAX_ENTRIES {
            return Err(ReadError::Corrupt {
                what: "number of ORC entries out of all proportion",
                at: ips.0,
            });
        }
        Ok(Self {
            base: ips.0,
            ips: mem.read_piece(ips, num * 4, usize::MAX)?,
            entries: mem.read_piece(entries, num * ENTRY_SIZE as u64, usize::MAX)?,
        })
    }

    /// The same, with bytes of its own.
    #[must_use]
    pub fn into_owned(self) -> Table<'static> {
        let own = |bytes: Cow<'_, [u8]>| Cow::Owned(bytes.into_owned());
        Table { base: self.base, ips: own(self.ips), entries: own(self.entries) }
    }

    /// Number of entries.
    #[must_use]
    pub fn nr_entries(&self) -> usize {
        self.entries.len() / ENTRY_SIZE
    }

    /// The entries' bytes.
    #[must_use]
    pub fn entries(&self) -> &[u8] {
        &self.entries
    }

    /// Text address of entry `i`.
    fn addr(&self, i: usize) -> Option<u64> {
        let raw: [u8; 4] = self.ips.get(i * 4..i * 4 + 4)?.try_into().ok()?;
        let at = self.base.wrapping_add(i as u64 * 4);
        Some(at.wrapping_add_signed(i64::from(i32::from_le_bytes(raw))))
    }

    /// The entry that covers `ip`: the last whose address is not above it. The table cannot tell
    /// where its text ends; the caller must.
    #[must_use]
    pub fn find(&self, ip: u64, format: Format) -> Option<Entry> {
        let (mut low, mut high) = (0, self.nr_entries());
        while low < high {
            let mid = low + (high - low) / 2;
            if self.addr(mid)? <= ip { low = mid + 1 } else { high = mid }
        }
        let i = low.checked_sub(1)?;
        let raw = self.entries.get(i * ENTRY_SIZE..(i + 1) * ENTRY_SIZE)?.try_into().ok()?;
        Some(Entry::decode(raw, format))
    }
}

#[cfg(test)]
mod tests;

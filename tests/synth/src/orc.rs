//! Writes ORC unwind tables in each format the kernel has had.
//!
//! Source: `arch/x86/include/asm/orc_types.h`. The format numbers are those of our notes, not the kernel's.

use std::collections::BTreeMap;

/// Bit layout and register numbers of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrcFormat {
    /// Up to 6.2; no header section.
    V1,
    /// 6.3: a signal bit before the end bit.
    V2,
    /// 6.4 to 7.0: types renumbered, the end bit became a type.
    V3,
    /// 7.1 and later: registers renumbered.
    V4,
}

impl OrcFormat {
    /// Returns the contents of .orc_header, where the format has one.
    pub fn header(self) -> Option<[u8; 20]> {
        let hex = match self {
            Self::V1 => return None,
            Self::V2 => "db84aed4103b31dd51e017f8f79783ca985c2c51",
            Self::V3 => "fe5d32bf581bd63b2ca9a5c65ba5a625eab3fe24",
            Self::V4 => "137c36ad7627c4dd55932176bb0ecdbd5041fc82",
        };
        let byte = |i: usize| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).expect("a literal");
        Some(std::array::from_fn(byte))
    }

    fn register(self, register: OrcReg) -> u16 {
        let old = [
            OrcReg::Undefined,
            OrcReg::PrevSp,
            OrcReg::Dx,
            OrcReg::Di,
            OrcReg::Bp,
            OrcReg::Sp,
            OrcReg::R10,
            OrcReg::R13,
            OrcReg::BpIndirect,
            OrcReg::SpIndirect,
        ];
        let new = [
            OrcReg::Undefined,
            OrcReg::Ax,
            OrcReg::Dx,
            OrcReg::Sp,
            OrcReg::Bp,
            OrcReg::Di,
            OrcReg::R10,
            OrcReg::R13,
            OrcReg::PrevSp,
            OrcReg::SpIndirect,
            OrcReg::BpIndirect,
        ];
        let names = if self == Self::V4 { &new[..] } else { &old };
        let number = names.iter().position(|name| *name == register);
        number.unwrap_or_else(|| panic!("{self:?} has no number for {register:?}")) as u16
    }
}

/// A register an entry may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of ORC_REG_*")]
pub enum OrcReg {
    Undefined,
    PrevSp,
    Ax,
    Dx,
    Di,
    Bp,
    Sp,
    R10,
    R13,
    BpIndirect,
    SpIndirect,
}

/// What lies at the place the entry computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrcType {
    /// No information.
    Undefined,
    /// The outermost frame.
    EndOfStack,
    /// A return address just below.
    Call,
    /// A whole `pt_regs`.
    Regs,
    /// The five words of an interrupt frame.
    RegsPartial,
}

/// How to leave a function at the addresses from one entry to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrcEntry {
    /// Where the caller's stack pointer is computed from, and what is added.
    pub sp: (OrcReg, i16),
    /// Where the caller's BP was saved.
    pub bp: (OrcReg, i16),
    /// Kind of frame.
    pub frame: OrcType,
    /// The interrupted address is exact (formats V2 and later).
    pub signal: bool,
}

impl OrcEntry {
    /// A gap, or the end of a table.
    pub const UNDEFINED: Self = Self::new(OrcReg::Undefined, 0, OrcType::Undefined);
    /// The outermost frame of a stack.
    pub const END_OF_STACK: Self = Self::new(OrcReg::Undefined, 0, OrcType::EndOfStack);

    const fn new(register: OrcReg, offset: i16, frame: OrcType) -> Self {
        Self { sp: (register, offset), bp: (OrcReg::Undefined, 0), frame, signal: false }
    }

    /// An ordinary frame of `bytes`, the return address included, found from SP.
    pub const fn sp(bytes: i16) -> Self {
        Self::new(OrcReg::Sp, bytes, OrcType::Call)
    }

    /// A function that keeps a frame pointer.
    pub const fn frame_pointer() -> Self {
        Self::new(OrcReg::Bp, 16, OrcType::Call).bp_saved(-16)
    }

    /// A `pt_regs` at SP + `offset`.
    pub const fn regs(offset: i16) -> Self {
        Self { signal: true, ..Self::new(OrcReg::Sp, offset, OrcType::Regs) }
    }

    /// The same entry, with the caller's BP saved at previous SP + `offset`.
    pub const fn bp_saved(self, offset: i16) -> Self {
        Self { bp: (OrcReg::PrevSp, offset), ..self }
    }

    /// Returns the six bytes of `struct orc_entry`.
    pub fn encode(&self, format: OrcFormat) -> [u8; 6] {
        let old_type = match self.frame {
            OrcType::Undefined | OrcType::EndOfStack | OrcType::Call => 0,
            OrcType::Regs => 1,
            OrcType::RegsPartial => 2,
        };
        let end = u16::from(self.frame == OrcType::EndOfStack);
        let signal = u16::from(self.signal);
        let rest = match format {
            OrcFormat::V1 => old_type | end << 2,
            OrcFormat::V2 => old_type | signal << 2 | end << 3,
            OrcFormat::V3 | OrcFormat::V4 => self.frame as u16 | signal << 3,
        };
        let bits = format.register(self.sp.0) | format.register(self.bp.0) << 4 | rest << 8;
        let [s0, s1] = self.sp.1.to_le_bytes();
        let [p0, p1] = self.bp.1.to_le_bytes();
        let [b0, b1] = bits.to_le_bytes();
        [s0, s1, p0, p1, b0, b1]
    }
}

/// An ORC table under construction, sorted by address.
#[derive(Clone, Debug, Default)]
pub struct OrcTable {
    entries: BTreeMap<u64, OrcEntry>,
}

impl OrcTable {
    /// Returns an empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// Says that `entry` holds from `address` on.
    pub fn at(&mut self, address: u64, entry: OrcEntry) -> &mut Self {
        self.entries.insert(address, entry);
        self
    }

    /// Returns the number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns `orc_unwind_ip` as it must stand at `address`: i32 relative to each entry's own place.
    pub fn ips(&self, address: u64) -> Vec<u8> {
        let relative = |(index, ip): (usize, &u64)| {
            let offset = ip.wrapping_sub(address + 4 * index as u64) as i64;
            i32::try_from(offset).expect("the table lies within 2 GiB of the code").to_le_bytes()
        };
        self.entries.keys().enumerate().flat_map(relative).collect()
    }

    /// Returns `orc_unwind`, in the order of [`OrcTable::ips`].
    pub fn unwind(&self, format: OrcFormat) -> Vec<u8> {
        self.entries.values().flat_map(|entry| entry.encode(format)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_frame_has_other_bits_in_each_format() {
        let entry = OrcEntry::frame_pointer();
        let bits = |format| {
            let bytes = entry.encode(format);
            assert_eq!(bytes[..4], [16, 0, 0xf0, 0xff]);
            u16::from_le_bytes([bytes[4], bytes[5]])
        };
        assert_eq!(bits(OrcFormat::V1), 0x0014);
        assert_eq!(bits(OrcFormat::V2), 0x0014);
        assert_eq!(bits(OrcFormat::V3), 0x0214);
        assert_eq!(bits(OrcFormat::V4), 0x0284);
    }

    #[test]
    fn the_end_of_a_stack_is_a_bit_before_6_4_and_a_type_since() {
        let bits = |format| OrcEntry::END_OF_STACK.encode(format)[5];
        assert_eq!((bits(OrcFormat::V1), bits(OrcFormat::V2), bits(OrcFormat::V3)), (4, 8, 1));
    }

    #[test]
    fn addresses_are_relative_to_their_own_slot_and_sorted() {
        let mut table = OrcTable::new();
        table.at(0x2000, OrcEntry::sp(8)).at(0x1000, OrcEntry::sp(16));
        assert_eq!(table.ips(0x3000), [(-0x2000i32).to_le_bytes(), (-0x1004i32).to_le_bytes()].concat());
        assert_eq!(table.unwind(OrcFormat::V3)[0], 16);
    }
}

//! Writes BTF, the kernel's own description of its types.
//!
//! Source: `include/uapi/linux/btf.h`, `Documentation/bpf/btf.rst`.

use std::collections::HashMap;

/// Number of a type in its blob; 0 is `void`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TypeId(pub u32);

/// `void`.
pub const VOID: TypeId = TypeId(0);

/// How an INT is to be shown: `BTF_INT_SIGNED` and its siblings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntEncoding {
    /// No flag.
    Unsigned = 0,
    /// `BTF_INT_SIGNED`.
    Signed = 1,
    /// `BTF_INT_CHAR`.
    Char = 2,
    /// `BTF_INT_BOOL`.
    Bool = 4,
}

#[derive(Clone, Debug)]
struct Member {
    name: u32,
    ty: TypeId,
    bit_offset: u32,
    bits: u32,
}

/// What follows the twelve bytes common to all kinds.
#[derive(Clone, Debug)]
enum Trailer {
    Words(Vec<u32>),
    Members(Vec<Member>),
}

#[derive(Clone, Debug)]
struct Record {
    name: u32,
    kind: u32,
    kind_flag: bool,
    vlen: u32,
    size_or_type: u32,
    trailer: Trailer,
}

/// Builds a BTF blob; each method appends one type and returns its number, which may be used before it is complete.
#[derive(Clone, Debug)]
pub struct Btf {
    records: Vec<Record>,
    strings: Vec<u8>,
    known: HashMap<String, u32>,
}

impl Default for Btf {
    fn default() -> Self {
        Self { records: Vec::new(), strings: vec![0], known: HashMap::from([(String::new(), 0)]) }
    }
}

/// Kinds, `BTF_KIND_*`.
mod kind {
    pub const INT: u32 = 1;
    pub const PTR: u32 = 2;
    pub const ARRAY: u32 = 3;
    pub const STRUCT: u32 = 4;
    pub const UNION: u32 = 5;
    pub const ENUM: u32 = 6;
    pub const FWD: u32 = 7;
    pub const TYPEDEF: u32 = 8;
    pub const VOLATILE: u32 = 9;
    pub const CONST: u32 = 10;
    pub const FUNC: u32 = 12;
    pub const FUNC_PROTO: u32 = 13;
    pub const VAR: u32 = 14;
    pub const DATASEC: u32 = 15;
    pub const FLOAT: u32 = 16;
    pub const DECL_TAG: u32 = 17;
    pub const TYPE_TAG: u32 = 18;
    pub const ENUM64: u32 = 19;
}

impl Btf {
    /// Returns an empty blob.
    pub fn new() -> Self {
        Self::default()
    }

    fn string(&mut self, text: &str) -> u32 {
        if let Some(&offset) = self.known.get(text) {
            return offset;
        }
        let offset = self.strings.len() as u32;
        self.strings.extend(text.as_bytes());
        self.strings.push(0);
        self.known.insert(text.to_owned(), offset);
        offset
    }

    fn push(&mut self, name: &str, kind: u32, size_or_type: u32, trailer: Trailer) -> TypeId {
        let name = self.string(name);
        self.records.push(Record { name, kind, kind_flag: false, vlen: 0, size_or_type, trailer });
        TypeId(self.records.len() as u32)
    }

    fn plain(&mut self, name: &str, kind: u32, size_or_type: u32) -> TypeId {
        self.push(name, kind, size_or_type, Trailer::Words(Vec::new()))
    }

    fn record(&mut self, id: TypeId) -> &mut Record {
        &mut self.records[id.0 as usize - 1]
    }

    /// INT.
    pub fn int(&mut self, name: &str, bytes: u32, encoding: IntEncoding) -> TypeId {
        let word = ((encoding as u32) << 24) | (bytes * 8);
        self.push(name, kind::INT, bytes, Trailer::Words(vec![word]))
    }

    /// FLOAT.
    pub fn float(&mut self, name: &str, bytes: u32) -> TypeId {
        self.plain(name, kind::FLOAT, bytes)
    }

    /// PTR.
    pub fn ptr(&mut self, to: TypeId) -> TypeId {
        self.plain("", kind::PTR, to.0)
    }

    /// CONST.
    pub fn constant(&mut self, of: TypeId) -> TypeId {
        self.plain("", kind::CONST, of.0)
    }

    /// VOLATILE.
    pub fn volatile(&mut self, of: TypeId) -> TypeId {
        self.plain("", kind::VOLATILE, of.0)
    }

    /// TYPEDEF.
    pub fn typedef(&mut self, name: &str, of: TypeId) -> TypeId {
        self.plain(name, kind::TYPEDEF, of.0)
    }

    /// TYPE_TAG, such as `__percpu` or `__rcu`.
    pub fn type_tag(&mut self, name: &str, of: TypeId) -> TypeId {
        self.plain(name, kind::TYPE_TAG, of.0)
    }

    /// DECL_TAG on a whole type (`component` −1) or on one of its members or arguments.
    pub fn decl_tag(&mut self, name: &str, of: TypeId, component: i32) -> TypeId {
        self.push(name, kind::DECL_TAG, of.0, Trailer::Words(vec![component as u32]))
    }

    /// FWD: a struct or union without its members.
    pub fn forward(&mut self, name: &str, is_union: bool) -> TypeId {
        let id = self.plain(name, kind::FWD, 0);
        self.record(id).kind_flag = is_union;
        id
    }

    /// ARRAY.
    pub fn array(&mut self, of: TypeId, index: TypeId, len: u32) -> TypeId {
        self.push("", kind::ARRAY, 0, Trailer::Words(vec![of.0, index.0, len]))
    }

    /// STRUCT without members yet; `name` may be empty.
    pub fn structure(&mut self, name: &str, bytes: u32) -> TypeId {
        self.push(name, kind::STRUCT, bytes, Trailer::Members(Vec::new()))
    }

    /// UNION without members yet; `name` may be empty.
    pub fn union(&mut self, name: &str, bytes: u32) -> TypeId {
        self.push(name, kind::UNION, bytes, Trailer::Members(Vec::new()))
    }

    /// Adds a member to a STRUCT or UNION; an anonymous one has an empty name.
    pub fn member(&mut self, of: TypeId, name: &str, ty: TypeId, bit_offset: u32) {
        self.bitfield(of, name, ty, bit_offset, 0);
    }

    /// Adds a bitfield of `bits` bits; the whole aggregate is then written with kind_flag set.
    pub fn bitfield(&mut self, of: TypeId, name: &str, ty: TypeId, bit_offset: u32, bits: u32) {
        let name = self.string(name);
        let record = self.record(of);
        let Trailer::Members(members) = &mut record.trailer else { panic!("type {} has no members", of.0) };
        members.push(Member { name, ty, bit_offset, bits });
        record.vlen += 1;
        record.kind_flag |= bits != 0;
    }

    /// ENUM of 4 bytes.
    pub fn enumeration(&mut self, name: &str, values: &[(&str, i32)]) -> TypeId {
        let words = values.iter().flat_map(|&(name, value)| [self.string(name), value as u32]).collect();
        let id = self.push(name, kind::ENUM, 4, Trailer::Words(words));
        let record = self.record(id);
        record.vlen = values.len() as u32;
        record.kind_flag = values.iter().any(|(_, value)| *value < 0);
        id
    }

    /// ENUM64 of 8 bytes.
    pub fn enumeration64(&mut self, name: &str, values: &[(&str, u64)]) -> TypeId {
        let words = values
            .iter()
            .flat_map(|&(name, value)| [self.string(name), value as u32, (value >> 32) as u32])
            .collect();
        let id = self.push(name, kind::ENUM64, 8, Trailer::Words(words));
        self.record(id).vlen = values.len() as u32;
        id
    }

    /// FUNC_PROTO; an argument is name and type.
    pub fn prototype(&mut self, returns: TypeId, arguments: &[(&str, TypeId)]) -> TypeId {
        let words = arguments.iter().flat_map(|&(name, ty)| [self.string(name), ty.0]).collect();
        let id = self.push("", kind::FUNC_PROTO, returns.0, Trailer::Words(words));
        self.record(id).vlen = arguments.len() as u32;
        id
    }

    /// FUNC, static linkage.
    pub fn function(&mut self, name: &str, prototype: TypeId) -> TypeId {
        self.plain(name, kind::FUNC, prototype.0)
    }

    /// VAR with global linkage; the kernel has these for per-CPU variables only.
    pub fn variable(&mut self, name: &str, ty: TypeId) -> TypeId {
        self.push(name, kind::VAR, ty.0, Trailer::Words(vec![1]))
    }

    /// DATASEC: (variable, offset in the section, size).
    pub fn datasec(&mut self, name: &str, bytes: u32, variables: &[(TypeId, u32, u32)]) -> TypeId {
        let words = variables.iter().flat_map(|&(id, offset, size)| [id.0, offset, size]).collect();
        let id = self.push(name, kind::DATASEC, bytes, Trailer::Words(words));
        self.record(id).vlen = variables.len() as u32;
        id
    }

    /// Returns the blob with the header of 24 bytes.
    pub fn bytes(&self) -> Vec<u8> {
        self.blob(24)
    }

    /// Returns the blob with the header of 32 bytes (new by 7.2) and a layout section describing each kind's trailer.
    pub fn bytes_with_layout(&self) -> Vec<u8> {
        self.blob(32)
    }

    fn blob(&self, header_len: u32) -> Vec<u8> {
        let types: Vec<u8> = self.records.iter().flat_map(Record::words).flat_map(u32::to_le_bytes).collect();
        // struct btf_layout { u8 info_sz, u8 elem_sz, u16 flags } for kinds 0..=19.
        let layout: Vec<u8> = (0..=kind::ENUM64)
            .flat_map(|kind| {
                let (info, element) = match kind {
                    kind::INT | kind::VAR | kind::DECL_TAG => (4, 0),
                    kind::ARRAY => (12, 0),
                    kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => (0, 12),
                    kind::ENUM | kind::FUNC_PROTO => (0, 8),
                    _ => (0, 0),
                };
                [info, element, 0, 0]
            })
            .collect();
        let strings_at = types.len() as u32;
        let layout_at = (types.len() + self.strings.len()).next_multiple_of(4) as u32;
        let mut out = Vec::new();
        out.extend(0xeb9f_u16.to_le_bytes());
        out.extend([1, 0]); // version, flags
        for word in [header_len, 0, types.len() as u32, strings_at, self.strings.len() as u32] {
            out.extend(word.to_le_bytes());
        }
        if header_len == 32 {
            out.extend(layout_at.to_le_bytes());
            out.extend((layout.len() as u32).to_le_bytes());
        }
        out.extend(&types);
        out.extend(&self.strings);
        if header_len == 32 {
            out.resize((header_len + layout_at) as usize, 0);
            out.extend(layout);
        }
        out
    }
}

impl Record {
    fn words(&self) -> Vec<u32> {
        let info = u32::from(self.kind_flag) << 31 | self.kind << 24 | self.vlen;
        let mut words = vec![self.name, info, self.size_or_type];
        match &self.trailer {
            Trailer::Words(trailer) => words.extend(trailer),
            Trailer::Members(members) => {
                for member in members {
                    // With kind_flag the upper byte of the offset word is the size of the bitfield, 0 for others.
                    words.extend([member.name, member.ty.0, member.bits << 24 | member.bit_offset]);
                }
            }
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_struct_with_a_bitfield_is_written_word_for_word() {
        let mut btf = Btf::new();
        let u8_ = btf.int("u8", 1, IntEncoding::Unsigned);
        let info = btf.structure("printk_info", 2);
        btf.member(info, "facility", u8_, 0);
        btf.bitfield(info, "level", u8_, 13, 3);
        let blob = btf.bytes();
        let words: Vec<u32> = blob[24..24 + 64 - 12]
            .chunks_exact(4)
            .map(|word| u32::from_le_bytes(word.try_into().unwrap()))
            .collect();
        assert_eq!(&words[..4], [1, 1 << 24, 1, 8]);
        assert_eq!(&words[4..7], [4, 0x8400_0002, 2]);
        assert_eq!(&words[7..13], [16, 1, 0, 25, 1, 3 << 24 | 13]);
        assert_eq!(&blob[24 + 52..], b"\0u8\0printk_info\0facility\0level\0");
    }

    #[test]
    fn the_long_header_has_a_layout_section_behind_the_strings() {
        let mut btf = Btf::new();
        btf.enumeration64("big", &[("ONE", 1 << 40)]);
        let blob = btf.bytes_with_layout();
        let word = |at: usize| u32::from_le_bytes(blob[at..at + 4].try_into().unwrap());
        assert_eq!((word(4), word(28)), (32, 20 * 4));
        assert_eq!(blob.len() as u32, 32 + word(24) + 80);
        assert_eq!(blob[blob.len() - 4..], [0, 12, 0, 0]);
    }
}

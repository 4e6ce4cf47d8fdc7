//! BTF: the kernel's own type information, read from the dump.
//!
//! A blob of types, numbered from 1 in the order they stand, and a blob of strings. Each type is
//! 12 bytes and a trailer whose size depends on its kind. The offsets of all types are collected
//! once; names are found through a hash; everything else is read on demand.
//!
//! Numbers of the widest version are used: vlen in 24 bits and kind in 7 (by 7.2; before, the
//! extra bits were zero). The header's length is honoured, since it has grown.
//!
//! Source: include/uapi/linux/btf.h, kernel/bpf/btf.c; Documentation/bpf/btf.rst.

use alloc::borrow::Cow;
use alloc::vec;
use alloc::vec::Vec;

use crate::kallsyms::{PROBES_MAX, hash};

mod query;

pub use query::Member;

const MAGIC: u16 = 0xeb9f;
/// The kernel refuses longer names (kernel/bpf/btf.c, KSYM_NAME_LEN).
const NAME_MAX: usize = 512;

/// A type's kind. Open: a newer kernel may bring more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)] // the names are BTF's own
pub struct Kind(pub u8);

#[allow(missing_docs)]
impl Kind {
    pub const INT: Self = Self(1);
    pub const PTR: Self = Self(2);
    pub const ARRAY: Self = Self(3);
    pub const STRUCT: Self = Self(4);
    pub const UNION: Self = Self(5);
    pub const ENUM: Self = Self(6);
    pub const FWD: Self = Self(7);
    pub const TYPEDEF: Self = Self(8);
    pub const VOLATILE: Self = Self(9);
    pub const CONST: Self = Self(10);
    pub const RESTRICT: Self = Self(11);
    pub const FUNC: Self = Self(12);
    pub const FUNC_PROTO: Self = Self(13);
    pub const VAR: Self = Self(14);
    pub const DATASEC: Self = Self(15);
    pub const FLOAT: Self = Self(16);
    pub const DECL_TAG: Self = Self(17);
    pub const TYPE_TAG: Self = Self(18);
    pub const ENUM64: Self = Self(19);

    /// Bytes that follow the 12 of the type: a fixed part and one per element.
    const fn trailer(self) -> Option<(usize, usize)> {
        Some(match self {
            Self::INT | Self::VAR | Self::DECL_TAG => (4, 0),
            Self::ARRAY => (12, 0),
            Self::STRUCT | Self::UNION | Self::DATASEC | Self::ENUM64 => (0, 12),
            Self::ENUM | Self::FUNC_PROTO => (0, 8),
            Self::PTR
            | Self::FWD
            | Self::TYPEDEF
            | Self::VOLATILE
            | Self::CONST
            | Self::RESTRICT
            | Self::FUNC
            | Self::FLOAT
            | Self::TYPE_TAG => (0, 0),
            _ => return None,
        })
    }
}

/// Why there are no types.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Error {
    /// Not BTF at all.
    #[error("not BTF: it begins with {0:#06x}, not 0xeb9f")]
    Magic(u16),
    /// The blob contradicts itself.
    #[error("BTF is damaged: {what} at offset {at:#x}")]
    Damaged {
        /// The contradiction.
        what: &'static str,
        /// Where in the blob.
        at: usize,
    },
    /// A kind that this program does not know cannot be stepped over.
    #[error("BTF has a type of unknown kind {kind} at offset {at:#x}")]
    UnknownKind {
        /// Its number.
        kind: u8,
        /// Where in the blob.
        at: usize,
    },
}

/// Types of the kernel image.
#[derive(Debug)]
pub struct Btf<'a> {
    data: Cow<'a, [u8]>,
    /// Offset in `data` of each type; element 0 stands for `void`.
    types: Vec<u32>,
    strings: core::ops::Range<usize>,
    /// Open-addressing hash of the names of structs, unions, enums and typedefs to type ids.
    by_name: Vec<u32>,
}

/// The 12 bytes that each type begins with.
#[derive(Clone, Copy, Debug)]
struct Type {
    name_off: u32,
    info: u32,
    size_or_type: u32,
    /// Offset of the trailer.
    trailer: usize,
}

impl Type {
    const fn kind(self) -> Kind {
        Kind((self.info >> 24) as u8 & 0x7f)
    }
    const fn vlen(self) -> usize {
        (self.info & 0xff_ffff) as usize
    }
    const fn kind_flag(self) -> bool {
        self.info >> 31 == 1
    }
}

impl<'a> Btf<'a> {
    /// Parses a .BTF section of the kernel image.
    ///
    /// # Errors
    /// If it is damaged or has a kind that is not known.
    pub fn parse(data: impl Into<Cow<'a, [u8]>>) -> Result<Self, Error> {
        let data = data.into();
        let damaged = |what, at| Error::Damaged { what, at };
        let word = |at: usize| u32_at(&data, at).ok_or(damaged("header cut", at));
        let magic = word(0)? as u16;
        if magic != MAGIC {
            return Err(Error::Magic(magic));
        }
        let header = word(4)? as usize;
        let section = |off: usize, what| -> Result<core::ops::Range<usize>, Error> {
            let start = header.checked_add(word(off)? as usize).ok_or(damaged(what, off))?;
            let end = start.checked_add(word(off + 4)? as usize).ok_or(damaged(what, off))?;
            if end > data.len() { Err(damaged(what, off)) } else { Ok(start..end) }
        };
        let type_section = section(8, "type section outside")?;
        let strings = section(16, "string section outside")?;

        let mut types: Vec<u32> = Vec::with_capacity(type_section.len() / 24 + 1);
        types.push(0);
        let mut named = 0usize;
        let mut at = type_section.start;
        while at < type_section.end {
            let t = type_at(&data, at).ok_or(damaged("type cut", at))?;
            let (fixed, each) = t.kind().trailer().ok_or(Error::UnknownKind { kind: t.kind().0, at })?;
            let next = at + 12 + fixed + each * t.vlen_if(each);
            if next > type_section.end {
                return Err(damaged("type runs past its section", at));
            }
            named += usize::from(is_indexed(t));
            types.push(u32::try_from(at).map_err(|_| damaged("4 GiB of types", at))?);
            at = next;
        }
        let mut out = Self { data, types, strings, by_name: Vec::new() };
        out.index(named);
        Ok(out)
    }

    fn index(&mut self, named: usize) {
        let mut table = vec![0u32; (named * 2).next_power_of_two().max(2)];
        let mask = table.len() - 1;
        for id in 1..self.types.len() {
            let Some(t) = self.get(id as u32).filter(|&t| is_indexed(t)) else { continue };
            let name = self.string(t.name_off);
            let mut slot = hash(name) as usize & mask;
            // Of equal names and kinds the first stands for all; a name that a hostile blob makes
            // collide with too many others is left out.
            for _ in 0..PROBES_MAX {
                if table[slot] == 0 {
                    table[slot] = id as u32;
                    break;
                }
                let is_same = self.get(table[slot]).is_some_and(|other| {
                    (other.kind() == Kind::TYPEDEF) == (t.kind() == Kind::TYPEDEF)
                        && self.string(other.name_off) == name
                });
                if is_same {
                    break;
                }
                slot = (slot + 1) & mask;
            }
        }
        self.by_name = table;
    }

    /// Number of types, `void` included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.types.len()
    }

    /// Whether there is no type but `void`.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.types.len() <= 1
    }

    fn get(&self, id: u32) -> Option<Type> {
        if id == 0 {
            return None;
        }
        type_at(&self.data, *self.types.get(id as usize)? as usize)
    }

    fn string(&self, off: u32) -> &[u8] {
        let Some(from) = self.data[self.strings.clone()].get(off as usize..) else { return &[] };
        let from = &from[..from.len().min(NAME_MAX)];
        &from[..from.iter().position(|&b| b == 0).unwrap_or(from.len())]
    }
}

impl Type {
    /// The element count where elements exist: FUNC and FWD use the bits for something else.
    const fn vlen_if(self, each: usize) -> usize {
        if each == 0 { 0 } else { self.vlen() }
    }
}

const fn is_indexed(t: Type) -> bool {
    t.name_off != 0
        && matches!(t.kind(), Kind::STRUCT | Kind::UNION | Kind::TYPEDEF | Kind::ENUM | Kind::ENUM64)
}

fn u32_at(data: &[u8], at: usize) -> Option<u32> {
    let bytes = data.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

fn type_at(data: &[u8], at: usize) -> Option<Type> {
    Some(Type {
        name_off: u32_at(data, at)?,
        info: u32_at(data, at + 4)?,
        size_or_type: u32_at(data, at + 8)?,
        trailer: at + 12,
    })
}

#[cfg(test)]
mod tests;

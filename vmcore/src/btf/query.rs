//! Questions to BTF: members, sizes, enumerators.

use super::{Btf, Kind, Type, u32_at};
use crate::kallsyms::{PROBES_MAX, hash};

/// A chain of typedefs and qualifiers longer than this is a loop.
const CHAIN_MAX: usize = 64;
/// Anonymous structs nest a few levels deep; deeper is damage.
const NESTING_MAX: usize = 16;
/// Members looked at for one answer. The largest struct has some hundreds; a struct that holds
/// itself many times, anonymously, would have no end.
const MEMBERS_MAX: usize = 100_000;

/// A member of a struct or union, its offset counted from the outermost type asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Member {
    /// Offset in bits.
    pub bit_offset: u64,
    /// Bits of a bitfield; `None` for an ordinary member.
    pub bit_size: Option<u32>,
    /// Its type.
    pub type_id: u32,
}

impl Btf<'_> {
    /// A member by its path, `task_struct`, `thread_info.cpu`; anonymous structs and unions are
    /// looked through, typedefs and qualifiers followed.
    #[must_use]
    pub fn member(&self, type_name: &str, path: &str) -> Option<Member> {
        let mut owner = self.find(type_name)?;
        let mut bits = 0u64;
        let mut left = MEMBERS_MAX;
        let mut parts = path.split('.').peekable();
        while let Some(part) = parts.next() {
            let m = self.member_of(owner, part, NESTING_MAX, &mut left)?;
            bits = bits.checked_add(m.bit_offset)?;
            if parts.peek().is_none() {
                return Some(Member { bit_offset: bits, ..m });
            }
            owner = m.type_id;
        }
        None
    }

    /// Byte offset of a member by its path; `None` also for one that is not at a whole byte.
    #[must_use]
    pub fn offset_of(&self, type_name: &str, path: &str) -> Option<u64> {
        let m = self.member(type_name, path)?;
        (m.bit_offset % 8 == 0).then_some(m.bit_offset / 8)
    }

    /// `sizeof` a struct, union, enum or typedef.
    #[must_use]
    pub fn size_of(&self, type_name: &str) -> Option<u64> {
        self.size_of_id(self.find(type_name)?)
    }

    /// `sizeof` a type by its number.
    #[must_use]
    pub fn size_of_id(&self, id: u32) -> Option<u64> {
        let mut count = 1u64;
        let mut id = id;
        for _ in 0..CHAIN_MAX {
            let (_, t) = self.resolve(id)?;
            match t.kind() {
                Kind::PTR => return count.checked_mul(8),
                Kind::ARRAY => {
                    id = u32_at(&self.data, t.trailer)?;
                    count = count.checked_mul(u64::from(u32_at(&self.data, t.trailer + 8)?))?;
                }
                Kind::INT | Kind::STRUCT | Kind::UNION | Kind::ENUM | Kind::ENUM64 | Kind::FLOAT => {
                    return count.checked_mul(u64::from(t.size_or_type));
                }
                _ => return None,
            }
        }
        None
    }

    /// Number of elements of an array type, and the type of its elements.
    #[must_use]
    pub fn array(&self, id: u32) -> Option<(u32, u32)> {
        let (_, t) = self.resolve(id)?;
        let element = u32_at(&self.data, t.trailer)?;
        (t.kind() == Kind::ARRAY).then_some((u32_at(&self.data, t.trailer + 8)?, element))
    }

    /// Value of an enumerator, looked for in every enum.
    #[must_use]
    pub fn enumerator(&self, name: &str) -> Option<i64> {
        // Type numbers were counted from a table of u32 offsets, so they fit.
        for id in 1..self.types.len() as u32 {
            let Some(t) = self.get(id) else { continue };
            let each = match t.kind() {
                Kind::ENUM => 8,
                Kind::ENUM64 => 12,
                _ => continue,
            };
            for i in 0..t.vlen() {
                let at = t.trailer + i * each;
                if self.string(u32_at(&self.data, at)?) != name.as_bytes() {
                    continue;
                }
                let low = u32_at(&self.data, at + 4)?;
                return Some(match (t.kind(), t.kind_flag()) {
                    (Kind::ENUM64, _) => {
                        (u64::from(u32_at(&self.data, at + 8)?) << 32 | u64::from(low)) as i64
                    }
                    (_, true) => i64::from(low as i32),
                    (_, false) => i64::from(low),
                });
            }
        }
        None
    }

    /// Number of the struct, union, enum or typedef of that name; a struct before a typedef.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<u32> {
        let mask = self.by_name.len().checked_sub(1)?;
        let mut slot = hash(name.as_bytes()) as usize & mask;
        let mut typedef = None;
        for _ in 0..PROBES_MAX {
            let Some(&id @ 1..) = self.by_name.get(slot) else { break };
            let t = self.get(id)?;
            if self.string(t.name_off) == name.as_bytes() {
                if t.kind() != Kind::TYPEDEF {
                    return Some(id);
                }
                typedef.get_or_insert(id);
            }
            slot = (slot + 1) & mask;
        }
        typedef
    }

    /// A type's own name; empty for an anonymous one.
    #[must_use]
    pub fn name(&self, id: u32) -> &str {
        self.get(id).and_then(|t| core::str::from_utf8(self.string(t.name_off)).ok()).unwrap_or("")
    }

    /// Follows typedefs, qualifiers and tags to what they name.
    fn resolve(&self, mut id: u32) -> Option<(u32, Type)> {
        for _ in 0..CHAIN_MAX {
            let t = self.get(id)?;
            match t.kind() {
                Kind::TYPEDEF | Kind::CONST | Kind::VOLATILE | Kind::RESTRICT | Kind::TYPE_TAG => {
                    id = t.size_or_type;
                }
                _ => return Some((id, t)),
            }
        }
        None
    }

    fn member_of(&self, owner: u32, name: &str, nesting: usize, left: &mut usize) -> Option<Member> {
        let (_, t) = self.resolve(owner)?;
        if !matches!(t.kind(), Kind::STRUCT | Kind::UNION) {
            return None;
        }
        for i in 0..t.vlen() {
            *left = left.checked_sub(1)?;
            let at = t.trailer + i * 12;
            let (name_off, type_id, offset) =
                (u32_at(&self.data, at)?, u32_at(&self.data, at + 4)?, u32_at(&self.data, at + 8)?);
            let (bit_offset, bit_size) = if t.kind_flag() {
                (u64::from(offset & 0xff_ffff), Some(offset >> 24).filter(|&n| n != 0))
            } else {
                (u64::from(offset), None)
            };
            if name_off == 0 {
                let inner = nesting.checked_sub(1).and_then(|n| self.member_of(type_id, name, n, left));
                if let Some(m) = inner {
                    return Some(Member { bit_offset: bit_offset.checked_add(m.bit_offset)?, ..m });
                }
            } else if self.string(name_off) == name.as_bytes() {
                return Some(Member { bit_offset, bit_size, type_id });
            }
        }
        None
    }
}

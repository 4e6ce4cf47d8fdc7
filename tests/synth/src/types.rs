//! A kernel's types from a readable table: layouts to place things by, and to write BTF from.
//!
//! The grammar, one declaration per line, `#` to the end of a line is comment:
//!
//! ```text
//! struct NAME SIZE {            union NAME SIZE {             enum NAME {             typedef NAME: TYPE
//!   OFFSET[.BIT:BITS] NAME: TYPE  …                             NAME = VALUE
//! }                             }                             }
//! ```
//!
//! A TYPE is a C type without the name (`const char *`, `struct list_head[6]`), or an anonymous `struct SIZE {`.
//! A member without a name is anonymous, and the lookup of paths descends into it.

use std::collections::BTreeMap;

mod btf;
mod parser;

pub use btf::PercpuVariable;

/// One type expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    /// A base type, a typedef, or `struct x`, `union x`, `enum x`.
    Named(String),
    Pointer(Box<Type>),
    Array(Box<Type>, u32),
    Const(Box<Type>),
    Anonymous(Box<Aggregate>),
}

/// A struct or union.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Aggregate {
    pub is_union: bool,
    pub size: usize,
    pub members: Vec<Member>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub name: Option<String>,
    pub bit_offset: u32,
    pub bits: u32,
    pub ty: Type,
}

/// Types by name.
#[derive(Clone, Debug, Default)]
pub struct Types {
    pub(crate) aggregates: BTreeMap<String, Aggregate>,
    pub(crate) enums: BTreeMap<String, Vec<(String, i64)>>,
    pub(crate) typedefs: BTreeMap<String, Type>,
}

impl Types {
    /// Parses a table; more of them may be added with [`Types::extend`].
    pub fn parse(text: &str) -> Self {
        let mut types = Self::default();
        types.extend(text);
        types
    }

    /// Adds or replaces types.
    pub fn extend(&mut self, text: &str) {
        parser::parse(text, self);
    }

    /// Returns the size of `struct name` (or `union name`).
    pub fn size(&self, name: &str) -> usize {
        self.root(name).unwrap_or_else(|| panic!("no struct {name} in these types")).size
    }

    /// Returns whether the member `struct.member.member` exists.
    pub fn has(&self, path: &str) -> bool {
        self.find(path).is_some()
    }

    /// Returns the byte offset of `struct.member.member`.
    pub fn offset(&self, path: &str) -> usize {
        self.find(path).unwrap_or_else(|| panic!("no member {path} in these types")).0 as usize / 8
    }

    /// Returns the size in bytes of the member at `path`.
    pub fn member_size(&self, path: &str) -> usize {
        let (_, ty) = self.find(path).unwrap_or_else(|| panic!("no member {path} in these types"));
        self.size_of(ty)
    }

    /// Returns the value of an enumerator, whichever enum it belongs to.
    pub fn enumerator(&self, name: &str) -> Option<i64> {
        self.enums.values().flatten().find(|(enumerator, _)| enumerator == name).map(|(_, value)| *value)
    }

    fn root(&self, name: &str) -> Option<&Aggregate> {
        self.aggregates
            .get(&format!("struct {name}"))
            .or_else(|| self.aggregates.get(&format!("union {name}")))
    }

    /// Returns bit offset and type of a member.
    fn find(&self, path: &str) -> Option<(u32, &Type)> {
        let mut parts = path.split('.');
        let mut aggregate = self.root(parts.next()?)?;
        let mut bit_offset = 0;
        let mut found = None;
        for part in parts {
            if let Some(ty) = found {
                aggregate = self.aggregate_of(ty)?;
            }
            let (bits, ty) = self.find_in(aggregate, part)?;
            bit_offset += bits;
            found = Some(ty);
        }
        found.map(|ty| (bit_offset, ty))
    }

    fn find_in<'a>(&'a self, aggregate: &'a Aggregate, name: &str) -> Option<(u32, &'a Type)> {
        aggregate.members.iter().find_map(|member| match &member.name {
            Some(own) if own == name => Some((member.bit_offset, &member.ty)),
            Some(_) => None,
            None => {
                let (bits, ty) = self.find_in(self.aggregate_of(&member.ty)?, name)?;
                Some((member.bit_offset + bits, ty))
            }
        })
    }

    fn aggregate_of<'a>(&'a self, ty: &'a Type) -> Option<&'a Aggregate> {
        match ty {
            Type::Anonymous(aggregate) => Some(aggregate),
            Type::Named(name) => match self.typedefs.get(name) {
                Some(ty) => self.aggregate_of(ty),
                None => self.aggregates.get(name),
            },
            Type::Const(ty) => self.aggregate_of(ty),
            Type::Pointer(_) | Type::Array(..) => None,
        }
    }

    fn size_of(&self, ty: &Type) -> usize {
        match ty {
            Type::Pointer(_) => 8,
            Type::Array(of, len) => self.size_of(of) * *len as usize,
            Type::Const(of) => self.size_of(of),
            Type::Anonymous(aggregate) => aggregate.size,
            Type::Named(name) => match (self.typedefs.get(name), self.aggregates.get(name), base(name)) {
                (Some(ty), ..) => self.size_of(ty),
                (_, Some(aggregate), _) => aggregate.size,
                (.., Some((_, size, _))) => size as usize,
                _ if name.starts_with("enum ") => 4,
                _ => panic!("the size of {name} is not known"),
            },
        }
    }
}

/// Returns a base type's name in BTF (that of DWARF), its size and its encoding.
fn base(name: &str) -> Option<(&'static str, u32, crate::IntEncoding)> {
    use crate::IntEncoding::{Bool, Signed, Unsigned};
    Some(match name {
        "char" => ("char", 1, Signed),
        "signed char" => ("signed char", 1, Signed),
        "unsigned char" => ("unsigned char", 1, Unsigned),
        "short" => ("short int", 2, Signed),
        "unsigned short" => ("short unsigned int", 2, Unsigned),
        "int" => ("int", 4, Signed),
        "unsigned int" => ("unsigned int", 4, Unsigned),
        "long" => ("long int", 8, Signed),
        "unsigned long" => ("long unsigned int", 8, Unsigned),
        "long long" => ("long long int", 8, Signed),
        "unsigned long long" => ("long long unsigned int", 8, Unsigned),
        "_Bool" => ("_Bool", 1, Bool),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "
        struct list_head 16 {
          0 next: struct list_head *
          8 prev: struct list_head *
        }
        struct task 64 {   # a comment
          8 tasks: struct list_head
          24 : union 8 {
            0 curr: struct task *
            0 : struct 8 {
              4 flag: counter_t
            }
          }
          32.5:3 level: unsigned char
          40 comm: const char[16]
        }
        typedef counter_t: struct 4 {
          0 counter: int
        }
        enum state {
          LIVE = 0
          DEAD = -1
        }
    ";

    #[test]
    fn paths_descend_into_anonymous_members_and_typedefs() {
        let types = Types::parse(TABLE);
        assert_eq!(types.offset("task.tasks.prev"), 16);
        assert_eq!(types.offset("task.flag.counter"), 28);
        assert_eq!(types.member_size("task.comm"), 16);
        assert_eq!((types.size("task"), types.has("task.pid")), (64, false));
        assert_eq!(types.enumerator("DEAD"), Some(-1));
    }

    #[test]
    fn the_tables_of_all_kernels_parse_and_agree_with_known_offsets() {
        let types = Types::parse(include_str!("kernels/linux_6_12.types"));
        assert_eq!(types.offset("task_struct.thread.sp"), 5400);
        assert_eq!(types.offset("page.compound_head"), 8);
        assert_eq!(types.offset("module.arch.num_orcs"), 824);
        let types = Types::parse(include_str!("kernels/linux_7_3.types"));
        assert_eq!((types.offset("page.compound_info"), types.size("printk_info")), (8, 112));
        let types = Types::parse(include_str!("kernels/linux_5_10.types"));
        assert_eq!((types.offset("task_struct.state"), types.member_size("task_struct.state")), (16, 8));
    }
}

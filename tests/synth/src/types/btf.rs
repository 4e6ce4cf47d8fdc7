//! Turns a table of types into BTF.

use std::collections::HashMap;

use super::{Aggregate, Type, Types, base, parser};
use crate::{Btf, TypeId, VOID};

/// A per-CPU variable for BTF: name, C type, offset in the section.
pub type PercpuVariable<'a> = (&'a str, &'a str, u32);

impl Types {
    /// Returns a builder with all these types, and VARs of the given per-CPU variables in DATASEC ".data..percpu".
    pub fn btf(&self, percpu: &[PercpuVariable<'_>], section_bytes: u32) -> Btf {
        let mut writer = Writer { types: self, btf: Btf::new(), known: HashMap::new() };
        for name in self.aggregates.keys().chain(self.typedefs.keys()) {
            writer.named(name);
        }
        for name in self.enums.keys() {
            writer.named(&format!("enum {name}"));
        }
        let mut section = Vec::new();
        for &(name, ty, offset) in percpu {
            let ty = parser::parse_plain_type(ty);
            let id = writer.id(&ty);
            section.push((writer.btf.variable(name, id), offset, self.size_of(&ty) as u32));
        }
        if !section.is_empty() {
            writer.btf.datasec(".data..percpu", section_bytes, &section);
        }
        writer.btf
    }
}

struct Writer<'a> {
    types: &'a Types,
    btf: Btf,
    known: HashMap<String, TypeId>,
}

impl Writer<'_> {
    fn id(&mut self, ty: &Type) -> TypeId {
        match ty {
            Type::Named(name) => self.named(name),
            Type::Pointer(to) => self.derived(ty, |writer| {
                let to = writer.id(to);
                writer.btf.ptr(to)
            }),
            Type::Const(of) => self.derived(ty, |writer| {
                let of = writer.id(of);
                writer.btf.constant(of)
            }),
            Type::Array(of, len) => self.derived(ty, |writer| {
                let of = writer.id(of);
                let index = writer.named("unsigned int");
                writer.btf.array(of, index, *len)
            }),
            Type::Anonymous(aggregate) => self.aggregate("", aggregate, None),
        }
    }

    /// Returns the type kept under the expression's own text, making it when it is new.
    fn derived(&mut self, ty: &Type, make: impl FnOnce(&mut Self) -> TypeId) -> TypeId {
        let key = format!("{ty:?}");
        if let Some(&id) = self.known.get(&key) {
            return id;
        }
        let id = make(self);
        self.known.insert(key, id);
        id
    }

    fn named(&mut self, name: &str) -> TypeId {
        if name == "void" {
            return VOID;
        }
        if let Some(&id) = self.known.get(name) {
            return id;
        }
        let types = self.types;
        let id = if let Some(ty) = types.typedefs.get(name) {
            let of = self.id(ty);
            self.btf.typedef(name, of)
        } else if let Some(aggregate) = types.aggregates.get(name) {
            let tag = name.split_once(' ').map_or(name, |(_, tag)| tag);
            return self.aggregate(tag, aggregate, Some(name));
        } else if let Some((name, bytes, encoding)) = base(name) {
            self.btf.int(name, bytes, encoding)
        } else {
            match name.split_once(' ') {
                Some(("enum", tag)) => self.enumeration(tag),
                Some((kind @ ("struct" | "union"), tag)) => self.btf.forward(tag, kind == "union"),
                _ => panic!("the type {name} is used but not declared"),
            }
        };
        self.known.insert(name.to_owned(), id);
        id
    }

    fn enumeration(&mut self, tag: &str) -> TypeId {
        let values =
            self.types.enums.get(tag).unwrap_or_else(|| panic!("enum {tag} is used but not declared"));
        let values: Vec<_> = values.iter().map(|(name, value)| (name.as_str(), *value as i32)).collect();
        self.btf.enumeration(tag, &values)
    }

    /// Writes a struct or union; its number is known before its members, which may point back at it.
    fn aggregate(&mut self, tag: &str, aggregate: &Aggregate, key: Option<&str>) -> TypeId {
        let bytes = aggregate.size as u32;
        let id = if aggregate.is_union { self.btf.union(tag, bytes) } else { self.btf.structure(tag, bytes) };
        if let Some(key) = key {
            self.known.insert(key.to_owned(), id);
        }
        for member in &aggregate.members {
            let ty = self.id(&member.ty);
            self.btf.bitfield(id, member.name.as_deref().unwrap_or(""), ty, member.bit_offset, member.bits);
        }
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_s_table_makes_a_closed_blob() {
        for text in [
            include_str!("../kernels/linux_5_10.types"),
            include_str!("../kernels/linux_6_1.types"),
            include_str!("../kernels/linux_6_12.types"),
            include_str!("../kernels/linux_7_3.types"),
        ] {
            let types = Types::parse(text);
            let blob = types.btf(&[("runqueues", "struct rq", 64)], 4096).bytes();
            let word = |at: usize| u32::from_le_bytes(blob[at..at + 4].try_into().unwrap());
            assert_eq!(blob.len() as u32, 24 + word(12) + word(20));
            let names = &blob[(24 + word(16)) as usize..];
            for name in ["\0task_struct\0", "\0runqueues\0", "\0.data..percpu\0", "\0long unsigned int\0"] {
                assert!(names.windows(name.len()).any(|window| window == name.as_bytes()), "{name:?}");
            }
        }
    }
}

//! BTF: the kernel's own type information, read from the dump.

use alloc::vec::Vec;

/// Why there are no types.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Error {
    /// The blob contradicts itself.
    #[error("BTF is damaged: {what} at offset {at:#x}")]
    Damaged {
        /// The contradiction.
        what: &'static str,
        /// Where in the blob.
        at: usize,
    },
}

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

/// Types of the kernel image.
#[derive(Debug)]
pub struct Btf {
    _data: Vec<u8>,
}

impl Btf {
    /// Parses a .BTF section.
    ///
    /// # Errors
    /// If it is damaged.
    pub fn parse(_data: Vec<u8>) -> Result<Self, Error> {
        Err(Error::Damaged { what: "being written", at: 0 })
    }

    /// A member by its path, `task_struct`, `thread_info.cpu`; anonymous structs are looked through.
    #[must_use]
    pub fn member(&self, _type_name: &str, _path: &str) -> Option<Member> {
        None
    }

    /// Byte offset of a member by its path; `None` also for a bitfield that is not byte-aligned.
    #[must_use]
    pub fn offset_of(&self, _type_name: &str, _path: &str) -> Option<u64> {
        None
    }

    /// `sizeof` a struct, union or typedef.
    #[must_use]
    pub fn size_of(&self, _type_name: &str) -> Option<u64> {
        None
    }

    /// Value of an enumerator, in any enum.
    #[must_use]
    pub fn enumerator(&self, _name: &str) -> Option<i64> {
        None
    }
}

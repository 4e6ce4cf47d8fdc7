//! kallsyms: the kernel's own symbol table, read from the dump.

use alloc::vec::Vec;
use kdump_arch_x86::VirtAddr;

use crate::mem::ReadError;
use crate::space::KernelMem;
use crate::vmcoreinfo::VmcoreInfo;

/// Why there are no symbols.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Error {
    /// VMCOREINFO does not say where a table is.
    #[error("VMCOREINFO has no SYMBOL({0}): kallsyms cannot be located")]
    MissingKey(&'static str),
    /// A table cannot be read.
    #[error("{table} cannot be read: {source}")]
    Read {
        /// Its name.
        table: &'static str,
        /// Why.
        source: ReadError,
    },
    /// A table contradicts itself.
    #[error("{table} is damaged: {what}")]
    Damaged {
        /// Its name.
        table: &'static str,
        /// The contradiction.
        what: &'static str,
    },
}

/// One symbol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Symbol<'a> {
    /// Its name.
    pub name: &'a str,
    /// Type letter as in nm(1). Do not tell text from data by it: see facts on `.data` and 'T'.
    pub kind: u8,
    /// Its address in the running kernel.
    pub addr: VirtAddr,
}

/// All symbols of the kernel image.
#[derive(Debug, Default)]
pub struct Symbols {
    by_addr: Vec<u32>,
}

impl Symbols {
    /// Reads the tables that VMCOREINFO names.
    ///
    /// # Errors
    /// If a table is missing, unreadable or damaged.
    pub fn from_dump(_mem: &KernelMem<'_>, _info: &VmcoreInfo) -> Result<Self, Error> {
        Err(Error::MissingKey("kallsyms_names"))
    }

    /// The first symbol of that name.
    #[must_use]
    pub fn address(&self, _name: &str) -> Option<VirtAddr> {
        None
    }

    /// The symbol at or below `addr` and the distance to it.
    #[must_use]
    pub fn lookup(&self, _addr: VirtAddr) -> Option<(Symbol<'_>, u64)> {
        None
    }

    /// Number of symbols.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_addr.len()
    }
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_addr.is_empty()
    }

    /// All symbols by ascending address.
    pub fn iter(&self) -> impl Iterator<Item = Symbol<'_>> {
        core::iter::empty()
    }
}

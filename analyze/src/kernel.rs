//! The kernel in a dump: memory, symbols, types and VMCOREINFO together, with one error for
//! whatever of them is missing.

use kdump_arch_x86::VirtAddr;
use kdump_vmcore::{Btf, Dump, KernelMem, PhysMem, ReadError, Symbols, VmcoreInfo, kallsyms};

/// Why an answer, or a part of it, cannot be given. Shown to people: each says what is missing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Gap {
    /// No such symbol in kallsyms.
    #[error("the kernel has no symbol {0}")]
    Symbol(String),
    /// No such type or member in BTF.
    #[error("the kernel's BTF has no {0}")]
    Type(String),
    /// Memory cannot be read.
    #[error("{what}{}{source}", if what.is_empty() { "" } else { ": " })]
    Read {
        /// What was being read; may be empty.
        what: String,
        /// Why it could not be.
        source: ReadError,
    },
    /// Anything else, in words.
    #[error("{0}")]
    Other(String),
}

impl From<ReadError> for Gap {
    fn from(source: ReadError) -> Self {
        Self::Read { what: String::new(), source }
    }
}

/// A crashed kernel, ready to be asked.
pub struct Kernel<'a> {
    /// The dump below.
    pub dump: &'a Dump,
    /// Its memory by virtual address.
    pub mem: KernelMem<'a>,
    /// VMCOREINFO.
    pub info: &'a VmcoreInfo,
    /// Symbols of the kernel image; empty if [`Kernel::gaps`] says why.
    pub symbols: Symbols<'a>,
    /// Types of the kernel image; absent if [`Kernel::gaps`] says why.
    pub btf: Option<Btf<'a>>,
    /// What of the above could not be had.
    pub gaps: Vec<Gap>,
}

impl<'a> Kernel<'a> {
    /// Reads symbols and types. Only an absent VMCOREINFO is fatal; what else is missing becomes a
    /// gap.
    ///
    /// # Errors
    /// If the dump has no VMCOREINFO or it lacks what address translation needs.
    pub fn open(dump: &'a Dump) -> Result<Self, Gap> {
        let info = dump
            .vmcoreinfo()
            .ok_or_else(|| Gap::Other("the dump has no VMCOREINFO note: not a Linux kernel's".into()))?;
        let mem = dump.kernel().map_err(|e| Gap::Other(e.to_string()))?;
        let mut gaps = Vec::new();
        let symbols = Symbols::from_dump(&mem, info).unwrap_or_else(|e: kallsyms::Error| {
            gaps.push(Gap::Other(format!("no symbols: {e}")));
            Symbols::default()
        });
        let mut kernel = Self { dump, mem, info, symbols, btf: None, gaps };
        match kernel.read_btf() {
            Ok(btf) => kernel.btf = Some(btf),
            Err(gap) => kernel.gaps.push(gap),
        }
        Ok(kernel)
    }

    fn read_btf(&self) -> Result<Btf<'a>, Gap> {
        let (start, stop) = (self.symbol("__start_BTF")?, self.symbol("__stop_BTF")?);
        let len = stop
            .0
            .checked_sub(start.0)
            .ok_or_else(|| Gap::Other("__stop_BTF precedes __start_BTF".into()))?;
        let bytes = self
            .mem
            .read_piece(start, len, 64 << 20)
            .map_err(|source| Gap::Read { what: "BTF".into(), source })?;
        Btf::parse(bytes).map_err(|e| Gap::Other(e.to_string()))
    }

    /// Address of a symbol.
    ///
    /// # Errors
    /// A [`Gap`] that names it.
    pub fn symbol(&self, name: &str) -> Result<VirtAddr, Gap> {
        self.symbols.address(name).ok_or_else(|| Gap::Symbol(name.into()))
    }

    /// Byte offset of `type_name.path`.
    ///
    /// # Errors
    /// A [`Gap`] that names it.
    pub fn offset(&self, type_name: &str, path: &str) -> Result<u64, Gap> {
        self.btf
            .as_ref()
            .and_then(|b| b.offset_of(type_name, path))
            .ok_or_else(|| Gap::Type(format!("member {type_name}.{path}")))
    }

    /// Byte offset of the first of several names that exists: members get renamed.
    ///
    /// # Errors
    /// A [`Gap`] that names them all.
    pub fn offset_any(&self, type_name: &str, paths: &[&str]) -> Result<u64, Gap> {
        paths
            .iter()
            .find_map(|p| self.offset(type_name, p).ok())
            .ok_or_else(|| Gap::Type(format!("member {type_name}.{}", paths.join(" or "))))
    }

    /// `sizeof(type_name)`.
    ///
    /// # Errors
    /// A [`Gap`] that names it.
    pub fn size(&self, type_name: &str) -> Result<u64, Gap> {
        self.btf.as_ref().and_then(|b| b.size_of(type_name)).ok_or_else(|| Gap::Type(type_name.into()))
    }

    /// The physical memory.
    #[must_use]
    pub fn phys(&self) -> &'a dyn PhysMem {
        self.mem.phys()
    }
}

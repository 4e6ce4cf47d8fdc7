//! Addresses to names: `function+0xoffset/0xsize [module]`.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;

use kdump_arch_x86::VirtAddr;

use crate::kernel::Kernel;
use crate::modules::{Module, ModuleSymbols};

/// Symbols of all modules together; beyond, a hostile dump's modules are named without them.
const SYMBOLS_MAX: usize = 1 << 19;

/// A name for an address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Name {
    /// The symbol.
    pub symbol: String,
    /// Bytes from its start.
    pub offset: u64,
    /// Bytes to the next symbol.
    pub size: Option<u64>,
    /// The module it belongs to.
    pub module: Option<String>,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{:#x}", self.symbol, self.offset)?;
        if let Some(size) = self.size {
            write!(f, "/{size:#x}")?;
        }
        if let Some(module) = &self.module {
            write!(f, " [{module}]")?;
        }
        Ok(())
    }
}

/// Names addresses of one kernel. A module's symbols are read when first needed.
pub struct Symbolizer<'k, 'd> {
    kernel: &'k Kernel<'d>,
    modules: &'k [Module],
    loaded: RefCell<HashMap<usize, ModuleSymbols>>,
}

impl<'k, 'd> Symbolizer<'k, 'd> {
    /// Over the kernel image and these modules.
    #[must_use]
    pub fn new(kernel: &'k Kernel<'d>, modules: &'k [Module]) -> Self {
        Self { kernel, modules, loaded: RefCell::default() }
    }

    /// Names `addr`. For a return address give the address before it, and add the difference back:
    /// see [`Self::name_frame`].
    #[must_use]
    pub fn name(&self, addr: VirtAddr) -> Option<Name> {
        let hit = |m: &Module| m.pieces.iter().any(|p| p.contains(&addr.0));
        if let Some(i) = self.modules.iter().position(hit) {
            let module = &self.modules[i];
            let mut loaded = self.loaded.borrow_mut();
            let held: usize = loaded.values().map(ModuleSymbols::len).sum();
            let symbols = loaded.entry(i).or_insert_with(|| match held {
                ..SYMBOLS_MAX => ModuleSymbols::read(self.kernel, module).unwrap_or_default(),
                _ => ModuleSymbols::default(),
            });
            // Without symbols the module and the offset into its text still say where to look.
            let (symbol, offset, size) =
                symbols.lookup(addr).unwrap_or(("", addr.0.wrapping_sub(module.text.start), None));
            return Some(Name {
                symbol: if symbol.is_empty() { ".text".into() } else { demangle(symbol) },
                offset,
                size,
                module: Some(module.name.clone()),
            });
        }
        let end = self.kernel.symbols.address("_end").filter(|e| addr < *e)?;
        let (symbol, offset) = self.kernel.symbols.lookup(addr)?;
        let next = self.kernel.symbols.next_address(addr).unwrap_or(end);
        Some(Name {
            symbol: demangle(&symbol.name),
            offset,
            size: Some(next.0.wrapping_sub(symbol.addr.0)),
            module: None,
        })
    }

    /// Names a frame's address: `lookup` is inside the instruction, `ip` what is shown.
    #[must_use]
    pub fn name_frame(&self, ip: VirtAddr, lookup: VirtAddr) -> Option<Name> {
        let mut name = self.name(lookup)?;
        name.offset = name.offset.wrapping_add(ip.0.wrapping_sub(lookup.0));
        Some(name)
    }
}

/// Rust's names in the shape people write them; others as they are.
fn demangle(symbol: &str) -> String {
    match rustc_demangle::try_demangle(symbol) {
        Ok(name) => format!("{name:#}"),
        Err(_) => symbol.to_string(),
    }
}

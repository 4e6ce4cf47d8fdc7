//! Loaded modules: where they are, their symbols and their unwind tables.
//!
//! Source: include/linux/module.h (`core_layout` until 6.3, `mem[]` since 6.4),
//! kernel/module/kallsyms.c.

use std::ops::Range;

use kdump_arch_x86::VirtAddr;

use crate::kernel::{Gap, Kernel};
use crate::tasks::{note, walk_list};
use crate::unwind::ModuleOrc;

/// Symbols of one module; the largest have some ten thousand.
const SYMTAB_MAX: u64 = 1 << 17;
/// More modules than any kernel has loaded.
const MODULES_MAX: usize = 1 << 14;
/// Names of one module's symbols.
const STRTAB_MAX: u64 = 32 << 20;
/// `struct module.state`: in the list, but not set up yet.
const MODULE_STATE_UNFORMED: u32 = 3;

/// One module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Module {
    /// Its `struct module`.
    pub addr: VirtAddr,
    /// Its name.
    pub name: String,
    /// 0 live, 1 coming, 2 going.
    pub state: u32,
    /// Where its pieces are: text, data and so on.
    pub pieces: Vec<Range<u64>>,
    /// Where its code is.
    pub text: Range<u64>,
    /// Bytes of all pieces.
    pub size: u64,
    /// Taint bits it brought.
    pub taints: u64,
    /// Build ID, hexadecimal, if the kernel keeps it.
    pub build_id: Option<String>,
    /// Unwind tables, if the kernel uses them.
    pub orc: Option<ModuleOrc>,
}

/// Reads the module list.
///
/// # Errors
/// If the list or the layout of `struct module` is unknown. What is missing later goes to `gaps`.
pub fn read(k: &Kernel<'_>, gaps: &mut Vec<Gap>) -> Result<Vec<Module>, Gap> {
    let head = k.symbol("modules")?;
    let list = k.offset("module", "list")?;
    let layout = Layout::new(k)?;
    let mut out = Vec::new();
    for node in walk_list(k, head, &|| "the module list".into(), &mut { MODULES_MAX }, gaps) {
        let addr = VirtAddr(node.0.wrapping_sub(list));
        match read_one(k, addr, &layout) {
            Ok(Some(module)) => out.push(module),
            Ok(None) => {}
            Err(e) => note(gaps, Gap::Other(format!("module at {addr}: {e}"))),
        }
    }
    Ok(out)
}

fn read_one(k: &Kernel<'_>, addr: VirtAddr, layout: &Layout) -> Result<Option<Module>, Gap> {
    let at = |member: &str| Ok::<_, Gap>(addr.wrapping_add(k.offset("module", member)?));
    let state = k.mem.read_u32(at("state")?)?;
    if state == MODULE_STATE_UNFORMED {
        return Ok(None);
    }
    let pieces = layout.pieces(k, addr)?;
    let text = pieces.first().cloned().unwrap_or(0..0);
    let orc = (|| -> Result<ModuleOrc, Gap> {
        Ok(ModuleOrc {
            text: text.clone(),
            orc_ip: k.mem.read_ptr(at("arch.orc_unwind_ip")?)?,
            orc: k.mem.read_ptr(at("arch.orc_unwind")?)?,
            num: k.mem.read_u32(at("arch.num_orcs")?)?,
        })
    })();
    let pieces: Vec<_> = pieces.into_iter().filter(|p| !p.is_empty()).collect();
    Ok(Some(Module {
        addr,
        name: k.mem.read_cstr(at("name")?, 56)?,
        state,
        size: pieces.iter().map(|p| p.end - p.start).sum(),
        pieces,
        text,
        taints: at("taints").and_then(|a| Ok(k.mem.read_u64(a)?)).unwrap_or(0),
        build_id: at("build_id")
            .and_then(|a| Ok(k.mem.read_array::<20>(a)?))
            .ok()
            .filter(|id| id.iter().any(|b| *b != 0))
            .map(|id| id.iter().map(|b| format!("{b:02x}")).collect()),
        orc: orc.ok().filter(|o| o.num > 0),
    }))
}

/// Where `struct module` says what memory the module has: text first.
enum Layout {
    /// `mem[]`: offset of the array, bytes per element, elements, offsets of base and size.
    Mem { array: u64, each: u64, count: u32, base: u64, size: u64 },
    /// `core_layout`: offset, offsets of base, size and text size.
    Core { at: u64, base: u64, size: u64, text: u64 },
}

impl Layout {
    fn new(k: &Kernel<'_>) -> Result<Self, Gap> {
        if let Ok(array) = k.offset("module", "mem") {
            let count = k
                .btf
                .as_ref()
                .and_then(|b| b.array(b.member("module", "mem")?.type_id))
                .map_or(7, |(count, _)| count.min(16));
            return Ok(Self::Mem {
                array,
                each: k.size("module_memory")?,
                count,
                base: k.offset("module_memory", "base")?,
                size: k.offset("module_memory", "size")?,
            });
        }
        Ok(Self::Core {
            at: k.offset_any("module", &["core_layout"])?,
            base: k.offset("module_layout", "base")?,
            size: k.offset("module_layout", "size")?,
            text: k.offset("module_layout", "text_size")?,
        })
    }

    /// The pieces, text first, empty ones included.
    fn pieces(&self, k: &Kernel<'_>, module: VirtAddr) -> Result<Vec<Range<u64>>, Gap> {
        let range = |base: VirtAddr, size: u32| base.0..base.0.saturating_add(u64::from(size));
        match *self {
            Self::Mem { array, each, count, base, size } => (0..u64::from(count))
                .map(|i| {
                    let element = module.wrapping_add(array).wrapping_add(i * each);
                    let base = k.mem.read_ptr(element.wrapping_add(base))?;
                    Ok(range(base, k.mem.read_u32(element.wrapping_add(size))?))
                })
                .collect(),
            Self::Core { at, base, size, text } => {
                let core = module.wrapping_add(at);
                let base = k.mem.read_ptr(core.wrapping_add(base))?;
                let size = k.mem.read_u32(core.wrapping_add(size))?;
                let text = k.mem.read_u32(core.wrapping_add(text))?.min(size);
                let code = range(base, text);
                Ok(vec![code.clone(), code.end..range(base, size).end])
            }
        }
    }
}

/// Function symbols of one module, sorted by address.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ModuleSymbols {
    symbols: Vec<(u64, String)>,
}

impl ModuleSymbols {
    /// Reads `module.kallsyms`.
    ///
    /// # Errors
    /// If the tables cannot be read.
    pub fn read(k: &Kernel<'_>, module: &Module) -> Result<Self, Gap> {
        // Elf64_Sym: name u32, info u8, other u8, shndx u16, value u64, size u64.
        const SYM: u64 = 24;
        let kallsyms = k.mem.read_ptr(module.addr.wrapping_add(k.offset("module", "kallsyms")?))?;
        let at = |m: &str| Ok::<_, Gap>(kallsyms.wrapping_add(k.offset("mod_kallsyms", m)?));
        let count = u64::from(k.mem.read_u32(at("num_symtab")?)?);
        let symtab = k.mem.read_ptr(at("symtab")?)?;
        let strtab = k.mem.read_ptr(at("strtab")?)?;
        let table = k.mem.read_vec(symtab, count * SYM, (SYMTAB_MAX * SYM) as usize)?;
        let word = |sym: &[u8], at: usize| u64::from_le_bytes(sym[at..at + 8].try_into().unwrap_or_default());
        let name_at = |sym: &[u8]| u64::from(u32::from_le_bytes(sym[..4].try_into().unwrap_or_default()));
        let inside = |value: u64| module.pieces.iter().any(|p| p.contains(&value));
        let mut symbols = Vec::new();
        for sym in table.chunks_exact(SYM as usize).skip(1) {
            let (name, value) = (name_at(sym), word(sym, 8));
            // Section 0 is an undefined symbol: another module's.
            if sym[6..8] == [0, 0] || name == 0 || name > STRTAB_MAX || !inside(value) {
                continue;
            }
            if let Ok(name) = k.mem.read_cstr(strtab.wrapping_add(name), 512)
                && !name.is_empty()
            {
                symbols.push((value, name));
            }
        }
        symbols.sort();
        Ok(Self { symbols })
    }

    /// Number of symbols.
    #[must_use]
    pub fn len(&self) -> usize {
        self.symbols.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.symbols.is_empty()
    }

    /// The symbol at or below `addr`, how far below, and how long it can be at most.
    #[must_use]
    pub fn lookup(&self, addr: VirtAddr) -> Option<(&str, u64, Option<u64>)> {
        let past = self.symbols.partition_point(|s| s.0 <= addr.0);
        let (start, name) = self.symbols[..past].last()?;
        let size = self.symbols.get(past).map(|next| next.0 - start);
        Some((name, addr.0 - start, size))
    }
}

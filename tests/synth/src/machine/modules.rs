//! Loaded modules: memory, symbols, unwind tables.
//!
//! Source: `include/linux/module.h`, `kernel/module/kallsyms.c`.

use crate::OrcTable;
use crate::machine::spec::ModuleSpec;
use crate::machine::text::{Frame, Text};
use crate::space::{Section, Space};

/// A module that was built.
#[derive(Clone, Debug)]
pub struct Module {
    /// What was asked for.
    pub spec: ModuleSpec,
    /// Address of its struct module.
    pub address: u64,
    /// Start and size of its text.
    pub text: (u64, u64),
}

const TEXT: u64 = 0x2000;
const RODATA: u64 = 0x2000;
const DATA: u64 = 0x2000;

/// Builds the modules and the list `modules`, the newest first.
pub(crate) fn build(space: &mut Space, text: &mut Text, specs: &[ModuleSpec]) -> Vec<Module> {
    let head = space.variable("modules", Section::Data, 16);
    let modules: Vec<Module> = specs.iter().map(|spec| module(space, text, spec)).collect();
    let mut nodes = vec![head];
    nodes.extend(modules.iter().rev().map(|module| space.member(module.address, "module.list")));
    space.link(&nodes);
    modules
}

fn module(space: &mut Space, text: &mut Text, spec: &ModuleSpec) -> Module {
    // One block up to 6.3; separate areas since. The three parts lie the same way in both.
    let base = space.module_alloc(TEXT + RODATA + DATA);
    let (rodata, data) = (base + TEXT, base + TEXT + RODATA);
    let prefix = format!("{}:", spec.name);
    let functions: Vec<(&str, Frame)> =
        spec.functions.iter().map(|(name, frame)| (name.as_str(), *frame)).collect();
    let mut orc = OrcTable::new();
    let end = text.place(space, &mut orc, base, &functions, &prefix);
    assert!(end <= rodata, "module {} has too many functions", spec.name);

    let address = data;
    space.set(address, "module.state", u64::from(spec.state));
    space.set_bytes(address, "module.name", spec.name.as_bytes());
    space.set(address, "module.taints", spec.taints);
    space.set(address, "module.refcnt", 1 + u64::from(spec.users)); // MODULE_REF_BASE
    for list in ["module.source_list", "module.target_list"] {
        let list = space.member(address, list);
        space.link(&[list]);
    }
    memory(space, address, base);

    let mut rest = rodata;
    let mut place = |space: &mut Space, bytes: &[u8]| {
        let at = rest.next_multiple_of(8);
        space.put(at, bytes);
        rest = at + bytes.len() as u64;
        assert!(rest <= data, "the read-only data of a module is full");
        at
    };
    if let Some(version) = &spec.version {
        let at = place(space, format!("{version}\0").as_bytes());
        space.set(address, "module.version", at);
    }
    let source = place(space, b"0123456789ABCDEF01234567\0");
    space.set(address, "module.srcversion", source);

    // The entries are relative to their own place, so that is chosen first.
    let ips_at = place(space, &vec![0; 4 * orc.len()]);
    space.put(ips_at, &orc.ips(ips_at));
    let entries = place(space, &orc.unwind(space.kernel.orc));
    space.set(address, "module.arch.num_orcs", orc.len() as u64);
    space.set(address, "module.arch.orc_unwind_ip", ips_at);
    space.set(address, "module.arch.orc_unwind", entries);

    let tables = symbol_tables(text, &prefix, data + 0x1000);
    let symtab = place(space, &tables.symtab);
    let strtab = place(space, &tables.strtab);
    let typetab = place(space, &tables.typetab);
    // After initialisation `kallsyms` points at the copy inside struct module.
    let kallsyms = space.member(address, "module.core_kallsyms");
    space.set(address, "module.kallsyms", kallsyms);
    space.set(kallsyms, "mod_kallsyms.symtab", symtab);
    space.set(kallsyms, "mod_kallsyms.num_symtab", tables.symtab.len() as u64 / 24);
    space.set(kallsyms, "mod_kallsyms.strtab", strtab);
    space.set(kallsyms, "mod_kallsyms.typetab", typetab);
    Module { spec: spec.clone(), address, text: (base, TEXT) }
}

fn memory(space: &mut Space, address: u64, base: u64) {
    if space.kernel.types.has("module.mem") {
        let size = space.kernel.types.size("module_memory") as u64;
        // MOD_TEXT, MOD_DATA, MOD_RODATA; the init parts are gone.
        for (index, start, bytes) in
            [(0, base, TEXT), (1, base + TEXT + RODATA, DATA), (2, base + TEXT, RODATA)]
        {
            let element = space.member(address, "module.mem") + index * size;
            space.set(element, "module_memory.base", start);
            space.set(element, "module_memory.size", bytes);
        }
    } else {
        let layout = space.member(address, "module.core_layout");
        space.set(layout, "module_layout.base", base);
        space.set(layout, "module_layout.size", TEXT + RODATA + DATA);
        space.set(layout, "module_layout.text_size", TEXT);
        space.set(layout, "module_layout.ro_size", TEXT + RODATA);
        space.set(layout, "module_layout.ro_after_init_size", TEXT + RODATA);
    }
}

struct SymbolTables {
    symtab: Vec<u8>,
    strtab: Vec<u8>,
    typetab: Vec<u8>,
}

/// Returns the tables with what a real one has: the null symbol, an undefined one, functions, and a variable.
fn symbol_tables(text: &Text, prefix: &str, variable: u64) -> SymbolTables {
    let mut tables = SymbolTables { symtab: Vec::new(), strtab: vec![0], typetab: Vec::new() };
    let mut add = |name: &str, info: u8, section: u16, value: u64, size: u64, letter: u8| {
        let offset = if name.is_empty() { 0 } else { tables.strtab.len() as u32 };
        tables.symtab.extend(offset.to_le_bytes());
        tables.symtab.extend([info, 0]);
        tables.symtab.extend(section.to_le_bytes());
        tables.symtab.extend(value.to_le_bytes());
        tables.symtab.extend(size.to_le_bytes());
        tables.typetab.push(letter);
        if !name.is_empty() {
            tables.strtab.extend(name.as_bytes());
            tables.strtab.push(0);
        }
    };
    add("", 0, 0, 0, 0, 0);
    add("printk", 0x10, 0, 0, 0, b'U');
    for (name, address, size) in text.with_prefix(prefix) {
        add(name, 0x02, 1, address, size, b't'); // STB_LOCAL, STT_FUNC
    }
    add("debug_level", 0x01, 3, variable, 4, b'd');
    tables
}

//! What the kernel carries about itself: BTF, ORC, and last of all kallsyms.

use crate::machine::percpu::Percpu;
use crate::space::{PERCPU_UNIT, Section, Space};
use crate::{Kallsyms, OrcTable};

/// Writes the BTF blob and names its bounds.
pub(crate) fn btf(space: &mut Space) {
    let variables = Percpu::btf_variables(space);
    let mut btf = space.kernel.types.btf(&variables, PERCPU_UNIT as u32);
    // Kinds that the tables of types do not use, so that readers meet all of them.
    let int = btf.int("synth_int", 4, crate::IntEncoding::Signed);
    let prototype = btf.prototype(int, &[("fmt", int), ("", crate::VOID)]);
    btf.function("panic", prototype);
    if space.kernel.at_least(5, 17) {
        let tagged = btf.type_tag("rcu", int);
        let pointer = btf.ptr(tagged);
        btf.decl_tag("bpf_kfunc", pointer, -1);
        btf.float("double", 8);
    }
    if space.kernel.at_least(6, 0) {
        btf.enumeration64("synth_enum64", &[("SYNTH_BIG", 1 << 40)]);
    }
    let blob = if space.kernel.has_long_btf_header { btf.bytes_with_layout() } else { btf.bytes() };
    // Nothing aligned .BTF in 5.10; from 7.x on it has its own page.
    let align = if space.kernel.at_least(7, 0) { 4096 } else { 1 };
    let start = space.image(Section::Rodata, blob.len() as u64, align);
    space.put(start, &blob);
    space.symbol("__start_BTF", 'R', start);
    space.symbol("__stop_BTF", 'R', start + blob.len() as u64);
}

/// Writes the ORC tables of the image and names their bounds.
pub(crate) fn orc(space: &mut Space, orc: &OrcTable) {
    let format = space.kernel.orc;
    if let Some(hash) = format.header() {
        let at = space.image(Section::Rodata, 20, 4);
        space.put(at, &hash);
        space.symbol("orc_header", 'r', at);
        space.symbol("__start_orc_header", 'R', at);
        space.symbol("__stop_orc_header", 'R', at + 20);
    }
    let len = orc.len() as u64;
    let ips = space.image(Section::Rodata, 4 * len, 4);
    space.put(ips, &orc.ips(ips));
    let entries = space.image(Section::Rodata, 6 * len, 2);
    space.put(entries, &orc.unwind(format));
    for (name, address) in [
        ("__start_orc_unwind_ip", ips),
        ("__stop_orc_unwind_ip", ips + 4 * len),
        ("__start_orc_unwind", entries),
        ("__stop_orc_unwind", entries + 6 * len),
    ] {
        space.symbol(name, 'R', address);
    }
}

/// Writes the symbol tables; every symbol must exist by now.
pub(crate) fn kallsyms(space: &mut Space) -> Kallsyms {
    let base = space.rodata_next().next_multiple_of(64);
    let kallsyms = Kallsyms::build(space.kernel.kallsyms, base, &space.symbols);
    let at = space.image(Section::Rodata, kallsyms.bytes.len() as u64, 64);
    assert_eq!(at, base, "the tables lie where they were built for");
    space.put(base, &kallsyms.bytes);
    kallsyms
}

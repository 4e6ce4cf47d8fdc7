//! What BTF says of pages and VMCOREINFO does not.

use kdump_vmcore::{Btf, Dump, Symbols};

use crate::classify::TypeFacts;

/// BTF of a kernel image is some megabytes.
const BTF_MAX: usize = 64 << 20;

/// Looks the facts up; what cannot be found is none.
pub(crate) fn facts(dump: &Dump) -> TypeFacts {
    read(dump).unwrap_or_default()
}

fn read(dump: &Dump) -> Option<TypeFacts> {
    let (mem, info) = (dump.kernel().ok()?, dump.vmcoreinfo()?);
    let symbols = Symbols::from_dump(&mem, info).ok()?;
    let (start, stop) = (symbols.address("__start_BTF")?, symbols.address("__stop_BTF")?);
    let bytes = mem.read_piece(start, stop.0.checked_sub(start.0)?, BTF_MAX).ok()?;
    let btf = Btf::parse(bytes).ok()?;
    let number = |name| u32::try_from(btf.enumerator(name)?).ok();
    Some(TypeFacts {
        dirty_bit: number("PG_dirty"),
        table_type: number("PGTY_table").or_else(|| number("PG_table")),
    })
}

//! The program that runs after the panic, as the ELF file `build.rs` linked.
//!
//! Position-independent, with `R_X86_64_RELATIVE` relocations only and a symbol table. Linking it at an
//! address is the loader's work.

/// The program's ELF file.
pub static IMAGE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/panic-kernel.elf"));

/// The ELF file of the probe, a small image to be loaded in place of a kernel; of the same form.
pub static PROBE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/probe.elf"));

/// Symbol of the page-aligned end of the image, where the [handoff block](crate::handoff) goes.
pub const HANDOFF_SYMBOL: &str = "kdump_handoff";

/// Symbol of the first byte that changes while the program runs; what lies below is constant once relocated.
pub const MUTABLE_SYMBOL: &str = "kdump_mutable";

mod sizes;

use sizes::{LOADED_BUDGET, sizes};

/// Bytes the program takes from its file.
pub const LOADED_SIZE: u64 = sizes(IMAGE).0;

// Larger, and nothing is built.
const _: () = assert!(LOADED_SIZE <= LOADED_BUDGET);

/// Bytes the program takes in memory, with `.bss` and stacks, without the handoff block.
pub const MEMORY_SIZE: u64 = sizes(IMAGE).1;

#[cfg(test)]
mod tests {
    use super::*;
    use goblin::elf::{Elf, header, reloc};
    use std::vec::Vec;

    fn elf() -> Elf<'static> {
        Elf::parse(IMAGE).unwrap()
    }

    #[test]
    fn the_image_stays_within_its_size_budget() {
        std::println!("panic-kernel: {LOADED_SIZE} bytes loaded, {MEMORY_SIZE} in memory");
        const { assert!(MEMORY_SIZE <= 112 << 10) };
    }

    #[test]
    fn the_probe_stays_within_its_size_budget() {
        let (loaded, occupied) = const { sizes(PROBE) };
        std::println!("probe: {loaded} bytes loaded, {occupied} in memory");
        const { assert!(sizes(PROBE).0 <= 32 << 10) };
        const { assert!(sizes(PROBE).1 <= 96 << 10) };
    }

    #[test]
    fn only_relative_relocations_are_left_to_the_loader() {
        let elf = elf();
        assert_eq!(elf.header.e_type, header::ET_DYN);
        assert!(elf.dynrelas.iter().all(|rela| rela.r_type == reloc::R_X86_64_RELATIVE));
        assert!(elf.dynrels.is_empty() && elf.pltrelocs.is_empty());
        assert!(elf.libraries.is_empty() && elf.interpreter.is_none());
    }

    #[test]
    fn the_handoff_page_begins_where_the_memory_of_the_image_ends() {
        let elf = elf();
        let symbol = |wanted: &str| {
            let found: Vec<_> =
                elf.syms.iter().filter(|s| elf.strtab.get_at(s.st_name) == Some(wanted)).collect();
            assert_eq!(found.len(), 1, "{wanted}");
            found[0].st_value
        };
        let handoff = symbol(HANDOFF_SYMBOL);
        assert_eq!(handoff % 4096, 0);
        assert_eq!(handoff, MEMORY_SIZE.next_multiple_of(4096));
        let mutable = symbol(MUTABLE_SYMBOL);
        assert_eq!(mutable % 4096, 0);
        assert!(elf.entry < mutable && mutable < handoff);
    }

    /// Check that the program, like the loader's block, knows nothing of the machine that built it.
    #[test]
    fn no_build_path_is_in_the_image() {
        let here = env!("CARGO_MANIFEST_DIR").as_bytes();
        assert!(!IMAGE.windows(here.len()).any(|window| window == here));
    }
}

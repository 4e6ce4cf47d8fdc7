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

/// Bytes the program takes from its file.
pub const LOADED_SIZE: u64 = sizes(IMAGE).0;

/// Bytes the program takes in memory, with `.bss` and stacks, without the handoff block.
pub const MEMORY_SIZE: u64 = sizes(IMAGE).1;

/// The ends of what is loaded and of what is occupied, from the program headers.
///
/// Runs at compile time over a file of our own linker, so a malformed one fails the build.
const fn sizes(elf: &[u8]) -> (u64, u64) {
    const PT_LOAD: u64 = 1;
    let phoff = little_endian(elf, 0x20, 8) as usize;
    let phentsize = little_endian(elf, 0x36, 2) as usize;
    let phnum = little_endian(elf, 0x38, 2) as usize;
    let (mut loaded, mut occupied) = (0, 0);
    let mut i = 0;
    while i < phnum {
        let phdr = phoff + i * phentsize;
        if little_endian(elf, phdr, 4) == PT_LOAD {
            let vaddr = little_endian(elf, phdr + 0x10, 8);
            let (filesz, memsz) = (little_endian(elf, phdr + 0x20, 8), little_endian(elf, phdr + 0x28, 8));
            loaded = max(loaded, vaddr + filesz);
            occupied = max(occupied, vaddr + memsz);
        }
        i += 1;
    }
    (loaded, occupied)
}

const fn max(a: u64, b: u64) -> u64 {
    if a > b { a } else { b }
}

const fn little_endian(bytes: &[u8], at: usize, size: usize) -> u64 {
    let mut value = 0;
    let mut i = size;
    while i > 0 {
        i -= 1;
        value = value << 8 | bytes[at + i] as u64;
    }
    value
}

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
        const { assert!(LOADED_SIZE <= 24 << 10) };
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

//! How large a linked program is, for the program itself and for `build.rs`, which prints it.

/// Bytes that the program may take from its file.
pub const LOADED_BUDGET: u64 = 24 << 10;

/// The ends of what is loaded and of what is occupied, from the program headers.
///
/// Runs at compile time over a file of our own linker, so a malformed one fails the build.
pub const fn sizes(elf: &[u8]) -> (u64, u64) {
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

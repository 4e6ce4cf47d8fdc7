//! The table that the kernel leaves for the payload: in what state it should find the CPU and what in which page.
//!
//! It is part of the image, so it is itself moved into place. Words of 64 bits: the header by the indices below,
//! then a pair of address and [sum](crate::pattern::sum) for every page that is to be checked.

use crate::pattern;

/// Where it ends up.
pub const ADDRESS: u64 = 0x180_0000;
/// Pages it has.
pub const NR_PAGES: u64 = 16;
/// Words it has.
pub const NR_WORDS: usize = NR_PAGES as usize * 512;

/// Index of the sum over all other words.
pub const SUM: usize = 0;
/// Index of the case's number.
pub const CASE: usize = 1;
/// Index of the number of pages to check.
pub const NR_ENTRIES: usize = 2;
/// Index of the address at which the kernel goes on with the next case; 0 if this is the last one.
pub const RESUME: usize = 3;
/// Index of the mode that the payload is entered in, in bits.
pub const MODE: usize = 4;
/// Index of CR3, where the mode is 64.
pub const CR3: usize = 5;
/// Index of CR4.
pub const CR4: usize = 6;
/// Index of the base of the interrupt descriptor table.
pub const IDT_BASE: usize = 7;
/// Index of the selectors: code in the lower 16 bits, then data.
pub const SELECTORS: usize = 8;
/// Index of RAX, RBX, RCX, RDX, RSI, RDI, RBP, RSP; all else is 0.
pub const REGISTERS: usize = 9;
/// How many there are.
pub const NR_REGISTERS: usize = 8;
/// Index of the first pair.
pub const ENTRIES: usize = 32;

/// The sum that belongs at [`SUM`].
pub fn sum(words: &[u64]) -> u64 {
    pattern::sum(words.iter().copied().skip(SUM + 1))
}

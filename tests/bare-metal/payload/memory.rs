//! The pages that are checked.

// UNSAFETY: pages are named by their addresses, which the language knows nothing about.
#![expect(unsafe_code)]

use bare_metal_platform::{Page, pattern, table};

/// The table, where the control page should have put it.
pub fn table() -> &'static [u64; table::NR_WORDS] {
    // SAFETY: 64 KiB of RAM, mapped, aligned, outside this program, and nobody writes there while it runs.
    unsafe { &*(table::ADDRESS as *const [u64; table::NR_WORDS]) }
}

/// The sum over the page at an address of the table.
pub fn sum(address: u64) -> u64 {
    // SAFETY: the table's own sum was right, so the address is one that the kernel has: RAM, mapped, page-aligned.
    // Writable pages of this program are not in it.
    let page = unsafe { &*(address as *const Page) };
    pattern::sum(page.iter().copied())
}

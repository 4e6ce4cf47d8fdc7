//! The pages that the cases are about, and those only.

// UNSAFETY: pages are named by their addresses, which the language knows nothing about.
#![expect(unsafe_code)]

use bare_metal_platform::{PAGE_SIZE, Page, pattern, table};
use kdump_panic_kernel::kimage::Pages;

use crate::payload;

/// Where sources, destinations and free pages collide.
pub const ARENA: (u64, u64) = (0x200_0000, 256);
/// Pages that are free, as a reservation is.
pub const RESERVE: (u64, u64) = (0x300_0000, 512);
/// The same above 4 GiB, where 32 bits do not reach: an arena, then a reserve.
pub const HIGH_ARENA: (u64, u64) = (0x1_0000_0000, 96);
pub const HIGH_RESERVE: (u64, u64) = (0x1_0100_0000, 512);

unsafe extern "C" {
    safe static kernel_constant_start: [u8; 0];
    safe static kernel_constant_end: [u8; 0];
}

/// Text and constants of this kernel, which an image may take the place of.
pub fn kernel_text() -> Pages {
    let (start, end) = (kernel_constant_start.as_ptr() as u64, kernel_constant_end.as_ptr() as u64);
    run((start, (end - start) / PAGE_SIZE))
}

/// A stretch of pages.
pub fn run((start, nr): (u64, u64)) -> Pages {
    Pages::new(start, nr).expect("pages")
}

/// All pages that may be written.
fn ours() -> [Pages; 6] {
    [ARENA, RESERVE, HIGH_ARENA, HIGH_RESERVE, payload::PLACE, (table::ADDRESS, table::NR_PAGES)].map(run)
}

/// Addresses of all pages that are watched: those that may be written, and the kernel's own.
pub fn watched() -> impl Iterator<Item = u64> {
    ours().into_iter().chain([kernel_text()]).flat_map(Pages::addresses)
}

/// Gives every page a content of its own.
pub fn fill(key: u64) {
    for page in ours().into_iter().flat_map(Pages::addresses) {
        write(page, &pattern::page(key ^ page));
    }
}

/// Content of a watched page.
pub fn read(address: u64) -> Page {
    let is_watched = |r: Pages| (r.start()..r.end()).contains(&address);
    assert!(
        address.is_multiple_of(PAGE_SIZE) && ours().into_iter().chain([kernel_text()]).any(is_watched),
        "{address:#x} is read"
    );
    // SAFETY: RAM, mapped, page-aligned, and no object that changes: outside this program, or constant.
    unsafe { (address as *const Page).read_volatile() }
}

/// Writes a page.
pub fn write(address: u64, page: &Page) {
    let is_ours = |r: Pages| (r.start()..r.end()).contains(&address);
    assert!(address.is_multiple_of(PAGE_SIZE) && ours().into_iter().any(is_ours), "{address:#x} is written");
    // SAFETY: RAM, mapped, page-aligned, outside this program: it ends below the payload's place.
    unsafe { (address as *mut Page).write_volatile(*page) }
}

/// Writes the start of a page, and zeros behind it.
pub fn write_bytes(address: u64, bytes: &[u8]) {
    let mut page: Page = [0; 512];
    for (word, bytes) in page.iter_mut().zip(bytes.chunks(8)) {
        let mut whole = [0; 8];
        whole[..bytes.len()].copy_from_slice(bytes);
        *word = u64::from_le_bytes(whole);
    }
    write(address, &page);
}

/// The sum over a watched page.
pub fn sum(address: u64) -> u64 {
    pattern::sum(read(address))
}

//! Physical memory through the identity map in force: the one found, or the loader's.

// UNSAFETY: makes slices of memory that the language knows nothing about.
#![expect(unsafe_code)]

use kdump_panic_kernel::PAGE_SIZE;
use kdump_panic_kernel::parity::Page;
use kdump_panic_kernel::record::{DESC_OFFSET, DESC_SIZE};
use kdump_panic_kernel::verify::Memory;

/// The identity map: physical address = virtual address.
pub struct IdentityMap;

/// End of the lower canonical half with 5-level paging; physical memory never reaches it.
const LOWER_HALF_END: u64 = 1 << 56;

impl Memory for IdentityMap {
    fn bytes(&self, start: u64, len: u64) -> Option<&[u8]> {
        let end = start.checked_add(len)?;
        // A slice must not begin at address 0, and the first page holds nothing to be checked.
        if start < 0x1000 || end > LOWER_HALF_END {
            return None;
        }
        // SAFETY:
        // 1. The range comes from a handoff block that hashed right, so it is a segment the loader gave to
        //    the kernel, and both identity maps cover all segments. Should they not, the access faults and the
        //    exception handler reports it: no other memory is read instead.
        // 2. The range does not wrap and is shorter than isize::MAX (checked above); bytes need no alignment.
        // 3. Nothing writes to it while the slice lives: this is the only CPU that runs our code, and `write_page`
        //    borrows the map mutably. DMA of the old kernel
        //    may damage it; then the digest differs, which is what it is for.
        Some(unsafe { core::slice::from_raw_parts(start as *const u8, len as usize) })
    }
    fn write_page(&mut self, start: u64, page: &Page) -> bool {
        if !start.is_multiple_of(PAGE_SIZE) || self.bytes(start, PAGE_SIZE).is_none() {
            return false;
        }
        // SAFETY: as for reading; only repair writes, to the pages of the protected regions, and the program, its
        // stack and its tables lie in none. No slice of that page is alive: `self` is borrowed mutably.
        unsafe { core::ptr::copy_nonoverlapping(page.as_ptr(), start as *mut u8, page.len()) };
        true
    }
}

/// A page by its physical address, if that can be one.
pub fn page(address: u64) -> Option<&'static Page> {
    if !address.is_multiple_of(PAGE_SIZE) || !(PAGE_SIZE..LOWER_HALF_END).contains(&address) {
        return None;
    }
    // SAFETY: the loader put the address into the image, whose sum is right; it is the other copy's handoff block,
    // in the same kexec segment map, and nobody writes to it.
    Some(unsafe { &*(address as *const Page) })
}

/// Leaves the record on its page, behind the header of the note. 0 is no page.
pub fn write_record(address: u64, record: &[u8; DESC_SIZE]) {
    if !address.is_multiple_of(PAGE_SIZE) || !(PAGE_SIZE..LOWER_HALF_END).contains(&address) {
        return;
    }
    let start = (address + DESC_OFFSET as u64) as *mut u8;
    // SAFETY: the handoff block that names the page hashed right; the loader made it for this and for nothing else.
    // The record ends within the page (checked where the constants are defined).
    unsafe { core::ptr::copy_nonoverlapping(record.as_ptr(), start, DESC_SIZE) };
}

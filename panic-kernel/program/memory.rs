//! Physical memory through the identity map the crashed kernel left in force.

// UNSAFETY: makes slices of memory that the language knows nothing about.
#![expect(unsafe_code)]

use kdump_panic_kernel::PAGE_SIZE;
use kdump_panic_kernel::parity::Page;
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
        //    the kernel, and the identity map covers all segments. Should it not, the access faults and the
        //    exception handler reports it: no other memory is read instead.
        // 2. The range does not wrap and is shorter than isize::MAX (checked above); bytes need no alignment.
        // 3. Nothing writes to it while the slice lives: this is the only CPU that runs our code, and we write
        //    to our own image only, of which the loader lists at most the constant part. DMA of the old kernel
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

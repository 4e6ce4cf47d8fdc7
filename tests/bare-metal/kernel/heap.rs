//! An allocator that only ever takes, and is emptied between cases.

// UNSAFETY: implementing the allocator.
#![expect(unsafe_code)]

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

const SIZE: usize = 8 << 20;

#[repr(align(4096))]
struct Heap {
    bytes: UnsafeCell<[u8; SIZE]>,
    nr_taken: AtomicUsize,
}

// SAFETY: there is one CPU and nothing interrupts; the bytes are handed out once each.
unsafe impl Sync for Heap {}

#[global_allocator]
static HEAP: Heap = Heap { bytes: UnsafeCell::new([0; SIZE]), nr_taken: AtomicUsize::new(0) };

// SAFETY: `alloc` gives out aligned pieces of the array that do not overlap, or null; nothing is given back but
// by `clear`, which is called when nothing of the last case is alive.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let start = self.nr_taken.load(Relaxed).next_multiple_of(layout.align());
        match start.checked_add(layout.size()).filter(|&end| end <= SIZE) {
            Some(end) => {
                self.nr_taken.store(end, Relaxed);
                // SAFETY: `start` lies within the array.
                unsafe { self.bytes.get().cast::<u8>().add(start) }
            }
            None => core::ptr::null_mut(),
        }
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}

/// Takes everything back. At the start of a case, when nothing is allocated.
pub fn clear() {
    HEAP.nr_taken.store(0, Relaxed);
}

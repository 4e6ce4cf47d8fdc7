//! Sparse physical memory, and an allocator that hands out places in it.

use std::collections::BTreeMap;

/// Bytes in a page; every kernel here is x86-64.
pub const PAGE_SIZE: u64 = 4096;

/// Physical memory as a map from page frame number to page; what was never written reads as zeros.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    pages: BTreeMap<u64, Box<[u8; PAGE_SIZE as usize]>>,
}

impl Memory {
    /// Returns memory in which nothing was written.
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes `bytes` at physical address `phys`; may cross pages.
    pub fn write(&mut self, phys: u64, bytes: &[u8]) {
        let mut phys = phys;
        let mut rest = bytes;
        while !rest.is_empty() {
            let start = (phys % PAGE_SIZE) as usize;
            let len = rest.len().min(PAGE_SIZE as usize - start);
            let page =
                self.pages.entry(phys / PAGE_SIZE).or_insert_with(|| Box::new([0; PAGE_SIZE as usize]));
            page[start..start + len].copy_from_slice(&rest[..len]);
            rest = &rest[len..];
            phys += len as u64;
        }
    }

    /// Writes a little-endian u64.
    pub fn write_u64(&mut self, phys: u64, value: u64) {
        self.write(phys, &value.to_le_bytes());
    }

    /// Writes a little-endian u32.
    pub fn write_u32(&mut self, phys: u64, value: u32) {
        self.write(phys, &value.to_le_bytes());
    }

    /// Returns `len` bytes from `phys`.
    pub fn read(&self, phys: u64, len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        self.read_into(phys, &mut out);
        out
    }

    /// Fills `out` from `phys`; absent pages leave it zero.
    pub fn read_into(&self, phys: u64, out: &mut [u8]) {
        let mut done = 0;
        while done < out.len() {
            let at = phys + done as u64;
            let start = (at % PAGE_SIZE) as usize;
            let len = (out.len() - done).min(PAGE_SIZE as usize - start);
            match self.page(at / PAGE_SIZE) {
                Some(page) => out[done..done + len].copy_from_slice(&page[start..start + len]),
                None => out[done..done + len].fill(0),
            }
            done += len;
        }
    }

    /// Returns the little-endian u64 at `phys`.
    pub fn read_u64(&self, phys: u64) -> u64 {
        let mut bytes = [0; 8];
        self.read_into(phys, &mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// Returns the page of frame `pfn`, if anything was ever written there.
    pub fn page(&self, pfn: u64) -> Option<&[u8; PAGE_SIZE as usize]> {
        self.pages.get(&pfn).map(|page| &**page)
    }

    /// Returns the frame numbers that were written to, ascending.
    pub fn pfns(&self) -> impl Iterator<Item = u64> + '_ {
        self.pages.keys().copied()
    }
}

/// Hands out ascending, non-overlapping places from one address range (physical or virtual).
#[derive(Clone, Debug)]
pub struct Arena {
    next: u64,
    end: u64,
}

impl Arena {
    /// Returns an allocator for `start..end`.
    pub fn new(start: u64, end: u64) -> Self {
        assert!(start <= end, "arena {start:#x}..{end:#x} is backwards");
        Self { next: start, end }
    }

    /// Returns the address of `size` fresh bytes aligned to `align`.
    pub fn alloc(&mut self, size: u64, align: u64) -> u64 {
        let start = self.next.next_multiple_of(align);
        let end = start.checked_add(size).filter(|&end| end <= self.end);
        self.next = end.unwrap_or_else(|| {
            panic!("no room for {size:#x} bytes at {start:#x}: the arena ends at {:#x}", self.end)
        });
        start
    }

    /// Returns the first address not handed out yet.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Returns the exclusive end of the range.
    pub fn end(&self) -> u64 {
        self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_across_a_page_boundary_reads_back_and_the_rest_is_zero() {
        let mut memory = Memory::new();
        memory.write(0x1ffe, b"abcd");
        assert_eq!(memory.read(0x1ffd, 6), b"\0abcd\0");
        assert_eq!(memory.pfns().collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn an_arena_aligns_and_never_overlaps() {
        let mut arena = Arena::new(0x1001, 0x3000);
        assert_eq!(arena.alloc(1, 16), 0x1010);
        assert_eq!(arena.alloc(8, 0x1000), 0x2000);
        assert_eq!(arena.next(), 0x2008);
    }

    #[test]
    #[should_panic(expected = "no room for 0x1001 bytes")]
    fn a_full_arena_says_so() {
        Arena::new(0, 0x1000).alloc(0x1001, 1);
    }
}

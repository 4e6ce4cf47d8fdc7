//! What a source dump holds, page by page.

use kdump_arch_x86::{PAGE_SIZE, PhysAddr, PhysRange};
use kdump_vmcore::kdump::bitmap::PageBitmap;
use kdump_vmcore::{Dump, PhysMem, ReadError};

/// Frames from here on are refused: no x86-64 machine has physical addresses of more than 52 bits.
pub const MAX_FRAMES: u64 = 1 << 40;

/// The dump describes memory at addresses that no machine has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the dump describes memory up to {0}; x86-64 has 52 bits of physical address")]
pub struct TooHigh(pub PhysAddr);

/// Which frames a dump describes, and which it holds, asked window by window: a whole map of a large machine would not fit
/// the memory of a capture kernel.
pub struct SourceMap<'a> {
    dump: &'a Dump,
    /// Of an ELF core: what each segment's bytes are for, by ascending address.
    held: Vec<PhysRange>,
    end: u64,
}

/// The frames of one window.
#[derive(Clone, Debug)]
pub struct SourcePages {
    /// Frames that were memory.
    pub ram: PageBitmap,
    /// Frames whose bytes the source has.
    pub held: PageBitmap,
}

impl SourcePages {
    /// A window without frames.
    #[must_use]
    pub fn none(first: u64) -> Self {
        Self { ram: PageBitmap::window(first, first), held: PageBitmap::window(first, first) }
    }
}

impl<'a> SourceMap<'a> {
    /// Looks at what `dump` describes.
    #[must_use]
    pub fn new(dump: &'a Dump) -> Self {
        let loads = dump.loads().iter().filter(|l| l.file_size > 0);
        let mut held: Vec<PhysRange> = loads
            .filter_map(|l| PhysRange::from_len(l.phys.start().0, l.file_size.min(l.phys.len())))
            .collect();
        held.sort_unstable_by_key(|r| r.start());
        let end = match dump.kdump() {
            Some(kdump) => kdump.frames(),
            None => dump.ram().last().map_or(0, |r| r.end().0.div_ceil(PAGE_SIZE)),
        };
        Self { dump, held, end }
    }

    /// One past the highest frame.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.end
    }

    /// The first frame at or after `from` that may have been memory; none if there are no more.
    #[must_use]
    pub fn next(&self, from: u64) -> Option<u64> {
        let at = self.dump.ram().partition_point(|r| r.pfns().1.0 <= from);
        self.dump.ram().get(at).map(|r| r.pfns().0.0.max(from))
    }

    /// The frames of `first..end`, `first` being a multiple of 64.
    ///
    /// # Errors
    /// If the source cannot say it.
    pub fn window(&self, first: u64, end: u64) -> Result<SourcePages, ReadError> {
        let end = end.min(self.end).max(first);
        if let Some(kdump) = self.dump.kdump() {
            let (ram, held) = (kdump.read_ram(first..end)?, kdump.read_dumped(first..end)?);
            return Ok(SourcePages { ram, held });
        }
        let mut pages =
            SourcePages { ram: PageBitmap::window(first, end), held: PageBitmap::window(first, end) };
        for (ranges, map) in [(self.dump.ram(), &mut pages.ram), (&self.held, &mut pages.held)] {
            // Ends ascend with starts in what the dump says is memory; segments may overlap and need a look at each.
            for (start, stop) in ranges.iter().map(|r| r.pfns()) {
                if start.0 >= end {
                    break;
                }
                map.insert(start.0, stop.0);
            }
        }
        Ok(pages)
    }
}

/// Reads one page. Where memory begins or ends inside it, what is outside reads as zeros, as the
/// page's other part was no memory.
///
/// # Errors
/// If a byte that is memory cannot be read.
pub fn read_page<M: PhysMem + ?Sized>(
    mem: &M,
    ram: &[PhysRange],
    pfn: u64,
    page: &mut [u8],
) -> Result<(), ReadError> {
    let start = pfn.saturating_mul(PAGE_SIZE);
    let first = match mem.read(PhysAddr(start), page) {
        Ok(()) => return Ok(()),
        Err(e) => e,
    };
    let whole = PhysRange::from_len(start, PAGE_SIZE).ok_or(first)?;
    let from = ram.partition_point(|r| r.end().0 <= start);
    let parts = || ram[from..].iter().map_while(|r| r.overlap(whole));
    if parts().all(|part| part == whole) {
        return Err(first);
    }
    page.fill(0);
    for part in parts() {
        let at = (part.start().0 - start) as usize;
        mem.read(part.start(), &mut page[at..at + part.len() as usize])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use kdump_vmcore::mem::LiteralMem;

    /// Check the last page below the BIOS area, where RAM ends at 0x9fc00.
    #[test]
    fn a_page_that_is_partly_memory_reads_with_zeros_behind() {
        let mem = LiteralMem(vec![(PhysAddr(0x9f000), vec![7; 0xc00])]);
        let ram = [PhysRange::new(0x1000, 0x9fc00)];
        let mut page = [1; 4096];
        read_page(&mem, &ram, 0x9f, &mut page).unwrap();
        assert_eq!((page[0xbff], page[0xc00]), (7, 0));
    }

    #[test]
    fn a_page_that_is_all_memory_and_unreadable_is_an_error() {
        let mem = LiteralMem::default();
        let ram = [PhysRange::new(0, 0x10000)];
        assert!(read_page(&mem, &ram, 2, &mut [0; 4096]).is_err());
    }
}

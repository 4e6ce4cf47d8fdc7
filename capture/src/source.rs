//! What a source dump holds, page by page.

use kdump_arch_x86::{PAGE_SIZE, PhysAddr, PhysRange};
use kdump_vmcore::kdump::bitmap::PageBitmap;
use kdump_vmcore::{Dump, PhysMem, ReadError};

use crate::filter::SourcePages;

/// Frames from here on (64 TiB of address space) are refused: two bitmaps of 2 GiB.
const MAX_FRAMES: u64 = 1 << 34;

/// The dump describes memory beyond what a bitmap of bearable size can say.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the dump describes memory up to {0}; more than 64 TiB of address space is not supported")]
pub struct TooHigh(pub PhysAddr);

/// Finds which frames `dump` describes, and which it holds.
///
/// # Errors
/// If it describes memory beyond 64 TiB.
pub fn pages_of(dump: &Dump) -> Result<SourcePages, TooHigh> {
    if let Some(kdump) = dump.kdump() {
        let mut held = kdump.dumped().clone();
        if let Some((start, end)) = kdump.info().split {
            held.remove(0, start);
            held.remove(end, u64::MAX);
        }
        return Ok(SourcePages { ram: kdump.ram().clone(), held });
    }
    let highest = dump.ram().last().map_or(PhysAddr(0), |r| r.end());
    let bits = highest.0.div_ceil(PAGE_SIZE);
    if bits > MAX_FRAMES {
        return Err(TooHigh(highest));
    }
    let mut ram = PageBitmap::new(bits);
    let mut held = PageBitmap::new(bits);
    for range in dump.ram() {
        let (start, end) = range.pfns();
        ram.insert(start.0, end.0);
    }
    for load in dump.loads().iter().filter(|l| l.file_size > 0) {
        let have = PhysRange::from_len(load.phys.start().0, load.file_size.min(load.phys.len()));
        if let Some((start, end)) = have.map(PhysRange::pfns) {
            held.insert(start.0, end.0);
        }
    }
    Ok(SourcePages { ram, held })
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

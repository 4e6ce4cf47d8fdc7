//! Reading physical memory: one small trait, one fixed set of failures.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use kdump_arch_x86::paging::Level;
use kdump_arch_x86::{PAGE_SIZE, Pfn, PhysAddr, VirtAddr};

/// Why memory could not be read. Every layer keeps these apart, since they mean different things
/// to a person: a dump level that left a page out is no damage, a hole in a page table is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadError {
    /// A table entry on the way is not present.
    NotMapped {
        /// The address asked for.
        virt: VirtAddr,
        /// Level of the entry.
        level: Level,
        /// Where the entry lies.
        at: PhysAddr,
        /// Its value.
        entry: u64,
    },
    /// The page was left out on purpose, by the dump level.
    Excluded {
        /// The page.
        pfn: Pfn,
    },
    /// The address belongs to no memory that the dump describes.
    NotInDump {
        /// The address.
        phys: PhysAddr,
    },
    /// The file contradicts itself.
    Corrupt {
        /// What is wrong.
        what: &'static str,
        /// Offset in the file, or address, of the contradiction.
        at: u64,
    },
    /// The file is shorter than its headers say: a cut dump.
    Truncated {
        /// File offset of the missing byte.
        at: u64,
    },
    /// The operating system refused.
    Io {
        /// File offset.
        at: u64,
        /// errno, 0 where there was none.
        errno: i32,
    },
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NotMapped { virt, level, at, entry } => {
                write!(f, "{virt} is not mapped: {level} entry at {at} is {entry:#x}")
            }
            Self::Excluded { pfn } => write!(f, "page {pfn} was excluded by the dump level"),
            Self::NotInDump { phys } => write!(f, "physical address {phys} is not in the dump"),
            Self::Corrupt { what, at } => write!(f, "corrupt dump: {what} at {at:#x}"),
            Self::Truncated { at } => write!(f, "the file ends before offset {at:#x}"),
            Self::Io { at, errno } => write!(f, "cannot read at offset {at:#x}: errno {errno}"),
        }
    }
}

impl core::error::Error for ReadError {}

/// Physical memory, from the reader's side.
pub trait PhysMem {
    /// Reads `buf.len()` bytes from `at`, which may cross pages.
    ///
    /// # Errors
    /// If any byte cannot be read; `buf` may then be partly written.
    fn read(&self, at: PhysAddr, buf: &mut [u8]) -> Result<(), ReadError>;

    /// The bytes themselves, where the source has them in one piece in memory.
    fn borrow(&self, _at: PhysAddr, _len: usize) -> Option<&[u8]> {
        None
    }

    /// The same for one large piece that is worth a mapping of its own, where the source can make one.
    fn window(&self, at: PhysAddr, len: usize) -> Option<&[u8]> {
        self.borrow(at, len)
    }

    /// One large piece that is mapped for as long as it is looked at, where the source can do that and it is cheaper
    /// than reading.
    #[cfg(feature = "std")]
    fn piece(&self, _at: PhysAddr, _len: usize) -> Option<crate::file::Piece> {
        None
    }

    /// Reads a little-endian u64.
    ///
    /// # Errors
    /// As [`Self::read`].
    fn read_u64(&self, at: PhysAddr) -> Result<u64, ReadError> {
        let mut b = [0; 8];
        self.read(at, &mut b)?;
        Ok(u64::from_le_bytes(b))
    }
}

impl<T: PhysMem + ?Sized> PhysMem for &T {
    fn read(&self, at: PhysAddr, buf: &mut [u8]) -> Result<(), ReadError> {
        (**self).read(at, buf)
    }
    fn borrow(&self, at: PhysAddr, len: usize) -> Option<&[u8]> {
        (**self).borrow(at, len)
    }
    fn window(&self, at: PhysAddr, len: usize) -> Option<&[u8]> {
        (**self).window(at, len)
    }
    #[cfg(feature = "std")]
    fn piece(&self, at: PhysAddr, len: usize) -> Option<crate::file::Piece> {
        (**self).piece(at, len)
    }
}

impl<T: PhysMem + ?Sized> PhysMem for Box<T> {
    fn read(&self, at: PhysAddr, buf: &mut [u8]) -> Result<(), ReadError> {
        (**self).read(at, buf)
    }
    fn borrow(&self, at: PhysAddr, len: usize) -> Option<&[u8]> {
        (**self).borrow(at, len)
    }
    fn window(&self, at: PhysAddr, len: usize) -> Option<&[u8]> {
        (**self).window(at, len)
    }
    #[cfg(feature = "std")]
    fn piece(&self, at: PhysAddr, len: usize) -> Option<crate::file::Piece> {
        (**self).piece(at, len)
    }
}

/// Memory written down as a literal: pieces of bytes at physical addresses. For tests.
#[derive(Clone, Debug, Default)]
pub struct LiteralMem(pub Vec<(PhysAddr, Vec<u8>)>);

impl PhysMem for LiteralMem {
    fn read(&self, at: PhysAddr, buf: &mut [u8]) -> Result<(), ReadError> {
        for (i, byte) in buf.iter_mut().enumerate() {
            let phys = at.wrapping_add(i as u64);
            *byte = self
                .0
                .iter()
                .find_map(|(start, bytes)| bytes.get(usize::try_from(phys.0.checked_sub(start.0)?).ok()?))
                .copied()
                .ok_or(ReadError::NotInDump { phys })?;
        }
        Ok(())
    }
}

/// Splits `[at, at + len)` at page boundaries: offset in the buffer, address, bytes.
pub fn page_pieces(at: u64, len: usize) -> impl Iterator<Item = (usize, u64, usize)> {
    let mut done = 0;
    core::iter::from_fn(move || {
        if done >= len {
            return None;
        }
        let here = at.wrapping_add(done as u64);
        // A page is far below usize::MAX, so the cast is exact.
        let n = ((PAGE_SIZE - here % PAGE_SIZE) as usize).min(len - done);
        done += n;
        Some((done - n, here, n))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_may_cross_pieces() {
        let m = LiteralMem(alloc::vec![
            (PhysAddr(0x1000), alloc::vec![1, 2]),
            (PhysAddr(0x1002), alloc::vec![3, 4, 5, 6, 7, 8])
        ]);
        assert_eq!(m.read_u64(PhysAddr(0x1000)), Ok(0x0807_0605_0403_0201));
        assert_eq!(m.read_u64(PhysAddr(0x1001)), Err(ReadError::NotInDump { phys: PhysAddr(0x1008) }));
    }

    #[test]
    fn pieces_end_at_pages() {
        let p: Vec<_> = page_pieces(0x1ffe, 0x1003).collect();
        assert_eq!(p, [(0, 0x1ffe, 2), (2, 0x2000, 0x1000), (0x1002, 0x3000, 1)]);
    }
}

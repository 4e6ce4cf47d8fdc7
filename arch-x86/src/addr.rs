//! Addresses: physical, virtual and page frame numbers as distinct types.
//!
//! A physical address where a virtual one is meant is the commonest mistake in this field, so the
//! two never mix. Foreign numbers are added with the `checked_` methods; whether a virtual address
//! is canonical depends on the dump's paging mode (48 or 57 bits) and is therefore a question
//! asked with that parameter, not an invariant of the type.

use core::fmt;

/// log2 of the page size.
pub const PAGE_SHIFT: u32 = 12;
/// Bytes in a small page.
pub const PAGE_SIZE: u64 = 1 << PAGE_SHIFT;

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[repr(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// Adds `bytes`; `None` where that would pass 2^64.
            #[must_use]
            pub const fn checked_add(self, bytes: u64) -> Option<Self> {
                match self.0.checked_add(bytes) { Some(v) => Some(Self(v)), None => None }
            }
            /// Adds `bytes` modulo 2^64, for offsets the kernel itself computes with wraparound.
            #[must_use]
            pub const fn wrapping_add(self, bytes: u64) -> Self {
                Self(self.0.wrapping_add(bytes))
            }
            /// Rounds down to the page.
            #[must_use]
            pub const fn page_down(self) -> Self {
                Self(self.0 & !(PAGE_SIZE - 1))
            }
            /// Rounds up to the page; `None` where that would pass 2^64.
            #[must_use]
            pub const fn page_up(self) -> Option<Self> {
                match self.0.checked_add(PAGE_SIZE - 1) { Some(v) => Some(Self(v).page_down()), None => None }
            }
            /// Offset inside the page, 0..4096.
            #[must_use]
            pub const fn page_offset(self) -> u64 {
                self.0 & (PAGE_SIZE - 1)
            }
            /// Whether the address is a multiple of `align`, a power of two.
            #[must_use]
            pub const fn is_aligned(self, align: u64) -> bool {
                self.0 & (align - 1) == 0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
        impl fmt::LowerHex for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::LowerHex::fmt(&self.0, f)
            }
        }
        impl From<u64> for $name {
            fn from(v: u64) -> Self { Self(v) }
        }
    };
}

address! {
    /// A physical address.
    PhysAddr
}
address! {
    /// A virtual address, kernel or user.
    VirtAddr
}

/// A page frame number: a physical address divided by the page size.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
#[repr(transparent)]
pub struct Pfn(pub u64);

impl Pfn {
    /// The frame's first byte. Saturates for a frame number that no address can name.
    #[must_use]
    pub const fn addr(self) -> PhysAddr {
        PhysAddr(self.0.saturating_mul(PAGE_SIZE))
    }
}

impl fmt::Display for Pfn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl PhysAddr {
    /// The frame that holds this address.
    #[must_use]
    pub const fn pfn(self) -> Pfn {
        Pfn(self.0 >> PAGE_SHIFT)
    }
}

impl VirtAddr {
    /// Whether bits above the paging mode's top bit all repeat it.
    #[must_use]
    pub const fn is_canonical(self, mode: crate::paging::Mode) -> bool {
        let shift = 64 - mode.bits();
        ((self.0 << shift) as i64 >> shift) as u64 == self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paging::Mode;

    #[test]
    fn rounding_stays_in_range() {
        assert_eq!(PhysAddr(0x1fff).page_down(), PhysAddr(0x1000));
        assert_eq!(PhysAddr(0x1001).page_up(), Some(PhysAddr(0x2000)));
        assert_eq!(PhysAddr(0x1000).page_up(), Some(PhysAddr(0x1000)));
        assert_eq!(PhysAddr(u64::MAX).page_up(), None);
        assert_eq!(PhysAddr(0x12345).pfn(), Pfn(0x12));
    }

    #[test]
    fn canonicality_depends_on_the_paging_mode() {
        let five_level_only = VirtAddr(0xff11_0000_0000_0000);
        assert!(!five_level_only.is_canonical(Mode::FourLevel));
        assert!(five_level_only.is_canonical(Mode::FiveLevel));
        assert!(VirtAddr(0xffff_8880_0000_0000).is_canonical(Mode::FourLevel));
        assert!(VirtAddr(0x7fff_ffff_ffff).is_canonical(Mode::FourLevel));
    }
}

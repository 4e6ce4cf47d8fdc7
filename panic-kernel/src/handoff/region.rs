//! A stretch of memory that the panic path checks.

use super::HandoffError;
use super::field::{array_at, put, u32_at, u64_at};
use crate::PAGE_SIZE;
use crate::sha256::DIGEST_SIZE;

/// Longest tag of a region.
pub const TAG_SIZE: usize = 12;

/// Bytes of a region as stored.
pub(super) const REGION_SIZE: usize = 0x40;

/// What else is known of a region, as stored.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RegionFlags(pub u32);

impl RegionFlags {
    /// Its pages have digests and take part in the parity.
    pub const PROTECTED: Self = Self(1);

    /// Whether all of `other` is set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// A stretch of physical memory and what it must hash to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Physical address of the first byte.
    pub start: u64,
    /// Number of bytes.
    pub len: u64,
    /// Name for the console, ASCII, zero-filled.
    pub tag: [u8; TAG_SIZE],
    /// What else is known.
    pub flags: RegionFlags,
    /// SHA-256 of the bytes.
    pub sha256: [u8; DIGEST_SIZE],
}

impl Region {
    pub(super) const EMPTY: Self =
        Self { start: 0, len: 0, tag: [0; TAG_SIZE], flags: RegionFlags(0), sha256: [0; DIGEST_SIZE] };

    /// Makes a region.
    ///
    /// # Errors
    /// If it is empty or impossible, protected and not at a page's start, or the tag not 1 to 12 printable
    /// characters.
    pub fn new(
        start: u64,
        len: u64,
        tag: &str,
        flags: RegionFlags,
        sha256: [u8; DIGEST_SIZE],
    ) -> Result<Self, HandoffError> {
        let is_printable = tag.bytes().all(|byte| byte.is_ascii_graphic());
        if tag.is_empty() || tag.len() > TAG_SIZE || !is_printable {
            return Err(HandoffError::BadTag { len: tag.len() });
        }
        let mut region = Self { start, len, flags, sha256, ..Self::EMPTY };
        put(&mut region.tag, 0, tag.as_bytes());
        region.check()
    }

    pub(super) fn read(bytes: &[u8], at: usize) -> Result<Self, HandoffError> {
        let region = Self {
            start: u64_at(bytes, at),
            len: u64_at(bytes, at + 0x08),
            tag: array_at(bytes, at + 0x10),
            flags: RegionFlags(u32_at(bytes, at + 0x1c)),
            sha256: array_at(bytes, at + 0x20),
        };
        region.check()
    }

    pub(super) fn write(&self, bytes: &mut [u8], at: usize) {
        put(bytes, at, &self.start.to_le_bytes());
        put(bytes, at + 0x08, &self.len.to_le_bytes());
        put(bytes, at + 0x10, &self.tag);
        put(bytes, at + 0x1c, &self.flags.0.to_le_bytes());
        put(bytes, at + 0x20, &self.sha256);
    }

    /// Bounds that everything below may rely on: the pages of the region end below 2^52.
    fn check(self) -> Result<Self, HandoffError> {
        let is_aligned = !self.is_protected() || self.start.is_multiple_of(PAGE_SIZE);
        match self.start.checked_add(self.len) {
            Some(end) if end > self.start && end < 1 << 52 && is_aligned => Ok(self),
            _ => Err(HandoffError::BadRegion { start: self.start, len: self.len }),
        }
    }

    /// The tag without its zero padding.
    pub fn tag_bytes(&self) -> &[u8] {
        let len = self.tag.iter().position(|&byte| byte == 0).unwrap_or(TAG_SIZE);
        self.tag.get(..len).unwrap_or_default()
    }

    /// Whether `addr` lies in the region.
    pub fn contains(&self, addr: u64) -> bool {
        addr.checked_sub(self.start).is_some_and(|offset| offset < self.len)
    }

    /// Whether its pages can be rebuilt.
    pub fn is_protected(&self) -> bool {
        self.flags.contains(RegionFlags::PROTECTED)
    }

    /// Pages it touches, the last one perhaps in part.
    pub fn nr_pages(&self) -> u64 {
        self.len.div_ceil(PAGE_SIZE)
    }
}

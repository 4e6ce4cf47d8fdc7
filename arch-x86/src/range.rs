//! Half-open physical ranges, and algebra over sorted sequences of them.
//!
//! iomem parsing, hole finding, e820, PT_LOAD and bitmaps all reduce to three questions: what is
//! in both, what is in the first and not in the second, what touches. They are answered here
//! once. Inputs are iterators sorted by start whose ranges do not overlap; [`merge`] makes such a
//! sequence from one that is sorted but overlapping. Nothing allocates.

use core::fmt;
use core::iter::Peekable;

use crate::addr::{PAGE_SIZE, Pfn, PhysAddr};

/// A half-open range `[start, end)` of physical addresses; never inverted, possibly empty.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PhysRange {
    start: u64,
    end: u64,
}

impl PhysRange {
    /// Makes `[start, end)`.
    ///
    /// # Panics
    /// If `end < start`: for constants and numbers already checked. Foreign ones use [`Self::try_new`].
    #[must_use]
    pub const fn new(start: u64, end: u64) -> Self {
        assert!(start <= end, "inverted range");
        Self { start, end }
    }

    /// Makes `[start, end)`, or `None` if it would be inverted.
    #[must_use]
    pub const fn try_new(start: u64, end: u64) -> Option<Self> {
        if start <= end { Some(Self { start, end }) } else { None }
    }

    /// Makes `[start, start + len)`, or `None` if it would pass 2^64.
    #[must_use]
    pub const fn from_len(start: u64, len: u64) -> Option<Self> {
        match start.checked_add(len) {
            Some(end) => Some(Self { start, end }),
            None => None,
        }
    }

    /// First byte.
    #[must_use]
    pub const fn start(self) -> PhysAddr {
        PhysAddr(self.start)
    }
    /// One past the last byte.
    #[must_use]
    pub const fn end(self) -> PhysAddr {
        PhysAddr(self.end)
    }
    /// Bytes.
    #[must_use]
    pub const fn len(self) -> u64 {
        self.end - self.start
    }
    /// Whether there is no byte in it.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.start == self.end
    }
    /// Whether `at` lies inside.
    #[must_use]
    pub const fn contains(self, at: PhysAddr) -> bool {
        self.start <= at.0 && at.0 < self.end
    }
    /// Whether all of `other` lies inside.
    #[must_use]
    pub const fn covers(self, other: Self) -> bool {
        self.start <= other.start && other.end <= self.end
    }
    /// The common part, if it has a byte.
    #[must_use]
    pub fn overlap(self, other: Self) -> Option<Self> {
        let (start, end) = (self.start.max(other.start), self.end.min(other.end));
        (start < end).then_some(Self { start, end })
    }
    /// The largest page-aligned range inside; `None` if there is no whole page.
    #[must_use]
    pub fn shrink_to_pages(self) -> Option<Self> {
        let start = PhysAddr(self.start).page_up()?.0;
        let end = PhysAddr(self.end).page_down().0;
        (start < end).then_some(Self { start, end })
    }
    /// The smallest page-aligned range around; `None` if it would pass 2^64.
    #[must_use]
    pub fn grow_to_pages(self) -> Option<Self> {
        Some(Self { start: PhysAddr(self.start).page_down().0, end: PhysAddr(self.end).page_up()?.0 })
    }
    /// Frame numbers `[first, past)` of the pages this range touches.
    #[must_use]
    pub const fn pfns(self) -> (Pfn, Pfn) {
        (Pfn(self.start / PAGE_SIZE), Pfn(self.end.div_ceil(PAGE_SIZE)))
    }
}

impl fmt::Debug for PhysRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{:#x}, {:#x})", self.start, self.end)
    }
}

impl fmt::Display for PhysRange {
    /// `start-last`, as /proc/iomem prints: the last byte is inclusive.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#012x}-{:#012x}", self.start, self.end.wrapping_sub(1))
    }
}

/// Joins ranges that overlap or touch. The input is sorted by start.
pub fn merge<I: IntoIterator<Item = PhysRange>>(ranges: I) -> Merge<I::IntoIter> {
    Merge { inner: ranges.into_iter().peekable() }
}

/// See [`merge`].
pub struct Merge<I: Iterator<Item = PhysRange>> {
    inner: Peekable<I>,
}

impl<I: Iterator<Item = PhysRange>> Iterator for Merge<I> {
    type Item = PhysRange;
    fn next(&mut self) -> Option<PhysRange> {
        let mut current = self.inner.find(|r| !r.is_empty())?;
        while let Some(next) = self.inner.next_if(|n| n.is_empty() || n.start <= current.end) {
            current.end = current.end.max(next.end);
        }
        Some(current)
    }
}

/// What is in both `a` and `b`, both sorted and free of overlaps.
pub fn intersect<A, B>(a: A, b: B) -> Intersect<A::IntoIter, B::IntoIter>
where
    A: IntoIterator<Item = PhysRange>,
    B: IntoIterator<Item = PhysRange>,
{
    Intersect { a: a.into_iter().peekable(), b: b.into_iter().peekable() }
}

/// See [`intersect`].
pub struct Intersect<A: Iterator<Item = PhysRange>, B: Iterator<Item = PhysRange>> {
    a: Peekable<A>,
    b: Peekable<B>,
}

impl<A: Iterator<Item = PhysRange>, B: Iterator<Item = PhysRange>> Iterator for Intersect<A, B> {
    type Item = PhysRange;
    fn next(&mut self) -> Option<PhysRange> {
        loop {
            let (a, b) = (*self.a.peek()?, *self.b.peek()?);
            if a.end <= b.end {
                self.a.next();
            } else {
                self.b.next();
            }
            if let Some(common) = a.overlap(b) {
                return Some(common);
            }
        }
    }
}

/// What is in `a` and not in `b`, both sorted and free of overlaps.
pub fn subtract<A, B>(a: A, b: B) -> Subtract<A::IntoIter, B::IntoIter>
where
    A: IntoIterator<Item = PhysRange>,
    B: IntoIterator<Item = PhysRange>,
{
    Subtract { a: a.into_iter(), b: b.into_iter().peekable(), rest: None }
}

/// See [`subtract`].
pub struct Subtract<A: Iterator<Item = PhysRange>, B: Iterator<Item = PhysRange>> {
    a: A,
    b: Peekable<B>,
    rest: Option<PhysRange>,
}

impl<A: Iterator<Item = PhysRange>, B: Iterator<Item = PhysRange>> Iterator for Subtract<A, B> {
    type Item = PhysRange;
    fn next(&mut self) -> Option<PhysRange> {
        loop {
            let mut current = match self.rest.take() {
                Some(r) => r,
                None => self.a.next()?,
            };
            while self.b.next_if(|b| b.end <= current.start || b.is_empty()).is_some() {}
            let Some(&hole) = self.b.peek() else {
                if current.is_empty() {
                    continue;
                }
                return Some(current);
            };
            if hole.start <= current.start {
                current.start = hole.end.min(current.end);
                if !current.is_empty() {
                    self.rest = Some(current);
                }
            } else if hole.start < current.end {
                self.rest = Some(PhysRange { start: hole.start, end: current.end });
                current.end = hole.start;
                return Some(current);
            } else {
                return Some(current);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec::Vec;

    fn r(start: u64, end: u64) -> PhysRange {
        PhysRange::new(start, end)
    }

    #[test]
    fn touching_and_overlapping_ranges_merge() {
        let merged: Vec<_> = merge([r(0, 4), r(4, 6), r(5, 5), r(8, 10), r(9, 9), r(9, 12)]).collect();
        assert_eq!(merged, [r(0, 6), r(8, 12)]);
    }

    #[test]
    fn holes_split_ranges() {
        let left: Vec<_> =
            subtract([r(0, 10), r(20, 30), r(40, 41)], [r(2, 3), r(5, 22), r(29, 50)]).collect();
        assert_eq!(left, [r(0, 2), r(3, 5), r(22, 29)]);
    }

    /// Check the algebra against sets of integers, over every pair of small sequences.
    #[test]
    fn algebra_agrees_with_sets_of_integers() {
        let of_bits = |bits: u32| -> Vec<PhysRange> {
            merge((0..8).filter(move |i| bits >> i & 1 == 1).map(|i| r(i, i + 1))).collect()
        };
        let to_bits = |v: Vec<PhysRange>| -> u32 {
            v.iter().flat_map(|x| x.start..x.end).fold(0, |acc, i| acc | 1 << i)
        };
        for a in 0..256 {
            for b in 0..256 {
                assert_eq!(to_bits(subtract(of_bits(a), of_bits(b)).collect()), a & !b, "{a:b} - {b:b}");
                assert_eq!(to_bits(intersect(of_bits(a), of_bits(b)).collect()), a & b, "{a:b} & {b:b}");
            }
        }
    }

    #[test]
    fn whole_pages_inside_and_around() {
        assert_eq!(r(0x1001, 0x3fff).shrink_to_pages(), Some(r(0x2000, 0x3000)));
        assert_eq!(r(0x1001, 0x1fff).shrink_to_pages(), None);
        assert_eq!(r(0x1001, 0x1fff).grow_to_pages(), Some(r(0x1000, 0x2000)));
    }
}

//! One bit per page frame, as kdump-compressed files keep them.

use alloc::vec;
use alloc::vec::Vec;

use kdump_arch_x86::{PAGE_SIZE, PhysRange};

/// A set of page frame numbers within fixed bounds. 32 KiB per GiB of address space.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct PageBitmap {
    words: Vec<u64>,
    /// A multiple of 64.
    first: u64,
    bits: u64,
}

impl core::fmt::Debug for PageBitmap {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "PageBitmap({} of {} frames)", self.count(), self.bits - self.first)
    }
}

impl PageBitmap {
    /// An empty set for frames `0..bits`. The memory is zero pages until bits are set.
    #[must_use]
    pub fn new(bits: u64) -> Self {
        Self::window(0, bits)
    }

    /// An empty set for frames `first..end`.
    ///
    /// # Panics
    /// Unless `first` is a multiple of 64 and not above `end`: a mistake of the caller.
    #[must_use]
    pub fn window(first: u64, end: u64) -> Self {
        assert!(first.is_multiple_of(64) && first <= end, "a window of whole words");
        let words = usize::try_from((end - first).div_ceil(64)).expect("a 64-bit machine");
        Self { words: vec![0; words], first, bits: end }
    }

    /// The set a file holds: bit `i % 8` of byte `i / 8`, frames `0..bits`. Missing bytes are zero.
    #[must_use]
    pub fn from_bytes(bytes: &[u8], bits: u64) -> Self {
        let mut map = Self::new(bits);
        for (word, chunk) in map.words.iter_mut().zip(bytes.chunks(8)) {
            let mut raw = [0; 8];
            raw[..chunk.len()].copy_from_slice(chunk);
            *word = u64::from_le_bytes(raw);
        }
        if let (Some(last), used @ 1..) = (map.words.last_mut(), bits % 64) {
            *last &= (1 << used) - 1;
        }
        map
    }

    /// The lowest frame the set can hold.
    #[must_use]
    pub const fn first(&self) -> u64 {
        self.first
    }

    /// One past the highest frame the set can hold.
    #[must_use]
    pub const fn bits(&self) -> u64 {
        self.bits
    }

    /// The set as 64-bit words, frame [`Self::first`] in bit 0 of the first.
    #[must_use]
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// Index of the word that a frame's bit is in. Frames below the window wrap to no index that exists.
    const fn word_of(&self, pfn: u64) -> usize {
        (pfn.wrapping_sub(self.first) / 64) as usize
    }

    /// Puts `part`, a set for frames within this one's bounds, in the place of what the set says of them. Both begin
    /// at multiples of 64, and so does what follows the part, unless both end there.
    ///
    /// # Panics
    /// If the part reaches beyond: a mistake of the caller.
    pub fn replace(&mut self, part: &Self) {
        let at = self.word_of(part.first);
        self.words[at..at + part.words.len()].copy_from_slice(&part.words);
    }

    /// The words, to be filled by whoever keeps the bits beyond the bound zero.
    #[cfg(feature = "std")]
    pub(super) fn words_mut(&mut self) -> &mut [u64] {
        &mut self.words
    }

    /// Whether `pfn` is in the set.
    #[must_use]
    pub fn get(&self, pfn: u64) -> bool {
        self.words.get(self.word_of(pfn)).is_some_and(|w| w >> (pfn % 64) & 1 == 1)
    }

    /// Adds `start..end`, as far as the bound allows.
    pub fn insert(&mut self, start: u64, end: u64) {
        self.masks(start, end, |word, mask| *word |= mask);
    }

    /// Removes `start..end`; says how many of them were in the set.
    pub fn remove(&mut self, start: u64, end: u64) -> u64 {
        let mut removed = 0;
        self.masks(start, end, |word, mask| {
            removed += u64::from((*word & mask).count_ones());
            *word &= !mask;
        });
        removed
    }

    /// How many of `start..end` are in the set.
    #[must_use]
    pub fn count_in(&self, start: u64, end: u64) -> u64 {
        let end = end.min(self.bits);
        let mut at = start.max(self.first);
        let mut n = 0;
        while at < end {
            let stop = (at / 64 * 64 + 64).min(end);
            // `at` is below `bits`, so the word exists.
            let word = self.words[self.word_of(at)] & mask_of(at % 64, stop - at);
            n += u64::from(word.count_ones());
            at = stop;
        }
        n
    }

    /// How many frames are in the set.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.words.iter().map(|w| u64::from(w.count_ones())).sum()
    }

    fn masks(&mut self, start: u64, end: u64, mut apply: impl FnMut(&mut u64, u64)) {
        let end = end.min(self.bits);
        let mut at = start.max(self.first);
        while at < end {
            let stop = (at / 64 * 64 + 64).min(end);
            let word = self.word_of(at);
            apply(&mut self.words[word], mask_of(at % 64, stop - at));
            at = stop;
        }
    }

    /// Runs of consecutive frames, `start..end`, ascending.
    pub fn runs(&self) -> Runs<'_> {
        self.runs_in(self.first, self.bits)
    }

    /// Runs inside `start..end`.
    pub fn runs_in(&self, start: u64, end: u64) -> Runs<'_> {
        Runs { map: self, at: start.max(self.first), end: end.min(self.bits) }
    }

    /// The runs as physical ranges.
    pub fn ranges(&self) -> impl Iterator<Item = PhysRange> {
        self.runs().filter_map(|(start, end)| {
            PhysRange::try_new(start.checked_mul(PAGE_SIZE)?, end.checked_mul(PAGE_SIZE)?)
        })
    }

    /// First frame at or after `from`, below `end`, whose presence is `value`; `end` if there is none.
    fn seek(&self, from: u64, end: u64, value: bool) -> u64 {
        let mut at = from;
        while at < end {
            let word = self.words[self.word_of(at)];
            let rest = (if value { word } else { !word }) >> (at % 64);
            if rest != 0 {
                return (at + u64::from(rest.trailing_zeros())).min(end);
            }
            at = (at / 64 + 1) * 64;
        }
        end
    }

    /// The set as a file holds it, padded with zero bytes to `len` at least.
    #[must_use]
    pub fn to_bytes(&self, len: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(len.max(self.words.len() * 8));
        out.extend(self.words.iter().flat_map(|w| w.to_le_bytes()));
        out.resize(len.max(out.len()), 0);
        out
    }
}

/// `len` bits from `shift` on; `shift + len <= 64`, `len >= 1`.
const fn mask_of(shift: u64, len: u64) -> u64 {
    (u64::MAX >> (64 - len)) << shift
}

/// See [`PageBitmap::runs`].
#[derive(Clone, Debug)]
pub struct Runs<'a> {
    map: &'a PageBitmap,
    at: u64,
    end: u64,
}

impl Iterator for Runs<'_> {
    type Item = (u64, u64);

    fn next(&mut self) -> Option<(u64, u64)> {
        let start = self.map.seek(self.at, self.end, true);
        if start >= self.end {
            return None;
        }
        let stop = self.map.seek(start, self.end, false);
        self.at = stop;
        Some((start, stop))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_what_was_inserted() {
        let mut m = PageBitmap::new(1000);
        m.insert(3, 70);
        m.insert(128, 129);
        m.insert(990, 2000);
        assert_eq!(m.remove(10, 12), 2);
        assert_eq!(m.runs().collect::<Vec<_>>(), [(3, 10), (12, 70), (128, 129), (990, 1000)]);
        assert_eq!(m.runs_in(5, 60).collect::<Vec<_>>(), [(5, 10), (12, 60)]);
        assert_eq!((m.count(), m.count_in(60, 995)), (76, 16));
        assert!(m.get(69) && !m.get(70) && !m.get(u64::MAX));
    }

    #[test]
    fn a_window_holds_its_own_frames_only() {
        let mut m = PageBitmap::window(128, 300);
        m.insert(0, 130);
        m.insert(290, 1000);
        assert_eq!(m.runs().collect::<Vec<_>>(), [(128, 130), (290, 300)]);
        assert!(m.get(129) && !m.get(127) && !m.get(0) && !m.get(300));
        assert_eq!((m.count_in(0, 129), m.remove(0, 129)), (1, 1));
        let mut part = PageBitmap::window(192, 256);
        part.insert(200, 201);
        m.insert(192, 256);
        m.replace(&part);
        assert_eq!(m.runs().collect::<Vec<_>>(), [(129, 130), (200, 201), (290, 300)]);
    }

    #[test]
    fn bytes_round_trip_and_excess_bits_are_dropped() {
        let m = PageBitmap::from_bytes(&[0x81, 0xff], 12);
        assert_eq!(m.runs().collect::<Vec<_>>(), [(0, 1), (7, 12)]);
        assert_eq!(m.to_bytes(16)[..3], [0x81, 0x0f, 0]);
        assert_eq!(PageBitmap::from_bytes(&[], 12).count(), 0);
    }
}

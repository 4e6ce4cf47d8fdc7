//! Compressing pages to LZO1X blocks, as fast as memory allows: greedy, looking at one earlier place for each.
//!
//! Source: Documentation/staging/lzo.rst. Of its instructions these are written: the first run of literals by its own
//! code, up to three literals in the two spare bits of the match before, longer runs by length; matches of 3 to 8 bytes
//! from the last 2 KiB in two bytes, all others in three or more; the end mark.

use std::boxed::Box;

/// Bytes of a page.
const PAGE: usize = 4096;
/// Bits of a hash: what is remembered fits the fastest cache beside the page.
const HASH_BITS: u32 = 12;
/// A match is looked for by this many bytes, and has at least as many.
const MIN_MATCH: usize = 4;
/// No match begins within the last bytes of a page: reading ahead then needs no care.
const TAIL: usize = 16;
/// Farthest match of the two-byte instruction.
const NEAR: usize = 2048;
/// Longest match of it.
const SHORT: usize = 8;

/// Where a page's strings were seen last. Kept from page to page for its memory only.
#[derive(Debug)]
pub struct LzoCompressor {
    seen: Box<[u16; 1 << HASH_BITS]>,
}

impl Default for LzoCompressor {
    fn default() -> Self {
        Self::new()
    }
}

impl LzoCompressor {
    /// Sets the memory aside.
    #[must_use]
    pub fn new() -> Self {
        Self { seen: Box::new([0; 1 << HASH_BITS]) }
    }

    /// Compresses `page` into the beginning of `out`. `None` if it does not fit.
    pub fn page(&mut self, page: &[u8; PAGE], out: &mut [u8]) -> Option<usize> {
        // What an earlier page left would make the result depend on it.
        self.seen.fill(0);
        let mut out = Block { buf: out, len: 0, spare: None };
        let mut literals = 0;
        let mut at = 1;
        while at < PAGE - TAIL {
            let word = word(page, at);
            let hash = (word.wrapping_mul(0x9e37_79b1) >> (32 - HASH_BITS)) as usize;
            let earlier = usize::from(self.seen[hash]);
            self.seen[hash] = at as u16;
            if self::word(page, earlier) != word {
                // The longer nothing is found, the fewer places are tried.
                at += 1 + (at - literals) / 32;
                continue;
            }
            let len = MIN_MATCH + common(page, earlier + MIN_MATCH, at + MIN_MATCH);
            out.literals(&page[literals..at])?;
            out.repeat(at - earlier, len)?;
            at += len;
            literals = at;
        }
        out.literals(&page[literals..])?;
        out.put(&[17, 0, 0])?;
        Some(out.len)
    }
}

/// The four bytes at `at`, which is before the last three.
fn word(page: &[u8; PAGE], at: usize) -> u32 {
    page[at..].first_chunk().map_or(0, |b| u32::from_le_bytes(*b))
}

/// How many bytes from `a` on are as those from `b` on, `a` being before `b`.
fn common(page: &[u8; PAGE], a: usize, b: usize) -> usize {
    let mut n = 0;
    while let (Some(x), Some(y)) = (page[a + n..].first_chunk(), page[b + n..].first_chunk::<8>()) {
        let differ = u64::from_le_bytes(*x) ^ u64::from_le_bytes(*y);
        if differ != 0 {
            return n + (differ.trailing_zeros() / 8) as usize;
        }
        n += 8;
    }
    n + page[a + n..].iter().zip(&page[b + n..]).take_while(|(x, y)| x == y).count()
}

/// The block being written.
struct Block<'a> {
    buf: &'a mut [u8],
    len: usize,
    /// Where the match before left two bits for a number of literals. `None` at the beginning.
    spare: Option<usize>,
}

impl Block<'_> {
    fn put(&mut self, bytes: &[u8]) -> Option<()> {
        let end = self.len + bytes.len();
        self.buf.get_mut(self.len..end)?.copy_from_slice(bytes);
        self.len = end;
        Some(())
    }

    /// A number that is as many zero bytes as it has times 255, and then the rest, which is never zero.
    fn long(&mut self, mut n: usize) -> Option<()> {
        while n > 255 {
            self.put(&[0])?;
            n -= 255;
        }
        self.put(&[n as u8])
    }

    fn literals(&mut self, bytes: &[u8]) -> Option<()> {
        match (bytes.len(), self.spare) {
            (0, _) => return Some(()),
            (n @ 1..=3, Some(at)) => self.buf[at] |= n as u8,
            (n @ 1..=238, None) => self.put(&[17 + n as u8])?,
            (n @ 4..=18, _) => self.put(&[n as u8 - 3])?,
            (n, _) => {
                self.put(&[0])?;
                self.long(n - 18)?;
            }
        }
        self.put(bytes)
    }

    fn repeat(&mut self, distance: usize, len: usize) -> Option<()> {
        let back = distance - 1;
        if len <= SHORT && distance <= NEAR {
            self.put(&[((len - 1) << 5 | (back & 7) << 2) as u8, (back >> 3) as u8])?;
        } else {
            match len {
                ..=33 => self.put(&[(32 | (len - 2)) as u8])?,
                _ => {
                    self.put(&[32])?;
                    self.long(len - 33)?;
                }
            }
            self.put(&[((back & 63) << 2) as u8, (back >> 6) as u8])?;
        }
        self.spare = Some(self.len - 2);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kdump::lz;

    fn round_trip(page: &[u8; PAGE]) -> usize {
        let mut packed = [0; 2 * PAGE];
        let n = LzoCompressor::new().page(page, &mut packed).unwrap();
        let mut plain = [0xaa; PAGE];
        assert_eq!(lz::lzo1x(&packed[..n], &mut plain), Some(PAGE));
        assert!(plain == *page);
        // An output that is one byte short is refused, not overrun.
        assert_eq!(LzoCompressor::new().page(page, &mut packed[..n - 1]), None);
        n
    }

    #[test]
    fn pages_of_one_byte_are_a_few_bytes() {
        assert!(round_trip(&[0; PAGE]) < 30);
        assert!(round_trip(&[0xff; PAGE]) < 30);
    }

    /// Check runs of literals and matches of every length, near and far, to the last byte of the page.
    #[test]
    fn every_mixture_of_runs_comes_back() {
        let mut seed = 5u64;
        let mut random = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            ((seed >> 33) % below) as usize
        };
        let (mut largest, mut smallest) = (0, PAGE);
        for round in 0..20_000 {
            let mut page = [0; PAGE];
            let mut at = 0;
            while at < PAGE {
                let len = (1 + random([4, 20, 40, 300, 700, 3000][round % 6])).min(PAGE - at);
                if at > 0 && random(3) > 0 {
                    let from = random(at as u64);
                    (at..at + len).for_each(|i| page[i] = page[from + (i - at)]);
                } else {
                    (at..at + len).for_each(|i| page[i] = random(1 << (round % 9)) as u8);
                }
                at += len;
            }
            let n = round_trip(&page);
            (largest, smallest) = (largest.max(n), smallest.min(n));
        }
        assert!(smallest < 100 && largest > PAGE, "both kinds of page: {smallest} to {largest}");
    }

    #[test]
    fn a_page_gives_the_same_whatever_came_before() {
        let mut page = [0; PAGE];
        (0..PAGE).for_each(|i| page[i] = (i * i / 7 % 61) as u8);
        let (mut a, mut b) = ([0; 2 * PAGE], [0; 2 * PAGE]);
        let fresh = LzoCompressor::new().page(&page, &mut a);
        let mut used = LzoCompressor::new();
        used.page(&[3; PAGE], &mut b).unwrap();
        assert_eq!(used.page(&page, &mut b), fresh);
        assert_eq!(a[..fresh.unwrap()], b[..fresh.unwrap()]);
    }
}

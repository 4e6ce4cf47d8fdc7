//! Pseudo-random numbers, pages made of them, and sums over pages.

use crate::Page;

/// SplitMix64.
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`, which is not 0.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// Puts items into any order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u64 + 1) as usize);
        }
    }
}

/// A page that no other key makes.
pub fn page(key: u64) -> Page {
    let mut random = Random(key);
    core::array::from_fn(|_| random.next())
}

/// A sum over every bit, in its place: each step is a bijection of what was there, so no change of a single word
/// is lost, and of others one in 2^64.
pub fn sum(words: impl IntoIterator<Item = u64>) -> u64 {
    words
        .into_iter()
        .fold(1, |sum: u64, word| (sum ^ word).wrapping_mul(0x9fb2_1c65_1e98_df25).rotate_left(29))
}

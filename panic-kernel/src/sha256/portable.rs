//! The compression function in plain Rust.
//!
//! Source: FIPS 180-4, 6.2.2.

use super::{Block, K};

/// Folds blocks into the state.
pub fn compress(state: &mut [u32; 8], blocks: &[Block]) {
    for block in blocks {
        compress_block(state, block);
    }
}

/// Four rounds a turn, after which the words of the state have changed places in halves, and the whole schedule first:
/// written so that the compiler neither moves eight words a round nor packs words into vectors, which costs more than
/// it gains without vector rotations. An emulator feels each instruction: 3200 a block, and 4400 for rounds in a row.
fn compress_block(state: &mut [u32; 8], block: &Block) {
    let mut w = [0u32; 64];
    for (word, bytes) in w.iter_mut().zip(block.as_chunks().0) {
        *word = u32::from_be_bytes(*bytes);
    }
    for t in 16..64 {
        let (near, far) = (small_sigma1(w[t - 2]), small_sigma0(w[t - 15]));
        w[t] = near.wrapping_add(w[t - 7]).wrapping_add(far).wrapping_add(w[t - 16]);
    }

    let mut words = *state;
    for (k, w) in K.as_chunks::<4>().0.iter().zip(w.as_chunks::<4>().0) {
        let [a, b, c, d, e, f, g, h] = words;
        let (d, h) = round([a, b, c, d, e, f, g, h], k[0].wrapping_add(w[0]));
        let (c, g) = round([h, a, b, c, d, e, f, g], k[1].wrapping_add(w[1]));
        let (b, f) = round([g, h, a, b, c, d, e, f], k[2].wrapping_add(w[2]));
        let (a, e) = round([f, g, h, a, b, c, d, e], k[3].wrapping_add(w[3]));
        words = [e, f, g, h, a, b, c, d];
    }

    for (word, add) in state.iter_mut().zip(words) {
        *word = word.wrapping_add(add);
    }
}

/// One round: what the fourth and the last word become, which are the new `e` and `a`.
#[inline(always)]
fn round([a, b, c, d, e, f, g, h]: [u32; 8], kw: u32) -> (u32, u32) {
    let choose = g ^ (e & (f ^ g));
    let majority = (a & b) ^ (c & (a ^ b));
    let t1 = h.wrapping_add(big_sigma1(e)).wrapping_add(choose).wrapping_add(kw);
    (d.wrapping_add(t1), t1.wrapping_add(big_sigma0(a)).wrapping_add(majority))
}

// Rotations in each other, which takes fewer copies than side by side.

/// Turned right by 2, 13 and 22.
fn big_sigma0(x: u32) -> u32 {
    ((x.rotate_right(9) ^ x).rotate_right(11) ^ x).rotate_right(2)
}

/// Turned right by 6, 11 and 25.
fn big_sigma1(x: u32) -> u32 {
    ((x.rotate_right(14) ^ x).rotate_right(5) ^ x).rotate_right(6)
}

/// Turned right by 7 and 18, shifted by 3.
fn small_sigma0(x: u32) -> u32 {
    (x.rotate_right(11) ^ x).rotate_right(7) ^ (x >> 3)
}

/// Turned right by 17 and 19, shifted by 10.
fn small_sigma1(x: u32) -> u32 {
    (x.rotate_right(2) ^ x).rotate_right(17) ^ (x >> 10)
}

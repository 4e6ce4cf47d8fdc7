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

fn compress_block(state: &mut [u32; 8], block: &Block) {
    // The message schedule only ever looks 16 words back.
    let mut w = [0u32; 16];
    for (word, bytes) in w.iter_mut().zip(block.as_chunks().0) {
        *word = u32::from_be_bytes(*bytes);
    }

    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = *state;
    for (turn, constants) in K.as_chunks::<16>().0.iter().enumerate() {
        if turn > 0 {
            for i in 0..16 {
                w[i] = w[i]
                    .wrapping_add(small_sigma0(w[(i + 1) % 16]))
                    .wrapping_add(w[(i + 9) % 16])
                    .wrapping_add(small_sigma1(w[(i + 14) % 16]));
            }
        }
        for (&k, &w) in constants.iter().zip(&w) {
            let choose = (e & f) ^ (!e & g);
            let majority = (a & b) ^ (a & c) ^ (b & c);
            let t1 = h.wrapping_add(big_sigma1(e)).wrapping_add(choose).wrapping_add(k).wrapping_add(w);
            let t2 = big_sigma0(a).wrapping_add(majority);
            (h, g, f, e) = (g, f, e, d.wrapping_add(t1));
            (d, c, b, a) = (c, b, a, t1.wrapping_add(t2));
        }
    }

    for (word, add) in state.iter_mut().zip([a, b, c, d, e, f, g, h]) {
        *word = word.wrapping_add(add);
    }
}

fn big_sigma0(x: u32) -> u32 {
    x.rotate_right(2) ^ x.rotate_right(13) ^ x.rotate_right(22)
}

fn big_sigma1(x: u32) -> u32 {
    x.rotate_right(6) ^ x.rotate_right(11) ^ x.rotate_right(25)
}

fn small_sigma0(x: u32) -> u32 {
    x.rotate_right(7) ^ x.rotate_right(18) ^ (x >> 3)
}

fn small_sigma1(x: u32) -> u32 {
    x.rotate_right(17) ^ x.rotate_right(19) ^ (x >> 10)
}

//! XXH64 of a page: tells which pages are damaged, at a fiftieth of what SHA-256 costs.
//!
//! It is no match for an adversary, and need not be: what a region holds is for its SHA-256 to say.
//!
//! Source: the specification of the xxHash family (doc/xxhash_spec.md, "XXH64 algorithm description"). A page is
//! whole stripes of 32 bytes, and the seed is 0: the steps for remaining bytes and for short input have no place here.

use crate::parity::Page;

const PRIME_1: u64 = 0x9e37_79b1_85eb_ca87;
const PRIME_2: u64 = 0xc2b2_ae3d_27d4_eb4f;
const PRIME_3: u64 = 0x1656_67b1_9e37_79f9;
const PRIME_4: u64 = 0x85eb_ca77_c2b2_ae63;

/// Computes the hash of a page.
pub fn xxh64(page: &Page) -> u64 {
    let mut lanes = [PRIME_1.wrapping_add(PRIME_2), PRIME_2, 0, PRIME_1.wrapping_neg()];
    for stripe in page.as_chunks::<32>().0 {
        for (lane, word) in lanes.iter_mut().zip(stripe.as_chunks::<8>().0) {
            *lane = round(*lane, u64::from_le_bytes(*word));
        }
    }
    let turns = lanes.iter().zip([1, 7, 12, 18]);
    let mut hash = turns.fold(0u64, |sum, (lane, turn)| sum.wrapping_add(lane.rotate_left(turn)));
    for lane in lanes {
        hash = (hash ^ round(0, lane)).wrapping_mul(PRIME_1).wrapping_add(PRIME_4);
    }
    hash = hash.wrapping_add(page.len() as u64);
    hash = (hash ^ (hash >> 33)).wrapping_mul(PRIME_2);
    hash = (hash ^ (hash >> 29)).wrapping_mul(PRIME_3);
    hash ^ (hash >> 32)
}

fn round(lane: u64, word: u64) -> u64 {
    lane.wrapping_add(word.wrapping_mul(PRIME_2)).rotate_left(31).wrapping_mul(PRIME_1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check against an independent implementation: a zstd frame ends in the lower half of its content's XXH64.
    #[test]
    fn pages_agree_with_another_implementation() {
        let mut seed = 1u64;
        for nr in 0..200 {
            let mut page: Page = [0; 4096];
            for byte in page.iter_mut().take(nr * 21) {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                *byte = (seed >> 56) as u8;
            }
            let mut encoder = zstd::Encoder::new(std::vec::Vec::new(), 1).unwrap();
            encoder.include_checksum(true).unwrap();
            std::io::Write::write_all(&mut encoder, &page).unwrap();
            let frame = encoder.finish().unwrap();
            assert_eq!(frame.last_chunk::<4>().unwrap(), &(xxh64(&page) as u32).to_le_bytes(), "page {nr}");
        }
    }

    #[test]
    fn any_bit_changes_about_half_of_the_hash() {
        let page: Page = [0xa5; 4096];
        let hash = xxh64(&page);
        let mut changed = 0;
        for bit in 0..8 * 4096 {
            let mut other = page;
            other[bit / 8] ^= 1 << (bit % 8);
            let distance = (xxh64(&other) ^ hash).count_ones();
            assert!(distance > 8, "bit {bit}: {distance}");
            changed += distance;
        }
        assert!((31.5..32.5).contains(&(f64::from(changed) / (8.0 * 4096.0))), "{changed}");
    }
}

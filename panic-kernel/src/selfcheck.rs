//! The sum by which the program's first instructions know their own image.
//!
//! It stands in the image, so the word that holds it counts as zero. Each step is a bijection of the sum, so
//! that one changed word, by however many bits, always changes the result; no digest is needed to tell
//! damage from none, and the code fits on half a page. The assembly of `program/entry.rs` computes the same.

/// Symbol of the word that holds [`sum`]; 0 where the image is not to be checked.
pub const SUM_SYMBOL: &str = "kdump_sum";
/// Symbol of the word that holds the address where the other copy takes over, 0 for none.
pub const COPY_ENTRY_SYMBOL: &str = "kdump_copy_entry";
/// Symbol of the word that holds the address of the other copy's handoff block, 0 for none.
pub const COPY_HANDOFF_SYMBOL: &str = "kdump_copy_handoff";
/// Symbol of the word that holds the I/O port of the 8250 for the case that both copies are damaged, 0 for none.
pub const EARLY_PORT_SYMBOL: &str = "kdump_early_port";
/// Symbol of the instruction where a copy takes over from another.
pub const TAKEOVER_SYMBOL: &str = "kdump_takeover";

/// Bits the sum is rotated by before each word.
pub const ROTATION: u32 = 7;

/// The sum over the constant part of an image, whose word at `sum_at` counts as zero. Never 0.
pub fn sum(constant: &[u8], sum_at: usize) -> u64 {
    let (words, _) = constant.as_chunks::<8>();
    let sum = words.iter().enumerate().fold(0u64, |sum, (i, word)| {
        let word = if i * 8 == sum_at { 0 } else { u64::from_le_bytes(*word) };
        sum.rotate_left(ROTATION).wrapping_add(word)
    });
    // 0 means "not to be checked"; the assembly does the same.
    if sum == 0 { 1 } else { sum }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_changed_word_changes_the_sum_but_the_one_that_holds_it() {
        let mut image = [0u8; 4096];
        for (i, byte) in image.iter_mut().enumerate() {
            *byte = (i * 31 % 251) as u8;
        }
        let good = sum(&image, 64);
        for at in 0..image.len() {
            let mut damaged = image;
            damaged[at] ^= 1 << (at % 8);
            assert_eq!(sum(&damaged, 64) == good, (64..72).contains(&at), "{at:#x}");
        }
        assert_ne!(sum(&[0; 64], 0), 0);
    }
}

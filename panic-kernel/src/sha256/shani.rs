//! The compression function with the SHA instructions.
//!
//! Uses legacy SSE registers only: the panic path has enabled neither AVX nor XCR0.
//!
//! Source: Intel SDM volume 1, 5.18 and volume 2, SHA256RNDS2, SHA256MSG1, SHA256MSG2.

// UNSAFETY: a function that uses instructions beyond the baseline may only be called after CPUID has
// been asked for them, which the compiler cannot see.
#![expect(unsafe_code)]

use core::arch::x86_64::*;

use super::{Block, K};

const LEAF1_ECX_SSSE3: u32 = 1 << 9;
const LEAF1_ECX_SSE4_1: u32 = 1 << 19;
const LEAF7_EBX_SHA: u32 = 1 << 29;

/// Tells whether this CPU has the SHA instructions and the SSE levels the code around them uses.
pub fn is_present() -> bool {
    let max_leaf = __cpuid(0).eax;
    if max_leaf < 7 {
        return false;
    }
    let sse = LEAF1_ECX_SSSE3 | LEAF1_ECX_SSE4_1;
    __cpuid(1).ecx & sse == sse && __cpuid_count(7, 0).ebx & LEAF7_EBX_SHA != 0
}

/// Folds blocks into the state. Only an [`Engine`](super::Engine) that found the instructions gets here.
pub fn compress(state: &mut [u32; 8], blocks: &[Block]) {
    // SAFETY: the one caller is `Engine::compress` for `Kind::ShaNi`. That value is private to
    // `sha256` and is made in `Engine::sha_ni` only, after `is_present` has found SHA, SSSE3 and SSE4.1
    // in CPUID. CPUID is the same on all CPUs the program can run on.
    unsafe { compress_sha(state, blocks) }
}

#[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
fn compress_sha(state: &mut [u32; 8], blocks: &[Block]) {
    let [a, b, c, d, e, f, g, h] = state.map(u32::cast_signed);
    // The order SHA256RNDS2 wants, highest lane first.
    let mut abef = _mm_set_epi32(a, b, e, f);
    let mut cdgh = _mm_set_epi32(c, d, g, h);

    for block in blocks {
        let (abef_before, cdgh_before) = (abef, cdgh);
        let mut w = load(block);
        for (t, k) in K.as_chunks::<4>().0.iter().enumerate() {
            let i = t % 4;
            if t >= 4 {
                let (w1, w2, w3) = (w[(i + 1) % 4], w[(i + 2) % 4], w[(i + 3) % 4]);
                let sum = _mm_add_epi32(_mm_sha256msg1_epu32(w[i], w1), _mm_alignr_epi8::<4>(w3, w2));
                w[i] = _mm_sha256msg2_epu32(sum, w3);
            }
            let [k0, k1, k2, k3] = k.map(u32::cast_signed);
            let wk = _mm_add_epi32(w[i], _mm_set_epi32(k3, k2, k1, k0));
            // Two rounds take the low half and turn CDGH into the next ABEF; the old ABEF is the next CDGH.
            cdgh = _mm_sha256rnds2_epu32(cdgh, abef, wk);
            abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32::<0x0e>(wk));
        }
        abef = _mm_add_epi32(abef, abef_before);
        cdgh = _mm_add_epi32(cdgh, cdgh_before);
    }

    let ([f, e, b, a], [h, g, d, c]) = (lanes(abef), lanes(cdgh));
    *state = [a, b, c, d, e, f, g, h];
}

/// Loads a block as 16 big-endian words.
#[target_feature(enable = "ssse3")]
fn load(block: &Block) -> [__m128i; 4] {
    let swap_words = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
    let mut w = [_mm_setzero_si128(); 4];
    for (w, bytes) in w.iter_mut().zip(block.as_chunks::<16>().0) {
        let bits = u128::from_le_bytes(*bytes);
        let halves = _mm_set_epi64x((bits >> 64) as i64, bits as i64);
        *w = _mm_shuffle_epi8(halves, swap_words);
    }
    w
}

/// The lanes, lowest first.
#[target_feature(enable = "sse4.1")]
fn lanes(x: __m128i) -> [u32; 4] {
    [
        _mm_extract_epi32::<0>(x),
        _mm_extract_epi32::<1>(x),
        _mm_extract_epi32::<2>(x),
        _mm_extract_epi32::<3>(x),
    ]
    .map(i32::cast_unsigned)
}

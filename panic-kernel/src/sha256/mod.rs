//! SHA-256, in portable Rust and with the SHA instructions.
//!
//! Written here and not taken from a crate because the program that runs after the panic is compiled by
//! `build.rs` without Cargo, and because it must not use AVX there: only the SSE state is enabled.
//!
//! Source: FIPS 180-4.

mod portable;
mod shani;

#[cfg(test)]
mod tests;

/// Bytes of a digest.
pub const DIGEST_SIZE: usize = 32;

const BLOCK_SIZE: usize = 64;

type Block = [u8; BLOCK_SIZE];

/// First 32 bits of the fractional parts of the square roots of the first 8 primes (5.3.3).
const INITIAL: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// First 32 bits of the fractional parts of the cube roots of the first 64 primes (4.2.2).
#[rustfmt::skip]
static K: [u32; 64] = [
    0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5, 0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5,
    0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3, 0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174,
    0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc, 0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da,
    0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7, 0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967,
    0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13, 0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85,
    0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3, 0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070,
    0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5, 0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3,
    0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208, 0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2,
];

/// What compresses the blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Engine(Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Portable,
    ShaNi,
}

impl Engine {
    /// Plain Rust, on any CPU.
    pub const PORTABLE: Self = Self(Kind::Portable);

    /// The SHA instructions, where CPUID has them.
    pub fn sha_ni() -> Option<Self> {
        shani::is_present().then_some(Self(Kind::ShaNi))
    }

    /// The fastest one this CPU has.
    pub fn detect() -> Self {
        Self::sha_ni().unwrap_or(Self::PORTABLE)
    }

    /// Its name on the console.
    pub fn name(self) -> &'static str {
        match self.0 {
            Kind::Portable => "portable",
            Kind::ShaNi => "sha-ni",
        }
    }

    #[inline(never)] // six call sites would each get both engines
    fn compress(self, state: &mut [u32; 8], blocks: &[Block]) {
        match self.0 {
            Kind::Portable => portable::compress(state, blocks),
            Kind::ShaNi => shani::compress(state, blocks),
        }
    }
}

/// A digest under way.
#[derive(Clone)]
pub struct Sha256 {
    engine: Engine,
    state: [u32; 8],
    nr_bytes: u64,
    pending: Block,
}

impl Sha256 {
    /// Begins a digest.
    pub fn new(engine: Engine) -> Self {
        Self { engine, state: INITIAL, nr_bytes: 0, pending: [0; BLOCK_SIZE] }
    }

    /// Takes more bytes in.
    pub fn update(&mut self, bytes: &[u8]) {
        let nr_pending = self.nr_pending();
        self.nr_bytes = self.nr_bytes.wrapping_add(bytes.len() as u64);
        let mut rest = bytes;
        if nr_pending > 0 {
            let (head, tail) = bytes.split_at(bytes.len().min(BLOCK_SIZE - nr_pending));
            self.pending[nr_pending..nr_pending + head.len()].copy_from_slice(head);
            if nr_pending + head.len() < BLOCK_SIZE {
                return;
            }
            self.engine.compress(&mut self.state, &[self.pending]);
            rest = tail;
        }
        let (blocks, tail) = rest.as_chunks();
        self.engine.compress(&mut self.state, blocks);
        self.pending[..tail.len()].copy_from_slice(tail);
    }

    /// Pads the message and ends the digest.
    pub fn finish(mut self) -> [u8; DIGEST_SIZE] {
        let nr_pending = self.nr_pending();
        let nr_bits = self.nr_bytes.wrapping_mul(8);
        self.pending[nr_pending] = 0x80;
        self.pending[nr_pending + 1..].fill(0);
        if nr_pending + 1 > BLOCK_SIZE - 8 {
            self.engine.compress(&mut self.state, &[self.pending]);
            self.pending.fill(0);
        }
        self.pending[BLOCK_SIZE - 8..].copy_from_slice(&nr_bits.to_be_bytes());
        self.engine.compress(&mut self.state, &[self.pending]);

        let mut digest = [0; DIGEST_SIZE];
        for (bytes, word) in digest.chunks_exact_mut(4).zip(self.state) {
            bytes.copy_from_slice(&word.to_be_bytes());
        }
        digest
    }

    fn nr_pending(&self) -> usize {
        (self.nr_bytes % BLOCK_SIZE as u64) as usize
    }
}

/// Computes the digest of `bytes` with the fastest engine this CPU has.
pub fn digest(bytes: &[u8]) -> [u8; DIGEST_SIZE] {
    digest_with(Engine::detect(), bytes)
}

/// Computes the digest of `bytes` with the given engine.
pub fn digest_with(engine: Engine, bytes: &[u8]) -> [u8; DIGEST_SIZE] {
    let mut sha = Sha256::new(engine);
    sha.update(bytes);
    sha.finish()
}

//! Encrypting a dump while it is written, to public keys: nothing on the machine can open it. `age -d` can, with the
//! key of any of the recipients.
//!
//! A file is a text header, which has the file's key once for each [recipient](Recipients), and then the bytes in
//! chunks of 64 KiB, each sealed for itself: of a file that was cut, all whole chunks before the cut open. The last
//! chunk is marked as such, so a cut does not go unnoticed.
//!
//! Own code upon ring, which TLS brings anyway, since the age crate comes with translations and their machinery.
//!
//! Source: <https://age-encryption.org/v1> (C2SP, age.md).

mod recipient;
#[cfg(test)]
pub(crate) mod tests;

use std::io::{self, Write};

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::{hkdf, hmac};

pub use recipient::{Error, Recipients};

/// Bytes of a chunk, before it is sealed.
pub(crate) const CHUNK: usize = 64 << 10;
const TAG: usize = 16;
const KEY: usize = 32;
const FILE_KEY: usize = 16;
const PAYLOAD_NONCE: usize = 16;
/// First line of a file, which has the format's version.
const VERSION: &str = "age-encryption.org/v1";

/// Encrypts what is written to it. [`Encryptor::finish`] must be called: a file without its last chunk counts as cut.
#[derive(Debug)]
pub struct Encryptor<W: Write> {
    out: W,
    key: LessSafeKey,
    /// Number of the chunk that is in the buffer.
    chunk: u64,
    /// Bytes of the chunk, and room for its tag.
    buffer: Vec<u8>,
    /// A chunk was sealed, and could not be written whole.
    is_broken: bool,
}

impl<W: Write> Encryptor<W> {
    /// Writes the header.
    ///
    /// # Errors
    /// What the writer says; `Other` if there are no random numbers.
    pub fn new(recipients: &Recipients, mut out: W) -> io::Result<Self> {
        let random = SystemRandom::new();
        let (mut file_key, mut nonce) = ([0; FILE_KEY], [0; PAYLOAD_NONCE]);
        for bytes in [&mut file_key, &mut nonce] {
            random.fill(bytes).map_err(|_| io::Error::other("no random numbers for a key"))?;
        }
        let mut header = format!("{VERSION}\n");
        for recipient in recipients.iter() {
            header.push_str(&recipient.stanza(&file_key, &random)?);
        }
        header.push_str("---");
        let mac_key = derive(&[], &file_key, b"header")?;
        let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &mac_key), header.as_bytes());
        header.push_str(&format!(" {}\n", base64(mac.as_ref())));
        out.write_all(header.as_bytes())?;
        out.write_all(&nonce)?;
        let key = cipher(&derive(&nonce, &file_key, b"payload")?)?;
        let mut buffer = Vec::new();
        buffer.try_reserve_exact(CHUNK + TAG).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        Ok(Self { out, key, chunk: 0, buffer, is_broken: false })
    }

    /// Seals and writes the buffer.
    fn seal(&mut self, is_last: bool) -> io::Result<()> {
        if self.is_broken {
            return Err(io::Error::other("an encrypted file cannot go on after an error"));
        }
        // A nonce is used once, whatever becomes of the bytes.
        self.is_broken = true;
        let nonce = Nonce::assume_unique_for_key(chunk_nonce(self.chunk, is_last));
        self.key
            .seal_in_place_append_tag(nonce, Aad::empty(), &mut self.buffer)
            .map_err(|_| io::Error::other("a chunk cannot be sealed"))?;
        self.out.write_all(&self.buffer)?;
        self.buffer.clear();
        self.chunk += 1;
        self.is_broken = false;
        Ok(())
    }

    /// Ends the file; gives back the writer.
    ///
    /// # Errors
    /// What the writer says.
    pub fn finish(mut self) -> io::Result<W> {
        self.seal(true)?;
        self.out.flush()?;
        Ok(self.out)
    }
}

impl<W: Write> Write for Encryptor<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Only a chunk that is followed by a byte is not the last one.
        if self.buffer.len() == CHUNK && !bytes.is_empty() {
            self.seal(false)?;
        }
        let taken = bytes.len().min(CHUNK.saturating_sub(self.buffer.len()));
        if taken == 0 && !bytes.is_empty() {
            return Err(io::Error::other("an encrypted file cannot go on after an error"));
        }
        self.buffer.extend_from_slice(bytes.get(..taken).unwrap_or_default());
        Ok(taken)
    }

    /// Flushes whole chunks; what is in the buffer may be the last one.
    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Encrypts what is in memory.
///
/// # Errors
/// `Other` if there are no random numbers.
pub fn seal(recipients: &Recipients, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut encryptor = Encryptor::new(recipients, Vec::new())?;
    encryptor.write_all(bytes)?;
    encryptor.finish()
}

/// Eleven bytes of number, big-endian, and one that is 1 for the last chunk.
fn chunk_nonce(chunk: u64, is_last: bool) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[3..11].copy_from_slice(&chunk.to_be_bytes());
    nonce[11] = u8::from(is_last);
    nonce
}

fn cipher(key: &[u8; KEY]) -> io::Result<LessSafeKey> {
    let key =
        UnboundKey::new(&CHACHA20_POLY1305, key).map_err(|_| io::Error::other("a key of a wrong size"))?;
    Ok(LessSafeKey::new(key))
}

/// HKDF-SHA-256.
fn derive(salt: &[u8], secret: &[u8], info: &[u8]) -> io::Result<[u8; KEY]> {
    let mut key = [0; KEY];
    hkdf::Salt::new(hkdf::HKDF_SHA256, salt)
        .extract(secret)
        .expand(&[info], hkdf::HKDF_SHA256)
        .and_then(|okm| okm.fill(&mut key))
        .map_err(|_| io::Error::other("a key cannot be derived"))?;
    Ok(key)
}

/// Standard base64 without padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let mut three = [0; 3];
        three[..group.len()].copy_from_slice(group);
        let bits = u32::from_be_bytes([0, three[0], three[1], three[2]]);
        for digit in 0..=group.len() {
            let six = bits >> (18 - 6 * digit) & 63;
            text.push(char::from(DIGITS[six as usize]));
        }
    }
    text
}

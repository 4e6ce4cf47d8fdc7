//! What a sender and our receiver say to each other, byte for byte. docs/targets.md has it for readers.
//!
//! Greetings first: the receiver's [`RECEIVER_MAGIC`] and a nonce, the sender's [`SENDER_MAGIC`], its session and an
//! HMAC over both under the shared token. Then [`Frame`]s: 16 bytes of header, a payload, and a CRC-32 over both. All
//! numbers are little-endian.

use std::io::{self, Read, Write};

use flate2::Crc;
use ring::hmac;

/// Where a receiver listens unless told otherwise.
pub const PORT: u16 = 5663;
/// Greeting of a receiver; the digit is the protocol's version.
pub const RECEIVER_MAGIC: [u8; 8] = *b"KDUMPRX1";
/// Greeting of a sender.
pub const SENDER_MAGIC: [u8; 8] = *b"KDUMPTX1";
/// Bytes of the receiver's nonce, and of the answer to it.
pub const NONCE: usize = 32;
/// Bytes that tell one dump from another.
pub const SESSION: usize = 16;
/// Bytes of a frame's payload at most.
pub const MAX_PAYLOAD: usize = 256 << 10;
/// Bytes that a sender may have on their way that are not known to be durable.
pub const WINDOW: usize = 8 << 20;
/// Bytes after which a receiver brings what it has to its disk and says so.
pub const ACK_EVERY: u64 = 2 << 20;
/// Bytes of a path or of an error's text.
pub const MAX_TEXT: usize = 1024;

const HEADER: usize = 16;

/// What a frame is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kind(pub u8);

impl Kind {
    /// To the receiver: a file begins, or goes on from `offset`; the payload is its path.
    pub const OPEN: Self = Self(1);
    /// To the receiver: the bytes at `offset`.
    pub const DATA: Self = Self(2);
    /// To the receiver: the file has `offset` bytes; the payload is their SHA-256.
    pub const END: Self = Self(3);
    /// To the sender: the file is open, its next byte is `offset`.
    pub const AT: Self = Self(16);
    /// To the sender: all before `offset` is durable.
    pub const ACK: Self = Self(17);
    /// To the sender: the file has its name, and is durable.
    pub const DONE: Self = Self(18);
    /// To the sender, in answer to OPEN beyond the start: the file is there already, has `offset` bytes, and the
    /// payload is their SHA-256.
    pub const HAVE: Self = Self(19);
    /// To the sender: no; `offset` is a [`Refusal`], the payload says why. The receiver then hangs up.
    pub const ERROR: Self = Self(20);
}

/// The number of an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refusal(pub u64);

impl Refusal {
    /// The token is wrong, or the directory another dump's.
    pub const DENIED: Self = Self(1);
    /// The receiver's disk is full.
    pub const FULL: Self = Self(2);
    /// What was sent makes no sense.
    pub const PROTOCOL: Self = Self(3);
    /// The receiver's disk fails.
    pub const FAILED: Self = Self(4);
    /// A frame arrived damaged: it is worth another try.
    pub const DAMAGED: Self = Self(5);

    /// As the sender's operations fail with it.
    #[must_use]
    pub const fn kind(self) -> io::ErrorKind {
        match self {
            Self::DENIED => io::ErrorKind::PermissionDenied,
            Self::FULL => io::ErrorKind::StorageFull,
            Self::DAMAGED => io::ErrorKind::ConnectionReset,
            Self::FAILED => io::ErrorKind::Unsupported,
            _ => io::ErrorKind::InvalidData,
        }
    }
}

/// A frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    /// What it is.
    pub kind: Kind,
    /// A place in the file, or a number.
    pub offset: u64,
    /// The rest.
    pub payload: Vec<u8>,
}

/// Writes a frame.
///
/// # Errors
/// What the writer says; `InvalidInput` if the payload is too large for one.
pub fn write_frame(out: &mut impl Write, kind: Kind, offset: u64, payload: &[u8]) -> io::Result<()> {
    let length = u32::try_from(payload.len()).ok().filter(|&len| len as usize <= MAX_PAYLOAD);
    let length = length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a payload too large"))?;
    let mut header = [0; HEADER];
    header[0] = kind.0;
    header[4..8].copy_from_slice(&length.to_le_bytes());
    header[8..].copy_from_slice(&offset.to_le_bytes());
    let mut crc = Crc::new();
    crc.update(&header);
    crc.update(payload);
    out.write_all(&header)?;
    out.write_all(payload)?;
    out.write_all(&crc.sum().to_le_bytes())?;
    out.flush()
}

/// Reads a frame.
///
/// # Errors
/// What the reader says; `ConnectionAborted` if a frame is too long or does not have its checksum, since what follows it
/// cannot be read either.
pub fn read_frame(from: &mut impl Read) -> io::Result<Frame> {
    let mut header = [0; HEADER];
    from.read_exact(&mut header)?;
    let [kind, z1, z2, z3, l0, l1, l2, l3, offset @ ..] = header;
    let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    if length > MAX_PAYLOAD || [z1, z2, z3] != [0; 3] {
        return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "what arrived is no frame"));
    }
    let mut payload = vec![0; length];
    from.read_exact(&mut payload)?;
    let mut sum = [0; 4];
    from.read_exact(&mut sum)?;
    let mut crc = Crc::new();
    crc.update(&header);
    crc.update(&payload);
    if crc.sum().to_le_bytes() != sum {
        return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "a frame arrived damaged"));
    }
    Ok(Frame { kind: Kind(kind), offset: u64::from_le_bytes(offset), payload })
}

/// The key that a token is.
#[must_use]
pub fn key_of(token: &str) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, token.as_bytes())
}

/// What the sender answers to a nonce: it knows the token, which does not go over the wire.
#[must_use]
pub fn answer(key: &hmac::Key, nonce: &[u8; NONCE], session: &[u8; SESSION]) -> [u8; NONCE] {
    let tag = hmac::sign(key, &[nonce.as_slice(), session.as_slice()].concat());
    let mut answer = [0; NONCE];
    answer.copy_from_slice(tag.as_ref());
    answer
}

/// Whether `path` is one that a receiver makes: one to eight components of letters, digits and `._-`, of which none
/// begins with a dot.
#[must_use]
pub fn is_path(path: &str) -> bool {
    let is_component = |part: &str| {
        (1..=100).contains(&part.len())
            && !part.starts_with('.')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    };
    path.len() <= MAX_TEXT && path.split('/').count() <= 8 && path.split('/').all(is_component)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_as_written_and_damage_is_seen() {
        let mut wire = Vec::new();
        write_frame(&mut wire, Kind::DATA, 0x1_0000_0001, b"pages").unwrap();
        assert_eq!(wire.len(), 16 + 5 + 4);
        assert_eq!(wire[..16], [2, 0, 0, 0, 5, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0]);
        let frame = read_frame(&mut wire.as_slice()).unwrap();
        assert_eq!(frame, Frame { kind: Kind::DATA, offset: 0x1_0000_0001, payload: b"pages".to_vec() });
        for at in 0..wire.len() {
            let mut damaged = wire.clone();
            damaged[at] ^= 0x40;
            assert!(read_frame(&mut damaged.as_slice()).is_err(), "byte {at}");
            assert!(read_frame(&mut &wire[..at]).is_err(), "cut at {at}");
        }
        assert!(write_frame(&mut wire, Kind::DATA, 0, &vec![0; MAX_PAYLOAD + 1]).is_err());
    }

    #[test]
    fn a_path_stays_below_the_directory() {
        assert!(is_path("web1/20261123T134501Z-1f3a9c04/vmcore"));
        for bad in ["", "/etc/passwd", "a/../b", "a//b", ".ssh/x", "a/.partial", "a\0b", "a b", "ä"] {
            assert!(!is_path(bad), "{bad}");
        }
        assert!(!is_path(&"a/".repeat(9)) && !is_path(&"a".repeat(101)));
    }

    #[test]
    fn the_answer_depends_on_token_nonce_and_session() {
        let of = |token, nonce, session| answer(&key_of(token), &[nonce; NONCE], &[session; SESSION]);
        let one = of("token", 1, 2);
        assert_eq!(one, of("token", 1, 2));
        assert!(one != of("other", 1, 2) && one != of("token", 2, 2) && one != of("token", 1, 1));
    }
}

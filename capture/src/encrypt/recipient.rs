//! Recipients: X25519 public keys, as `age-keygen` prints them.
//!
//! Source: age.md, "The X25519 recipient type"; BIP 173 for bech32.

use std::io;

use ring::aead::{Aad, Nonce};
use ring::agreement::{EphemeralPrivateKey, UnparsedPublicKey, X25519, agree_ephemeral};
use ring::rand::SystemRandom;

use super::{FILE_KEY, KEY, base64, cipher, derive};

const INFO: &[u8] = b"age-encryption.org/v1/X25519";
const PREFIX: &str = "age";
const CHARSET: &str = "qpzry9x8gf2tvdw0s3jn54khce6mua7l";
/// Columns of a stanza's body.
const COLUMNS: usize = 64;

/// Why a text is no recipient.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Error {
    /// There is none.
    #[error("encrypt-to names no recipient")]
    None,
    /// Somebody has mixed up the two lines of a key file. It is not repeated.
    #[error(
        "encrypt-to has a secret key, which is to open dumps and must not be on this machine: give the public key \
         that `age-keygen -y` prints for it"
    )]
    Secret,
    /// Another kind.
    #[error("encrypt-to: {recipient:?} is no X25519 recipient of age (age1…): {why}")]
    Bad {
        /// As it was given.
        recipient: String,
        /// What is wrong.
        why: &'static str,
    },
}

/// To whom a file is encrypted: each of them can open it alone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recipients(Vec<Recipient>);

impl Recipients {
    /// Parses public keys, `age1…` each.
    ///
    /// # Errors
    /// [`Error`], which names the one that is none.
    pub fn parse(texts: &[String]) -> Result<Self, Error> {
        let recipients: Result<Vec<_>, _> = texts.iter().map(|text| Recipient::parse(text.trim())).collect();
        let recipients = recipients?;
        if recipients.is_empty() { Err(Error::None) } else { Ok(Self(recipients)) }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Recipient> {
        self.0.iter()
    }
}

/// A public key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Recipient([u8; KEY]);

impl Recipient {
    fn parse(text: &str) -> Result<Self, Error> {
        if text.to_ascii_uppercase().starts_with("AGE-SECRET-KEY-") {
            return Err(Error::Secret);
        }
        let bad = |why| Error::Bad { recipient: text.to_owned(), why };
        if text.starts_with("ssh-") {
            return Err(bad("SSH keys are not taken"));
        }
        let (prefix, bytes) = bech32(text).map_err(bad)?;
        if prefix != PREFIX {
            return Err(bad("it is for another kind of key or a plugin"));
        }
        let key = <[u8; KEY]>::try_from(bytes).map_err(|_| bad("it has not 32 bytes"))?;
        let recipient = Self(key);
        // Some points make a secret that everybody knows.
        recipient.agree(&SystemRandom::new()).map_err(|_| bad("no key can be agreed on with it"))?;
        Ok(recipient)
    }

    /// Our one-time public key, and the secret that it makes with the recipient's.
    fn agree(&self, random: &SystemRandom) -> io::Result<([u8; KEY], [u8; KEY])> {
        let failed = |_| io::Error::other("no key can be agreed on with a recipient");
        let ours = EphemeralPrivateKey::generate(&X25519, random).map_err(failed)?;
        let mut share = [0; KEY];
        share.copy_from_slice(ours.compute_public_key().map_err(failed)?.as_ref());
        let theirs = UnparsedPublicKey::new(&X25519, self.0);
        let secret = agree_ephemeral(ours, &theirs, |secret| {
            let mut copy = [0; KEY];
            copy.copy_from_slice(secret);
            copy
        });
        Ok((share, secret.map_err(failed)?))
    }

    /// The header's lines for this recipient: the file's key, sealed.
    pub(super) fn stanza(&self, file_key: &[u8; FILE_KEY], random: &SystemRandom) -> io::Result<String> {
        let (share, secret) = self.agree(random)?;
        let salt = [share, self.0].concat();
        let key = cipher(&derive(&salt, &secret, INFO)?)?;
        let mut body = file_key.to_vec();
        // The key is used once.
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key([0; 12]), Aad::empty(), &mut body)
            .map_err(|_| io::Error::other("the file's key cannot be sealed"))?;
        let body = base64(&body);
        debug_assert!(body.len() < COLUMNS, "a full line would need an empty one after it");
        Ok(format!("-> X25519 {}\n{body}\n", base64(&share)))
    }
}

/// The prefix and the bytes of a bech32 text.
fn bech32(text: &str) -> Result<(&str, Vec<u8>), &'static str> {
    if text.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err("it has capital letters");
    }
    let (prefix, data) = text.rsplit_once('1').filter(|(p, _)| !p.is_empty()).ok_or("it has no 1 in it")?;
    let fives: Option<Vec<u8>> = data.chars().map(|c| Some(CHARSET.find(c)? as u8)).collect();
    let fives = fives.ok_or("it has a character that no recipient has")?;
    let high = prefix.bytes().map(|b| b >> 5);
    let low = prefix.bytes().map(|b| b & 31);
    if fives.len() < 6 || polymod(high.chain([0]).chain(low).chain(fives.iter().copied())) != 1 {
        return Err("its checksum is wrong: a character is missing or mistyped");
    }
    let (mut bits, mut count, mut bytes) = (0_u32, 0, Vec::new());
    for five in fives.iter().take(fives.len() - 6) {
        bits = bits << 5 & 0xfff | u32::from(*five);
        count += 5;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count & 0xff) as u8);
        }
    }
    if count >= 5 || bits & ((1 << count) - 1) != 0 {
        return Err("its last bits are not zero");
    }
    Ok((prefix, bytes))
}

fn polymod(values: impl Iterator<Item = u8>) -> u32 {
    const GENERATOR: [u32; 5] = [0x3b6a_57b2, 0x2650_8e6d, 0x1ea1_19fa, 0x3d42_33dd, 0x2a14_62b3];
    values.fold(1, |sum, value| {
        let top = sum >> 25;
        let sum = (sum & 0x01ff_ffff) << 5 ^ u32::from(value);
        GENERATOR.iter().enumerate().fold(sum, |sum, (i, g)| if top >> i & 1 == 1 { sum ^ g } else { sum })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";

    fn parse(text: &str) -> Result<Recipients, Error> {
        Recipients::parse(&[text.to_owned()])
    }

    #[test]
    fn a_public_key_is_taken_and_the_bad_one_of_several_named() {
        assert_eq!(parse(GOOD).unwrap().iter().count(), 1);
        let mistyped = GOOD.replace("54pw", "54pq");
        let error = Recipients::parse(&[GOOD.to_owned(), mistyped.clone()]).unwrap_err();
        assert!(error.to_string().contains(&mistyped) && error.to_string().contains("mistyped"), "{error}");
        assert_eq!(Recipients::parse(&[]).unwrap_err(), Error::None);
    }

    #[test]
    fn a_secret_key_is_refused_and_not_repeated() {
        for secret in ["AGE-SECRET-KEY-1QQQQ", "age-secret-key-1qqqq"] {
            let error = parse(secret).unwrap_err();
            assert_eq!(error, Error::Secret);
            assert!(!error.to_string().to_lowercase().contains("qqqq"));
        }
    }

    #[test]
    fn other_kinds_are_refused() {
        for bad in [
            "",
            "age1",
            "age",
            "1qqqqqq",
            "ssh-ed25519 AAAA",
            "agé1qqqqqqq",
            &GOOD.to_uppercase(),
            &GOOD[..GOOD.len() - 1],
            // bech32 of nothing, and a plugin's recipient.
            "a12uel5l",
            "age1yubikey1qwt50d05nh5vutpdzmlg5wn80xq5negm4uj9ghv0snvdd3yysf5yw3rhl3t",
        ] {
            assert!(matches!(parse(bad), Err(Error::Bad { .. })), "{bad}");
        }
    }
}

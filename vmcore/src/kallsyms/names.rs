//! The compressed names, read where they lie: expanded, those of a distribution kernel would take 6 MiB, which the
//! capture kernel has not to spare.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;

use super::{Error, HASH_START, hash_more};

/// KSYM_NAME_LEN is 512, and the type letter is one more.
const NAME_MAX: usize = 1024;

/// All names, and what the bytes in them stand for.
#[derive(Debug, Default)]
pub(super) struct Names<'a> {
    packed: Cow<'a, [u8]>,
    tokens: Vec<u8>,
    /// Start and length in `tokens` of what each byte stands for.
    spans: Vec<(u16, u16)>,
}

impl<'a> Names<'a> {
    /// Takes the three tables.
    pub fn new(packed: Cow<'a, [u8]>, tokens: Vec<u8>, index: &[u8]) -> Result<Self, Error> {
        let mut spans = Vec::with_capacity(256);
        for at in index.chunks_exact(2) {
            let start = u16::from_le_bytes([at[0], at[1]]);
            let from = tokens.get(usize::from(start)..).ok_or(Error::Damaged {
                table: "kallsyms_token_index",
                what: "it points past the token table",
            })?;
            let end = from.iter().position(|&b| b == 0).and_then(|end| u16::try_from(end).ok());
            let end =
                end.ok_or(Error::Damaged { table: "kallsyms_token_table", what: "a token without end" })?;
            spans.push((start, end));
        }
        Ok(Self { packed, tokens, spans })
    }

    /// Where each of the first `count` names begins; all of them can be read then.
    pub fn places(&self, count: usize) -> Result<Vec<u32>, Error> {
        let damaged = |what| Error::Damaged { table: "kallsyms_names", what };
        let mut places = Vec::with_capacity(count);
        let mut at = 0;
        for _ in 0..count {
            let rest = self.packed.get(at..).ok_or(damaged("it ends early"))?;
            let (name, after) = split_name(rest)?;
            let len: usize = name.iter().map(|&byte| self.token(byte).len()).sum();
            match len {
                0 => return Err(damaged("a name without characters")),
                1..=NAME_MAX => {}
                _ => return Err(damaged("names out of all proportion")),
            }
            places.push(u32::try_from(at).map_err(|_| damaged("4 GiB of names"))?);
            at = self.packed.len() - after.len();
        }
        Ok(places)
    }

    fn token(&self, byte: u8) -> &[u8] {
        let (start, len) = self.spans.get(usize::from(byte)).copied().unwrap_or_default();
        self.tokens.get(usize::from(start)..usize::from(start) + usize::from(len)).unwrap_or_default()
    }

    /// The compressed bytes of the name at a place.
    fn packed(&self, at: u32) -> &[u8] {
        let rest = self.packed.get(at as usize..).unwrap_or_default();
        split_name(rest).map_or(&[], |(name, _)| name)
    }

    /// Type letter and name, one after the other.
    fn bytes(&self, at: u32) -> impl Iterator<Item = u8> {
        self.packed(at).iter().flat_map(|&byte| self.token(byte)).copied()
    }

    /// The type letter.
    pub fn kind(&self, at: u32) -> u8 {
        self.bytes(at).next().unwrap_or(b'?')
    }

    /// The name; damage shows as replacement characters.
    pub fn text(&self, at: u32) -> String {
        let bytes: Vec<u8> = self.bytes(at).skip(1).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The name's [hash](super::hash).
    pub fn hash(&self, at: u32) -> u32 {
        self.bytes(at).skip(1).fold(HASH_START, hash_more)
    }

    /// Whether the name at a place is this one.
    pub fn is(&self, at: u32, name: &str) -> bool {
        self.bytes(at).skip(1).eq(name.bytes())
    }

    /// Whether two places have the same name.
    pub fn are_equal(&self, one: u32, other: u32) -> bool {
        // The kernel compresses equal texts equally, as a rule.
        self.packed(one) == self.packed(other) || self.bytes(one).skip(1).eq(self.bytes(other).skip(1))
    }
}

/// Takes the first name off. A length byte with bit 7 set is taken as the first of two (since 6.1); names that long
/// did not exist before, so old tables read the same.
fn split_name(names: &[u8]) -> Result<(&[u8], &[u8]), Error> {
    let damaged = |what| Error::Damaged { table: "kallsyms_names", what };
    let (&b0, after) = names.split_first().ok_or(damaged("it ends early"))?;
    let (len, after) = match b0 {
        0 => return Err(damaged("an empty name")),
        b if b & 0x80 == 0 => (usize::from(b), after),
        b => {
            let (&b1, after) = after.split_first().ok_or(damaged("it ends early"))?;
            (usize::from(b & 0x7f) | usize::from(b1) << 7, after)
        }
    };
    after.split_at_checked(len).ok_or(damaged("a name runs past its end"))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use alloc::vec;

    /// Tokens: byte `b` is the one-character string `b`, except 1, which is "sys_".
    pub fn tokens() -> (Vec<u8>, Vec<u8>) {
        let (mut t, mut i) = (Vec::new(), Vec::new());
        for b in 0..=255u8 {
            i.extend_from_slice(&(t.len() as u16).to_le_bytes());
            match b {
                1 => t.extend_from_slice(b"sys_"),
                0x20..0x7f => t.push(b),
                _ => {}
            }
            t.push(0);
        }
        (t, i)
    }

    fn names(packed: &[u8], tokens: Vec<u8>, index: &[u8]) -> Names<'static> {
        Names::new(Cow::Owned(packed.to_vec()), tokens, index).unwrap()
    }

    #[test]
    fn tokens_expand_and_long_names_have_two_length_bytes() {
        let (t, i) = tokens();
        let mut packed = vec![4, b'T', 1, b'x', b'y'];
        packed.extend_from_slice(&[0x80 | (300 & 0x7f) as u8, (300 >> 7) as u8, b't']);
        packed.extend_from_slice(&[b'a'; 299]);
        let n = names(&packed, t, &i);
        assert_eq!(n.places(2).unwrap(), [0, 5]);
        assert!(n.is(0, "sys_xy") && !n.is(0, "sys_x") && !n.is(5, "sys_xy"));
        assert_eq!((n.text(0).as_str(), n.kind(0)), ("sys_xy", b'T'));
        assert_eq!((n.text(5).len(), n.kind(5)), (299, b't'));
        assert_eq!(n.hash(0), super::super::hash(b"sys_xy"));
    }

    #[test]
    fn names_are_equal_whatever_their_types_and_tokens() {
        let (t, i) = tokens();
        let n = names(&[3, b'T', 1, b'x', 6, b't', b's', b'y', b's', b'_', b'x', 2, b'T', 1], t, &i);
        assert_eq!(n.places(3).unwrap(), [0, 4, 11]);
        assert!(n.are_equal(0, 4) && n.are_equal(4, 4) && !n.are_equal(0, 11));
    }

    #[test]
    fn a_name_of_endless_tokens_is_damage() {
        let (mut t, mut i) = tokens();
        i[2..4].copy_from_slice(&(t.len() as u16).to_le_bytes());
        t.extend_from_slice(&[b'x'; 600]);
        t.push(0);
        assert!(names(&[1, 1], t.clone(), &i).places(1).is_ok());
        assert!(names(&[2, 1, 1], t, &i).places(1).is_err());
    }

    #[test]
    fn a_cut_table_is_damage() {
        let (t, i) = tokens();
        for packed in [&[4, b'T', 1][..], &[0x85], &[], &[0]] {
            assert!(names(packed, t.clone(), &i).places(1).is_err());
        }
        assert!(Names::new(Cow::default(), t[..8].to_vec(), &i).is_err());
    }
}

//! Expanding the compressed names.

use alloc::string::String;
use alloc::vec::Vec;

use super::Error;

/// KSYM_NAME_LEN is 512, and the type letter is one more.
const NAME_MAX: usize = 1024;
/// Distribution kernels have some 6 MiB of names.
const TEXT_MAX: usize = 256 << 20;

/// Where one name lies in the expanded text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub at: u32,
    pub len: u16,
    pub kind: u8,
}

/// All names, in the table's order.
#[derive(Debug)]
pub(super) struct Expanded {
    pub spans: Vec<Span>,
    pub text: String,
}

impl Expanded {
    /// Position of a name in the table.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.spans.iter().position(|s| {
            usize::from(s.len) == name.len()
                && self.text.get(s.at as usize..s.at as usize + name.len()) == Some(name)
        })
    }
}

/// Expands `count` names. A length byte with bit 7 set is taken as the first of two (since 6.1);
/// names that long did not exist before, so old tables read the same.
pub(super) fn expand(names: &[u8], count: usize, tokens: &[u8], index: &[u8]) -> Result<Expanded, Error> {
    let damaged = |what| Error::Damaged { table: "kallsyms_names", what };
    let table = token_strings(tokens, index)?;
    let mut spans = Vec::with_capacity(count);
    let mut text: Vec<u8> = Vec::with_capacity((names.len() * 3).min(16 << 20));
    let mut rest = names;
    for _ in 0..count {
        let (&b0, after) = rest.split_first().ok_or(damaged("it ends early"))?;
        let (len, after) = match b0 {
            0 => return Err(damaged("an empty name")),
            b if b & 0x80 == 0 => (usize::from(b), after),
            b => {
                let (&b1, after) = after.split_first().ok_or(damaged("it ends early"))?;
                (usize::from(b & 0x7f) | usize::from(b1) << 7, after)
            }
        };
        let (name, after) = after.split_at_checked(len).ok_or(damaged("a name runs past its end"))?;
        rest = after;
        let start = text.len();
        for &byte in name {
            text.extend_from_slice(table[usize::from(byte)]);
            // A token may be as long as its table: checked at each, not at the end.
            if text.len() - start > NAME_MAX || text.len() > TEXT_MAX {
                return Err(damaged("names out of all proportion"));
            }
        }
        let written = text.len() - start;
        // The type letter comes first. Both numbers are bounded above, far below their types' limits.
        let kind = *text.get(start).ok_or(damaged("a name without characters"))?;
        let (len, at) = ((written - 1) as u16, (start + 1) as u32);
        spans.push(Span { at, len, kind });
    }
    // Names are ASCII, or UTF-8 in Rust code; damage shows as replacement characters, which would
    // move every later span, so damaged text is refused as a whole.
    let text = String::from_utf8(text).map_err(|_| damaged("text that is not UTF-8"))?;
    Ok(Expanded { spans, text })
}

fn token_strings<'a>(tokens: &'a [u8], index: &[u8]) -> Result<[&'a [u8]; 256], Error> {
    let mut table: [&[u8]; 256] = [&[]; 256];
    for (slot, at) in table.iter_mut().zip(index.chunks_exact(2)) {
        let at = usize::from(u16::from_le_bytes([at[0], at[1]]));
        let from = tokens.get(at..).ok_or(Error::Damaged {
            table: "kallsyms_token_index",
            what: "it points past the token table",
        })?;
        let end = from
            .iter()
            .position(|&b| b == 0)
            .ok_or(Error::Damaged { table: "kallsyms_token_table", what: "a token without end" })?;
        *slot = &from[..end];
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    /// Tokens: byte `b` is the one-character string `b`, except 1, which is "sys_".
    fn tokens() -> (Vec<u8>, Vec<u8>) {
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

    #[test]
    fn tokens_expand_and_long_names_have_two_length_bytes() {
        let (t, i) = tokens();
        let mut names = vec![4, b'T', 1, b'x', b'y'];
        names.extend_from_slice(&[0x80 | (300 & 0x7f) as u8, (300 >> 7) as u8, b't']);
        names.extend_from_slice(&[b'a'; 299]);
        let e = expand(&names, 2, &t, &i).unwrap();
        assert_eq!(e.find("sys_xy"), Some(0));
        assert_eq!((e.spans[1].len, e.spans[1].kind), (299, b't'));
    }

    #[test]
    fn a_name_of_endless_tokens_is_damage() {
        let (mut t, mut i) = tokens();
        i[2..4].copy_from_slice(&(t.len() as u16).to_le_bytes());
        t.extend_from_slice(&[b'x'; 600]);
        t.push(0);
        assert!(expand(&[1, 1], 1, &t, &i).is_ok());
        assert!(expand(&[2, 1, 1], 1, &t, &i).is_err());
    }

    #[test]
    fn a_cut_table_is_damage() {
        let (t, i) = tokens();
        for names in [&[4, b'T', 1][..], &[0x85], &[], &[0]] {
            assert!(expand(names, 1, &t, &i).is_err());
        }
    }
}

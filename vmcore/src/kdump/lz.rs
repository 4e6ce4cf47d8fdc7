//! Reading the two oldest ways of compression: LZO1X, which most distributions' dumps have, and
//! Snappy. Both copy literals and earlier output; both are decoded here into a buffer of known size,
//! with every length and distance checked.
//!
//! Source: Documentation/staging/lzo.rst; google/snappy `format_description.txt`.

/// The output being filled.
struct Output<'a> {
    buf: &'a mut [u8],
    len: usize,
}

impl Output<'_> {
    fn literals(&mut self, from: &[u8]) -> Option<()> {
        let end = self.len.checked_add(from.len())?;
        self.buf.get_mut(self.len..end)?.copy_from_slice(from);
        self.len = end;
        Some(())
    }

    /// Repeats `len` bytes from `distance` back; the two may overlap, which repeats a pattern.
    fn repeat(&mut self, distance: usize, len: usize) -> Option<()> {
        let start = self.len.checked_sub(distance).filter(|_| distance > 0)?;
        let end = self.len.checked_add(len).filter(|&end| end <= self.buf.len())?;
        if distance >= len {
            self.buf.copy_within(start..start + len, self.len);
        } else {
            for i in self.len..end {
                self.buf[i] = self.buf[i - distance];
            }
        }
        self.len = end;
        Some(())
    }
}

/// The input being eaten.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> Option<usize> {
        let (&b, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(usize::from(b))
    }

    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(head)
    }

    /// A little-endian number of `n` bytes, at most four.
    fn le(&mut self, n: usize) -> Option<usize> {
        Some(self.take(n)?.iter().rev().fold(0, |v, &b| v << 8 | usize::from(b)))
    }

    /// A length that did not fit its field: `base`, and 255 for each zero byte, and the first other.
    fn long_length(&mut self, base: usize) -> Option<usize> {
        let mut length = base;
        loop {
            match self.byte()? {
                0 => length = length.checked_add(255)?,
                last => return length.checked_add(last),
            }
        }
    }
}

/// Decodes an LZO1X block. Returns the bytes it filled; `None` if the block is damaged or would fill
/// more than `out`.
pub(super) fn lzo1x(input: &[u8], out: &mut [u8]) -> Option<usize> {
    let mut input = Input(input);
    let mut out = Output { buf: out, len: 0 };
    // How many literals the last instruction ended with; 4 stands for a run of four or more. It decides
    // what the shortest instructions mean.
    let mut state = 0;
    if usize::from(*input.0.first()?) > 17 {
        let n = input.byte()? - 17;
        out.literals(input.take(n)?)?;
        state = n.min(4);
    }
    loop {
        let op = input.byte()?;
        let low = match op {
            0..=15 if state == 0 => {
                let n = if op == 0 { input.long_length(15)? } else { op };
                out.literals(input.take(n.checked_add(3)?)?)?;
                state = 4;
                continue;
            }
            0..=15 => {
                let high = input.byte()? << 2;
                if state == 4 {
                    out.repeat(high + (op >> 2) + 2049, 3)?;
                } else {
                    out.repeat(high + (op >> 2) + 1, 2)?;
                }
                op
            }
            16..=31 => {
                let n = if op & 7 == 0 { input.long_length(7)? } else { op & 7 };
                let word = input.le(2)?;
                let distance = ((op & 8) << 11) + (word >> 2);
                if distance == 0 {
                    // The end mark; what follows it is not the block's.
                    return Some(out.len);
                }
                out.repeat(distance + 16384, n.checked_add(2)?)?;
                word
            }
            32..=63 => {
                let n = if op & 31 == 0 { input.long_length(31)? } else { op & 31 };
                let word = input.le(2)?;
                out.repeat((word >> 2) + 1, n.checked_add(2)?)?;
                word
            }
            64..=127 => {
                let distance = (input.byte()? << 3) + (op >> 2 & 7) + 1;
                out.repeat(distance, 3 + (op >> 5 & 1))?;
                op
            }
            _ => {
                let distance = (input.byte()? << 3) + (op >> 2 & 7) + 1;
                out.repeat(distance, 5 + (op >> 5 & 3))?;
                op
            }
        };
        state = low & 3;
        out.literals(input.take(state)?)?;
    }
}

/// Decodes a Snappy block. Returns the bytes it filled; `None` if the block is damaged or would fill
/// more than `out`.
pub(super) fn snappy(input: &[u8], out: &mut [u8]) -> Option<usize> {
    let mut input = Input(input);
    let mut out = Output { buf: out, len: 0 };
    // The length comes first, seven bits a byte; a page's fits in two.
    let mut expected = 0;
    for shift in (0..32).step_by(7) {
        let b = input.byte()?;
        expected |= (b & 0x7f) << shift;
        if b < 0x80 {
            break;
        }
    }
    while !input.0.is_empty() {
        let tag = input.byte()?;
        match tag & 3 {
            0 => {
                let n = match tag >> 2 {
                    n @ 0..=59 => n,
                    n => input.le(n - 59)?,
                };
                out.literals(input.take(n.checked_add(1)?)?)?;
            }
            1 => {
                let distance = (tag >> 5) << 8 | input.byte()?;
                out.repeat(distance, 4 + (tag >> 2 & 7))?;
            }
            2 => {
                let distance = input.le(2)?;
                out.repeat(distance, 1 + (tag >> 2))?;
            }
            _ => {
                let distance = input.le(4)?;
                out.repeat(distance, 1 + (tag >> 2))?;
            }
        }
    }
    (out.len == expected).then_some(out.len)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of Snappy's own description: a literal, then a pattern repeated by overlap.
    #[test]
    fn snappy_repeats_by_overlap() {
        let mut out = [0; 16];
        // "ab", then ten more bytes from two back.
        let block = [12, 1 << 2, b'a', b'b', 9 << 2 | 2, 2, 0];
        assert_eq!(snappy(&block, &mut out), Some(12));
        assert_eq!(&out[..12], b"abababababab");
        assert_eq!(snappy(&block[..6], &mut out), None);
        assert_eq!(snappy(&[12, 1 << 2, b'a', b'b', 9 << 2 | 2, 3, 0], &mut out), None, "before the start");
        assert_eq!(snappy(&block, &mut out[..11]), None, "larger than the page");
    }

    #[test]
    fn lzo_instructions_of_each_kind() {
        let mut out = [0; 64];
        // Five literals first (17 + 5); a match of 3 + 1 at distance 5; end.
        let block = [22, b'h', b'e', b'l', b'l', b'o', 0x40 | 0x20 | 4 << 2, 0, 17, 0, 0];
        assert_eq!(lzo1x(&block, &mut out), Some(9));
        assert_eq!(&out[..9], b"hellohell");
        // Four literals by a run (1 + 3); a match of 2 + 30 at distance 1, with one literal behind; end.
        let block = [1, b'w', b'x', b'y', b'z', 32 | 30, 1, 0, b'!', 17, 0, 0];
        assert_eq!(lzo1x(&block, &mut out), Some(37));
        assert_eq!(&out[..5], b"wxyzz");
        assert_eq!(out[36], b'!');
        assert_eq!(lzo1x(&block[..9], &mut out), None, "no end mark");
        assert_eq!(lzo1x(&block, &mut out[..20]), None, "larger than the page");
    }

    /// Check that no input makes either decoder panic, or fill more than there is.
    #[test]
    fn garbage_is_refused_without_panic() {
        let mut seed = 7u64;
        let mut input = [0u8; 200];
        let mut out = [0; 4096];
        for _ in 0..50_000 {
            for b in &mut input {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                *b = (seed >> 56) as u8;
            }
            assert!(lzo1x(&input, &mut out).is_none_or(|n| n <= 4096));
            assert!(snappy(&input, &mut out).is_none_or(|n| n <= 4096));
        }
    }
}

//! One line of console text, put together without `core::fmt` and without allocation.
//!
//! Formatting through `core::fmt` would add more code to the panic path than the rest of it has, and
//! would fill it with relocated function pointers. Text that does not fit is cut off.

/// What every line of the panic path begins with.
pub const PREFIX: &str = "kdump-rs panic-kernel: ";

/// Longest line in bytes.
pub const CAPACITY: usize = 192;

/// Where finished lines go.
pub trait Sink {
    /// Takes one line, without its line end.
    fn line(&mut self, line: &Line);
}

/// A line under construction.
#[derive(Clone)]
pub struct Line {
    text: [u8; CAPACITY],
    len: usize,
}

impl Line {
    /// Begins a line with [`PREFIX`].
    pub fn new() -> Self {
        let mut line = Self::empty();
        line.str(PREFIX);
        line
    }

    /// Begins a line with nothing.
    pub const fn empty() -> Self {
        Self { text: [0; CAPACITY], len: 0 }
    }

    /// Appends a byte, or a question mark for one that is no printable ASCII.
    pub fn byte(&mut self, byte: u8) -> &mut Self {
        let byte = if byte.is_ascii_graphic() || byte == b' ' { byte } else { b'?' };
        if let Some(slot) = self.text.get_mut(self.len) {
            *slot = byte;
            self.len += 1;
        }
        self
    }

    /// Appends text.
    #[inline(never)] // a dozen copies would double the panic path
    pub fn str(&mut self, text: &str) -> &mut Self {
        for byte in text.bytes() {
            self.byte(byte);
        }
        self
    }

    /// Appends a number in decimal.
    #[inline(never)]
    pub fn dec(&mut self, number: u64) -> &mut Self {
        let mut digits = [0u8; 20];
        let mut rest = number;
        let mut nr = 0;
        for slot in digits.iter_mut().rev() {
            *slot = b'0' + (rest % 10) as u8;
            rest /= 10;
            nr += 1;
            if rest == 0 {
                break;
            }
        }
        for &digit in digits.iter().skip(20 - nr) {
            self.byte(digit);
        }
        self
    }

    /// Appends a number in hexadecimal, `0x` in front, without leading zeros.
    #[inline(never)]
    pub fn hex(&mut self, number: u64) -> &mut Self {
        self.str("0x");
        let nr_digits = (64 - number.leading_zeros()).div_ceil(4).max(1);
        for digit in (0..nr_digits).rev() {
            self.nibble((number >> (4 * digit)) as u8);
        }
        self
    }

    /// Appends bytes as hexadecimal pairs in memory order.
    #[inline(never)]
    pub fn hex_bytes(&mut self, bytes: &[u8]) -> &mut Self {
        for &byte in bytes {
            self.nibble(byte >> 4).nibble(byte);
        }
        self
    }

    /// Appends a number of bytes in the unit that suits it, with one decimal place, rounded down.
    #[inline(never)]
    pub fn size(&mut self, bytes: u64) -> &mut Self {
        let (unit, name) = match bytes {
            0..1024 => return self.dec(bytes).str(" B"),
            1024..0x10_0000 => (1u64 << 10, " KiB"),
            0x10_0000..0x4000_0000 => (1 << 20, " MiB"),
            _ => (1 << 30, " GiB"),
        };
        self.dec(bytes / unit).str(".").dec(bytes % unit * 10 / unit).str(name)
    }

    /// The text so far.
    pub fn as_bytes(&self) -> &[u8] {
        self.text.get(..self.len).unwrap_or_default()
    }

    /// The text so far, which is always ASCII.
    pub fn as_str(&self) -> &str {
        str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    fn nibble(&mut self, value: u8) -> &mut Self {
        let value = value & 0xf;
        self.byte(if value < 10 { b'0' + value } else { b'a' - 10 + value })
    }
}

impl Default for Line {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(build: impl Fn(&mut Line) -> &mut Line) -> std::string::String {
        let mut line = Line::empty();
        build(&mut line);
        line.as_str().into()
    }

    #[test]
    fn numbers_have_no_leading_zeros() {
        assert_eq!(text(|l| l.dec(0).str(" ").dec(10).str(" ").dec(u64::MAX)), "0 10 18446744073709551615");
        assert_eq!(
            text(|l| l.hex(0).str(" ").hex(0x10).str(" ").hex(u64::MAX)),
            "0x0 0x10 0xffffffffffffffff"
        );
    }

    #[test]
    fn sizes_take_the_unit_that_suits_them() {
        let sizes = [(1023, "1023 B"), (4096, "4.0 KiB"), (14_889_779, "14.1 MiB"), (5 << 29, "2.5 GiB")];
        for (bytes, wanted) in sizes {
            assert_eq!(text(|l| l.size(bytes)), wanted);
        }
    }

    #[test]
    fn bytes_are_printed_in_memory_order() {
        assert_eq!(text(|l| l.hex_bytes(&[0x01, 0xfe])), "01fe");
    }

    #[test]
    fn what_does_not_fit_is_cut_off() {
        let line = text(|l| {
            for _ in 0..100 {
                l.str("0123456789");
            }
            l
        });
        assert_eq!(line.len(), CAPACITY);
    }

    #[test]
    fn control_and_foreign_bytes_do_not_reach_the_terminal() {
        assert_eq!(text(|l| l.byte(0x1b).byte(b'[').byte(0xff).byte(b' ')), "?[? ");
    }
}

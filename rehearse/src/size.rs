//! Sizes as people and QEMU write them: `512M`, `1G`.

/// A size that is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a size; write a number with K, M or G behind it, such as 512M")]
pub struct BadSize(pub String);

/// Parses a number of bytes with an optional binary suffix K, M or G, in either case.
///
/// # Errors
/// [`BadSize`] for anything else, 0 and what does not fit 64 bits included.
pub fn parse(text: &str) -> Result<u64, BadSize> {
    let bad = || BadSize(text.to_owned());
    let (digits, shift) = match text.char_indices().last() {
        Some((at, 'k' | 'K')) => (&text[..at], 10),
        Some((at, 'm' | 'M')) => (&text[..at], 20),
        Some((at, 'g' | 'G')) => (&text[..at], 30),
        _ => (text, 0),
    };
    // u64::from_str takes a sign.
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(bad());
    }
    let number: u64 = digits.parse().map_err(|_| bad())?;
    number.checked_mul(1 << shift).filter(|&bytes| bytes > 0).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_are_binary_and_take_either_case() {
        assert_eq!(parse("4096"), Ok(4096));
        assert_eq!(parse("64k"), Ok(64 << 10));
        assert_eq!(parse("512M"), Ok(512 << 20));
        assert_eq!(parse("3g"), Ok(3 << 30));
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in ["", "M", "-1M", "+1M", "0", "1T", "1MB", "1 M", "18446744073709551615G", "9é"] {
            assert_eq!(parse(text), Err(BadSize(text.to_owned())));
        }
    }
}

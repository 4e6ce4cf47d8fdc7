//! Times and sizes as people write them: `90`, `90s`, `2m`, `3d`; `512M`, `20G`.

use std::time::Duration;

/// Reads a time: seconds, or a number with `s`, `m`, `h` or `d`.
///
/// # Errors
/// A sentence.
pub fn parse_time(text: &str) -> Result<Duration, String> {
    let units = [("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)];
    let seconds = scaled(text, &units).filter(|&seconds| seconds > 0);
    seconds.map(Duration::from_secs).ok_or_else(|| format!("{text:?} is no time: 90, 90s, 2m, 12h or 30d"))
}

/// Reads a size: bytes, or a number with `K`, `M`, `G` or `T`, powers of 1024.
///
/// # Errors
/// A sentence.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let units = [("K", 1 << 10), ("M", 1 << 20), ("G", 1 << 30), ("T", 1 << 40)];
    scaled(text, &units).ok_or_else(|| format!("{text:?} is no size: 1048576, 512M or 20G"))
}

fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let unit = units.iter().find_map(|(name, scale)| Some((text.strip_suffix(name)?, *scale)));
    let (digits, scale) = unit.unwrap_or((text, 1));
    let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    digits.parse::<u64>().ok().filter(|_| is_number)?.checked_mul(scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_scale_and_nonsense_is_named() {
        assert_eq!(parse_time("90"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_time("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(parse_time("30d"), Ok(Duration::from_secs(30 * 86_400)));
        assert_eq!(parse_size("20G"), Ok(20 << 30));
        assert_eq!(parse_size("0"), Ok(0));
        for text in ["", "0", "s", "-1", "+5", "1.5m", "99999999999999999999d"] {
            assert!(parse_time(text).unwrap_err().contains("is no time"), "{text}");
        }
        assert!(parse_size("99999999999T").is_err() && parse_size("5 G").is_err());
    }
}

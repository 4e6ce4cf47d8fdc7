//! The parameter `crashkernel=`: its forms, which of several counts, and how one is put in place of another.
//!
//! Source: kernel/crash_reserve.c (`parse_crashkernel`): of each form the last one counts, and a plain one beats
//! one with `,high`. `,low` goes with `,high`; `,cma` comes in addition.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

const NAME: &str = "crashkernel=";

/// What follows `crashkernel=`, checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Value(String);

/// Text that the kernel would not take.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "{text:?} is no value of crashkernel=: 256M, 1G, 512M,high, or ranges of RAM as in 1G-8G:192M,8G-:256M"
)]
pub struct BadValue {
    text: String,
}

/// Which kind of reservation a value asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `size`, `range:size`.
    Plain,
    /// `size,high`.
    High,
    /// `size,low`.
    Low,
    /// `size,cma`.
    Cma,
}

impl Form {
    /// That of a value as it stands on a command line.
    #[must_use]
    pub fn of(value: &str) -> Self {
        match value.rsplit_once(',').map(|(_, suffix)| suffix) {
            Some("high") => Self::High,
            Some("low") => Self::Low,
            Some("cma") => Self::Cma,
            _ => Self::Plain,
        }
    }
}

impl Value {
    /// So many bytes, in MiB.
    #[must_use]
    pub fn of_bytes(bytes: u64) -> Self {
        Self(format!("{}M", bytes.div_ceil(1 << 20)))
    }

    /// Its form.
    #[must_use]
    pub fn form(&self) -> Form {
        Form::of(&self.0)
    }

    /// Bytes that it asks for, where that does not depend on how much RAM there is.
    #[must_use]
    pub fn bytes(&self) -> Option<u64> {
        size(self.0.strip_suffix(",high").unwrap_or(&self.0))
    }

    /// The parameter as a word for the command line.
    #[must_use]
    pub fn word(&self) -> String {
        format!("{NAME}{}", self.0)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Value {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let sizes = text.strip_suffix(",high").unwrap_or(text);
        let is_good = size(sizes).is_some() || (sizes == text && sizes.split(',').all(is_range));
        if is_good { Ok(Self(text.to_owned())) } else { Err(BadValue { text: text.to_owned() }) }
    }
}

/// `256M`; not 0, which is no reservation.
fn size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text.get(digits.len()..)? {
        "" => 0,
        "K" | "k" => 10,
        "M" | "m" => 20,
        "G" | "g" => 30,
        _ => return None,
    };
    let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let number: u64 = is_number.then(|| digits.parse().ok())??;
    number.checked_mul(1 << shift).filter(|&bytes| bytes > 0)
}

/// `1G-4G:192M`, `4G-:256M`.
fn is_range(text: &str) -> bool {
    let Some(((start, end), wanted)) = text.split_once(':').and_then(|(r, s)| Some((r.split_once('-')?, s)))
    else {
        return false;
    };
    let is_start = start == "0" || size(start).is_some();
    is_start && (end.is_empty() || size(end).is_some()) && size(wanted).is_some()
}

/// Values of all `crashkernel=` words, in order.
pub fn values(cmdline: &str) -> impl Iterator<Item = &str> {
    kernel_words(cmdline).0.split_ascii_whitespace().filter_map(|word| word.strip_prefix(NAME))
}

/// The value that the kernel goes by.
#[must_use]
pub fn effective(cmdline: &str) -> Option<&str> {
    let last = |form| values(cmdline).filter(|value| Form::of(value) == form).last();
    last(Form::Plain).or_else(|| last(Form::High))
}

/// What is the kernel's, and what follows ` -- ` and is its init's.
fn kernel_words(cmdline: &str) -> (&str, &str) {
    let end = cmdline.find(" -- ").unwrap_or(cmdline.len());
    cmdline.split_at(end)
}

/// The command line with this value in the place of those it replaces, or at the end.
#[must_use]
pub fn replace(cmdline: &str, value: &Value) -> String {
    let (words, rest) = kernel_words(cmdline.trim_end());
    let is_replaced = |word: &str| {
        word.strip_prefix(NAME).is_some_and(|old| match Form::of(old) {
            Form::Plain | Form::High => true,
            Form::Low => value.form() != Form::High,
            Form::Cma => false,
        })
    };
    let new = value.word();
    let mut kept: Vec<&str> = Vec::new();
    let mut at = None;
    for word in words.split(' ') {
        if is_replaced(word) {
            at.get_or_insert(kept.len());
        } else {
            kept.push(word);
        }
    }
    let end = if kept == [""] { 0 } else { kept.len() };
    kept.insert(at.unwrap_or(end), &new);
    kept.join(" ").trim_end().to_owned() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_checked_and_nothing_a_shell_would_read_gets_through() {
        for good in ["256M", "1G", "268435456", "512M,high", "1G-4G:192M,4G-:256M", "0-2G:64M"] {
            assert_eq!(good.parse::<Value>().unwrap().to_string(), good);
        }
        for bad in [
            "",
            "0M",
            "M",
            "256X",
            "+5M",
            "256M;reboot",
            "$(id)",
            "256M 1",
            "256M,low",
            "1G-:192M,high",
            "1G-4G",
            "\"1G\"",
        ] {
            assert!(bad.parse::<Value>().is_err(), "{bad}");
        }
        assert_eq!(Value::of_bytes((100 << 20) + 1).to_string(), "101M");
        assert_eq!("512M,high".parse::<Value>().unwrap().bytes(), Some(512 << 20));
        assert_eq!("1G-:192M".parse::<Value>().unwrap().bytes(), None);
    }

    #[test]
    fn the_last_plain_value_counts_and_beats_high() {
        assert_eq!(effective("a crashkernel=1M b crashkernel=2M"), Some("2M"));
        assert_eq!(effective("crashkernel=1M crashkernel=2M,high crashkernel=3M,low"), Some("1M"));
        assert_eq!(effective("crashkernel=2M,high crashkernel=9M,cma"), Some("2M,high"));
        assert_eq!(effective("quiet -- crashkernel=1M"), None);
    }

    #[test]
    fn a_value_takes_the_place_of_those_it_replaces() {
        let value = |text: &str| text.parse::<Value>().unwrap();
        let plain = value("128M");
        assert_eq!(replace("quiet", &plain), "quiet crashkernel=128M");
        assert_eq!(replace("", &plain), "crashkernel=128M");
        assert_eq!(replace("a crashkernel=1M  b crashkernel=2M,high", &plain), "a crashkernel=128M  b");
        assert_eq!(
            replace("crashkernel=2M,low crashkernel=9M,cma", &plain),
            "crashkernel=128M crashkernel=9M,cma"
        );
        assert_eq!(
            replace("crashkernel=2M,low a", &value("1G,high")),
            "crashkernel=2M,low a crashkernel=1G,high"
        );
        assert_eq!(replace("a -- crashkernel=1M", &plain), "a crashkernel=128M -- crashkernel=1M");
        let twice = replace(&replace("a b", &plain), &plain);
        assert_eq!(twice, "a b crashkernel=128M");
    }
}

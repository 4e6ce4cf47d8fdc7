//! Parsing the text indexes that depmod writes: one line, one fact; lines that do not parse are skipped.
//!
//! Source: kmod, tools/depmod.c; modules.dep(5).

use std::collections::{HashMap, HashSet};

/// One line of modules.dep.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct DepLine {
    /// The module's file, relative to the directory.
    pub(super) path: String,
    /// Files of all it needs, deepest last.
    pub(super) needs: Vec<String>,
}

/// Modules wished for, not needed, by another.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Softdep {
    pub(super) pre: Vec<String>,
    pub(super) post: Vec<String>,
}

/// The module's name as /proc/modules has it: `_` for `-`, except inside `[...]` of an alias pattern.
#[must_use]
pub fn normalize(name: &str) -> String {
    let mut in_class = false;
    name.chars()
        .map(|c| {
            match c {
                '[' => in_class = true,
                ']' => in_class = false,
                _ => {}
            }
            if c == '-' && !in_class { '_' } else { c }
        })
        .collect()
}

/// `kernel/drivers/block/virtio-blk.ko.xz` to `virtio_blk`.
pub(super) fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    normalize(file.split_once(".ko").map_or(file, |(stem, _)| stem))
}

pub(super) fn parse_dep(text: &str) -> HashMap<String, DepLine> {
    text.lines()
        .filter_map(|line| {
            let (path, needs) = line.split_once(':')?;
            let needs = needs.split_whitespace().map(str::to_owned).collect();
            Some((module_name(path), DepLine { path: path.trim().to_owned(), needs }))
        })
        .collect()
}

pub(super) fn parse_builtin(text: &str) -> HashSet<String> {
    text.lines().map(str::trim).filter(|l| !l.is_empty()).map(module_name).collect()
}

/// `softdep ext4 pre: crc32c post: a b`; words before either keyword count as `pre`, as kmod has it.
pub(super) fn parse_softdep(text: &str) -> HashMap<String, Softdep> {
    let mut all: HashMap<String, Softdep> = HashMap::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if words.next() != Some("softdep") {
            continue;
        }
        let Some(name) = words.next() else { continue };
        let entry = all.entry(normalize(name)).or_default();
        let mut is_post = false;
        for word in words {
            match word {
                "pre:" => is_post = false,
                "post:" => is_post = true,
                _ if is_post => entry.post.push(normalize(word)),
                _ => entry.pre.push(normalize(word)),
            }
        }
    }
    all
}

pub(super) fn parse_alias(text: &str) -> Vec<(String, String)> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            (words.next()? == "alias").then_some(())?;
            let (pattern, name) = (words.next()?, words.next()?);
            Some((normalize(pattern), normalize(name)))
        })
        .collect()
}

/// fnmatch(3) without flags: `*`, `?` and `[...]` with ranges and `!`.
///
/// Backtracks only to the last `*`, so the work is bounded by the product of the lengths.
#[must_use]
pub fn wildcard_match(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p + 1, t));
                p += 1;
                continue;
            }
            Some(_) => {
                if let Some(next) = match_one(pattern, p, text[t]) {
                    (p, t) = (next, t + 1);
                    continue;
                }
            }
            None => {}
        }
        let Some((after_star, from)) = star else { return false };
        (p, t) = (after_star, from + 1);
        star = Some((after_star, from + 1));
    }
    pattern[p..].iter().all(|&c| c == b'*')
}

/// Matches one byte against the pattern item at `p`; gives the item's end.
fn match_one(pattern: &[u8], p: usize, byte: u8) -> Option<usize> {
    match pattern[p] {
        b'?' => Some(p + 1),
        b'[' => match_class(pattern, p, byte).unwrap_or_else(|| (byte == b'[').then_some(p + 1)),
        literal => (literal == byte).then_some(p + 1),
    }
}

/// The outer `None` says that the class is not closed, and `[` therefore a literal.
fn match_class(pattern: &[u8], p: usize, byte: u8) -> Option<Option<usize>> {
    let mut at = p + 1;
    let negated = matches!(pattern.get(at), Some(b'!' | b'^'));
    if negated {
        at += 1;
    }
    let first = at;
    let mut hit = false;
    loop {
        let c = *pattern.get(at)?;
        if c == b']' && at > first {
            break;
        }
        match (pattern.get(at + 1), pattern.get(at + 2)) {
            (Some(b'-'), Some(&high)) if high != b']' => {
                hit |= (c..=high).contains(&byte);
                at += 3;
            }
            _ => {
                hit |= c == byte;
                at += 1;
            }
        }
    }
    Some((hit != negated).then_some(at + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_match_as_fnmatch_does() {
        for (pattern, text, expected) in [
            ("pci:v00001AF4d*sv*sd*bc*sc*i*", "pci:v00001AF4d00001001sv00001AF4sd00000002bc01sc00i00", true),
            ("pci:v00001AF4d*sv*sd*bc*sc*i*", "pci:v00008086d00001001sv00001AF4sd00000002bc01sc00i00", false),
            ("*", "", true),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyy", false),
            ("d00[13-5]x", "d004x", true),
            ("d00[!13-5]x", "d004x", false),
            ("d00[]a]", "d00]", true),
            ("x[", "x[", true),
            ("?", "", false),
        ] {
            assert_eq!(wildcard_match(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn dashes_become_underscores_outside_classes() {
        assert_eq!(normalize("crc32c-intel"), "crc32c_intel");
        assert_eq!(normalize("a-[0-9]-b"), "a_[0-9]_b");
        assert_eq!(module_name("kernel/arch/x86/crypto/crc32c-intel.ko.zst"), "crc32c_intel");
    }

    #[test]
    fn softdep_words_before_a_keyword_are_pre() {
        let all = parse_softdep("softdep cifs gcm\nsoftdep cifs ccm post: x-y\n");
        assert_eq!(all["cifs"], Softdep { pre: vec!["gcm".into(), "ccm".into()], post: vec!["x_y".into()] });
    }
}

//! The token compression of kallsyms: 256 strings that replace the pairs of characters seen most often.
//!
//! Source: `scripts/kallsyms.c` (`optimize_token_table`): start with every character as its own token, then give
//! each unused byte value to the most frequent pair of tokens until none repeats.

/// 256 tokens, trained on the strings they will compress.
#[derive(Clone, Debug)]
pub struct TokenTable {
    tokens: Vec<Vec<u8>>,
    merges: Vec<(u8, u8, u8)>,
}

impl TokenTable {
    /// Trains on `strings`. Digits and letters always stand for themselves, as they do in every real kernel.
    pub fn train(strings: impl Iterator<Item = Vec<u8>>) -> Self {
        let mut strings: Vec<Vec<u8>> = strings.collect();
        let mut tokens = vec![Vec::new(); 256];
        let own = (b'0'..=b'9').chain(b'a'..=b'z').chain(b'A'..=b'Z').chain(*b"_.$");
        for byte in own.chain(strings.iter().flatten().copied()) {
            tokens[usize::from(byte)] = vec![byte];
        }
        let free: Vec<u8> = (0..=255).rev().filter(|&byte| tokens[usize::from(byte)].is_empty()).collect();
        let mut merges = Vec::new();
        for code in free {
            let Some((first, second)) = most_frequent_pair(&strings) else { break };
            tokens[usize::from(code)] =
                [&tokens[usize::from(first)][..], &tokens[usize::from(second)]].concat();
            merges.push((first, second, code));
            for string in &mut strings {
                replace_pair(string, first, second, code);
            }
        }
        Self { tokens, merges }
    }

    /// Returns the tokens that spell `string`.
    pub fn compress(&self, string: &[u8]) -> Vec<u8> {
        let mut out = string.to_vec();
        for &(first, second, code) in &self.merges {
            replace_pair(&mut out, first, second, code);
        }
        out
    }

    /// Returns `kallsyms_token_table`: 256 NUL-terminated strings.
    pub fn table(&self) -> Vec<u8> {
        self.tokens.iter().flat_map(|token| token.iter().copied().chain([0])).collect()
    }

    /// Returns `kallsyms_token_index`: where each string starts, u16.
    pub fn index(&self) -> Vec<u8> {
        let mut offset = 0u16;
        let mut out = Vec::new();
        for token in &self.tokens {
            out.extend(offset.to_le_bytes());
            offset += token.len() as u16 + 1;
        }
        out
    }
}

/// Returns the pair that occurs most often, if one occurs at least twice; ties go to the smaller pair.
fn most_frequent_pair(strings: &[Vec<u8>]) -> Option<(u8, u8)> {
    let mut counts = vec![0u32; 1 << 16];
    for pair in strings.iter().flat_map(|string| string.windows(2)) {
        counts[usize::from(pair[0]) << 8 | usize::from(pair[1])] += 1;
    }
    let best = (0..counts.len()).max_by_key(|&pair| (counts[pair], std::cmp::Reverse(pair)))?;
    (counts[best] > 1).then_some(((best >> 8) as u8, best as u8))
}

fn replace_pair(string: &mut Vec<u8>, first: u8, second: u8, code: u8) {
    let mut kept = 0;
    let mut at = 0;
    while at < string.len() {
        let is_pair = string[at] == first && string.get(at + 1) == Some(&second);
        string[kept] = if is_pair { code } else { string[at] };
        kept += 1;
        at += if is_pair { 2 } else { 1 };
    }
    string.truncate(kept);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_substrings_become_one_token() {
        let table = TokenTable::train((0..10).map(|n| format!("Tschedule_{n}").into_bytes()));
        let compressed = table.compress(b"Tschedule_7");
        assert_eq!(compressed.len(), 2);
        let text: Vec<u8> = compressed.iter().flat_map(|&t| table.tokens[usize::from(t)].clone()).collect();
        assert_eq!(text, b"Tschedule_7");
    }
}

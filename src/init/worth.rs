//! What a report needs, passed from the child that makes it to the one that writes the dump.

use std::path::Path;

use crate::console::say;

/// Where it is passed on: two numbers a run of frames.
const PATH: &str = "/run/touched";

/// Writes the frames down that were read.
pub fn leave(runs: &[(u64, u64)]) {
    let bytes: Vec<u8> =
        runs.iter().flat_map(|&(start, end)| [start, end]).flat_map(u64::to_le_bytes).collect();
    if let Err(e) = std::fs::write(PATH, bytes) {
        say!("{PATH}: {e}: pages go out without what a report needs first");
    }
}

/// The frames to be written first; none if there is no report.
pub fn take() -> Vec<(u64, u64)> {
    parse(&std::fs::read(Path::new(PATH)).unwrap_or_default())
}

fn parse(bytes: &[u8]) -> Vec<(u64, u64)> {
    let number = |bytes: &[u8]| bytes.first_chunk().map_or(0, |b| u64::from_le_bytes(*b));
    bytes.chunks_exact(16).map(|run| (number(run), number(&run[8..]))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_survive_the_file_and_a_cut_one_is_left_out() {
        let bytes: Vec<u8> = [1u64, 2, 5, 9].into_iter().flat_map(u64::to_le_bytes).collect();
        assert_eq!(parse(&bytes), [(1, 2), (5, 9)]);
        assert_eq!(parse(&bytes[..31]), [(1, 2)]);
        assert_eq!(parse(&[]), []);
    }
}

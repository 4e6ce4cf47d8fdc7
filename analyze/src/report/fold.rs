//! Making long things short without losing what they say: repeated frames, equal stacks, wide lines;
//! and fit for a terminal.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::fmt;

use super::StackInfo;
use super::text::WIDTH;

/// The longest cycle of functions that is recognized as a recursion.
const CYCLE_MAX: usize = 8;
/// A line is broken at a blank only if that leaves it this long at least.
const SHORTEST: usize = 40;

/// Lines with repetitions counted instead of printed: a recursion may be a thousand frames.
pub(super) fn fold(lines: &[String]) -> Vec<String> {
    let mut out = Vec::new();
    let mut rest = lines;
    while let Some(first) = rest.first() {
        // Of the cycles that begin here, the shortest that comes three times or more.
        let cycle = (1..=CYCLE_MAX.min(rest.len())).find_map(|n| {
            let times = rest.chunks_exact(n).take_while(|c| *c == &rest[..n]).count();
            (times >= 3).then_some((n, times))
        });
        match cycle {
            Some((n, times)) => {
                out.extend_from_slice(&rest[..n]);
                let these = if n == 1 { "this frame".into() } else { format!("these {n} frames") };
                out.push(format!("… {these} {} times more", times - 1));
                rest = &rest[n * times..];
            }
            None => {
                out.push(first.clone());
                rest = &rest[1..];
            }
        }
    }
    out
}

/// Puts what has the same functions on its stack together, the largest group first. Several CPUs that
/// spin on one lock are at different instructions of one function.
pub(super) fn groups(stacks: Vec<(String, &StackInfo)>) -> Vec<(Vec<String>, &StackInfo)> {
    let mut out: Vec<(Vec<String>, &StackInfo)> = Vec::new();
    let mut known: HashMap<Vec<Option<&str>>, usize> = HashMap::new();
    for (title, stack) in stacks {
        let functions = stack.frames.iter().map(|f| f.symbol.as_deref()).collect();
        let group = *known.entry(functions).or_insert(out.len());
        match out.get_mut(group) {
            Some((titles, _)) => titles.push(title),
            None => out.push((vec![title], stack)),
        }
    }
    out.sort_by_key(|(titles, _)| Reverse(titles.len()));
    out
}

/// Writes `text` after `first`, and what does not fit in [`WIDTH`] columns after `then`.
pub(super) fn wrap(out: &mut impl fmt::Write, text: &str, first: &str, then: &str) -> fmt::Result {
    let mut rest = text.trim_end();
    let mut indent = first;
    loop {
        let room = WIDTH.saturating_sub(indent.chars().count()).max(SHORTEST);
        let Some((fit, _)) = rest.char_indices().nth(room) else {
            return writeln!(out, "{indent}{rest}");
        };
        let cut = rest[..fit].rfind(' ').filter(|at| *at >= SHORTEST).unwrap_or(fit);
        writeln!(out, "{indent}{}", rest[..cut].trim_end())?;
        rest = rest[cut..].trim_start();
        indent = then;
    }
}

/// Control characters of a hostile log do not reach the terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.split_whitespace().map(Into::into).collect()
    }

    #[test]
    fn a_recursion_is_counted() {
        assert_eq!(fold(&lines("a b b c")), lines("a b b c"));
        assert_eq!(fold(&lines("a b b b b c")), ["a", "b", "… this frame 3 times more", "c"]);
        assert_eq!(fold(&lines("x p q p q p q p")), ["x", "p", "q", "… these 2 frames 2 times more", "p"]);
    }

    #[test]
    fn wide_lines_break_at_blanks_and_long_words_anywhere() {
        let mut out = String::new();
        wrap(&mut out, &format!("{} {}", "w".repeat(80), "v".repeat(120)), "1: ", "   ").unwrap();
        let widths: Vec<_> = out.lines().map(|l| l.chars().count()).collect();
        assert_eq!(widths, [83, 100, 3 + 120 - 97]);
        assert_eq!(out.matches('v').count(), 120);
    }
}

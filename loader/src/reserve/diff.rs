//! A unified diff of two texts that differ in one place: enough for changes of our own making.

use std::path::Path;

/// Lines around the change that are shown too.
const CONTEXT: usize = 3;

/// The diff; `None` for a file that is not there. Empty if both are equal.
#[must_use]
pub fn unified(path: &Path, before: Option<&str>, after: Option<&str>) -> String {
    if before == after {
        return String::new();
    }
    let (old, new): (Vec<&str>, Vec<&str>) =
        (before.unwrap_or_default().lines().collect(), after.unwrap_or_default().lines().collect());
    let same = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let rest = old.len().min(new.len()) - same;
    let tail = old.iter().rev().zip(new.iter().rev()).take(rest).take_while(|(a, b)| a == b).count();
    let (old_end, new_end) = (old.len() - tail, new.len() - tail);
    let first = same.saturating_sub(CONTEXT);
    let last = (old_end + CONTEXT).min(old.len());

    let name = |side: &str, text: Option<&str>| match text {
        Some(_) => format!("{side} {}\n", path.display()),
        None => format!("{side} /dev/null\n"),
    };
    let range = |start: usize, len: usize| format!("{},{len}", if len == 0 { start } else { start + 1 });
    let (old_range, new_range) = (range(first, last - first), range(first, last - first + new_end - old_end));
    let mut text = name("---", before) + &name("+++", after) + &format!("@@ -{old_range} +{new_range} @@\n");
    let mut lines = |sign: char, lines: &[&str]| {
        for line in lines {
            text.push_str(&format!("{sign}{line}\n"));
        }
    };
    lines(' ', &old[first..same]);
    lines('-', &old[same..old_end]);
    lines('+', &new[same..new_end]);
    lines(' ', &old[old_end..last]);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_line_has_three_lines_around_it() {
        let old = "1\n2\n3\n4\n5\n6\n7\n8\n9\n";
        let diff = unified(Path::new("/etc/x"), Some(old), Some(&old.replace('5', "five")));
        assert_eq!(diff, "--- /etc/x\n+++ /etc/x\n@@ -2,7 +2,7 @@\n 2\n 3\n 4\n-5\n+five\n 6\n 7\n 8\n");
    }

    #[test]
    fn a_new_file_and_a_removed_one_are_diffs_against_nothing() {
        let path = Path::new("/etc/x");
        assert_eq!(
            unified(path, None, Some("a\nb\n")),
            "--- /dev/null\n+++ /etc/x\n@@ -0,0 +1,2 @@\n+a\n+b\n"
        );
        assert_eq!(unified(path, Some("a\n"), None), "--- /etc/x\n+++ /dev/null\n@@ -1,1 +0,0 @@\n-a\n");
        assert_eq!(unified(path, Some("a"), Some("a")), "");
    }

    #[test]
    fn lines_may_be_added_at_either_end() {
        let path = Path::new("x");
        assert!(unified(path, Some("a\nb\n"), Some("a\nb\nc\n")).ends_with("@@ -1,2 +1,3 @@\n a\n b\n+c\n"));
        assert!(unified(path, Some("a\na\n"), Some("a\na\na\n")).ends_with("@@ -1,2 +1,3 @@\n a\n a\n+a\n"));
    }
}

//! The Boot Loader Specification's world: systemd-boot's entries, kernel-install's command line.
//!
//! /etc/kernel/cmdline is what entries of kernels to come get; those that are there already have a line of their own.
//!
//! Source: The Boot Loader Specification (type 1 entries), kernel-install(8), 90-loaderentry.install.

use std::fs;
use std::path::{Path, PathBuf};

use super::words::{self, Value};
use super::{Change, Error, Plan, read};

const KERNEL_CMDLINE: &str = "etc/kernel/cmdline";
/// $BOOT and the EFI system partition, where they are mounted.
const BOOT: [&str; 3] = ["boot", "efi", "boot/efi"];

/// Adds what is to change for kernel-install and the boot loaders that read its entries.
pub(super) fn plan(root: &Path, value: &Value, plan: &mut Plan) -> Result<(), Error> {
    if let Some(text) = read(root, KERNEL_CMDLINE)? {
        let edited = edit_cmdline(&text, value).map_err(|line| Error::NotUnderstood {
            path: PathBuf::from("/").join(KERNEL_CMDLINE),
            line,
            why: "more than one line of words",
        })?;
        plan.found.push("kernel-install");
        plan.changes.push(Change::new(KERNEL_CMDLINE, Some(text), Some(edited)));
    }
    let mut has_entries = false;
    for path in BOOT.iter().flat_map(|boot| files(root, &format!("{boot}/loader/entries"), ".conf")) {
        let Some(text) = read(root, &path)? else { continue };
        if keys(&text).all(|(key, _)| key != "linux") {
            continue;
        }
        has_entries = true;
        match edit_entry(&text, value) {
            Ok(edited) => plan.changes.push(Change::new(&path, Some(text), Some(edited))),
            Err(line) => {
                plan.notes.push(format!("/{path} is left alone: its line {line} takes words from elsewhere"));
            }
        }
    }
    if has_entries {
        plan.found.push("boot loader entries");
    }
    let images = BOOT.iter().flat_map(|boot| files(root, &format!("{boot}/EFI/Linux"), ".efi"));
    for path in images {
        plan.notes.push(format!(
            "/{path} is a unified kernel image with a command line of its own: build it anew (kernel-install add)"
        ));
    }
    Ok(())
}

/// Files of a directory with this ending, sorted.
fn files(root: &Path, dir: &str, ending: &str) -> Vec<String> {
    let entries = fs::read_dir(root.join(dir)).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.retain(|name| name.ends_with(ending));
    names.sort_unstable();
    names.into_iter().map(|name| format!("{dir}/{name}")).collect()
}

/// The text of /etc/kernel/cmdline with the value in it; else the second line of words.
fn edit_cmdline(text: &str, value: &Value) -> Result<String, usize> {
    let is_words = |line: &str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let with_words: Vec<usize> =
        lines.iter().enumerate().filter(|(_, line)| is_words(line)).map(|(nr, _)| nr).collect();
    match with_words.as_slice() {
        [] => lines.push(value.word()),
        &[nr] => {
            if let Some(line) = lines.get_mut(nr) {
                *line = words::replace(line, value);
            }
        }
        &[_, second, ..] => return Err(second + 1),
    }
    Ok(lines.join("\n") + "\n")
}

/// Key and value of each line of an entry.
fn keys(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().filter_map(|line| {
        let line = line.trim_start();
        let (key, value) = line.split_once([' ', '\t']).unwrap_or((line, ""));
        (!key.is_empty() && !key.starts_with('#')).then(|| (key, value.trim()))
    })
}

/// An entry with the value in it; else the line of options that is not literal. Several lines of options are joined
/// by whoever reads them, so the value goes into the last, and out of the others.
fn edit_entry(text: &str, value: &Value) -> Result<String, usize> {
    let is_options = |line: &str| keys(line).any(|(key, _)| key == "options");
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let last = lines.iter().rposition(|line| is_options(line));
    let mut is_there = false;
    for (nr, line) in lines.iter_mut().enumerate().filter(|(_, line)| is_options(line)) {
        if line.contains('$') {
            return Err(nr + 1);
        }
        let has_some = words::values(line).next().is_some();
        if (Some(nr) == last && !is_there) || has_some {
            *line = words::replace(line, value);
            is_there = true;
        }
    }
    if last.is_none() {
        lines.push(format!("options {}", value.word()));
    }
    Ok(lines.join("\n") + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value() -> Value {
        "112M".parse().unwrap()
    }

    #[test]
    fn the_words_of_an_entry_are_edited_and_its_other_lines_are_not() {
        let text = "title   Debian\nversion 6.12\nlinux   /vmlinuz\noptions root=/dev/sda1 ro quiet\n";
        let edited = edit_entry(text, &value()).unwrap();
        assert_eq!(edited, text.replace("quiet", "quiet crashkernel=112M"));
        assert_eq!(edit_entry(&edited, &value()).unwrap(), edited);
        assert_eq!(edit_entry("linux /v\n", &value()).unwrap(), "linux /v\noptions crashkernel=112M\n");
        let two = "options a\noptions b\n";
        assert_eq!(edit_entry(two, &value()).unwrap(), "options a\noptions b crashkernel=112M\n");
        let first = "options crashkernel=1M a\noptions b\n";
        assert_eq!(edit_entry(first, &value()).unwrap(), "options crashkernel=112M a\noptions b\n");
        assert_eq!(edit_entry("linux /v\noptions $kernelopts\n", &value()), Err(2));
    }

    #[test]
    fn the_command_line_for_new_kernels_is_one_line() {
        assert_eq!(
            edit_cmdline("root=/dev/sda1 ro\n", &value()).unwrap(),
            "root=/dev/sda1 ro crashkernel=112M\n"
        );
        assert_eq!(edit_cmdline("# words\nro\n", &value()).unwrap(), "# words\nro crashkernel=112M\n");
        assert_eq!(edit_cmdline("", &value()).unwrap(), "crashkernel=112M\n");
        assert_eq!(edit_cmdline("a\nb\n", &value()), Err(2));
    }
}

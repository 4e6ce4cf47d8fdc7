//! GRUB: /etc/default/grub and, where its grub-mkconfig reads them, drop-ins beside it.
//!
//! A drop-in changes nothing of the administrator's. It is sourced last by its name, since of several
//! `crashkernel=` the last one counts: Debian's kdump-tools brings one of its own.
//!
//! Source: grub-mkconfig (GRUB 2.06, Debian: `for x in ${sysconfdir}/default/grub.d/*.cfg`), 10_linux: normal
//! entries get `GRUB_CMDLINE_LINUX` and then `GRUB_CMDLINE_LINUX_DEFAULT`.

use std::fs;
use std::path::{Path, PathBuf};

use super::words::{self, Form, Value};
use super::{Change, Error, Plan, read};

const DEFAULTS: &str = "etc/default/grub";
const DROP_INS: &str = "etc/default/grub.d";
/// Behind kdump-tools.cfg, in every locale.
const OUR_DROP_IN: &str = "etc/default/grub.d/zz-kdump-rs.cfg";
const VARIABLE: &str = "GRUB_CMDLINE_LINUX_DEFAULT";

/// Scripts that write its menu, and their arguments.
const UPDATE: [(&str, &[&str]); 4] = [
    ("update-grub", &[]),
    ("grub-mkconfig", &["-o", "/boot/grub/grub.cfg"]),
    ("grub2-mkconfig", &["-o", "/boot/grub2/grub.cfg"]),
    ("update-grub2", &[]),
];

/// Adds what is to change for GRUB; nothing where it is not installed.
pub(super) fn plan(root: &Path, value: &Value, plan: &mut Plan) -> Result<(), Error> {
    let Some(defaults) = read(root, DEFAULTS)? else { return Ok(()) };
    let Some(update) = update_command(root) else {
        plan.notes
            .push(format!("/{DEFAULTS} is there, but neither update-grub nor grub-mkconfig: left alone"));
        return Ok(());
    };
    plan.found.push("GRUB");
    let others = others(root, &defaults)?;
    if reads_drop_ins(root) {
        let text = drop_in(value);
        refuse_overriding(&others, value)?;
        for (path, old) in others {
            plan.notes.push(format!(
                "crashkernel={old} in /{path} stays there and no longer counts: /{OUR_DROP_IN} comes later"
            ));
        }
        plan.changes.push(Change::new(OUR_DROP_IN, read(root, OUR_DROP_IN)?, Some(text)));
    } else {
        let text = edit(&defaults, value).map_err(|(line, why)| Error::NotUnderstood {
            path: PathBuf::from("/").join(DEFAULTS),
            line,
            why,
        })?;
        plan.changes.push(Change::new(DEFAULTS, Some(defaults), Some(text)));
    }
    plan.commands.push(update);
    Ok(())
}

fn drop_in(value: &Value) -> String {
    format!(
        "# Written by `kdump-rs reserve --apply`; `kdump-rs reserve --undo` takes it away.\n\
         # Its name comes last: of several crashkernel= words the last one counts.\n\
         {VARIABLE}=\"${VARIABLE} {}\"\n",
        value.word()
    )
}

/// By its whole path: root's PATH does not always lead to it (`su` without `-`).
fn update_command(root: &Path) -> Option<Vec<String>> {
    UPDATE.iter().find_map(|(name, arguments)| {
        let mut dirs = ["usr/sbin", "sbin", "usr/bin", "bin"].iter();
        let dir = dirs.find(|dir| root.join(dir).join(name).exists())?;
        Some([format!("/{dir}/{name}")].into_iter().chain(arguments.iter().map(|&a| a.to_owned())).collect())
    })
}

/// The script itself tells; without it, the directory does.
fn reads_drop_ins(root: &Path) -> bool {
    let scripts = ["usr/sbin/grub-mkconfig", "usr/bin/grub-mkconfig"];
    match scripts.iter().find_map(|path| fs::read_to_string(root.join(path)).ok()) {
        Some(script) => script.contains("default/grub.d"),
        None => root.join(DROP_INS).is_dir(),
    }
}

/// What others reserve by GRUB's configuration: file and value, in the order in which they are read.
fn others(root: &Path, defaults: &str) -> Result<Vec<(String, String)>, Error> {
    let mut files = vec![(DEFAULTS.to_owned(), defaults.to_owned())];
    let entries = fs::read_dir(root.join(DROP_INS)).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.retain(|name| name.ends_with(".cfg"));
    names.sort_unstable();
    for path in names.iter().map(|name| format!("{DROP_INS}/{name}")).filter(|path| path != OUR_DROP_IN) {
        if let Some(text) = read(root, &path)? {
            files.push((path, text));
        }
    }
    let found = files.into_iter().flat_map(|(path, text)| {
        let values: Vec<_> =
            text.lines().filter(|line| !line.trim_start().starts_with('#')).flat_map(values_of).collect();
        values.into_iter().map(move |value| (path.clone(), value))
    });
    Ok(found.collect())
}

/// Values of `crashkernel=` in a line of shell.
fn values_of(line: &str) -> Vec<String> {
    let after = line.match_indices("crashkernel=").map(|(at, name)| &line[at + name.len()..]);
    let is_end = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '$' | '`' | '\\' | ';');
    after
        .map(|rest| rest.split(is_end).next().unwrap_or_default().to_owned())
        .filter(|v| !v.is_empty())
        .collect()
}

/// Ours would not count behind a later file's, nor with `,high` beside a plain one.
fn refuse_overriding(others: &[(String, String)], value: &Value) -> Result<(), Error> {
    for (path, other) in others {
        let is_later = path.as_str() > OUR_DROP_IN;
        let is_plain = Form::of(other) == Form::Plain;
        if is_plain && (is_later || value.form() == Form::High) {
            return Err(Error::Overridden {
                path: PathBuf::from("/").join(path),
                other: other.clone(),
                value: value.clone(),
            });
        }
    }
    Ok(())
}

/// The text of /etc/default/grub with the value in it; else the line that is not understood, and why.
fn edit(text: &str, value: &Value) -> Result<String, (usize, &'static str)> {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let mut found = None;
    for (nr, line) in lines.iter().enumerate() {
        let line = line.trim_start();
        let line = line.strip_prefix("export ").unwrap_or(line).trim_start();
        let Some(rest) = line.strip_prefix(VARIABLE) else { continue };
        match rest.chars().next() {
            Some('=') if found.is_none() => found = Some(nr),
            Some('=') => return Err((nr + 1, "the variable is set twice")),
            Some('+') => return Err((nr + 1, "the variable is added to")),
            // Another variable, such as GRUB_CMDLINE_LINUX_DEFAULT_XEN.
            _ => {}
        }
    }
    let Some(nr) = found else {
        lines.push(format!("{VARIABLE}=\"{}\"", value.word()));
        return Ok(lines.join("\n") + "\n");
    };
    let old = lines.get(nr).map(String::as_str).unwrap_or_default();
    let (name, assigned) = old.split_once('=').unwrap_or_default();
    let (quote, words, rest) =
        quoted(assigned).ok_or((nr + 1, "the value is not one pair of quotes on one line"))?;
    if words.contains(['`', '\\']) || words.contains("$(") {
        return Err((nr + 1, "the value is computed by the shell"));
    }
    let new = format!("{name}={quote}{}{quote}{rest}", words::replace(words, value));
    lines[nr] = new;
    Ok(lines.join("\n") + "\n")
}

/// Quote, what is between, and the comment behind.
fn quoted(text: &str) -> Option<(char, &str, &str)> {
    let quote = text.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let (words, rest) = text.get(1..)?.split_once(quote)?;
    let is_done =
        rest.trim().is_empty() || (rest.starts_with([' ', '\t']) && rest.trim_start().starts_with('#'));
    is_done.then_some((quote, words, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Value {
        text.parse().unwrap()
    }

    #[test]
    fn the_variable_is_edited_and_the_rest_of_the_file_is_not() {
        let text = "# a comment\nGRUB_DEFAULT=0\nGRUB_CMDLINE_LINUX_DEFAULT=\"quiet crashkernel=384M-:128M\" # so\nGRUB_CMDLINE_LINUX=\"\"\n";
        let edited = edit(text, &value("112M")).unwrap();
        assert_eq!(edited, text.replace("384M-:128M", "112M"));
        assert_eq!(edit(&edited, &value("112M")).unwrap(), edited);
        assert_eq!(
            edit("A=1\n", &value("1G")).unwrap(),
            "A=1\nGRUB_CMDLINE_LINUX_DEFAULT=\"crashkernel=1G\"\n"
        );
        let single = edit("export GRUB_CMDLINE_LINUX_DEFAULT='quiet'\n", &value("1G")).unwrap();
        assert_eq!(single, "export GRUB_CMDLINE_LINUX_DEFAULT='quiet crashkernel=1G'\n");
        let other = "GRUB_CMDLINE_LINUX_DEFAULT_XEN=\"x\"\nGRUB_CMDLINE_LINUX_DEFAULT=\"\"\n";
        assert!(
            edit(other, &value("1G"))
                .unwrap()
                .ends_with("XEN=\"x\"\nGRUB_CMDLINE_LINUX_DEFAULT=\"crashkernel=1G\"\n")
        );
    }

    #[test]
    fn what_is_not_understood_is_left_alone_and_named() {
        for (text, line) in [
            ("GRUB_CMDLINE_LINUX_DEFAULT=\"quiet \\\n  splash\"\n", 1),
            ("A=1\nGRUB_CMDLINE_LINUX_DEFAULT=\"$(cat /etc/words)\"\n", 2),
            ("GRUB_CMDLINE_LINUX_DEFAULT=quiet\n", 1),
            ("GRUB_CMDLINE_LINUX_DEFAULT=\"a\"\nGRUB_CMDLINE_LINUX_DEFAULT+=\" b\"\n", 2),
            ("GRUB_CMDLINE_LINUX_DEFAULT=\"a\"\nGRUB_CMDLINE_LINUX_DEFAULT=\"b\"\n", 2),
            ("GRUB_CMDLINE_LINUX_DEFAULT=\"a\"; B=1\n", 1),
        ] {
            assert_eq!(edit(text, &value("1G")).unwrap_err().0, line, "{text}");
        }
    }

    #[test]
    fn values_in_shell_text_end_at_quotes_and_expansions() {
        assert_eq!(values_of("X=\"$X crashkernel=512M-:192M\""), ["512M-:192M"]);
        assert_eq!(values_of("X='crashkernel=1M,high crashkernel=2M,low'"), ["1M,high", "2M,low"]);
        assert!(values_of("X=\"crashkernel=$SIZE\"").is_empty());
    }
}

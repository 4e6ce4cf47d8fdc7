//! Options as getopt_long(3) understands them: clustered short ones, abbreviated long ones, operands anywhere.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;

/// An option that is known.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// Its long name.
    pub long: &'static str,
    /// Its letter, NUL for none.
    pub short: char,
    /// Whether it takes a value.
    pub takes: bool,
}

/// What was on the command line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Given {
    /// An option by its long name, with its value if it takes one.
    Option(&'static str, OsString),
    /// Something else.
    Operand(OsString),
}

/// Sorts a command line out.
///
/// # Errors
/// A message in the words of getopt_long(3).
pub fn parse(known: &[Known], args: &[OsString]) -> Result<Vec<Given>, String> {
    let mut found = Vec::new();
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        let bytes = arg.as_bytes();
        if bytes == b"--" {
            found.extend(rest.cloned().map(Given::Operand));
            break;
        } else if let Some(long) = bytes.strip_prefix(b"--") {
            let (name, value) = match long.iter().position(|&b| b == b'=') {
                Some(at) => (&long[..at], Some(OsStr::from_bytes(&long[at + 1..]).to_owned())),
                None => (long, None),
            };
            let option = by_name(known, name)?;
            let value = match (option.takes, value) {
                (true, Some(value)) => value,
                (true, None) => {
                    rest.next().cloned().ok_or(format!("option '--{}' requires an argument", option.long))?
                }
                (false, None) => OsString::new(),
                (false, Some(_)) => {
                    return Err(format!("option '--{}' doesn't allow an argument", option.long));
                }
            };
            found.push(Given::Option(option.long, value));
        } else if bytes.len() > 1 && bytes[0] == b'-' {
            let mut letters = &bytes[1..];
            while let [letter, after @ ..] = letters {
                let option = known.iter().find(|k| k.short == char::from(*letter) && k.short != '\0');
                let option = option.ok_or(format!("invalid option -- '{}'", char::from(*letter)))?;
                letters = after;
                let value = match (option.takes, after) {
                    (false, _) => OsString::new(),
                    (true, []) => rest
                        .next()
                        .cloned()
                        .ok_or(format!("option requires an argument -- '{}'", option.short))?,
                    (true, value) => {
                        letters = &[];
                        OsStr::from_bytes(value).to_owned()
                    }
                };
                found.push(Given::Option(option.long, value));
            }
        } else {
            found.push(Given::Operand(arg.clone()));
        }
    }
    Ok(found)
}

/// The option of this name, or the only one that begins so.
fn by_name(known: &[Known], name: &[u8]) -> Result<Known, String> {
    let text = String::from_utf8_lossy(name);
    if let Some(exact) = known.iter().find(|k| k.long.as_bytes() == name) {
        return Ok(*exact);
    }
    let mut candidates = known.iter().filter(|k| k.long.as_bytes().starts_with(name));
    match (candidates.next(), candidates.next()) {
        (Some(only), None) => Ok(*only),
        (Some(_), Some(_)) => Err(format!("option '--{text}' is ambiguous")),
        _ => Err(format!("unrecognized option '--{text}'")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [Known; 4] = [
        Known { long: "load", short: 'l', takes: false },
        Known { long: "load-panic", short: 'p', takes: false },
        Known { long: "type", short: 't', takes: true },
        Known { long: "append", short: '\0', takes: true },
    ];

    fn parsed(args: &[&str]) -> Result<Vec<Given>, String> {
        parse(&KNOWN, &args.iter().map(OsString::from).collect::<Vec<_>>())
    }

    fn option(name: &'static str, value: &str) -> Given {
        Given::Option(name, value.into())
    }

    #[test]
    fn every_way_to_write_an_option_is_understood() {
        let operand = |text: &str| Given::Operand(text.into());
        assert_eq!(
            parsed(&["-lp", "kernel", "--append=a b=c", "--app", "x", "-telf", "-t", "elf", "--", "-l"])
                .unwrap(),
            [
                option("load", ""),
                option("load-panic", ""),
                operand("kernel"),
                option("append", "a b=c"),
                option("append", "x"),
                option("type", "elf"),
                option("type", "elf"),
                operand("-l"),
            ]
        );
        // The exact name wins over those it begins.
        assert_eq!(parsed(&["--load"]).unwrap(), [option("load", "")]);
        assert_eq!(parsed(&["-"]).unwrap(), [operand("-")]);
    }

    #[test]
    fn what_is_wrong_is_said_as_usual() {
        for (args, message) in [
            (&["--lo"][..], "option '--lo' is ambiguous"),
            (&["--nothing"], "unrecognized option '--nothing'"),
            (&["-x"], "invalid option -- 'x'"),
            (&["-t"], "option requires an argument -- 't'"),
            (&["--append"], "option '--append' requires an argument"),
            (&["--load=1"], "option '--load' doesn't allow an argument"),
            (&["-\0"], "invalid option -- '\0'"),
        ] {
            assert_eq!(parsed(args), Err(message.to_owned()));
        }
    }
}

//! makedumpfile's command line: what is asked for, and what is not understood.

use std::ffi::{OsStr, OsString};
use std::num::NonZeroUsize;
use std::path::PathBuf;

use kdump_capture::DumpLevel;
use kdump_vmcore::kdump::Compression;

use super::message::{self, Voice};
use crate::personality::getopt::{self, Given, Known};

const fn flag(long: &'static str, short: char) -> Known {
    Known { long, short, takes: false }
}

const fn with_value(long: &'static str, short: char) -> Known {
    Known { long, short, takes: true }
}

/// Those without a long name have their letter for one.
const KNOWN: [Known; 41] = [
    flag("-c", 'c'),
    flag("-l", 'l'),
    flag("-p", 'p'),
    flag("-z", 'z'),
    flag("-E", 'E'),
    with_value("-d", 'd'),
    flag("-F", 'F'),
    flag("-R", 'R'),
    flag("-f", 'f'),
    flag("-D", 'D'),
    flag("-v", 'v'),
    flag("help", 'h'),
    with_value("-x", 'x'),
    with_value("-i", 'i'),
    with_value("message-level", '\0'),
    with_value("num-threads", '\0'),
    flag("split", '\0'),
    flag("reassemble", '\0'),
    flag("dump-dmesg", '\0'),
    flag("mem-usage", '\0'),
    flag("check-params", '\0'),
    flag("dry-run", '\0'),
    flag("show-stats", '\0'),
    with_value("vtop", '\0'),
    // What follows is accepted and has no effect: it is done anyway, or not needed.
    flag("-e", 'e'),
    flag("-X", 'X'),
    with_value("-b", 'b'),
    with_value("cyclic-buffer", '\0'),
    flag("non-cyclic", '\0'),
    flag("non-mmap", '\0'),
    with_value("splitblock-size", '\0'),
    with_value("work-dir", '\0'),
    // What follows is refused.
    flag("partial-dmesg", '\0'),
    with_value("-L", 'L'),
    with_value("-g", 'g'),
    with_value("config", '\0'),
    with_value("eppic", '\0'),
    with_value("xen-syms", '\0'),
    with_value("xen-vmcoreinfo", '\0'),
    with_value("xen_phys_start", '\0'),
    with_value("diskset", '\0'),
];

/// Asked for what this program does not do.
const REFUSED: [(&str, &str); 9] = [
    ("partial-dmesg", "the log is written as a whole, also what `dmesg --clear` has hidden; leave it out"),
    ("-L", "the size cannot be limited; name more levels, as in -d 1,31, for the case that the disk fills"),
    ("-g", "no VMCOREINFO file is needed: every kernel since 2.6.24 has its own, and its dumps with it"),
    ("config", "erasing data by a filter file is not supported; whole classes of pages are left out by -d"),
    ("eppic", "erasing data by eppic macros is not supported; whole classes of pages are left out by -d"),
    ("xen-syms", "dumps of a Xen hypervisor are not supported"),
    ("xen-vmcoreinfo", "dumps of a Xen hypervisor are not supported"),
    ("xen_phys_start", "dumps of a Xen hypervisor are not supported"),
    ("diskset", "sadump's files are not supported"),
];

/// How many levels `-d` may have.
const LEVELS_MAX: usize = 32;

/// A command line that is not followed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused {
    /// What is wrong, line by line.
    pub text: String,
    /// Where that is said.
    pub voice: Voice,
    /// Whether only this was asked: then nothing is said to have failed.
    pub is_check: bool,
}

/// What the command line asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Asked {
    /// What to do.
    pub job: Job,
    /// How pages are compressed.
    pub compression: Compression,
    /// An ELF core is to be written.
    pub is_elf: bool,
    /// What to leave out; those after the first when the disk fills.
    pub levels: Vec<DumpLevel>,
    /// Existing files are overwritten.
    pub is_forced: bool,
    /// Nothing is written.
    pub is_dry: bool,
    /// Threads that compress.
    pub threads: Option<NonZeroUsize>,
    /// VMCOREINFO for a dump that has none.
    pub vmcoreinfo: Option<PathBuf>,
    /// The kernel with its debug information, which is not needed.
    pub vmlinux: Option<PathBuf>,
    /// An address to translate.
    pub vtop: Option<u64>,
    /// What is said.
    pub voice: Voice,
}

/// What to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Job {
    /// Show the options.
    Help,
    /// Show the version.
    Version,
    /// Nothing: the command line is well.
    Check,
    /// Write a dump of `from`.
    Create {
        /// The dump to read.
        from: PathBuf,
        /// Where to.
        to: To,
    },
    /// Rearrange standard input.
    Rearrange {
        /// The file to write.
        to: PathBuf,
    },
    /// Make one dump of several files.
    Reassemble {
        /// The files.
        from: Vec<PathBuf>,
        /// The file to write.
        to: PathBuf,
    },
    /// Write the kernel log.
    Dmesg {
        /// The dump to read.
        from: PathBuf,
        /// Where to.
        to: To,
    },
    /// Count the running machine's pages.
    MemUsage {
        /// /proc/kcore.
        from: PathBuf,
    },
}

/// Where to write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum To {
    /// Standard output: a dump in the flattened form.
    Stdout,
    /// A file.
    File(PathBuf),
    /// Several, each with a part.
    Split(Vec<PathBuf>),
}

/// Options, and operands, as they were given.
#[derive(Default)]
struct Words {
    given: Vec<(&'static str, OsString)>,
    operands: Vec<PathBuf>,
}

impl Words {
    fn has(&self, name: &str) -> bool {
        self.given.iter().any(|(n, _)| *n == name)
    }

    /// Of several the last one counts.
    fn value(&self, name: &str) -> Option<&OsStr> {
        self.given.iter().rev().find(|(n, _)| *n == name).map(|(_, value)| value.as_os_str())
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        self.value(name).map(PathBuf::from)
    }

    fn number(&self, name: &str) -> Option<i64> {
        self.value(name).map(|value| leading_number(&value.to_string_lossy()))
    }
}

/// A number as atoi(3) understands it: what it cannot read is 0.
fn leading_number(text: &str) -> i64 {
    let text = text.trim_start();
    let end = text
        .char_indices()
        .find(|(at, c)| !(c.is_ascii_digit() || *at == 0 && (*c == '-' || *c == '+')))
        .map_or(text.len(), |(at, _)| at);
    text[..end].parse().unwrap_or(0)
}

/// Says that the command line is wrong, as makedumpfile does.
fn invalid(why: &str) -> String {
    let why = if why.is_empty() { String::new() } else { format!("{why}\n") };
    format!("{why}Commandline parameter is invalid.\nTry `makedumpfile --help' for more information.")
}

impl Asked {
    /// Sorts the command line out.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn parse(args: &[OsString]) -> Result<Self, Refused> {
        let mut words = Words::default();
        let parsed = getopt::parse(&KNOWN, args);
        let is_known = parsed.is_ok();
        for one in parsed.iter().flatten().cloned() {
            match one {
                Given::Option(name, value) => words.given.push((name, value)),
                Given::Operand(operand) => words.operands.push(operand.into()),
            }
        }
        let is_check = words.has("check-params");
        // What an unknown option follows is not known: data may be on its way to standard output.
        let is_flat = words.has("-F") || !is_known && args.iter().any(|arg| is_flat_cluster(arg));
        let voice = Voice { level: message::DEFAULT, to_stderr: is_flat };
        let refused = |text: String| Refused { text, voice, is_check };
        if let Err(message) = parsed {
            eprintln!("makedumpfile: {message}");
            return Err(refused(invalid("")));
        }
        let voice = Voice { level: message_level(&words, is_check).map_err(refused)?, ..voice };
        let refused = |text: String| Refused { text, voice, is_check };
        let levels = levels(&words).map_err(refused)?;
        let job = if words.has("help") {
            Job::Help
        } else if words.has("-v") {
            Job::Version
        } else {
            job(&words, &levels).map_err(|why| refused(invalid(&why)))?
        };
        if let Some((name, why)) = REFUSED.iter().find(|(name, _)| words.has(name)) {
            let dashes = if name.starts_with('-') { "" } else { "--" };
            return Err(refused(format!("{dashes}{name}: {why}.")));
        }
        let threads = words.number("num-threads").and_then(|n| usize::try_from(n).ok());
        Ok(Self {
            job: if is_check && !matches!(job, Job::Help | Job::Version) { Job::Check } else { job },
            compression: compression(&words),
            is_elf: words.has("-E"),
            levels,
            is_forced: words.has("-f"),
            is_dry: words.has("dry-run"),
            threads: threads.and_then(NonZeroUsize::new),
            vmcoreinfo: words.path("-i"),
            vmlinux: words.path("-x"),
            vtop: words.value("vtop").and_then(|text| address(&text.to_string_lossy())),
            voice,
        })
    }
}

/// Whether a word of the command line is a cluster of letters with F in it.
fn is_flat_cluster(arg: &OsStr) -> bool {
    let text = arg.to_string_lossy();
    text.starts_with('-') && !text.starts_with("--") && text.contains('F')
}

fn message_level(words: &Words, is_check: bool) -> Result<u32, String> {
    let mut level = message::DEFAULT;
    if let Some(asked) = words.number("message-level") {
        level = u32::try_from(asked)
            .ok()
            .filter(|level| *level <= message::MAX)
            .ok_or_else(|| format!("Message_level({asked}) is invalid."))?;
    }
    if is_check {
        return Ok(message::DEFAULT);
    }
    for (name, bit) in [("-D", message::DEBUG), ("show-stats", message::REPORT)] {
        if words.has(name) {
            level |= bit;
        }
    }
    Ok(level)
}

fn levels(words: &Words) -> Result<Vec<DumpLevel>, String> {
    let Some(list) = words.value("-d") else { return Ok(vec![DumpLevel::default()]) };
    let list = list.to_string_lossy();
    let mut levels = Vec::new();
    for text in list.split(',').filter(|text| !text.is_empty()) {
        let number = leading_number(text);
        let level = u32::try_from(number).ok().and_then(DumpLevel::new);
        levels.push(level.ok_or_else(|| format!("Dump_level({number}) is invalid."))?);
    }
    match levels.len() {
        0 => Ok(vec![DumpLevel::default()]),
        1..=LEVELS_MAX => Ok(levels),
        _ => Err("Dump_level is invalid.".to_owned()),
    }
}

/// Of several ways the last one counts.
fn compression(words: &Words) -> Compression {
    let ways = words.given.iter().rev().find_map(|(name, _)| match *name {
        "-c" => Some(Compression::Zlib),
        "-l" => Some(Compression::Lzo),
        "-p" => Some(Compression::Snappy),
        "-z" => Some(Compression::Zstd),
        _ => None,
    });
    ways.unwrap_or(Compression::None)
}

/// An address as strtoul(3) understands it.
fn address(text: &str) -> Option<u64> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

/// What is to be done, by options and the number of operands.
fn job(words: &Words, levels: &[DumpLevel]) -> Result<Job, String> {
    let has = |name: &str| words.has(name);
    let says_how = compression(words) != Compression::None || has("-E") || has("-i") || has("-F");
    let filters = levels.first().is_some_and(|level| level.bits() > 0) || has("-X") || has("split");
    let operands = &words.operands;
    if has("-R") {
        return match operands.as_slice() {
            [to] if !says_how && !filters && !has("-x") && !has("reassemble") => {
                Ok(Job::Rearrange { to: to.clone() })
            }
            _ => Err(String::new()),
        };
    }
    if has("reassemble") {
        if has("dry-run") {
            return Err("--dry-run cannot be used with --reassemble.".to_owned());
        }
        return match operands.as_slice() {
            [from @ .., to] if !from.is_empty() && !says_how && !filters && !has("-x") => {
                Ok(Job::Reassemble { from: from.to_vec(), to: to.clone() })
            }
            _ => Err(String::new()),
        };
    }
    check_creating(words)?;
    if has("mem-usage") && !has("dump-dmesg") {
        return match operands.as_slice() {
            [from] | [from, _] => Ok(Job::MemUsage { from: from.clone() }),
            _ => Err(String::new()),
        };
    }
    let (from, to) = match operands.as_slice() {
        [from, to @ ..] if has("split") && to.len() > 1 => (from, To::Split(to.to_vec())),
        [from] if has("-F") => (from, To::Stdout),
        [from, to] if !has("-F") && !has("split") => (from, To::File(to.clone())),
        _ => return Err(String::new()),
    };
    let from = from.clone();
    Ok(match (has("dump-dmesg"), to) {
        (true, To::Split(_)) => return Err(String::new()),
        (true, to) => Job::Dmesg { from, to },
        (false, to) => Job::Create { from, to },
    })
}

/// What does not go together.
fn check_creating(words: &Words) -> Result<(), String> {
    let has = |name: &str| words.has(name);
    let threads = words.number("num-threads").is_some_and(|n| n > 0);
    let why = match () {
        () if has("-E") && compression(words) != Compression::None => "",
        () if has("-i") && has("-x") => "",
        () if has("dry-run") && has("dump-dmesg") => "--dry-run cannot be used with --dump-dmesg.",
        () if has("-F") && has("split") => "",
        () if threads && has("split") => "--num-threads cannot used with --split.",
        () if threads && has("-E") => "--num-threads cannot used with ELF format.",
        () if has("-e") && !has("work-dir") => "-e requires --work-dir",
        () if has("split") && has("-E") => "Options for splitting dumpfile cannot be used with Elf format.",
        () => return Ok(()),
    };
    Err(why.to_owned())
}

#[cfg(test)]
mod tests;

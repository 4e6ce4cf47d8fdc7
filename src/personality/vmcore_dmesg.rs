//! `vmcore-dmesg`, as kexec-tools has it: prints the kernel log of a dump.
//!
//! Source: vmcore-dmesg(8) of kexec-tools 2.0.32.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use kdump_analyze::log::{Log, Record};
use kdump_vmcore::{Dump, OpenError};

const USAGE: &str = "usage: vmcore-dmesg <kernel core file>";

/// Runs with the arguments that follow the name. Exits with 1 for a wrong command line, 2 for a file that cannot be
/// opened, 4 for one that is no dump, 50 for a dump without a log that can be read.
pub fn main(args: &[OsString]) -> ExitCode {
    let [path] = args else {
        eprintln!("{USAGE}");
        return ExitCode::from(1);
    };
    match path.to_str() {
        Some("-h" | "--help") => {
            println!(
                "{USAGE}\n\nkdump-rs under the name of kexec-tools' program. See also: kdump-rs analyze --help"
            );
            return ExitCode::SUCCESS;
        }
        Some("-v" | "--version") => {
            println!("vmcore-dmesg of kexec-tools 2.0.32, kdump-rs {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        _ => {}
    }
    let dump = match Dump::open(Path::new(path)) {
        Ok(dump) => dump,
        Err(error) => {
            eprintln!("Cannot open {}: {error}", path.display());
            return ExitCode::from(if matches!(error, OpenError::Io(_)) { 2 } else { 4 });
        }
    };
    let log = match read(dump) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("{}: {error:#}", path.display());
            return ExitCode::from(50);
        }
    };
    match io::stdout().lock().write_all(&text(&log, stamp, false)) {
        // A reader that closed the pipe has what it wanted.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            eprintln!("Failed to write out the dmesg log buffer!: {error}");
            ExitCode::from(54)
        }
        _ => ExitCode::SUCCESS,
    }
}

/// Reads the log, also of a dump without the note that says where it is.
pub fn read(mut dump: Dump) -> anyhow::Result<Log> {
    if dump.vmcoreinfo().is_none() {
        dump.find_vmcoreinfo();
    }
    let info = dump.vmcoreinfo().context("there is no VMCOREINFO: not a Linux kernel's dump")?;
    Ok(Log::read(&dump.kernel()?, info)?)
}

/// `[    1.234567] `.
pub fn stamp(record: &Record) -> String {
    format!("[{:5}.{:06}] ", record.ts_ns / 1_000_000_000, record.ts_ns % 1_000_000_000 / 1000)
}

/// All records, each behind its stamp; what cannot be printed is in hexadecimal. With `is_set_in` further lines of a record
/// begin where its first one does.
pub fn text(log: &Log, stamp: impl Fn(&Record) -> String, is_set_in: bool) -> Vec<u8> {
    let mut out = Vec::new();
    for record in &log.records {
        let stamp = stamp(record);
        out.extend_from_slice(stamp.as_bytes());
        for &byte in &record.text {
            match byte {
                b'\n' if is_set_in => {
                    out.push(b'\n');
                    out.resize(out.len() + stamp.len(), b' ');
                }
                b' '..=b'~' | b'\n' | b'\t' | b'\r' | 0x0b | 0x0c => out.push(byte),
                _ => out.extend_from_slice(format!("\\x{byte:02x}").as_bytes()),
            }
        }
        out.push(b'\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use kdump_analyze::log::Caller;

    #[test]
    fn lines_are_set_in_and_bytes_shown() {
        let record = Record {
            seq: 0,
            ts_ns: 12_345_678_901,
            level: 6,
            facility: 0,
            caller: Caller::Task(1),
            text: b"a\n\tb\xff\x1b".to_vec(),
        };
        let log = Log { records: vec![record], lost: 0 };
        assert_eq!(text(&log, stamp, true), b"[   12.345678] a\n               \tb\\xff\\x1b\n");
        assert_eq!(text(&log, stamp, false), b"[   12.345678] a\n\tb\\xff\\x1b\n");
    }
}

//! The program under other programs' names: called as `kexec`, by a link, it takes kexec-tools' options, so that
//! distributions' scripts work with it unchanged.

mod getopt;
mod kexec;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

/// Runs as another program if this one was called by its name.
pub fn run() -> Option<ExitCode> {
    let mut args = std::env::args_os();
    let name = args.next()?;
    let args: Vec<OsString> = args.collect();
    match Path::new(&name).file_name()?.to_str()? {
        "kexec" => Some(kexec::main(&args)),
        _ => None,
    }
}

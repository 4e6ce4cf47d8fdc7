//! The program under other programs' names: called as `kexec`, `makedumpfile` or `vmcore-dmesg`, by a link, it takes
//! that one's options, so that distributions' scripts work with it unchanged.

mod getopt;
mod kexec;
mod makedumpfile;
mod vmcore_dmesg;

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
        "makedumpfile" => Some(makedumpfile::main(&args)),
        "vmcore-dmesg" => Some(vmcore_dmesg::main(&args)),
        _ => None,
    }
}

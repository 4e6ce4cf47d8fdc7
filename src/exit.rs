//! How a command ends: exit code and last words.

use std::io;
use std::process::ExitCode;

/// How a command ended when it did not fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// 0: all of what was asked for.
    Complete,
    /// 1: an answer with gaps, or nothing armed.
    Gaps,
    /// 2, without an error: what was looked at would not work.
    Unfit,
}

/// Prints the error, if there is one, with its causes, and gives the exit code: 0 complete,
/// 1 gaps, 2 failed. A reader that closed the pipe has what it wanted: success.
pub fn report(result: anyhow::Result<Exit>) -> ExitCode {
    match result {
        Ok(Exit::Complete) => ExitCode::SUCCESS,
        Ok(Exit::Gaps) => ExitCode::from(1),
        Ok(Exit::Unfit) => ExitCode::from(2),
        Err(e) if is_broken_pipe(&e) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("kdump-rs: {e:#}");
            ExitCode::from(2)
        }
    }
}

fn is_broken_pipe(e: &anyhow::Error) -> bool {
    e.chain().any(|c| c.downcast_ref::<io::Error>().is_some_and(|io| io.kind() == io::ErrorKind::BrokenPipe))
}

//! One guest's life, and what a reader learns of it.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::bail;
use kdump_analyze::report::Report;
use kdump_rehearse::{Crash, Error, Outcome, Plan, Progress, Scene};

use crate::exit::Exit;

/// A way to crash, and where.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Life {
    pub crash: Crash,
    pub cpu: Option<u32>,
}

/// A life that is over.
#[derive(Debug)]
pub(super) struct Lived {
    pub life: Life,
    pub result: Result,
    took: Duration,
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Result {
    /// A dump, whose report says what was done.
    Passed(Box<Report>),
    /// A dump, whose report says something else.
    Misnamed(Box<Report>),
    /// No dump.
    Failed(anyhow::Error),
    /// Not tried.
    Skipped(String),
}

impl Result {
    pub fn is_pass(&self) -> bool {
        matches!(self, Self::Passed(_))
    }

    pub fn is_failure(&self) -> bool {
        matches!(self, Self::Misnamed(_) | Self::Failed(_))
    }

    pub fn is_skipped(&self) -> bool {
        matches!(self, Self::Skipped(_))
    }

    fn word(&self) -> &'static str {
        match self {
            Self::Passed(_) => "passed",
            Self::Misnamed(_) => "MISNAMED",
            Self::Failed(_) => "FAILED",
            Self::Skipped(_) => "SKIPPED",
        }
    }
}

impl Life {
    /// A name for it, also of its directory.
    pub fn name(&self) -> String {
        self.cpu.map_or_else(|| self.crash.to_string(), |cpu| format!("{}-cpu{cpu}", self.crash))
    }

    /// Whether the crash can come on that CPU.
    pub fn is_possible(&self) -> bool {
        self.crash.only_cpu().is_none_or(|only| self.cpu.is_none_or(|cpu| cpu == only))
    }

    /// Lives it; `is_one_of_many`: in a directory of its own.
    pub fn live(
        self,
        plan: &Plan,
        trigger: Option<&std::result::Result<PathBuf, Error>>,
        is_one_of_many: bool,
        progress: &mut dyn Progress,
    ) -> Lived {
        let begin = Instant::now();
        let mut plan = Plan { crash: self.crash, ..plan.clone() };
        plan.scene = Scene { panic_cpu: self.cpu, ..plan.scene };
        if is_one_of_many {
            plan.out = plan.out.join(self.name());
            progress.note(&format!("\n{}", self.name()));
        }
        let skipped = |why: String| {
            eprintln!("kdump-rs: {} is skipped: {why}", self.name());
            Lived { life: self, result: Result::Skipped(why), took: begin.elapsed() }
        };
        if !self.is_possible() {
            return skipped("the NMI line ends at CPU 0".to_owned());
        }
        if self.crash.needs_module() {
            match trigger {
                Some(Ok(module)) => plan.trigger = Some(module.clone()),
                Some(Err(error)) => {
                    return skipped(format!("it takes a kernel module that cannot be had: {error}"));
                }
                None => {}
            }
        }
        let result = match plan.run(progress) {
            Ok(outcome) => self.judge(&outcome),
            Err(error) => {
                tell_console(&error, &plan);
                Result::Failed(error.into())
            }
        };
        Lived { life: self, result, took: begin.elapsed() }
    }

    /// Analyzes the dump that came out, here.
    fn judge(self, outcome: &Outcome) -> Result {
        eprintln!("serial console: {}", outcome.serial_log.display());
        eprintln!("dump directory: {}", outcome.dump_dir.display());
        let begin = Instant::now();
        let report = match crate::commands::analyze::report_on(&outcome.dump_dir.join("vmcore")) {
            Ok(report) => Box::new(report),
            Err(error) => return Result::Failed(error),
        };
        eprintln!("  {:<15} {:>6.2} s\n", "analyze", begin.elapsed().as_secs_f64());
        let panic = report.panic.data.as_ref();
        let cause = panic.and_then(|panic| panic.cause.as_ref());
        let function = cause.and_then(|cause| cause.function.as_ref()?.symbol.as_deref());
        let is_cpu = self.cpu.is_none() || panic.is_some_and(|panic| panic.cpu == self.cpu);
        if is_cpu && self.crash.is_named_by(cause.map(|cause| cause.kind.word()), function) {
            Result::Passed(report)
        } else {
            Result::Misnamed(report)
        }
    }
}

fn tell_console(error: &Error, plan: &Plan) {
    if let Error::Phase { tail, .. } = error {
        eprintln!("the serial console ended so:");
        for line in tail {
            eprintln!("  | {line}");
        }
        eprintln!("the whole of it: {}", plan.out.join("serial.log").display());
    }
}

impl Lived {
    /// Ends the command, where this was all: the post-mortem on stdout.
    pub fn tell(&self) -> anyhow::Result<Exit> {
        match &self.result {
            Result::Passed(report) => {
                write!(io::stdout(), "{}", report.to_text())?;
                Ok(if report.complete { Exit::Complete } else { Exit::Gaps })
            }
            Result::Misnamed(report) => {
                write!(io::stdout(), "{}", report.to_text())?;
                bail!("the report does not say what was done: {}", self.life.expectation())
            }
            // Its causes are told in one line.
            Result::Failed(error) => bail!("{error:#}"),
            Result::Skipped(_) => Ok(Exit::Gaps),
        }
    }

    /// Message and function, of the report or in place of it.
    fn findings(&self) -> (String, String) {
        match &self.result {
            Result::Passed(report) | Result::Misnamed(report) => {
                let panic = report.panic.data.as_ref();
                let message = panic.and_then(|panic| panic.message.clone());
                let function =
                    panic.and_then(|panic| panic.cause.as_ref()?.function.as_ref().map(|f| f.text()));
                (message.unwrap_or_else(|| "-".into()), function.unwrap_or_else(|| "-".into()))
            }
            Result::Failed(error) => (format!("{error:#}"), "-".into()),
            Result::Skipped(why) => (why.clone(), "-".into()),
        }
    }
}

impl Life {
    fn expectation(&self) -> String {
        let cpu = self.cpu.map_or_else(String::new, |cpu| format!(", on CPU {cpu}"));
        let function = self.crash.function().map_or_else(String::new, |name| format!(" in {name}"));
        format!("{}{function}{cpu}", self.crash.cause())
    }
}

/// Several lives, one a line: cause, result, seconds, function, message.
pub(super) fn table(lived: &[Lived]) -> String {
    let head = ["CAUSE", "RESULT", "SECONDS", "FUNCTION", "MESSAGE"].map(str::to_owned);
    let row = |lived: &Lived| {
        let (message, function) = lived.findings();
        let seconds = format!("{:.1}", lived.took.as_secs_f64());
        [lived.life.name(), lived.result.word().to_owned(), seconds, function, message]
    };
    let rows: Vec<_> = std::iter::once(head).chain(lived.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let [names, words, times, functions] = [0, 1, 2, 3].map(width);
    let mut out = String::new();
    for [name, word, seconds, function, message] in &rows {
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "{name:names$}  {word:words$}  {seconds:>times$}  {function:functions$}  {message}"
        );
    }
    let passed = lived.iter().filter(|lived| lived.result.is_pass()).count();
    let _ = writeln!(out, "{passed} of {} passed", lived.len());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_skipped_is_not_counted_as_passed() {
        let life = Life { crash: Crash::Bug, cpu: Some(1) };
        let skipped = Result::Skipped("no headers".into());
        let failed = Result::Failed(anyhow::anyhow!("it hung"));
        let table = table(&[
            Lived { life, result: skipped, took: Duration::ZERO },
            Lived {
                life: Life { crash: Crash::Sysrq, cpu: None },
                result: failed,
                took: Duration::from_secs(9),
            },
        ]);
        assert_eq!(
            table,
            "CAUSE     RESULT   SECONDS  FUNCTION  MESSAGE\n\
             bug-cpu1  SKIPPED      0.0  -         no headers\n\
             sysrq     FAILED       9.0  -         it hung\n\
             0 of 2 passed\n"
        );
    }
}

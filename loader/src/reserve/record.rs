//! Performing a plan, and the record of what was there before.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Change, Error, Plan, Value, read};
use crate::state::now;

/// The record; /var outlives the reboot that a reservation takes.
const RECORD: &str = "var/lib/kdump-rs/reserve.json";
const VERSION: u32 = 1;

/// What `--apply` changed, with all that `--undo` restores.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    version: u32,
    /// Seconds since 1970.
    pub applied_at: u64,
    /// What was written.
    pub value: Value,
    /// The files, as they were before the first `--apply`, and as the last one left them.
    pub changes: Vec<Change>,
    /// Commands that make the boot loader see them.
    pub commands: Vec<Vec<String>>,
}

impl Record {
    /// Reads it; `None` if there is none.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::BadRecord`].
    pub fn read(root: &Path) -> Result<Option<Self>, Error> {
        let Some(text) = read(root, RECORD)? else { return Ok(None) };
        let record = serde_json::from_str::<Self>(&text).ok().filter(|record| record.version == VERSION);
        record.map(Some).ok_or_else(|| Error::BadRecord { path: root.join(RECORD) })
    }

    /// The same with a plan's changes; what was there before the first stays what it was.
    fn merge(before: Option<Self>, plan: &Plan, value: &Value) -> Self {
        let (mut changes, mut commands) = before.map(|r| (r.changes, r.commands)).unwrap_or_default();
        for change in &plan.changes {
            match changes.iter_mut().find(|old| old.path == change.path) {
                // Changed by somebody else since: theirs is what an undo leaves.
                Some(old) if old.after != change.before => *old = change.clone(),
                Some(old) => old.after.clone_from(&change.after),
                None => changes.push(change.clone()),
            }
        }
        commands.extend(plan.commands.iter().filter(|&c| !commands.contains(c)).cloned().collect::<Vec<_>>());
        Self { version: VERSION, applied_at: now(), value: value.clone(), changes, commands }
    }

    fn write(&self, root: &Path) -> Result<(), Error> {
        let text = serde_json::to_string_pretty(self).unwrap_or_default() + "\n";
        write(root, Path::new(RECORD), Some(&text))
    }
}

/// Runs a command of a plan.
pub type Run<'a> = &'a mut dyn FnMut(&[String]) -> io::Result<()>;

impl Plan {
    /// Writes the record, then the files, then has `run` run the commands. If one of them fails, the files are
    /// put back.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Command`].
    pub fn apply(&self, root: &Path, value: &Value, run: Run<'_>) -> Result<(), Error> {
        if self.changes.is_empty() {
            return Ok(());
        }
        let before = Record::read(root)?;
        Record::merge(before.clone(), self, value).write(root)?;
        perform(root, &self.changes, &self.commands, run).inspect_err(|_| {
            // What is wrong is said already; a record of nothing would only mislead.
            let _ = match &before {
                Some(record) => record.write(root),
                None => write(root, Path::new(RECORD), None),
            };
        })
    }
}

/// What restores the files, as a plan, and the record of it. `run` is given the commands; without one, nothing is
/// done.
///
/// # Errors
/// [`Error`].
pub fn undo(root: &Path, run: Option<Run<'_>>) -> Result<Plan, Error> {
    let record = Record::read(root)?.ok_or_else(|| Error::NothingToUndo { path: root.join(RECORD) })?;
    let mut plan = Plan { commands: record.commands, ..Plan::default() };
    for Change { path, before, after } in record.changes {
        let now = read(root, &path)?;
        if now == before {
            continue;
        }
        if now != after {
            return Err(Error::ChangedSince { path: Path::new("/").join(path) });
        }
        plan.changes.push(Change { path, before: now, after: before });
    }
    if let Some(run) = run {
        perform(root, &plan.changes, &plan.commands, run)?;
        write(root, Path::new(RECORD), None)?;
    }
    Ok(plan)
}

/// Writes files and runs commands, or leaves the files as they were.
fn perform(root: &Path, changes: &[Change], commands: &[Vec<String>], run: Run<'_>) -> Result<(), Error> {
    let mut done: Vec<&Change> = Vec::new();
    let mut result = Ok(());
    for change in changes {
        result = write(root, &change.path, change.after.as_deref());
        if result.is_err() {
            break;
        }
        done.push(change);
    }
    if result.is_ok() {
        result = commands.iter().try_for_each(|command| {
            run(command).map_err(|source| Error::Command { command: command.join(" "), source })
        });
    }
    if result.is_err() {
        for change in done {
            write(root, &change.path, change.before.as_deref())?;
        }
    }
    result
}

/// Writes a file whole or not at all, with the permissions that it had; or removes it.
fn write(root: &Path, path: &Path, text: Option<&str>) -> Result<(), Error> {
    // A link stays one: what it leads to changes.
    let path = fs::canonicalize(root.join(path)).unwrap_or_else(|_| root.join(path));
    let failed = |action| {
        let path = path.clone();
        move |source| Error::File { action, path, source }
    };
    let Some(text) = text else {
        return match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("removed")(error)),
            _ => Ok(()),
        };
    };
    let write = || -> io::Result<()> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        let new = with_suffix(&path, ".kdump-rs-new");
        let mut file = File::create(&new)?;
        file.write_all(text.as_bytes())?;
        if let Ok(metadata) = fs::metadata(&path) {
            file.set_permissions(metadata.permissions())?;
        }
        file.sync_all()?;
        fs::rename(&new, &path)
    };
    write().map_err(failed("written"))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

//! A partition that takes a dump from its first byte on, without a file system. The report and the log have no place there
//! beside it; they are said on the console.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use kdump_capture::config::{CaptureConfig, TargetConfig};
use kdump_loader::partition;
use kdump_loader::superblock::{Signature, read_signature};

use crate::console::say;
use crate::ladder::Attempt;
use crate::record::{SOURCE, open_source};
use crate::{dump, target, triage};

/// Writes the dump to the partition.
pub fn write(wanted: &TargetConfig, config: &CaptureConfig) -> Attempt {
    let out = match find(wanted).and_then(|device| open(&device, wanted)) {
        Ok(out) => out,
        Err(e) => {
            say!("{}: {e:#}", target::describe(wanted));
            return Attempt::NoPlace;
        }
    };
    let source = match open_source() {
        Ok(source) => source,
        Err(e) => {
            say!("{SOURCE}: {e}: there is nothing to dump");
            return Attempt::NoPlace;
        }
    };
    triage::run(None);
    match dump::write_raw(&source, &out, config) {
        Ok(()) => Attempt::Complete,
        Err(e) => {
            say!("no complete dump: {e:#}");
            Attempt::Failed
        }
    }
}

/// The partition's device, once it is there.
fn find(wanted: &TargetConfig) -> anyhow::Result<PathBuf> {
    target::wait_for(&target::describe(wanted), || {
        if wanted.uuid.is_empty() {
            let path = PathBuf::from(&wanted.device);
            path.exists().then_some(path)
        } else {
            partition::find(&wanted.uuid)
        }
    })
}

/// Opens it for writing, unless it is not what it was when the machine was armed.
fn open(device: &Path, wanted: &TargetConfig) -> anyhow::Result<File> {
    let held = read_signature(device).with_context(|| device.display().to_string())?;
    match held {
        None | Some(Signature::Dump) => {}
        Some(_) if wanted.overwrite_file_system => {}
        Some(found) => anyhow::bail!("{} holds {}: it is left alone", device.display(), found.name()),
    }
    let mut out = OpenOptions::new().read(true).write(true).open(device)?;
    let bytes = out.seek(io::SeekFrom::End(0))?;
    anyhow::ensure!(
        wanted.bytes == 0 || wanted.bytes == bytes,
        "{} has {bytes} bytes, not {}: it is another one, and left alone",
        device.display(),
        wanted.bytes
    );
    out.rewind()?;
    say!("the dump goes to {} from its first byte on", device.display());
    Ok(out)
}

//! A partition that takes a dump from its first byte on, without a file system: makedumpfile's flattened stream. The report
//! and the log have no place there beside it; they are said on the console.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek as _, Write};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use kdump_capture::config::{CaptureConfig, TargetConfig};
use kdump_loader::partition;
use kdump_loader::superblock::{Signature, read_signature};

use crate::console::say;
use crate::ladder::Attempt;
use crate::record::{SOURCE, open_source};
use crate::{dump, target, triage};

/// What goes to the partition at once.
const CHUNK: usize = 4 << 20;
/// Zeros behind what was written last.
const TAIL: usize = 64 << 10;

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
    let (mut options, _) = match dump::options(config) {
        Ok(options) => options,
        Err(e) => {
            say!("nothing is written: {e}");
            return Attempt::NoPlace;
        }
    };
    if let Some(encryption) = &mut options.encryption {
        encryption.is_padded = true;
    }
    triage::on_console(config);
    let mut stream = Stream::new(&out);
    let written = dump::write_stream(&source, &mut stream, &options).and_then(|summary| {
        stream.flush()?;
        out.sync_all()?;
        Ok(summary)
    });
    match written {
        Ok(summary) => {
            dump::tell(&summary);
            Attempt::Complete
        }
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

/// The stream on its way to a partition that may hold an older one. Behind what is written there are always zeros, so that
/// a stream that is cut does not go on with the records of that older one.
struct Stream<'a> {
    out: &'a File,
    at: u64,
    buffer: Vec<u8>,
}

impl<'a> Stream<'a> {
    fn new(out: &'a File) -> Self {
        Self { out, at: 0, buffer: Vec::with_capacity(CHUNK + TAIL) }
    }
}

impl Write for Stream<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = bytes.len().min(CHUNK - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..n]);
        if self.buffer.len() == CHUNK {
            self.flush()?;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        let len = self.buffer.len();
        // First, so that there is no moment without them.
        let tail = self.out.write_all_at(&[0; TAIL], self.at + len as u64);
        let written = self.out.write_all_at(&self.buffer, self.at);
        self.buffer.clear();
        written?;
        self.at += len as u64;
        match tail {
            // The partition ends there.
            Err(e) if e.kind() == io::ErrorKind::StorageFull => Ok(()),
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_stream_ends_in_zeros_and_not_in_an_older_one() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&vec![0xff; CHUNK * 3], 0).unwrap();
        let mut stream = Stream::new(&file);
        let bytes: Vec<u8> = (0..CHUNK + 1000).map(|i| (i % 250) as u8).collect();
        stream.write_all(&bytes).unwrap();
        let mut found = vec![0; CHUNK + TAIL + 1];
        file.read_exact_at(&mut found, 0).unwrap();
        assert!(found[..CHUNK] == bytes[..CHUNK]);
        assert!(found[CHUNK..CHUNK + TAIL].iter().all(|&b| b == 0) && found[CHUNK + TAIL] == 0xff);
        stream.flush().unwrap();
        file.read_exact_at(&mut found, 0).unwrap();
        assert!(found[..CHUNK + 1000] == bytes && found[CHUNK + 1000..].iter().all(|&b| b == 0));
    }
}

//! A server that takes uploads: the files go there one after the other, as they would into a directory.

use kdump_capture::config::{CaptureConfig, TargetConfig};
use kdump_capture::manifest::Manifest;
use kdump_capture::remote::{self, Remote, RemoteOptions};
use kdump_capture::{Options, Summary};
use kdump_vmcore::Dump;

use crate::console::{self, say};
use crate::dump::{self, NOT_ASKED, Privacy};
use crate::ladder::Attempt;
use crate::record::{SOURCE, open_source};
use crate::store::Store;
use crate::target;

/// Sends everything, as far as it goes. The network is up.
pub fn write(wanted: &TargetConfig, config: &CaptureConfig) -> Attempt {
    let directory = target::dump_name(target::now(), &config.boot_id);
    let options = RemoteOptions { directory, ..wanted.remote.clone() };
    let mut remote = match remote::open(&wanted.url, &options) {
        Ok(remote) => remote,
        Err(e) => {
            say!("{}: {e}", wanted.url);
            return Attempt::NoPlace;
        }
    };
    say!("the dump goes to {}", remote.describe());
    let (options, privacy) = match dump::options(config) {
        Ok(options) => options,
        Err(e) => {
            say!("nothing is sent: {e}");
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
    let mut store = Store::Server(remote.as_mut());
    if let Some(log) = dump::read_log(&source)
        && store.save_for(privacy.reports(), "dmesg.txt", &log).is_err()
    {
        return Attempt::NoPlace;
    }
    store.report(privacy.reports());
    let name = options.file_name(true);
    match send(remote.as_mut(), name, &source, &options) {
        Ok(summary) => {
            dump::tell(&summary);
            if end(remote.as_mut(), name, &summary, &source, &privacy) {
                return Attempt::Complete;
            }
            say!("the dump is there, and its manifest is not");
        }
        Err(e) => say!("no complete dump: {e:#}"),
    }
    Attempt::Failed
}

/// Sends the dump.
fn send(remote: &mut dyn Remote, name: &str, source: &Dump, options: &Options) -> anyhow::Result<Summary> {
    let mut upload = remote.begin(name)?;
    let summary = dump::write_stream(source, &mut upload, options)?;
    let length = upload.finish()?;
    anyhow::ensure!(length == summary.bytes, "{length} of {} bytes arrived", summary.bytes);
    Ok(summary)
}

/// Sends what is known only at the end; true if the manifest, which says that all is there, arrived.
fn end(remote: &mut dyn Remote, name: &str, summary: &Summary, source: &Dump, privacy: &Privacy) -> bool {
    let mut store = Store::Server(remote);
    match console::log() {
        // What became of it was said.
        Ok(log) => drop(store.save_for(privacy.reports(), "capture.log", &log)),
        Err(e) => say!("no capture.log: {e}"),
    }
    let mut manifest = Manifest::new(name, summary, source.vmcoreinfo());
    manifest.not_read_back = Some(NOT_ASKED);
    store.save("manifest.json", manifest.to_json().as_bytes()).is_ok()
}

//! What the capture environment is told to do: `/etc/kdump-rs/capture.toml` in the initramfs,
//! written when the capture kernel was armed.

use kdump_vmcore::kdump::Compression;
use serde::Deserialize;

use crate::capture::{Options, OutputFormat};
use crate::selection::DumpLevel;

/// Where the initramfs has it.
pub const PATH: &str = "/etc/kdump-rs/capture.toml";

/// The file. Keys this version does not know are ignored: an older program is better than no dump.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct CaptureConfig {
    /// Modules to load, in order, as paths from `/`.
    pub modules: Vec<String>,
    /// `boot_id` of the kernel that was armed.
    pub boot_id: String,
    /// Where to.
    pub target: TargetConfig,
    /// What.
    pub dump: DumpConfig,
    /// And then.
    pub end: EndConfig,
}

/// `[target]`: the file system for the dump.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct TargetConfig {
    /// UUID of the file system.
    pub uuid: String,
    /// Its type, as mount(8) names it.
    pub fstype: String,
    /// Directory on it, below which each dump gets its own.
    pub path: String,
}

impl Default for TargetConfig {
    fn default() -> Self {
        Self { uuid: String::new(), fstype: "ext4".into(), path: "/".into() }
    }
}

/// `[dump]`: its contents and format.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct DumpConfig {
    /// Dump level, 0 to 31.
    pub level: u32,
    /// `kdump` or `elf`.
    pub format: String,
    /// `zstd`, `zlib` or `none`.
    pub compression: String,
}

impl Default for DumpConfig {
    fn default() -> Self {
        Self { level: DumpLevel::MAX.bits(), format: "kdump".into(), compression: "zstd".into() }
    }
}

impl DumpConfig {
    /// The options for [`crate::capture()`], and a sentence for each value that means nothing and for
    /// which the default was taken: a dump of another kind is better than none.
    #[must_use]
    pub fn options(&self) -> (Options, Vec<String>) {
        let mut options = Options::default();
        let mut complaints = Vec::new();
        match DumpLevel::new(self.level) {
            Some(level) => options.wanted.selection = level.into(),
            None => complaints.push(format!("dump level {} is not 0 to 31; taking 31", self.level)),
        }
        match parse_format(&self.format) {
            Some(format) => options.format = format,
            None => complaints.push(format!("format {:?} is unknown; taking kdump", self.format)),
        }
        match parse_compression(&self.compression) {
            Some(compression) => options.compression = compression,
            None => complaints.push(format!("compression {:?} is unknown; taking zstd", self.compression)),
        }
        (options, complaints)
    }
}

/// `[end]`: what happens when all is done, or nothing more can be.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct EndConfig {
    /// `reboot`, `poweroff` or `halt`.
    pub action: String,
}

impl Default for EndConfig {
    fn default() -> Self {
        Self { action: "reboot".into() }
    }
}

/// A format by its name.
#[must_use]
pub fn parse_format(name: &str) -> Option<OutputFormat> {
    match name {
        "kdump" => Some(OutputFormat::Kdump),
        "elf" => Some(OutputFormat::Elf),
        "elf-zstd" => Some(OutputFormat::ElfZstd),
        _ => None,
    }
}

/// A compression by its name.
#[must_use]
pub fn parse_compression(name: &str) -> Option<Compression> {
    [Compression::Zstd, Compression::Zlib, Compression::Lzo, Compression::Snappy, Compression::None]
        .into_iter()
        .find(|c| c.name() == name)
}

impl CaptureConfig {
    /// Parses the file.
    ///
    /// # Errors
    /// If it is not TOML, or a known key has a value of another type.
    pub fn parse(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_loader_writes_is_read_and_the_unknown_ignored() {
        let c = CaptureConfig::parse(
            "modules = [\"lib/modules/a.ko\"]\nboot_id = \"b4bb3a2f-5b1c\"\nfuture = 1\n[target]\n\
             uuid = \"u\"\nfstype = \"ext4\"\npath = \"/var/crash\"\n[dump]\nlevel = 1\nformat = \"elf\"\n\
             compression = \"none\"\n[end]\naction = \"poweroff\"\n",
        )
        .unwrap();
        assert_eq!(
            (c.modules.len(), c.target.path.as_str(), c.end.action.as_str()),
            (1, "/var/crash", "poweroff")
        );
        let (options, complaints) = c.dump.options();
        assert_eq!(
            (options.wanted.selection.level.bits(), options.format, options.compression),
            (1, OutputFormat::Elf, Compression::None)
        );
        assert!(complaints.is_empty());
    }

    #[test]
    fn nonsense_is_named_and_the_default_taken() {
        let c = CaptureConfig::parse("[dump]\nlevel = 99\nformat = \"tar\"\ncompression = \"lz4\"").unwrap();
        let (options, complaints) = c.dump.options();
        assert_eq!(options, Options::default());
        assert_eq!(complaints.len(), 3);
    }
}

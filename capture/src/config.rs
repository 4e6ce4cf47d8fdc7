//! What the capture environment is told to do: `/etc/kdump-rs/capture.toml` in the initramfs,
//! written when the capture kernel was armed.

use kdump_vmcore::kdump::Compression;
use serde::{Deserialize, Deserializer};

use crate::capture::{Options, OutputFormat};
use crate::encrypt::{self, Recipients};
use crate::remote::RemoteOptions;
use crate::selection::DumpLevel;

/// Where the initramfs has it.
pub const PATH: &str = "/etc/kdump-rs/capture.toml";

/// The file. Keys this version does not know are ignored: an older program is better than no dump.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct CaptureConfig {
    /// Modules to load, in order, as paths from `/`.
    pub modules: Vec<String>,
    /// `boot_id` of the kernel that was armed.
    #[serde(rename = "boot_id")]
    pub boot_id: String,
    /// Seconds that all targets together may take; 0: as long as they do.
    pub total_budget: u64,
    /// Where to: the first that takes the dump.
    #[serde(rename = "target", deserialize_with = "one_or_many")]
    pub targets: Vec<TargetConfig>,
    /// What.
    pub dump: DumpConfig,
    /// What is kept of older dumps.
    pub retention: RetentionConfig,
    /// And then.
    pub end: EndConfig,
}

/// `[[target]]`, or `[target]` where there is one only: a place for the dump.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct TargetConfig {
    /// `directory`, `raw`, `nfs` or `url`.
    pub kind: String,
    /// UUID of the file system, or PARTUUID of the partition.
    pub uuid: String,
    /// The partition's path, or the server's directory.
    pub device: String,
    /// The partition's size; a device of another size is another device. 0 if not known.
    pub bytes: u64,
    /// Whether the partition is written over even when it holds a file system.
    pub overwrite_file_system: bool,
    /// The file system's type, as mount(8) names it.
    pub fstype: String,
    /// Directory on it, below which each dump gets its own.
    pub path: String,
    /// Mount options.
    pub options: String,
    /// Seconds that it may take; 0: as long as it does.
    pub budget: u64,
    /// The server's address, for `url`.
    pub url: String,
    /// How it is spoken to.
    pub remote: RemoteOptions,
}

impl Default for TargetConfig {
    fn default() -> Self {
        Self {
            kind: "directory".into(),
            uuid: String::new(),
            device: String::new(),
            bytes: 0,
            overwrite_file_system: false,
            fstype: "ext4".into(),
            path: "/".into(),
            options: String::new(),
            budget: 0,
            url: String::new(),
            remote: RemoteOptions::default(),
        }
    }
}

/// A table is a list of one.
fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<TargetConfig>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Targets {
        Many(Vec<TargetConfig>),
        One(Box<TargetConfig>),
    }
    Ok(match Targets::deserialize(deserializer)? {
        Targets::Many(targets) => targets,
        Targets::One(target) => vec![*target],
    })
}

/// `[dump]`: its contents and format.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct DumpConfig {
    /// Dump level, 0 to 31.
    pub level: u32,
    /// `kdump` or `elf`.
    pub format: String,
    /// `zstd`, `zlib` or `none`.
    pub compression: String,
    /// Public keys, any of whose owners can open the dump; in the clear if there are none.
    pub encrypt_to: Vec<String>,
    /// Whether log and report are encrypted like the dump.
    pub encrypt_reports: bool,
}

impl Default for DumpConfig {
    fn default() -> Self {
        Self {
            level: DumpLevel::MAX.bits(),
            format: "kdump".into(),
            compression: "zstd".into(),
            encrypt_to: Vec::new(),
            encrypt_reports: true,
        }
    }
}

impl DumpConfig {
    /// To whom all is encrypted, if to anybody.
    ///
    /// # Errors
    /// If one of them is no recipient: what was to be encrypted must not be written in the clear.
    pub fn recipients(&self) -> Result<Option<Recipients>, encrypt::Error> {
        if self.encrypt_to.is_empty() { Ok(None) } else { Recipients::parse(&self.encrypt_to).map(Some) }
    }

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

/// `[retention]`: which dumps are removed from a directory. 0 stands for no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct RetentionConfig {
    /// Dumps that are kept.
    pub keep: u32,
    /// Bytes that they may take together.
    pub max_bytes: u64,
    /// Seconds after which they go.
    pub max_age: u64,
    /// Bytes that are left free.
    pub min_free: u64,
}

/// `[end]`: what happens when all is done, or nothing more can be.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct EndConfig {
    /// `reboot`, `poweroff`, `halt` or `shell`.
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
    fn what_an_older_loader_wrote_is_read_and_the_unknown_ignored() {
        let c = CaptureConfig::parse(
            "modules = [\"lib/modules/a.ko\"]\nboot_id = \"b4bb3a2f-5b1c\"\nfuture = 1\n[target]\n\
             uuid = \"u\"\nfstype = \"ext4\"\npath = \"/var/crash\"\n[dump]\nlevel = 1\nformat = \"elf\"\n\
             compression = \"none\"\n[end]\naction = \"poweroff\"\n",
        )
        .unwrap();
        assert_eq!(
            (c.modules.len(), c.boot_id.as_str(), c.end.action.as_str()),
            (1, "b4bb3a2f-5b1c", "poweroff")
        );
        let target = TargetConfig { uuid: "u".into(), path: "/var/crash".into(), ..TargetConfig::default() };
        assert_eq!(c.targets, [target]);
        assert_eq!(c.retention, RetentionConfig::default());
        let (options, complaints) = c.dump.options();
        assert_eq!(
            (options.wanted.selection.level.bits(), options.format, options.compression),
            (1, OutputFormat::Elf, Compression::None)
        );
        assert!(complaints.is_empty());
    }

    #[test]
    fn a_list_of_targets_keeps_its_order() {
        let c = CaptureConfig::parse(
            "total-budget = 120\n[[target]]\nkind = \"nfs\"\ndevice = \"s:/d\"\nbudget = 30\n[[target]]\nuuid = \"u\"\n\
             [retention]\nkeep = 3\nmin-free = 1048576\n",
        )
        .unwrap();
        assert_eq!((c.total_budget, c.targets.len()), (120, 2));
        assert_eq!((c.targets[0].kind.as_str(), c.targets[0].budget), ("nfs", 30));
        assert_eq!((c.targets[1].kind.as_str(), c.targets[1].uuid.as_str()), ("directory", "u"));
        assert_eq!((c.retention.keep, c.retention.min_free), (3, 1 << 20));
    }

    #[test]
    fn nonsense_is_named_and_the_default_taken() {
        let c = CaptureConfig::parse("[dump]\nlevel = 99\nformat = \"tar\"\ncompression = \"lz4\"").unwrap();
        let (options, complaints) = c.dump.options();
        assert_eq!(options, Options::default());
        assert_eq!(complaints.len(), 3);
    }
}

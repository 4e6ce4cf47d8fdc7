//! What kdump-init is told: `/etc/kdump-rs/capture.toml`.
//!
//! The reading side is in the capture crate, which does not depend on this one.

use serde::Serialize;

use crate::network::NetworkConfig;
use crate::target::Sealed;

/// The file.
#[derive(Clone, Debug, PartialEq, Serialize, Default)]
#[serde(rename_all = "kebab-case")]
pub struct CaptureConfig {
    /// Modules in load order, relative to `/`.
    pub modules: Vec<String>,
    /// The production kernel's boot id.
    #[serde(rename = "boot_id")]
    pub boot_id: String,
    /// Seconds that all targets together may take; 0: as long as they do.
    pub total_budget: u64,
    /// Where the dump goes: the first that takes it.
    #[serde(rename = "target")]
    pub targets: Vec<TargetConfig>,
    /// What the dump is.
    pub dump: DumpConfig,
    /// What is kept of older ones.
    pub retention: RetentionConfig,
    /// What follows.
    pub end: EndConfig,
    /// The way to targets on servers; none without any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkConfig>,
}

impl CaptureConfig {
    /// The file's text.
    ///
    /// # Errors
    /// None for these types; TOML's own.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(self)
    }
}

/// `[[target]]`.
#[derive(Clone, Debug, PartialEq, Serialize, Default)]
#[serde(rename_all = "kebab-case")]
pub struct TargetConfig {
    /// `directory`, `raw`, `nfs` or `url`.
    pub kind: String,
    /// UUID of the file system, PARTUUID of the partition.
    pub uuid: String,
    /// The partition's path, or the server's directory.
    pub device: String,
    /// The partition's bytes, where nothing else tells it from another.
    pub bytes: u64,
    /// Whether the partition is written over even when it holds a file system.
    pub overwrite_file_system: bool,
    /// Type of the file system.
    pub fstype: String,
    /// The directory inside it.
    pub path: String,
    /// Mount options.
    pub options: String,
    /// Seconds that it may take; 0: as long as it does.
    pub budget: u64,
    /// The server's address.
    pub url: String,
    /// How it is spoken to.
    #[serde(skip_serializing_if = "Sealed::is_empty")]
    pub remote: Sealed,
}

/// `[dump]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Default)]
#[serde(rename_all = "kebab-case")]
pub struct DumpConfig {
    /// Which page classes are left out, 0 to 31, as makedumpfile numbers them.
    pub level: u8,
    /// `kdump` or `elf`.
    pub format: String,
    /// `zstd`, `zlib` or `none`.
    pub compression: String,
    /// Public keys, any of whose owners can open the dump.
    pub encrypt_to: Vec<String>,
    /// Whether log and report are encrypted like it.
    pub encrypt_reports: bool,
}

/// `[retention]`: 0 stands for no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Default)]
#[serde(rename_all = "kebab-case")]
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

/// `[end]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Default)]
pub struct EndConfig {
    /// `reboot`, `poweroff`, `halt` or `shell`.
    pub action: String,
}

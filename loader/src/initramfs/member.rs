//! What is in an initramfs, file by file, and why: what `arm --explain` prints.

use std::fmt;

use serde::Serialize;

use super::Initramfs;
use crate::modules::Reason;
use crate::plan::size_text;

/// A file, directory or device node in the archive. Directories that only lead to others are not listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Member {
    /// Its path, relative to `/`.
    pub path: String,
    /// Bytes of its content, unpacked.
    pub bytes: u64,
    /// Why it is there.
    pub why: Why,
}

/// Why a member is in the archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Why {
    /// The first program.
    Init,
    /// What it ends in.
    Shell,
    /// A module.
    Module {
        /// Its name.
        module: String,
        /// The reason for it.
        reason: Reason,
    },
    /// Firmware.
    Firmware {
        /// The module that asks for it.
        module: String,
        /// The file it was read from.
        from: std::path::PathBuf,
    },
    /// kdump-init's orders.
    Configuration,
    /// A device node.
    Node {
        /// For what.
        purpose: &'static str,
    },
    /// An empty directory.
    MountPoint,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Init => f.write_str("init: kdump-init, the first program, takes the dump"),
            Self::Shell => f.write_str("shell: runs on the console when all is done"),
            Self::Module { reason, .. } => reason.fmt(f),
            Self::Firmware { module, from } => {
                write!(f, "firmware asked for by {module} (from {})", from.display())
            }
            Self::Configuration => f.write_str("configuration: targets, dump level, modules in load order"),
            Self::Node { purpose } => write!(f, "device node: {purpose}"),
            Self::MountPoint => f.write_str("mount point"),
        }
    }
}

impl Initramfs {
    /// Bytes of the members of one kind, and how many there are.
    fn total(&self, is_wanted: impl Fn(&Why) -> bool) -> (u64, usize) {
        let wanted = self.members.iter().filter(|member| is_wanted(&member.why));
        wanted.fold((0, 0), |(bytes, nr), member| (bytes + member.bytes, nr + 1))
    }

    /// Every member with its size and its reason, and the totals: text of several lines.
    #[must_use]
    pub fn explain(&self) -> String {
        let width = self.members.iter().map(|member| member.path.len()).max().unwrap_or(0);
        let mut text = format!("{:>10}  {:width$}  why\n", "size", "file");
        for Member { path, bytes, why } in &self.members {
            text.push_str(&format!("{:>10}  {path:width$}  {why}\n", size_text(*bytes)));
        }
        let (modules, nr_modules) = self.total(|why| matches!(why, Why::Module { .. }));
        let (firmware, nr_firmware) = self.total(|why| matches!(why, Why::Firmware { .. }));
        let (rest, nr_rest) = self.total(|why| !matches!(why, Why::Module { .. } | Why::Firmware { .. }));
        let [modules, firmware, rest] = [modules, firmware, rest].map(size_text);
        let [packed, unpacked] = [self.packed.len() as u64, self.unpacked_len].map(size_text);
        text + &format!(
            "\n{modules} in {nr_modules} modules, {firmware} in {nr_firmware} firmware files, {rest} in {nr_rest} others\n\
             initramfs: {packed} packed, {unpacked} unpacked, built in {} ms\n",
            self.took.as_millis()
        )
    }
}

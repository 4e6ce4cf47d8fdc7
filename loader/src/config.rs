//! `/etc/kdump-rs/config.toml`: section `[arm]`, in which every flag of `arm` has a key; the ladder of targets; and
//! what is kept of old dumps.

use std::path::PathBuf;

use serde::Deserialize;

use crate::initramfs::RetentionConfig;
use crate::quantity::{parse_size, parse_time};
use crate::target::{Wish, WishError, WishedPlace};

/// Where the file is unless a flag says otherwise.
pub const DEFAULT_PATH: &str = "/etc/kdump-rs/config.toml";

/// Section `[arm]`. What is absent has the flag's default.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ArmConfig {
    /// `--kernel`
    pub kernel: Option<PathBuf>,
    /// `--modules`
    pub modules: Option<PathBuf>,
    /// `--target`, when there is one
    pub target: Option<String>,
    /// `--total-budget`
    pub total_budget: Option<String>,
    /// `--init`
    pub init: Option<PathBuf>,
    /// `--level`
    pub level: Option<u8>,
    /// `--format`
    pub format: Option<String>,
    /// `--compression`
    pub compression: Option<String>,
    /// `--encrypt-to`
    pub encrypt_to: Option<Vec<String>>,
    /// Whether log and report are encrypted like the dump.
    pub encrypt_reports: Option<bool>,
    /// `--end`
    pub end: Option<String>,
    /// `--shell`
    pub shell: Option<PathBuf>,
    /// `--append`
    pub append: Option<String>,
    /// `--console`
    pub console: Option<String>,
    /// `--on-corruption`
    #[serde(alias = "on_corruption")]
    pub on_corruption: Option<String>,
    /// `--parity`
    pub parity: Option<String>,
    /// `--payload-at`
    #[serde(alias = "payload_at")]
    pub payload_at: Option<String>,
    /// `--entry`
    pub entry: Option<String>,
    /// `--syscall`
    pub syscall: Option<String>,
    /// `[[target]]`: several, tried in this order.
    #[serde(skip)]
    pub targets: Vec<TargetKeys>,
    /// `[retention]`
    #[serde(skip)]
    pub retention: RetentionKeys,
}

/// A `[[target]]`: one of `directory`, `raw`, `nfs` and `url`, and what goes with it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct TargetKeys {
    /// A directory on a mounted file system.
    pub directory: String,
    /// A partition, by its path or `PARTUUID=`.
    pub raw: String,
    /// `SERVER:/DIRECTORY`.
    pub nfs: String,
    /// An upload's address.
    pub url: String,
    /// How long it may take.
    pub time_budget: String,
    /// Mount options.
    pub options: String,
    /// Whether the partition may be written over.
    pub overwrite: bool,
    /// Whether even if it holds a file system.
    pub overwrite_file_system: bool,
    /// How the server of a URL is spoken to. Its client knows these keys.
    #[serde(flatten)]
    pub remote: toml::Table,
}

/// `[retention]`: which dumps are removed from a directory.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct RetentionKeys {
    /// Dumps that are kept; 0: all.
    pub keep: u32,
    /// Bytes that they may take together.
    pub max_bytes: String,
    /// The age at which they go.
    pub max_age: String,
    /// Bytes that are left free.
    pub min_free: String,
}

impl Default for RetentionKeys {
    fn default() -> Self {
        Self { keep: 5, max_bytes: String::new(), max_age: String::new(), min_free: String::new() }
    }
}

/// What a key says that cannot be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// TOML, a key's name or type.
    #[error(transparent)]
    Toml(#[from] toml::de::Error),
    /// A target.
    #[error(transparent)]
    Target(#[from] WishError),
    /// Both ways to name targets.
    #[error("arm.target and [[target]] are both there: one of them names the targets")]
    TwoLadders,
    /// Another value.
    #[error("key {key} of the configuration: {why}")]
    Value {
        /// The key.
        key: &'static str,
        /// What is wrong.
        why: String,
    },
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    arm: ArmConfig,
    #[serde(default)]
    target: Vec<TargetKeys>,
    #[serde(default)]
    retention: RetentionKeys,
}

/// Parses the file; sections of other commands are left alone.
///
/// # Errors
/// What the TOML parser says, with line and key.
pub fn parse(text: &str) -> Result<ArmConfig, toml::de::Error> {
    let File { arm, target: targets, retention } = toml::from_str(text)?;
    for target in targets.iter().filter(|target| target.url.is_empty()) {
        if let Some(key) = target.remote.keys().next() {
            return Err(serde::de::Error::custom(format!("a [[target]] without url has no key {key}")));
        }
    }
    Ok(ArmConfig { targets, retention, ..arm })
}

impl ArmConfig {
    /// The ladder that the file names; empty if it names no target.
    ///
    /// # Errors
    /// [`Error`].
    pub fn ladder(&self) -> Result<Vec<Wish>, Error> {
        match (&self.target, self.targets.as_slice()) {
            (Some(_), [_, ..]) => Err(Error::TwoLadders),
            (Some(target), []) => Ok(vec![target.parse()?]),
            (None, targets) => targets.iter().map(TargetKeys::wish).collect(),
        }
    }
}

impl TargetKeys {
    /// The same as on the command line.
    ///
    /// # Errors
    /// [`Error`].
    pub fn wish(&self) -> Result<Wish, Error> {
        let places = [&self.directory, &self.raw, &self.nfs, &self.url];
        let named = places.iter().filter(|place| !place.is_empty()).count();
        if named != 1 {
            return Err(WishError::NotOne(named).into());
        }
        let place = if !self.directory.is_empty() {
            WishedPlace::Directory(self.directory.clone().into())
        } else if !self.raw.is_empty() {
            WishedPlace::Raw {
                device: self.raw.clone(),
                overwrite: self.overwrite || self.overwrite_file_system,
                overwrite_file_system: self.overwrite_file_system,
            }
        } else if !self.nfs.is_empty() {
            WishedPlace::Nfs(self.nfs.clone())
        } else {
            WishedPlace::Url(self.url.clone())
        };
        let budget = Some(self.time_budget.as_str()).filter(|text| !text.is_empty()).map(parse_time);
        let budget = budget.transpose().map_err(|why| Error::Value { key: "time-budget", why })?;
        Ok(Wish { place, budget, options: self.options.clone(), remote: self.remote.clone() })
    }
}

impl RetentionKeys {
    /// What kdump-init is told.
    ///
    /// # Errors
    /// [`Error::Value`].
    pub fn limits(&self) -> Result<RetentionConfig, Error> {
        let size = |key, text: &str| match text {
            "" => Ok(0),
            text => parse_size(text).map_err(|why| Error::Value { key, why }),
        };
        let max_age = match self.max_age.as_str() {
            "" => 0,
            text => parse_time(text).map_err(|why| Error::Value { key: "max-age", why })?.as_secs(),
        };
        Ok(RetentionConfig {
            keep: self.keep,
            max_bytes: size("max-bytes", &self.max_bytes)?,
            max_age,
            min_free: size("min-free", &self.min_free)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_misspelt_key_is_an_error_that_names_it() {
        let config = parse("[arm]\nlevel = 1\ntarget = \"/srv/crash\"\n[rehearse]\nmemory = 512\n").unwrap();
        assert_eq!((config.level, config.target.as_deref()), (Some(1), Some("/srv/crash")));
        assert_eq!(config.ladder().unwrap(), [Wish::directory("/srv/crash".into())]);
        assert_eq!(parse("").unwrap(), ArmConfig::default());
        for text in ["[arm]\nlevle = 1\n", "[[target]]\nlevle = 1\n", "[retention]\nlevle = 1\n"] {
            assert!(parse(text).unwrap_err().to_string().contains("levle"), "{text}");
        }
        assert_eq!(parse("[arm]\non_corruption = \"halt\"").unwrap().on_corruption.as_deref(), Some("halt"));
    }

    #[test]
    fn tables_make_a_ladder_in_their_order() {
        let config = parse(
            "[[target]]\nnfs = \"10.0.0.5:/export\"\ntime-budget = \"1m\"\n[[target]]\ndirectory = \"/var/crash\"\n\
             [[target]]\nraw = \"PARTUUID=12\"\noverwrite = true\n",
        );
        let ladder = config.unwrap().ladder().unwrap();
        assert_eq!(ladder[0].place, WishedPlace::Nfs("10.0.0.5:/export".into()));
        assert_eq!(ladder[0].budget, Some(Duration::from_secs(60)));
        assert_eq!(ladder[1], Wish::directory("/var/crash".into()));
        assert!(matches!(
            ladder[2].place,
            WishedPlace::Raw { overwrite: true, overwrite_file_system: false, .. }
        ));
        for (text, part) in [
            ("[arm]\ntarget = \"/a\"\n[[target]]\ndirectory = \"/b\"\n", "both"),
            ("[[target]]\noptions = \"ro\"\n", "this one has 0"),
            ("[[target]]\ndirectory = \"/b\"\nraw = \"/dev/x\"\n", "this one has 2"),
            ("[[target]]\ndirectory = \"/b\"\ntime-budget = \"soon\"\n", "time-budget"),
        ] {
            let error = parse(text).unwrap().ladder().unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn five_dumps_are_kept_unless_told_otherwise() {
        assert_eq!(parse("").unwrap().retention.limits().unwrap().keep, 5);
        let text = "[retention]\nkeep = 0\nmax-bytes = \"20G\"\nmax-age = \"90d\"\nmin-free = \"512M\"\n";
        let limits = parse(text).unwrap().retention.limits().unwrap();
        let expected =
            RetentionConfig { keep: 0, max_bytes: 20 << 30, max_age: 90 * 86_400, min_free: 512 << 20 };
        assert_eq!(limits, expected);
        let error = parse("[retention]\nmin-free = \"much\"").unwrap().retention.limits().unwrap_err();
        assert!(error.to_string().contains("min-free") && error.to_string().contains("much"), "{error}");
    }
}

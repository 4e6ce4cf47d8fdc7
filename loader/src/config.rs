//! `/etc/kdump-rs/config.toml`, section `[arm]`: every flag of `arm` has a key.

use std::path::PathBuf;

use serde::Deserialize;

/// Where the file is unless a flag says otherwise.
pub const DEFAULT_PATH: &str = "/etc/kdump-rs/config.toml";

/// Section `[arm]`. What is absent has the flag's default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArmConfig {
    /// `--kernel`
    pub kernel: Option<PathBuf>,
    /// `--modules`
    pub modules: Option<PathBuf>,
    /// `--target`
    pub target: Option<PathBuf>,
    /// `--init`
    pub init: Option<PathBuf>,
    /// `--level`
    pub level: Option<u8>,
    /// `--format`
    pub format: Option<String>,
    /// `--compression`
    pub compression: Option<String>,
    /// `--end`
    pub end: Option<String>,
    /// `--append`
    pub append: Option<String>,
    /// `--console`
    pub console: Option<String>,
    /// `--on-corruption`
    pub on_corruption: Option<String>,
    /// `--parity`
    pub parity: Option<String>,
    /// `--payload-at`
    pub payload_at: Option<String>,
    /// `--entry`
    pub entry: Option<String>,
    /// `--syscall`
    pub syscall: Option<String>,
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    arm: ArmConfig,
}

/// Parses the file; sections of other commands are left alone.
///
/// # Errors
/// What the TOML parser says, with line and key.
pub fn parse(text: &str) -> Result<ArmConfig, toml::de::Error> {
    toml::from_str::<File>(text).map(|file| file.arm)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_key_is_an_error_that_names_it() {
        let config = parse("[arm]\nlevel = 1\ntarget = \"/srv/crash\"\n[rehearse]\nmemory = 512\n").unwrap();
        assert_eq!((config.level, config.target), (Some(1), Some("/srv/crash".into())));
        assert_eq!(parse("").unwrap(), ArmConfig::default());
        assert!(parse("[arm]\nlevle = 1\n").unwrap_err().to_string().contains("levle"));
    }
}

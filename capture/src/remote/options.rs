//! What a URL does not say: credentials, authorities, addresses. [`RemoteSettings`] is what an administrator writes,
//! with names of files; [`RemoteOptions`] what travels in the initramfs, with what is in them.

use std::io;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Secret;
use super::dial::Server;
use super::tls;
use super::url::Url;

/// Bytes of a credential, or of a certificate file: Debian's bundle of all authorities has a quarter of a MB.
const MAX_FILE: u64 = 1 << 20;
/// Seconds without progress after which a broken connection is given up.
const PATIENCE: u64 = 60;

/// How a server is spoken to, complete in itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RemoteOptions {
    /// Directory of this dump, below the URL's path.
    pub directory: String,
    /// Certificates in PEM, one of which must have signed the server's.
    pub ca: String,
    /// SHA-256 of the server's certificate in hexadecimal.
    pub fingerprint: String,
    /// Addresses that the server's name had when the machine was armed.
    pub addresses: Vec<IpAddr>,
    /// Seconds since 1970 at which the machine was armed.
    pub armed_at: u64,
    /// What a receiver of ours wants to hear.
    pub token: Secret,
    /// Value of the Authorization header for PUT: `Bearer …` or `Basic …`.
    pub authorization: Secret,
    /// PUT in parts of their own names, of which each is tried again.
    pub parts: bool,
    /// Seconds without progress after which a broken connection is given up.
    pub patience: u64,
    /// For buckets.
    pub s3: S3Options,
}

impl Default for RemoteOptions {
    fn default() -> Self {
        Self {
            directory: String::new(),
            ca: String::new(),
            fingerprint: String::new(),
            addresses: Vec::new(),
            armed_at: 0,
            token: Secret::default(),
            authorization: Secret::default(),
            parts: false,
            patience: PATIENCE,
            s3: S3Options::default(),
        }
    }
}

/// Access to a bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct S3Options {
    /// URL of the service, where it is not Amazon's: `https://HOST[:PORT]`.
    pub endpoint: String,
    /// Region, which is part of each signature.
    pub region: String,
    /// Name of the key.
    pub access_key: String,
    /// The key.
    pub secret_key: Secret,
    /// For temporary credentials.
    pub session_token: Secret,
}

impl RemoteOptions {
    pub(crate) const fn patience(&self) -> Duration {
        Duration::from_secs(self.patience)
    }

    /// The dump's directory below a path of the URL.
    pub(crate) fn below(&self, path: &str) -> String {
        let parts = [path, self.directory.as_str()].into_iter().filter(|part| !part.is_empty());
        parts.collect::<Vec<_>>().join("/")
    }

    /// How the server of a URL is reached.
    pub(crate) fn server(&self, url: &Url) -> io::Result<Server> {
        let tls = if url.scheme.is_tls() {
            Some(tls::client_config(&self.ca, &self.fingerprint, self.armed_at)?)
        } else {
            None
        };
        Ok(Server { host: url.host.clone(), port: url.port, addresses: self.addresses.clone(), tls })
    }
}

/// The same, as it is written in /etc/kdump-rs/config.toml: secrets stand in files of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct RemoteSettings {
    /// File of certificates in PEM.
    pub ca: Option<PathBuf>,
    /// SHA-256 of the server's certificate in hexadecimal.
    pub fingerprint: Option<String>,
    /// File with the token for a receiver of ours.
    pub token_file: Option<PathBuf>,
    /// File with the value of the Authorization header for PUT.
    pub authorization_file: Option<PathBuf>,
    /// PUT in parts of their own names.
    pub parts: Option<bool>,
    /// Seconds without progress after which a broken connection is given up.
    pub patience: Option<u64>,
    /// URL of the S3 service.
    pub endpoint: Option<String>,
    /// Region of the bucket.
    pub region: Option<String>,
    /// File with the lines `access_key = …`, `secret_key = …` and perhaps `session_token = …`.
    pub credentials_file: Option<PathBuf>,
}

/// Why settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A file.
    #[error("{path} cannot be read", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Too large.
    #[error("{path} has more than {MAX_FILE} bytes", path = path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// A secret that is none.
    #[error("{path} holds a secret and can be read by others (mode {mode:04o}): chmod 600 {path}", path = path.display())]
    Public {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The credentials file.
    #[error("{path} is no file of credentials: it has the lines access_key = \"…\" and secret_key = \"…\"", path = path.display())]
    Credentials {
        /// The file.
        path: PathBuf,
    },
}

impl RemoteSettings {
    /// Reads the files that are named.
    ///
    /// # Errors
    /// [`SettingsError`]; a secret is in none of its texts.
    pub fn read(&self) -> Result<RemoteOptions, SettingsError> {
        let mut options = RemoteOptions {
            fingerprint: self.fingerprint.clone().unwrap_or_default(),
            parts: self.parts.unwrap_or_default(),
            patience: self.patience.unwrap_or(PATIENCE),
            armed_at: tls::now(0),
            ..RemoteOptions::default()
        };
        if let Some(path) = &self.ca {
            options.ca = read_text(path, false)?;
        }
        if let Some(path) = &self.token_file {
            options.token = Secret::new(read_text(path, true)?);
        }
        if let Some(path) = &self.authorization_file {
            options.authorization = Secret::new(read_text(path, true)?);
        }
        if let Some(path) = &self.credentials_file {
            options.s3 = read_credentials(path)?;
        }
        options.s3.endpoint = self.endpoint.clone().unwrap_or_default();
        options.s3.region = self.region.clone().unwrap_or_default();
        Ok(options)
    }
}

/// Reads a text, without the white space around it.
fn read_text(path: &Path, is_secret: bool) -> Result<String, SettingsError> {
    let failed = |source| SettingsError::Read { path: path.to_owned(), source };
    let metadata = std::fs::metadata(path).map_err(failed)?;
    let mode = metadata.mode() & 0o7777;
    if is_secret && mode & 0o077 != 0 {
        return Err(SettingsError::Public { path: path.to_owned(), mode });
    }
    if metadata.len() > MAX_FILE {
        return Err(SettingsError::TooLarge { path: path.to_owned() });
    }
    Ok(std::fs::read_to_string(path).map_err(failed)?.trim().to_owned())
}

fn read_credentials(path: &Path) -> Result<S3Options, SettingsError> {
    // What the parser would say shows the line, which may be the secret.
    let read: Option<S3Options> = toml::from_str(&read_text(path, true)?).ok();
    read.filter(|s3| !s3.access_key.is_empty() && !s3.secret_key.is_empty())
        .ok_or_else(|| SettingsError::Credentials { path: path.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn write(dir: &Path, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = dir.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn settings_are_read_with_their_files() {
        let dir = tempfile::tempdir().unwrap();
        let ca = write(dir.path(), "ca.pem", "PEM\n", 0o644);
        let token = write(dir.path(), "token", "hunter2\n", 0o600);
        let keys = "access_key = \"AKIA\"\nsecret_key = \"hunter3\"\n";
        let keys = write(dir.path(), "keys", keys, 0o600);
        let text =
            format!("ca = {ca:?}\ntoken-file = {token:?}\ncredentials-file = {keys:?}\nparts = true\n");
        let settings: RemoteSettings = toml::from_str(&text).unwrap();
        let options = settings.read().unwrap();
        assert_eq!((options.ca.as_str(), options.parts, options.patience), ("PEM", true, 60));
        assert_eq!(options.token, Secret::new("hunter2".into()));
        assert_eq!(options.s3.access_key, "AKIA");
        let shown = format!("{options:?}");
        assert!(!shown.contains("hunter"), "{shown}");
        assert!(toml::from_str::<RemoteSettings>("tokenfile = \"x\"").is_err(), "a typing error is named");
    }

    #[test]
    fn a_secret_that_others_can_read_is_refused_and_none_is_repeated() {
        let dir = tempfile::tempdir().unwrap();
        let token = write(dir.path(), "token", "hunter2", 0o640);
        let error = RemoteSettings { token_file: Some(token), ..Default::default() }.read().unwrap_err();
        assert!(error.to_string().contains("0640"), "{error}");
        let keys = write(dir.path(), "keys", "secret_key = hunter2", 0o600);
        let error = RemoteSettings { credentials_file: Some(keys), ..Default::default() }.read().unwrap_err();
        assert!(!format!("{error:?} {error}").contains("hunter2"), "{error:?}");
    }

    #[test]
    fn the_dumps_directory_is_below_the_urls_path() {
        let below = |path: &str, directory: &str| {
            RemoteOptions { directory: directory.into(), ..Default::default() }.below(path)
        };
        assert_eq!(below("a/b", "c"), "a/b/c");
        assert_eq!((below("", "c"), below("a", ""), below("", "")), ("c".into(), "a".into(), String::new()));
    }
}

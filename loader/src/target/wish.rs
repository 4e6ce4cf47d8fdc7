//! Where dumps are to go, as people write it: `--target` and the tables of the configuration.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::quantity::parse_time;

/// A target as it was asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Wish {
    /// Which.
    pub place: WishedPlace,
    /// How long it may take, when not all the time there is.
    pub budget: Option<Duration>,
    /// Mount options beside the necessary ones.
    pub options: String,
    /// How a server that takes uploads is spoken to: keys that its client knows.
    pub remote: toml::Table,
}

/// Where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WishedPlace {
    /// A directory on a mounted file system.
    Directory(PathBuf),
    /// A partition that is written over.
    Raw {
        /// A path below /dev, or `PARTUUID=`.
        device: String,
        /// Whether it may be written over at all.
        overwrite: bool,
        /// Whether even if it holds a file system.
        overwrite_file_system: bool,
    },
    /// A directory that a server exports: `SERVER:/DIRECTORY`.
    Nfs(String),
    /// A server that takes uploads.
    Url(String),
}

/// A text that names no target.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// Nothing.
    #[error("a target is a directory, raw:DEVICE, nfs:SERVER:/DIRECTORY or a URL; {0:?} is none")]
    NotATarget(String),
    /// An option after a comma.
    #[error("target option {option:?} cannot be understood: {why}")]
    Option {
        /// The option.
        option: String,
        /// What is wrong with it.
        why: String,
    },
    /// A table with none, or several.
    #[error("a [[target]] has one of directory, raw, nfs and url; this one has {0}")]
    NotOne(usize),
}

/// What a comma may stand before; other commas belong to names.
const OPTIONS: [&str; 4] = [",budget=", ",options=", ",overwrite-file-system", ",overwrite"];

impl FromStr for Wish {
    type Err = Error;

    /// Reads `PLACE[,budget=TIME][,overwrite][,overwrite-file-system][,options=MOUNT-OPTIONS]`.
    fn from_str(text: &str) -> Result<Self, Error> {
        let end = OPTIONS.iter().filter_map(|option| text.find(option)).min().unwrap_or(text.len());
        let (place, mut rest) = text.split_at(end);
        let mut wish = Self {
            place: parse_place(place)?,
            budget: None,
            options: String::new(),
            remote: toml::Table::new(),
        };
        while let Some(tail) = rest.strip_prefix(',') {
            // Mount options have commas of their own, and are the last.
            let (option, after) = match tail.find(',') {
                Some(at) if !tail.starts_with("options=") => tail.split_at(at),
                _ => (tail, ""),
            };
            wish.set(option)?;
            rest = after;
        }
        Ok(wish)
    }
}

impl Wish {
    /// A directory, with nothing said of it.
    #[must_use]
    pub fn directory(path: PathBuf) -> Self {
        Self {
            place: WishedPlace::Directory(path),
            budget: None,
            options: String::new(),
            remote: toml::Table::new(),
        }
    }

    fn set(&mut self, option: &str) -> Result<(), Error> {
        let wrong = |why: &str| Error::Option { option: option.to_owned(), why: why.to_owned() };
        match (option.split_once('='), &mut self.place) {
            (Some(("budget", time)), _) => {
                self.budget = Some(parse_time(time).map_err(|error| wrong(&error))?);
            }
            (Some(("options", options)), _) => self.options = options.to_owned(),
            (None, WishedPlace::Raw { overwrite, overwrite_file_system, .. }) => match option {
                "overwrite" => *overwrite = true,
                "overwrite-file-system" => (*overwrite, *overwrite_file_system) = (true, true),
                _ => return Err(wrong("there is no such option")),
            },
            _ if option.starts_with("overwrite") => return Err(wrong("it is for raw: targets")),
            _ => return Err(wrong("there is no such option")),
        }
        Ok(())
    }
}

fn parse_place(text: &str) -> Result<WishedPlace, Error> {
    if let Some(device) = text.strip_prefix("raw:").filter(|device| !device.is_empty()) {
        let device = device.to_owned();
        return Ok(WishedPlace::Raw { device, overwrite: false, overwrite_file_system: false });
    }
    if let Some(source) = text.strip_prefix("nfs:").filter(|source| source.contains(":/")) {
        return Ok(WishedPlace::Nfs(source.to_owned()));
    }
    if text.contains("://") {
        return Ok(WishedPlace::Url(text.to_owned()));
    }
    match text {
        "" => Err(Error::NotATarget(text.to_owned())),
        _ if text.starts_with("raw:") || text.starts_with("nfs:") => Err(Error::NotATarget(text.to_owned())),
        _ => Ok(WishedPlace::Directory(text.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_read_with_its_options() {
        let wish = |text: &str| text.parse::<Wish>().unwrap();
        assert_eq!(wish("/var/crash"), Wish::directory("/var/crash".into()));
        assert_eq!(wish("/odd,name").place, WishedPlace::Directory("/odd,name".into()));
        let timed = wish("/srv/crash,budget=2m");
        assert_eq!(
            (timed.place, timed.budget),
            (WishedPlace::Directory("/srv/crash".into()), Some(Duration::from_secs(120)))
        );
        let raw = |overwrite, overwrite_file_system| WishedPlace::Raw {
            device: "/dev/vdb1".into(),
            overwrite,
            overwrite_file_system,
        };
        assert_eq!(wish("raw:/dev/vdb1").place, raw(false, false));
        assert_eq!(wish("raw:/dev/vdb1,budget=30,overwrite").place, raw(true, false));
        assert_eq!(wish("raw:/dev/vdb1,overwrite-file-system").place, raw(true, true));
        let nfs = wish("nfs:10.0.0.5:/export/crash,options=vers=4.2,soft");
        assert_eq!(
            (nfs.place, nfs.options.as_str()),
            (WishedPlace::Nfs("10.0.0.5:/export/crash".into()), "vers=4.2,soft")
        );
        assert_eq!(
            wish("https://dumps.example/up").place,
            WishedPlace::Url("https://dumps.example/up".into())
        );
    }

    #[test]
    fn nonsense_is_refused_with_its_reason() {
        for (text, part) in [
            ("", "is none"),
            ("raw:", "is none"),
            ("nfs:server", "is none"),
            ("/var/crash,overwrite", "for raw: targets"),
            ("raw:/dev/vdb1,budget=soon", "soon"),
            ("raw:/dev/vdb1,budget=1,quick", "no such option"),
        ] {
            let error = text.parse::<Wish>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}

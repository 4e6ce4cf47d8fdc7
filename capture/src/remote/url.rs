//! URLs of servers: `SCHEME://HOST[:PORT]/PATH`, and nothing else that a URL may have.
//!
//! Source: RFC 3986 sections 2.1, 3.2.

use std::net::IpAddr;

/// What a server is spoken to in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scheme {
    /// Our own receiver.
    Tcp,
    /// Our own receiver, in TLS.
    Tls,
    /// PUT, for trusted networks.
    Http,
    /// PUT.
    Https,
    /// An S3 bucket; the endpoint says how it is reached.
    S3,
}

impl Scheme {
    const ALL: [(&'static str, Self, u16); 5] = [
        ("tcp", Self::Tcp, super::protocol::PORT),
        ("tls", Self::Tls, super::protocol::PORT),
        ("http", Self::Http, 80),
        ("https", Self::Https, 443),
        ("s3", Self::S3, 443),
    ];

    /// Whether what is sent is encrypted.
    #[must_use]
    pub const fn is_tls(self) -> bool {
        matches!(self, Self::Tls | Self::Https)
    }
}

/// A server and a path on it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Url {
    /// How.
    pub scheme: Scheme,
    /// Name or address, without brackets.
    pub host: String,
    /// Port, the scheme's own if none is given.
    pub port: u16,
    /// Without slashes at either end.
    pub path: String,
}

/// Why a text is no URL of a target. The text itself is not repeated where it may hold a password.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Error {
    /// Something else.
    #[error("{0:?} is no URL of a server: tcp, tls, http, https or s3, then ://HOST[:PORT]/PATH")]
    NotAUrl(String),
    /// `user:password@`.
    #[error("the URL of a target names a user or a password: these belong into a file of their own")]
    HasUser,
    /// `?` or `#`.
    #[error("{0:?} has a query or a fragment, which the URL of a target cannot have")]
    HasQuery(String),
    /// A port that is none.
    #[error("{0:?} has no port from 1 to 65535 after its colon")]
    Port(String),
    /// A path component that a server could take for something else.
    #[error("{0:?} has a path with . or .. or an empty component or a control character in it")]
    Path(String),
}

impl Url {
    /// Parses a URL.
    ///
    /// # Errors
    /// [`Error`].
    pub fn parse(text: &str) -> Result<Self, Error> {
        let not_a_url = || Error::NotAUrl(text.to_owned());
        let (scheme, rest) = text.split_once("://").ok_or_else(not_a_url)?;
        let &(_, scheme, port) =
            Scheme::ALL.iter().find(|(name, ..)| name.eq_ignore_ascii_case(scheme)).ok_or_else(not_a_url)?;
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if authority.contains('@') {
            return Err(Error::HasUser);
        }
        if rest.contains(['?', '#']) {
            return Err(Error::HasQuery(text.to_owned()));
        }
        let (host, port_text) = match authority.strip_prefix('[') {
            Some(v6) => {
                let (host, after) = v6.split_once(']').ok_or_else(not_a_url)?;
                host.parse::<std::net::Ipv6Addr>().map_err(|_| not_a_url())?;
                match after.strip_prefix(':') {
                    Some(port) => (host, Some(port)),
                    None if after.is_empty() => (host, None),
                    None => return Err(not_a_url()),
                }
            }
            None => match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        let is_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
        if host.is_empty() || !host.chars().all(is_host) {
            return Err(not_a_url());
        }
        let port = match port_text {
            None => port,
            Some(port) => match port.parse() {
                Ok(port @ 1..) => port,
                _ => return Err(Error::Port(text.to_owned())),
            },
        };
        let path = path.trim_end_matches('/');
        if !path.is_empty() && path.split('/').any(|part| !is_component(part)) {
            return Err(Error::Path(text.to_owned()));
        }
        Ok(Self { scheme, host: host.to_owned(), port, path: path.to_owned() })
    }

    /// The host, if it is an address.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// `HOST:PORT`, in brackets where need be; without the port where that is `usual`.
    #[must_use]
    pub fn authority(&self, usual: u16) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == usual { host } else { format!("{host}:{}", self.port) }
    }
}

fn is_component(part: &str) -> bool {
    !matches!(part, "" | "." | "..") && !part.chars().any(char::is_control)
}

/// Percent-encodes all but what every server and SigV4 leave alone; slashes stay where `is_path`.
#[must_use]
pub(crate) fn encode(text: &str, is_path: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for &b in text.as_bytes() {
        if b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~') || (is_path && b == b'/') {
            out.push(char::from(b));
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_servers_parse() {
        let url = Url::parse("https://dumps.example.org/crash/web 1/").unwrap();
        assert_eq!((url.scheme, url.host.as_str(), url.port), (Scheme::Https, "dumps.example.org", 443));
        assert_eq!(url.path, "crash/web 1");
        assert_eq!(encode(&url.path, true), "crash/web%201");
        let url = Url::parse("TLS://[fe80::1]:99").unwrap();
        assert_eq!((url.host.as_str(), url.port, url.path.as_str()), ("fe80::1", 99, ""));
        assert_eq!(url.authority(98), "[fe80::1]:99");
        assert_eq!(Url::parse("tcp://10.0.2.2").unwrap().port, super::super::protocol::PORT);
        assert_eq!(Url::parse("s3://bucket/prefix").unwrap().host, "bucket");
    }

    #[test]
    fn what_is_no_url_of_a_server_is_refused_and_no_password_repeated() {
        for bad in [
            "/var/crash",
            "ftp://host/",
            "tcp://",
            "tcp:///x",
            "tcp://[::1",
            "tcp://[::1]x",
            "tcp://a b/",
            "tcp://h:0/",
            "tcp://h:65536/",
            "tcp://h:/",
            "tcp://h/a//b",
            "tcp://h/../b",
            "tcp://h/a\nb",
            "https://h/a?b",
        ] {
            assert!(Url::parse(bad).is_err(), "{bad}");
        }
        let error = Url::parse("https://user:hunter2@host/").unwrap_err();
        assert_eq!(error, Error::HasUser);
        assert!(!error.to_string().contains("hunter2"));
    }
}

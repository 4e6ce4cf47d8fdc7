//! A server that takes uploads. What is spoken to it is not this crate's business: whoever arms brings a [`Client`] that
//! knows, and what it wants to tell kdump-init travels as it is.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::Error;
use crate::network::Destination;

/// Looks at an upload's URL and the keys of its table: where it leads, and what kdump-init is to know.
pub type Client = fn(&str, &toml::Table) -> Result<Contact, Box<dyn std::error::Error + Send + Sync>>;

/// What a [`Client`] has found out.
#[derive(Clone, Debug, PartialEq)]
pub struct Contact {
    /// The server.
    pub destination: Destination,
    /// For kdump-init.
    pub options: Sealed,
}

/// A server of a ladder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Server {
    /// Where to, without secrets.
    pub url: String,
    /// The server's name.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// How it is spoken to.
    #[serde(skip)]
    pub options: Sealed,
}

impl Server {
    pub(super) fn resolve(url: &str, keys: &toml::Table, client: Client) -> Result<Self, Error> {
        let found =
            client(url, keys).map_err(|source| Error::Server { url: without_secrets(url), source })?;
        let Contact { destination: Destination { host, port, addresses }, options } = found;
        Ok(Self { url: url.to_owned(), host, port, addresses, options })
    }

    pub(super) fn destination(&self) -> Destination {
        Destination { host: self.host.clone(), port: self.port, addresses: self.addresses.clone() }
    }

    pub(super) fn describe(&self) -> String {
        let addresses: Vec<_> = self.addresses.iter().map(IpAddr::to_string).collect();
        format!("{} ({} port {})", self.url, addresses.join(", "), self.port)
    }
}

/// A table with secrets in it. It is written to the configuration in the initramfs, and nowhere else.
#[derive(Clone, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Sealed(toml::Table);

impl Sealed {
    /// Takes a table.
    #[must_use]
    pub const fn new(table: toml::Table) -> Self {
        Self(table)
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({} keys)", self.0.len())
    }
}

/// A URL for messages: a password in it is nobody's business.
fn without_secrets(url: &str) -> String {
    match url.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.split_once('@')?))) {
        Some((scheme, (_, rest))) => format!("{scheme}://…@{rest}"),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(url: &str, keys: &toml::Table) -> Result<Contact, Box<dyn std::error::Error + Send + Sync>> {
        let host = url.strip_prefix("tcp://").ok_or("that is no receiver")?;
        let destination = Destination::resolve(host, 5663)?;
        Ok(Contact { destination, options: Sealed::new(keys.clone()) })
    }

    #[test]
    fn a_secret_is_told_to_nobody_but_kdump_init() {
        let keys: toml::Table = "token = \"hunter2\"".parse().unwrap();
        let server = Server::resolve("tcp://192.0.2.7", &keys, client).unwrap();
        assert_eq!(server.describe(), "tcp://192.0.2.7 (192.0.2.7 port 5663)");
        let state = serde_json::to_string(&server).unwrap();
        assert!(!format!("{server:?} {state}").contains("hunter2"), "{state}");
        assert_eq!(serde_json::from_str::<Server>(&state).unwrap().addresses, server.addresses);
        assert!(toml::to_string(&server.options).unwrap().contains("hunter2"));
    }

    #[test]
    fn what_the_client_says_is_told_without_the_password() {
        let error = Server::resolve("https://me:secret@dumps.example/x", &toml::Table::new(), client);
        let error = error.unwrap_err();
        assert!(error.to_string().contains("dumps.example/x") && !error.to_string().contains("secret"));
        let cause = std::error::Error::source(&error).unwrap();
        assert_eq!(cause.to_string(), "that is no receiver");
    }
}

//! Somewhere a dump can go that takes bytes in order and never gives them back: a server, a pipe, a
//! raw partition.
//!
//! A directory on a local file system is not one of these: there, bytes go to offsets and the file
//! gets its name when it is whole ([`crate::durable`]).
//!
//! [`open`] gives the client for a URL: `sender` for our own [`receiver`], `http` for servers that take PUT, `s3`
//! for buckets. What all of them promise, and each of them does not, is in docs/targets.md.

mod dial;
mod http;
mod options;
pub mod protocol;
pub mod receiver;
mod s3;
mod secret;
mod sender;
mod tls;
pub mod url;
mod window;

use std::io;

pub use options::{RemoteOptions, RemoteSettings, S3Options, SettingsError};
pub use secret::Secret;

use url::{Scheme, Url};

/// A place that stores files under names, each written once from its beginning to its end.
pub trait Remote {
    /// For messages: what it is and where, without credentials.
    fn describe(&self) -> String;

    /// Stores a small file whole.
    ///
    /// # Errors
    /// Unless the other side says that it is durable.
    fn put(&mut self, name: &str, bytes: &[u8]) -> io::Result<()>;

    /// Begins a file whose length is not known yet.
    ///
    /// # Errors
    /// If the other side refuses, or cannot be reached.
    fn begin<'a>(&'a mut self, name: &str) -> io::Result<Box<dyn Upload + 'a>>;
}

/// A file on its way to a [`Remote`]. Dropped before [`Upload::finish`], it does not get its name there; what
/// arrived stays under `NAME.partial` where the other side can do that.
pub trait Upload: io::Write {
    /// Ends the file and gives it its name. Returns its length.
    ///
    /// # Errors
    /// Unless the other side says that all of it is durable.
    fn finish(self: Box<Self>) -> io::Result<u64>;
}

/// Name or address, and port, of the server that a URL and its options lead to: what the network is recorded for when
/// the machine is armed.
///
/// # Errors
/// `InvalidInput` if the URL is none.
pub fn peer(url: &str, options: &RemoteOptions) -> io::Result<(String, u16)> {
    let url = parse(url)?;
    let url = if url.scheme == Scheme::S3 { s3::endpoint(&options.s3)? } else { url };
    Ok((url.host, url.port))
}

fn parse(url: &str) -> io::Result<Url> {
    Url::parse(url).map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e.to_string()))
}

/// The client for a URL. Nothing is sent yet: `arm` calls it to see whether URL and options suffice.
///
/// # Errors
/// `InvalidInput` if the URL is none, or the options do not suffice for it.
pub fn open(url: &str, options: &RemoteOptions) -> io::Result<Box<dyn Remote>> {
    let url = parse(url)?;
    match url.scheme {
        Scheme::Tcp | Scheme::Tls => {
            let directory = options.below(&url.path);
            if directory.is_empty() {
                let why = "a receiver needs a directory for the dump";
                return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
            }
            let place = format!("{}/{}", url.authority(protocol::PORT), url.path);
            let (token, patience) = (options.token.reveal(), options.patience());
            Ok(Box::new(sender::Sender::new(options.server(&url)?, place, directory, token, patience)?))
        }
        Scheme::Http | Scheme::Https => Ok(Box::new(http::put::HttpPut::new(&url, options)?)),
        Scheme::S3 => Ok(Box::new(s3::S3::new(&url, options)?)),
    }
}

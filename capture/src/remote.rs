//! Somewhere a dump can go that takes bytes in order and never gives them back: a server, a pipe, a
//! raw partition.
//!
//! A directory on a local file system is not one of these: there, bytes go to offsets and the file
//! gets its name when it is whole ([`crate::durable`]).

use std::io;

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

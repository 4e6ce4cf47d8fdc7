//! PUT to a server that knows nothing of dumps: nginx or Apache with WebDAV, or whatever takes a PUT.
//!
//! Such a server cannot go on with a file that broke off. So there are two ways: the whole file in one request, which
//! begins anew when the connection breaks; or, with [`RemoteOptions::parts`], parts of their own names that are small
//! enough to be kept here until they arrived, and a list of them at the end.

use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::{Client, Head, Streaming};
use crate::digest::hex;
use crate::remote::dial::{Retry, with};
use crate::remote::url::{Url, encode};
use crate::remote::{Remote, RemoteOptions, Secret, Upload};

/// Bytes that are kept here: of a part, until it arrived.
pub(crate) const PART: usize = 8 << 20;
/// Bytes of a chunk.
const CHUNK: usize = 256 << 10;

/// A server that takes PUT.
#[derive(Debug)]
pub(crate) struct HttpPut {
    client: Client,
    place: String,
    directory: String,
    authorization: Secret,
    parts: bool,
    patience: Duration,
    is_made: bool,
}

impl HttpPut {
    pub fn new(url: &Url, options: &RemoteOptions) -> io::Result<Self> {
        if options.authorization.reveal().contains(['\r', '\n']) {
            let why = "the value of the Authorization header has more than one line";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        let (scheme, usual) = if url.scheme.is_tls() { ("https", 443) } else { ("http", 80) };
        let authority = url.authority(usual);
        let directory = options.below(&url.path);
        Ok(Self {
            client: Client::new(options.server(url)?, authority.clone()),
            place: format!("{scheme}://{authority}/{directory}"),
            directory,
            authorization: options.authorization.clone(),
            parts: options.parts,
            patience: options.patience(),
            is_made: false,
        })
    }

    fn head(&self, method: &'static str, path: &str) -> Head {
        let mut headers = vec![];
        if !self.authorization.is_empty() {
            headers.push(("authorization", self.authorization.reveal().to_owned()));
        }
        if method == "PUT" {
            headers.push(("content-type", "application/octet-stream".to_owned()));
        }
        Head { method, target: format!("/{}", encode(path, true)), headers }
    }

    fn path(&self, name: &str) -> String {
        if self.directory.is_empty() { name.to_owned() } else { format!("{}/{name}", self.directory) }
    }

    /// Stores bytes under a name, and tries again while that makes sense.
    fn store(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let head = self.head("PUT", &self.path(name));
        let mut retry = Retry::new(self.patience);
        loop {
            let error = match self.client.request(&head, bytes) {
                Ok(response) if response.is_success() => return Ok(()),
                Ok(response) if response.status == 409 && !self.is_made => {
                    self.make_directories()?;
                    continue;
                }
                Ok(response) => response.error("PUT"),
                Err(e) => e,
            };
            retry.again(error).map_err(|e| with(e, &format!("{}/{name}", self.place)))?;
        }
    }

    /// WebDAV wants the directories to be there.
    fn make_directories(&mut self) -> io::Result<()> {
        self.is_made = true;
        let mut path = String::new();
        for part in self.directory.clone().split('/') {
            path.push_str(part);
            path.push('/');
            // 405 where it exists; what else there is to say, PUT will.
            self.client.request(&self.head("MKCOL", &path), &[])?;
        }
        Ok(())
    }
}

impl Remote for HttpPut {
    fn describe(&self) -> String {
        self.place.clone()
    }

    fn put(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.store(name, bytes)
    }

    fn begin<'a>(&'a mut self, name: &str) -> io::Result<Box<dyn Upload + 'a>> {
        if self.parts {
            let buffer = room(PART)?;
            let name = name.to_owned();
            let whole = Sha256::new();
            return Ok(Box::new(Parts { server: self, name, buffer, length: 0, whole, parts: Vec::new() }));
        }
        let head = self.head("PUT", &self.path(name));
        let place = format!("{}/{name}", self.place);
        let buffer = room(CHUNK)?;
        let mut retry = Retry::new(self.patience);
        let streaming = loop {
            match self.client.begin(&head) {
                Ok(streaming) => break streaming,
                Err(e) => retry.again(e).map_err(|e| with(e, &place))?,
            }
        };
        Ok(Box::new(Whole { streaming, place, buffer, length: 0 }))
    }
}

/// Memory, taken before it is needed.
pub(crate) fn room(size: usize) -> io::Result<Vec<u8>> {
    let mut room = Vec::new();
    room.try_reserve_exact(size).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
    Ok(room)
}

/// A file in one request.
struct Whole {
    streaming: Streaming,
    place: String,
    buffer: Vec<u8>,
    length: u64,
}

impl Whole {
    fn broke(&self, e: io::Error) -> io::Error {
        let place =
            format!("{} broke off at {}, and a server of this kind cannot go on", self.place, self.length);
        with(e, &place)
    }
}

impl Write for Whole {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let taken = buf.len().min(CHUNK - self.buffer.len());
        self.buffer.extend_from_slice(&buf[..taken]);
        if self.buffer.len() == CHUNK {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.streaming.send(&self.buffer).map_err(|e| self.broke(e))?;
        self.length += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

impl Upload for Whole {
    fn finish(mut self: Box<Self>) -> io::Result<u64> {
        self.flush()?;
        let Self { streaming, place, length, .. } = *self;
        let response = streaming.finish().map_err(|e| with(e, &place))?;
        if response.is_success() { Ok(length) } else { Err(with(response.error("PUT"), &place)) }
    }
}

/// A file in parts.
struct Parts<'a> {
    server: &'a mut HttpPut,
    name: String,
    buffer: Vec<u8>,
    length: u64,
    whole: Sha256,
    parts: Vec<Part>,
}

/// What is said of a part in the list.
#[derive(Serialize)]
struct Part {
    name: String,
    length: u64,
    sha256: String,
}

/// The list, `NAME.parts.json`. Without it the parts are of a file that did not end.
#[derive(Serialize)]
struct PartList {
    length: u64,
    sha256: String,
    parts: Vec<Part>,
}

impl Parts<'_> {
    fn send(&mut self) -> io::Result<()> {
        let name = format!("{}.part-{:05}", self.name, self.parts.len());
        self.server.store(&name, &self.buffer)?;
        self.whole.update(&self.buffer);
        let length = self.buffer.len() as u64;
        self.parts.push(Part { name, length, sha256: hex(&Sha256::digest(&self.buffer)) });
        self.length += length;
        self.buffer.clear();
        Ok(())
    }
}

impl Write for Parts<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if self.buffer.len() == PART {
            self.send()?;
        }
        let taken = buf.len().min(PART - self.buffer.len());
        self.buffer.extend_from_slice(&buf[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Upload for Parts<'_> {
    fn finish(mut self: Box<Self>) -> io::Result<u64> {
        if !self.buffer.is_empty() || self.parts.is_empty() {
            self.send()?;
        }
        let parts = std::mem::take(&mut self.parts);
        let list = PartList { length: self.length, sha256: hex(&self.whole.clone().finalize()), parts };
        let list = serde_json::to_vec_pretty(&list)?;
        self.server.store(&format!("{}.parts.json", self.name), &list)?;
        Ok(self.length)
    }
}

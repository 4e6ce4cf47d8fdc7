//! As much of HTTP/1.1 as it takes to give something to a server: requests with a body that is in memory or comes in
//! pieces, and short answers.
//!
//! Own code, since a client library takes a body that it can pull, where a dump is pushed, and does not let a
//! certificate be known by its fingerprint.
//!
//! Source: RFC 9110, RFC 9112.

pub(crate) mod put;
#[cfg(test)]
mod tests;

use std::io::{self, Read as _, Write as _};
use std::time::Duration;

use super::dial::{Connection, SILENCE, Server};

/// Bytes of an answer's head, and of its body.
const MAX_HEAD: usize = 16 << 10;
const MAX_BODY: usize = 64 << 10;
/// A server that says nothing to `Expect: 100-continue` for so long does not know it.
const EXPECTATION: Duration = Duration::from_secs(2);
/// A server may take its time to bring a large file to its disk.
const LONG_SILENCE: Duration = Duration::from_secs(120);

/// The head of a request, but for what each has.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub method: &'static str,
    /// Path and query, encoded.
    pub target: String,
    pub headers: Vec<(&'static str, String)>,
}

/// An answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Response {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    pub const fn is_success(&self) -> bool {
        matches!(self.status, 200..=299)
    }

    /// The server's no, as an error that is worth another try or not.
    pub fn error(&self, what: &str) -> io::Error {
        let kind = match self.status {
            401 | 403 | 407 => io::ErrorKind::PermissionDenied,
            413 => io::ErrorKind::FileTooLarge,
            507 => io::ErrorKind::StorageFull,
            408 | 425 | 429 | 500 | 502..=504 => io::ErrorKind::Other,
            _ => io::ErrorKind::Unsupported,
        };
        io::Error::new(kind, format!("the server answers {what} with {}{}", self.status, self.reason()))
    }

    fn reason(&self) -> &'static str {
        match self.status {
            401 => " (it wants credentials)",
            403 => " (forbidden)",
            404 => " (not found)",
            405 => " (it does not allow this method here)",
            409 => " (the directory is not there, and cannot be made)",
            411 => " (it wants to know the length before: send in parts)",
            413 => " (too large for it)",
            507 => " (its disk is full)",
            _ => "",
        }
    }

    fn wants_close(&self) -> bool {
        self.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

/// A server, and the connection to it while that lasts.
#[derive(Debug)]
pub(crate) struct Client {
    server: Server,
    /// Value of the Host header.
    host: String,
    wire: Option<Wire>,
}

impl Client {
    pub fn new(server: Server, host: String) -> Self {
        Self { server, host, wire: None }
    }

    /// Value of the Host header.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Makes a request; a connection that the server closed meanwhile is replaced.
    pub fn request(&mut self, head: &Head, body: &[u8]) -> io::Result<Response> {
        let was_open = self.wire.is_some();
        match self.request_once(head, body) {
            Err(_) if was_open => self.request_once(head, body),
            result => result,
        }
    }

    fn request_once(&mut self, head: &Head, body: &[u8]) -> io::Result<Response> {
        let mut wire = self.take_wire()?;
        let mut bytes = self.head_bytes(head);
        bytes.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
        let sent = wire.send(bytes.as_bytes()).and_then(|()| wire.send(body));
        let response = wire.answer_after(sent, head.method)?;
        self.keep(wire, &response);
        Ok(response)
    }

    /// Begins a request whose body comes in pieces; the server may say no before it comes.
    pub fn begin(&mut self, head: &Head) -> io::Result<Streaming> {
        // A connection that may be stale is not worth a body that cannot be had twice.
        self.wire = None;
        let mut wire = self.take_wire()?;
        let mut bytes = self.head_bytes(head);
        bytes.push_str("transfer-encoding: chunked\r\nexpect: 100-continue\r\n\r\n");
        wire.send(bytes.as_bytes())?;
        wire.connection.set_read_timeout(EXPECTATION)?;
        match wire.read_head() {
            Ok(response) if response.status == 100 => {}
            Ok(response) => return Err(response.error(head.method)),
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(e) => return Err(e),
        }
        wire.connection.set_read_timeout(SILENCE)?;
        Ok(Streaming { wire, method: head.method })
    }

    fn take_wire(&mut self) -> io::Result<Wire> {
        match self.wire.take() {
            Some(wire) => Ok(wire),
            None => Ok(Wire { connection: self.server.connect()?, buffer: Vec::new() }),
        }
    }

    fn keep(&mut self, wire: Wire, response: &Response) {
        if !response.wants_close() {
            self.wire = Some(wire);
        }
    }

    fn head_bytes(&self, head: &Head) -> String {
        let version = env!("CARGO_PKG_VERSION");
        let mut text = format!(
            "{} {} HTTP/1.1\r\nhost: {}\r\nuser-agent: kdump-rs/{version}\r\n",
            head.method, head.target, self.host
        );
        for (name, value) in &head.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text
    }
}

/// A request whose body is on its way.
#[derive(Debug)]
pub(crate) struct Streaming {
    wire: Wire,
    method: &'static str,
}

impl Streaming {
    /// Sends a piece of the body, which must not be empty: that would be the end.
    pub fn send(&mut self, piece: &[u8]) -> io::Result<()> {
        let sent = self.wire.send_chunk(piece);
        if sent.is_ok() {
            return Ok(());
        }
        // A server that does not want the rest says so and hangs up.
        match self.wire.answer_after(sent, self.method) {
            Ok(response) => Err(response.error(self.method)),
            Err(e) => Err(e),
        }
    }

    /// Ends the body.
    pub fn finish(mut self) -> io::Result<Response> {
        let sent = self.wire.send(b"0\r\n\r\n");
        self.wire.answer_after(sent, self.method)
    }
}

/// A connection, and what was read of it too far.
#[derive(Debug)]
struct Wire {
    connection: Connection,
    buffer: Vec<u8>,
}

impl Wire {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.connection.write_all(bytes)?;
        self.connection.flush()
    }

    fn send_chunk(&mut self, piece: &[u8]) -> io::Result<()> {
        self.connection.write_all(format!("{:x}\r\n", piece.len()).as_bytes())?;
        self.connection.write_all(piece)?;
        self.send(b"\r\n")
    }

    /// The answer to what was sent, even if the server did not take all of it.
    fn answer_after(&mut self, sent: io::Result<()>, method: &str) -> io::Result<Response> {
        self.connection.set_read_timeout(if sent.is_ok() { LONG_SILENCE } else { EXPECTATION })?;
        let answer = self.answer(method);
        self.connection.set_read_timeout(SILENCE)?;
        match (sent, answer) {
            (_, Ok(answer)) => Ok(answer),
            (Err(e), Err(_)) => Err(e),
            (Ok(()), Err(e)) => Err(e),
        }
    }

    fn answer(&mut self, method: &str) -> io::Result<Response> {
        let mut response = self.read_head()?;
        while matches!(response.status, 100..=199) {
            response = self.read_head()?;
        }
        let is_chunked =
            response.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
        let length = response.header("content-length").map(str::to_owned);
        response.body = if method == "HEAD" || matches!(response.status, 204 | 304) {
            Vec::new()
        } else if is_chunked {
            self.read_chunked()?
        } else if let Some(length) = length {
            let length = length.trim().parse().ok().filter(|&length| length <= MAX_BODY);
            self.take(length.ok_or_else(|| broken("an answer of a length that is no answer's"))?)?
        } else {
            response.headers.push(("connection".into(), "close".into()));
            self.read_to_end()?
        };
        Ok(response)
    }

    fn read_head(&mut self) -> io::Result<Response> {
        let end = loop {
            if let Some(end) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                break end;
            }
            if self.buffer.len() > MAX_HEAD {
                return Err(broken("an answer without an end to its head"));
            }
            self.fill()?;
        };
        let head: Vec<u8> = self.buffer.drain(..end + 4).collect();
        parse_head(&head).ok_or_else(|| broken("what answers does not speak HTTP"))
    }

    /// Reads more.
    fn fill(&mut self) -> io::Result<()> {
        let mut piece = [0; 4096];
        match self.connection.read(&mut piece)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            n => {
                self.buffer.extend_from_slice(&piece[..n]);
                Ok(())
            }
        }
    }

    fn take(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < length {
            self.fill()?;
        }
        Ok(self.buffer.drain(..length).collect())
    }

    fn read_to_end(&mut self) -> io::Result<Vec<u8>> {
        while self.buffer.len() <= MAX_BODY {
            match self.fill() {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                    return Ok(std::mem::take(&mut self.buffer));
                }
                Err(e) => return Err(e),
            }
        }
        Err(broken("an answer without an end"))
    }

    fn read_chunked(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.read_line()?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).ok().filter(|&size| size <= MAX_BODY - body.len());
            let size = size.ok_or_else(|| broken("a chunk of a length that is no answer's"))?;
            if size == 0 {
                // Trailers, up to an empty line.
                while !self.read_line()?.is_empty() {}
                return Ok(body);
            }
            body.extend(self.take(size)?);
            self.take(2)?;
        }
    }

    fn read_line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|w| w == b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..end + 2).collect();
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            if self.buffer.len() > MAX_HEAD {
                return Err(broken("a line without an end"));
            }
            self.fill()?;
        }
    }
}

fn broken(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, why)
}

fn parse_head(head: &[u8]) -> Option<Response> {
    let text = String::from_utf8_lossy(head);
    let mut lines = text.split("\r\n");
    let mut words = lines.next()?.splitn(3, ' ');
    if !words.next()?.starts_with("HTTP/1.") {
        return None;
    }
    let status = words.next()?.parse().ok()?;
    let headers = lines.filter(|line| !line.is_empty()).map(|line| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_ascii_lowercase(), value.trim().to_owned()))
    });
    Some(Response { status, headers: headers.collect::<Option<_>>()?, body: Vec::new() })
}

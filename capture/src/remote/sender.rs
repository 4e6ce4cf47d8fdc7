//! Sending to our own receiver: what is not known to be durable there is kept here, so that a broken connection is
//! taken up again where the receiver's disk has it.

use std::io::{self, Read as _, Write};
use std::time::Duration;

use ring::hmac;
use ring::rand::{SecureRandom as _, SystemRandom};
use sha2::{Digest as _, Sha256};

use super::dial::{Connection, Retry, SILENCE, Server, with};
use super::protocol::{
    self, Frame, Kind, MAX_PAYLOAD, NONCE, RECEIVER_MAGIC, Refusal, SENDER_MAGIC, SESSION, WINDOW,
    read_frame, write_frame,
};
use super::window::Window;
use super::{Remote, Upload};

/// Bringing a large file's last bytes to a disk, or reading it all for its digest after a break.
const LONG_SILENCE: Duration = Duration::from_secs(120);

/// Our receiver, from the sending side.
#[derive(Debug)]
pub(crate) struct Sender {
    server: Server,
    /// `HOST:PORT/PATH`, for messages.
    place: String,
    /// Path of the dump there.
    directory: String,
    key: hmac::Key,
    session: [u8; SESSION],
    patience: Duration,
    connection: Option<Connection>,
}

impl Sender {
    pub fn new(
        server: Server,
        place: String,
        directory: String,
        token: &str,
        patience: Duration,
    ) -> io::Result<Self> {
        let mut session = [0; SESSION];
        SystemRandom::new().fill(&mut session).map_err(|_| io::Error::other("no random numbers"))?;
        let key = protocol::key_of(token);
        Ok(Self { server, place, directory, key, session, patience, connection: None })
    }

    fn path(&self, name: &str) -> io::Result<String> {
        let path =
            if self.directory.is_empty() { name.to_owned() } else { format!("{}/{name}", self.directory) };
        if protocol::is_path(&path) {
            return Ok(path);
        }
        let why =
            format!("{path:?} is no path for a receiver: up to eight components of letters, digits, . _ -");
        Err(io::Error::new(io::ErrorKind::InvalidInput, why))
    }

    /// The connection, greeted; a new one if there is none.
    fn connection(&mut self) -> io::Result<&mut Connection> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.greet()?,
        };
        Ok(self.connection.insert(connection))
    }

    fn greet(&self) -> io::Result<Connection> {
        let mut connection = self.server.connect()?;
        let mut greeting = [0; RECEIVER_MAGIC.len() + NONCE];
        connection.read_exact(&mut greeting)?;
        let (magic, nonce) = greeting.split_at(RECEIVER_MAGIC.len());
        if magic != RECEIVER_MAGIC {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "what answers is no `kdump-rs receive` of this version",
            ));
        }
        let mut for_answer = [0; NONCE];
        for_answer.copy_from_slice(nonce);
        let answer = protocol::answer(&self.key, &for_answer, &self.session);
        connection.write_all(&[&SENDER_MAGIC[..], &self.session, &answer].concat())?;
        connection.flush()?;
        Ok(connection)
    }

    /// Sends a frame and waits for the one that answers it.
    fn ask(&mut self, kind: Kind, offset: u64, payload: &[u8], limit: Duration) -> io::Result<Frame> {
        let connection = self.connection()?;
        connection.set_read_timeout(limit)?;
        write_frame(connection, kind, offset, payload).map_err(|e| refusal_or(connection, e))?;
        loop {
            let frame = read_answer(connection)?;
            // Of data that was sent before.
            if frame.kind != Kind::ACK {
                connection.set_read_timeout(SILENCE)?;
                return Ok(frame);
            }
        }
    }
}

/// Reads a frame; a receiver's no is an error.
fn read_answer(connection: &mut Connection) -> io::Result<Frame> {
    let frame = read_frame(connection)?;
    if frame.kind != Kind::ERROR {
        return Ok(frame);
    }
    let said = String::from_utf8_lossy(&frame.payload).into_owned();
    Err(io::Error::new(Refusal(frame.offset).kind(), format!("the receiver says: {said}")))
}

/// Why a receiver hung up: it says so before, while we write.
fn refusal_or(connection: &mut Connection, e: io::Error) -> io::Error {
    for _ in 0..WINDOW as u64 / protocol::ACK_EVERY + 2 {
        match read_answer(connection) {
            Ok(_) => {}
            Err(said) if said.to_string().starts_with("the receiver says") => return said,
            Err(_) => break,
        }
    }
    e
}

fn unexpected(frame: &Frame) -> io::Error {
    let why = format!("the receiver answers with a frame of kind {} at {}", frame.kind.0, frame.offset);
    io::Error::new(io::ErrorKind::InvalidData, why)
}

impl Remote for Sender {
    fn describe(&self) -> String {
        format!("receiver {}", self.place)
    }

    fn put(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut upload = self.begin(name)?;
        upload.write_all(bytes)?;
        upload.finish().map(drop)
    }

    fn begin<'a>(&'a mut self, name: &str) -> io::Result<Box<dyn Upload + 'a>> {
        let path = self.path(name)?;
        let patience = self.patience;
        let mut sending = Sending {
            sender: self,
            path,
            window: Window::new(WINDOW)?,
            sent: 0,
            digest: Sha256::new(),
            retry: Retry::new(patience),
            is_done: false,
        };
        sending.open()?;
        Ok(Box::new(sending))
    }
}

/// A file on its way.
struct Sending<'a> {
    sender: &'a mut Sender,
    path: String,
    /// What the receiver has not called durable.
    window: Window,
    /// How far the file was sent on this connection.
    sent: u64,
    digest: Sha256,
    retry: Retry,
    is_done: bool,
}

impl Sending<'_> {
    /// Does `work` until it succeeds, on a new connection each time, as long as that makes sense.
    fn insist<T>(&mut self, work: impl Fn(&mut Self) -> io::Result<T>) -> io::Result<T> {
        loop {
            let error = match work(self) {
                Ok(done) => {
                    return Ok(done);
                }
                Err(e) => e,
            };
            self.sender.connection = None;
            let place = format!("{}/{} at {}", self.sender.place, self.path, self.window.end());
            self.retry.again(error).map_err(|e| with(e, &place))?;
        }
    }

    fn open(&mut self) -> io::Result<()> {
        self.insist(|s| s.take_up().map(drop))
    }

    /// Has the receiver open the file where its disk has it, where that is not so yet. Gives what it says it has,
    /// if it has the file whole.
    fn take_up(&mut self) -> io::Result<Option<Frame>> {
        if self.sender.connection.is_some() && self.window.is_used() {
            return Ok(None);
        }
        let from = self.window.start();
        let path = self.path.clone();
        let frame = self.sender.ask(Kind::OPEN, from, path.as_bytes(), LONG_SILENCE)?;
        match frame.kind {
            Kind::AT if frame.offset == from => {
                self.sent = from;
                self.window.set_used();
                Ok(None)
            }
            Kind::HAVE => Ok(Some(frame)),
            _ => Err(unexpected(&frame)),
        }
    }

    /// Sends what was not sent yet.
    fn send(&mut self) -> io::Result<()> {
        if let Some(have) = self.take_up()? {
            return Err(unexpected(&have));
        }
        while self.sent < self.window.end() {
            let connection = self.sender.connection()?;
            let piece = self.window.piece(self.sent, MAX_PAYLOAD);
            write_frame(connection, Kind::DATA, self.sent, piece).map_err(|e| refusal_or(connection, e))?;
            self.sent += piece.len() as u64;
        }
        Ok(())
    }

    /// Waits until the receiver has brought something to its disk.
    fn await_ack(&mut self) -> io::Result<()> {
        self.send()?;
        let frame = read_answer(self.sender.connection()?)?;
        if frame.kind != Kind::ACK || frame.offset > self.sent {
            return Err(unexpected(&frame));
        }
        if self.window.drop_until(frame.offset) > 0 {
            self.retry.progress();
        }
        Ok(())
    }

    /// Ends the file. If the connection broke after the receiver had it whole, it still says so.
    fn end(&mut self, digest: &[u8]) -> io::Result<()> {
        let length = self.window.end();
        let frame = match self.take_up()? {
            Some(have) => have,
            None => {
                self.send()?;
                self.sender.ask(Kind::END, length, digest, LONG_SILENCE)?
            }
        };
        let has_all = match frame.kind {
            Kind::DONE => frame.offset == length,
            Kind::HAVE => frame.offset == length && frame.payload == digest,
            _ => false,
        };
        if has_all { Ok(()) } else { Err(unexpected(&frame)) }
    }
}

impl Write for Sending<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        while !buf.is_empty() && self.window.room() == 0 {
            self.insist(Self::await_ack)?;
        }
        let taken = self.window.push(buf);
        if let Some(bytes) = buf.get(..taken) {
            self.digest.update(bytes);
        }
        // Small writes go together.
        if self.window.end() - self.sent >= MAX_PAYLOAD as u64 {
            self.insist(Self::send)?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.insist(Self::send)
    }
}

impl Upload for Sending<'_> {
    fn finish(mut self: Box<Self>) -> io::Result<u64> {
        let digest = self.digest.clone().finalize();
        self.insist(|s| s.end(&digest))?;
        self.is_done = true;
        Ok(self.window.end())
    }
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        // The receiver is in the middle of a file that will not end.
        if !self.is_done {
            self.sender.connection = None;
        }
    }
}

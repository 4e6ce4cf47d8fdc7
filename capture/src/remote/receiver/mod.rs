//! `kdump-rs receive`: takes dumps from machines that crashed, and calls a byte durable only when the disk has it.
//!
//! One thread per connection. What a file has got to is in the file itself (`store`), so that a receiver which was
//! restarted goes on as one that was not. A sender may only write where its own dump is: a directory belongs to the
//! session that made it.

mod store;

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ring::hmac;
use ring::rand::{SecureRandom as _, SystemRandom};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::Secret;
use super::protocol::{
    self, Frame, Kind, MAX_TEXT, NONCE, RECEIVER_MAGIC, Refusal, SENDER_MAGIC, SESSION, read_frame,
    write_frame,
};
use store::{Claims, Store};

/// Connections at a time.
const MAX_CONNECTIONS: usize = 64;
/// A sender that has nothing to send for so long, filtering a large machine, connects again when it has.
const SILENCE: Duration = Duration::from_secs(300);
/// A sender that was refused reads that, and hangs up.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// A sender greets at once.
const GREETING: Duration = Duration::from_secs(10);

/// What a receiver is given.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where dumps go.
    pub dir: PathBuf,
    /// What senders must know; nothing if it is empty.
    pub token: Secret,
    /// Certificate chain and private key in PEM, for TLS.
    pub identity: Option<(String, Secret)>,
}

/// Something to be told about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A file begins, or goes on.
    Opened {
        /// The sender.
        peer: SocketAddr,
        /// The file, below the directory.
        path: String,
        /// From where.
        offset: u64,
    },
    /// A file is complete and durable.
    Stored {
        /// The sender.
        peer: SocketAddr,
        /// The file, below the directory.
        path: String,
        /// Its bytes.
        length: u64,
    },
    /// A connection ended otherwise than with a complete file.
    Broke {
        /// The sender.
        peer: SocketAddr,
        /// Why.
        why: String,
    },
}

/// A receiver.
pub struct Receiver {
    store: Store,
    key: Option<hmac::Key>,
    tls: Option<Arc<ServerConfig>>,
    connections: AtomicUsize,
    tell: Box<dyn Fn(Event) + Send + Sync>,
}

impl Receiver {
    /// Checks what it is given. `tell` hears what happens, from several threads.
    ///
    /// # Errors
    /// `InvalidInput` if certificate or key are none; what the operating system says of the directory.
    pub fn new(options: &Options, tell: impl Fn(Event) + Send + Sync + 'static) -> io::Result<Self> {
        let tls = options.identity.as_ref().map(|(chain, key)| server_config(chain, key)).transpose()?;
        Ok(Self {
            store: Store::open(&options.dir)?,
            key: (!options.token.is_empty()).then(|| protocol::key_of(options.token.reveal())),
            tls,
            connections: AtomicUsize::new(0),
            tell: Box::new(tell),
        })
    }

    /// Serves one connection after the other, each in a thread of its own, for ever.
    ///
    /// # Errors
    /// When the listener fails.
    pub fn serve(self: &Arc<Self>, listener: &TcpListener) -> io::Result<()> {
        loop {
            let (stream, peer) = match listener.accept() {
                Ok(accepted) => accepted,
                Err(e) if e.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(e) => return Err(e),
            };
            if self.connections.fetch_add(1, Ordering::Relaxed) >= MAX_CONNECTIONS {
                self.connections.fetch_sub(1, Ordering::Relaxed);
                (self.tell)(Event::Broke { peer, why: format!("more than {MAX_CONNECTIONS} connections") });
                continue;
            }
            let receiver = self.clone();
            let spawned = std::thread::Builder::new().name("connection".into()).spawn(move || {
                if let Err(e) = receiver.connection(stream, peer) {
                    (receiver.tell)(Event::Broke { peer, why: e.to_string() });
                }
                receiver.connections.fetch_sub(1, Ordering::Relaxed);
            });
            if let Err(e) = spawned {
                self.connections.fetch_sub(1, Ordering::Relaxed);
                (self.tell)(Event::Broke { peer, why: e.to_string() });
            }
        }
    }

    fn connection(&self, stream: TcpStream, peer: SocketAddr) -> io::Result<()> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(GREETING))?;
        stream.set_write_timeout(Some(SILENCE))?;
        let socket = stream.try_clone()?;
        let result = match &self.tls {
            None => self.converse(stream, &socket, peer),
            Some(config) => {
                let session = ServerConnection::new(config.clone()).map_err(io::Error::other)?;
                self.converse(StreamOwned::new(session, stream), &socket, peer)
            }
        };
        if result.is_err() {
            hear_out(&socket);
        }
        result
    }

    /// Greets, then takes files until the sender hangs up between two of them.
    fn converse(&self, mut wire: impl Read + Write, socket: &TcpStream, peer: SocketAddr) -> io::Result<()> {
        let session = match self.greet(&mut wire) {
            Ok(session) => session,
            Err(e) => return Err(self.refuse(&mut wire, &e)),
        };
        socket.set_read_timeout(Some(SILENCE))?;
        loop {
            let frame = match read_frame(&mut wire) {
                Ok(frame) => frame,
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                Err(e) => return Err(self.refuse(&mut wire, &e)),
            };
            if let Err(e) = self.file(&mut wire, &frame, &session, peer) {
                return Err(self.refuse(&mut wire, &e));
            }
        }
    }

    fn greet(&self, wire: &mut (impl Read + Write)) -> io::Result<[u8; SESSION]> {
        let mut nonce = [0; NONCE];
        SystemRandom::new().fill(&mut nonce).map_err(|_| io::Error::other("no random numbers"))?;
        wire.write_all(&[&RECEIVER_MAGIC[..], &nonce].concat())?;
        wire.flush()?;
        let mut greeting = [0; SENDER_MAGIC.len() + SESSION + NONCE];
        wire.read_exact(&mut greeting)?;
        let (magic, rest) = greeting.split_at(SENDER_MAGIC.len());
        let (id, answer) = rest.split_at(SESSION);
        if magic != SENDER_MAGIC {
            return Err(nonsense("the sender speaks another protocol"));
        }
        let mut session = [0; SESSION];
        session.copy_from_slice(id);
        let signed = [nonce.as_slice(), id].concat();
        match &self.key {
            Some(key) if hmac::verify(key, &signed, answer).is_err() => {
                Err(io::Error::new(io::ErrorKind::PermissionDenied, "the token is wrong, or missing"))
            }
            _ => Ok(session),
        }
    }

    /// Takes one file, whose OPEN is `open`.
    fn file(
        &self,
        wire: &mut (impl Read + Write),
        open: &Frame,
        session: &[u8; SESSION],
        peer: SocketAddr,
    ) -> io::Result<()> {
        if open.kind != Kind::OPEN {
            return Err(nonsense("a file must be opened first"));
        }
        let path = std::str::from_utf8(&open.payload).ok().filter(|path| protocol::is_path(path));
        let path = path.ok_or_else(|| nonsense("that is no path"))?;
        if open.offset > 0
            && let Some(have) = self.store.whole(path, session)?
        {
            (self.tell)(Event::Stored { peer, path: path.to_owned(), length: have.length });
            return write_frame(wire, Kind::HAVE, have.length, &have.digest);
        }
        let mut file = self.store.open_file(path, session, open.offset)?;
        (self.tell)(Event::Opened { peer, path: path.to_owned(), offset: open.offset });
        write_frame(wire, Kind::AT, open.offset, &[])?;
        loop {
            let frame = read_frame(wire).map_err(|e| {
                let why = match e.kind() {
                    io::ErrorKind::UnexpectedEof => "the sender is gone".to_owned(),
                    _ => e.to_string(),
                };
                io::Error::new(e.kind(), format!("{path} broke off at {}: {why}", file.length()))
            })?;
            match frame.kind {
                Kind::DATA => {
                    if let Some(durable) = file.append(frame.offset, &frame.payload)? {
                        write_frame(wire, Kind::ACK, durable, &[])?;
                    }
                }
                Kind::END => {
                    let length = file.commit(frame.offset, &frame.payload)?;
                    (self.tell)(Event::Stored { peer, path: path.to_owned(), length });
                    return write_frame(wire, Kind::DONE, length, &[]);
                }
                _ => return Err(nonsense("neither data nor end")),
            }
        }
    }

    /// Says no, if the sender is still there to hear it.
    fn refuse(&self, wire: &mut impl Write, e: &io::Error) -> io::Error {
        let refusal = match e.kind() {
            io::ErrorKind::PermissionDenied => Refusal::DENIED,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Refusal::FULL,
            io::ErrorKind::InvalidData => Refusal::PROTOCOL,
            io::ErrorKind::ConnectionAborted | io::ErrorKind::UnexpectedEof | io::ErrorKind::TimedOut => {
                Refusal::DAMAGED
            }
            _ => Refusal::FAILED,
        };
        let text = e.to_string();
        let _ = write_frame(wire, Kind::ERROR, refusal.0, &text.as_bytes()[..text.len().min(MAX_TEXT)]);
        io::Error::new(e.kind(), text)
    }
}

/// Takes what a sender has on its way, for a moment: a connection that is closed before is reset, and our last words with
/// it.
fn hear_out(mut socket: &TcpStream) {
    let begin = Instant::now();
    let _ = socket.shutdown(Shutdown::Write);
    let _ = socket.set_read_timeout(Some(LAST_WORDS));
    let mut piece = [0; 4096];
    let mut left = 2 * protocol::WINDOW;
    while left > 0 && begin.elapsed() < LAST_WORDS {
        match socket.read(&mut piece) {
            Ok(n @ 1..) => left = left.saturating_sub(n),
            _ => break,
        }
    }
}

fn nonsense(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

fn server_config(chain: &str, key: &Secret) -> io::Result<Arc<ServerConfig>> {
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, what.to_owned());
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain.as_bytes()).collect();
    let chain = chain.ok().filter(|chain| !chain.is_empty());
    let chain = chain.ok_or_else(|| invalid("the certificate file has no certificate in PEM"))?;
    let key = PrivateKeyDer::from_pem_slice(key.reveal().as_bytes())
        .map_err(|_| invalid("the key file has no private key in PEM"))?;
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| invalid(&e.to_string()))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|e| invalid(&format!("certificate and key do not serve: {e}")))?;
    Ok(Arc::new(config))
}

/// Which connection has a file now: the last one that opened it.
type Owners = Arc<Mutex<Claims>>;

fn lock(owners: &Owners) -> std::sync::MutexGuard<'_, Claims> {
    owners.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;

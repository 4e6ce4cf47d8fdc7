//! Connections to a server: its name resolved, or the addresses that were known when the machine was armed; every
//! wait bounded; and when to give up one that broke.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

/// A server in reach answers in a tenth of it.
const CONNECT: Duration = Duration::from_secs(10);
/// Longest silence that is believed to be a slow disk on the other side.
pub(crate) const SILENCE: Duration = Duration::from_secs(30);
/// Addresses of a name that are tried.
const MAX_ADDRESSES: usize = 8;

/// How a server is reached.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub host: String,
    pub port: u16,
    /// Known from before, for when the name cannot be resolved or what it resolves to does not answer.
    pub addresses: Vec<IpAddr>,
    /// Settings, where TLS is spoken.
    pub tls: Option<Arc<ClientConfig>>,
}

impl Server {
    /// Connects, and shakes hands where TLS is spoken.
    ///
    /// # Errors
    /// What the last address said; `InvalidData` if the server is not the one that it should be.
    pub fn connect(&self) -> io::Result<Connection> {
        let mut last = None;
        for address in self.find_addresses()? {
            match TcpStream::connect_timeout(&address, CONNECT) {
                Ok(stream) => return self.secure(stream).map_err(|e| with(e, &format!("{address}"))),
                Err(e) => last = Some(with(e, &format!("{address}"))),
            }
        }
        Err(last.unwrap_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no address")))
    }

    /// What the name resolves to now, then what is known from before.
    fn find_addresses(&self) -> io::Result<Vec<SocketAddr>> {
        let resolved = (self.host.as_str(), self.port).to_socket_addrs();
        let mut found: Vec<SocketAddr> = match resolved {
            Ok(found) => found.take(MAX_ADDRESSES).collect(),
            Err(e) if self.addresses.is_empty() => {
                return Err(io::Error::new(
                    io::ErrorKind::NotFound,
                    format!("{} has no address: {e}", self.host),
                ));
            }
            Err(_) => Vec::new(),
        };
        for &known in &self.addresses {
            let known = SocketAddr::new(known, self.port);
            if !found.contains(&known) {
                found.push(known);
            }
        }
        Ok(found)
    }

    fn secure(&self, stream: TcpStream) -> io::Result<Connection> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE))?;
        stream.set_write_timeout(Some(SILENCE))?;
        let Some(config) = &self.tls else { return Ok(Connection::Plain(stream)) };
        let name = ServerName::try_from(self.host.clone()).map_err(|_| {
            io::Error::new(io::ErrorKind::InvalidInput, "no name that a certificate can have")
        })?;
        let mut session = ClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
        let mut stream = stream;
        while session.is_handshaking() {
            session.complete_io(&mut stream).map_err(explain)?;
        }
        Ok(Connection::Tls(Box::new(StreamOwned::new(session, stream))))
    }
}

/// A server that is not the one it should be will not be later; whatever else TLS complains of, the network may have
/// done. Says more where the reason is a certificate of a kind that people make by hand.
fn explain(e: io::Error) -> io::Error {
    let inner = e.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let is_certificate =
        matches!(inner, Some(rustls::Error::InvalidCertificate(_) | rustls::Error::General(_)));
    if !is_certificate {
        return as_broken(e);
    }
    if e.to_string().contains("CaUsedAsEndEntity") {
        return io::Error::new(
            io::ErrorKind::InvalidData,
            "the server's certificate is that of the authority itself (CaUsedAsEndEntity): make one for the server, \
             or name it by its fingerprint instead of a CA file",
        );
    }
    io::Error::new(io::ErrorKind::InvalidData, e)
}

/// What TLS takes for damage is a connection that broke.
fn as_broken(e: io::Error) -> io::Error {
    if e.kind() == io::ErrorKind::InvalidData {
        io::Error::new(io::ErrorKind::ConnectionAborted, e)
    } else {
        e
    }
}

/// Puts words before an error, its kind kept.
pub(crate) fn with(e: io::Error, what: &str) -> io::Error {
    io::Error::new(e.kind(), format!("{what}: {e}"))
}

/// A connection.
#[derive(Debug)]
pub(crate) enum Connection {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Connection {
    /// Bounds how long a read waits.
    pub fn set_read_timeout(&self, limit: Duration) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.set_read_timeout(Some(limit)),
            Self::Tls(stream) => stream.sock.set_read_timeout(Some(limit)),
        }
    }
}

impl Read for Connection {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buf),
            Self::Tls(stream) => stream.read(buf).map_err(as_broken),
        }
    }
}

impl Write for Connection {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(buf),
            Self::Tls(stream) => stream.write(buf).map_err(as_broken),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush().map_err(as_broken),
        }
    }
}

/// Tries again what failed, with growing pauses, until nothing has come of it for long enough.
#[derive(Debug)]
pub(crate) struct Retry {
    patience: Duration,
    since: Instant,
    pause: Duration,
}

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

impl Retry {
    pub fn new(patience: Duration) -> Self {
        Self { patience, since: Instant::now(), pause: FIRST_PAUSE }
    }

    /// Something was achieved: the time for giving up begins anew.
    pub fn progress(&mut self) {
        *self = Self::new(self.patience);
    }

    /// Waits a little before another try.
    ///
    /// # Errors
    /// The error that was given, if another try makes no sense, or the time for it is over.
    pub fn again(&mut self, error: io::Error) -> io::Result<()> {
        if !is_passing(&error) || self.since.elapsed() + self.pause > self.patience {
            return Err(error);
        }
        std::thread::sleep(self.pause);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Ok(())
    }
}

/// Whether an error may be gone the next time: the network's, not the server's no.
pub(crate) fn is_passing(e: &io::Error) -> bool {
    !matches!(
        e.kind(),
        io::ErrorKind::PermissionDenied
            | io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge
            | io::ErrorKind::AlreadyExists
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::InvalidData
            | io::ErrorKind::Unsupported
            | io::ErrorKind::NotADirectory
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_known_when_armed_stands_in_for_a_name_that_does_not_resolve() {
        let server = |host: &str, known: &[&str]| Server {
            host: host.to_owned(),
            port: 9,
            addresses: known.iter().map(|a| a.parse().unwrap()).collect(),
            tls: None,
        };
        let found = server("no-such-host.invalid", &["192.0.2.1"]).find_addresses().unwrap();
        assert_eq!(found, ["192.0.2.1:9".parse().unwrap()]);
        assert!(server("no-such-host.invalid", &[]).find_addresses().is_err());
        let found = server("127.0.0.1", &["127.0.0.1", "192.0.2.1"]).find_addresses().unwrap();
        assert_eq!(found, ["127.0.0.1:9".parse().unwrap(), "192.0.2.1:9".parse().unwrap()]);
    }

    #[test]
    fn a_no_is_not_asked_for_twice_and_the_network_is() {
        let mut retry = Retry::new(Duration::from_millis(350));
        assert!(retry.again(io::ErrorKind::PermissionDenied.into()).is_err());
        assert!(retry.again(io::ErrorKind::ConnectionReset.into()).is_ok());
        assert!(retry.again(io::ErrorKind::ConnectionRefused.into()).is_ok());
        assert!(retry.again(io::ErrorKind::ConnectionRefused.into()).is_err(), "patience is over");
        retry.progress();
        assert!(retry.again(io::ErrorKind::ConnectionReset.into()).is_ok());
    }
}

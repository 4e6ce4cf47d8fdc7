//! `receive`: takes dumps that other machines send when they crash.

use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use kdump_capture::remote::receiver::{Event, Options, Receiver};
use kdump_capture::remote::{RemoteSettings, Secret, protocol};

use crate::exit::Exit;

/// Arguments.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Address to listen on; port 5663 unless it names one
    #[arg(long, value_name = "ADDRESS[:PORT]", default_value = "[::]")]
    listen: String,

    /// Directory that takes the dumps, each in one of its own
    #[arg(long, value_name = "DIR", default_value = "/var/crash")]
    dir: PathBuf,

    /// Certificate in PEM, its chain behind it: senders then use tls://, not tcp://
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,

    /// Private key of the certificate, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    /// File with a secret that senders must know; it does not go over the wire
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// Take dumps from anybody who reaches this port
    #[arg(long, conflicts_with = "token_file")]
    from_anybody: bool,
}

/// Runs it, until it is stopped.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    anyhow::ensure!(
        args.token_file.is_some() || args.from_anybody,
        "name a file with a secret that senders must know (--token-file), or take dumps from anybody (--from-anybody)"
    );
    let secret = |path: &Path| -> anyhow::Result<Secret> {
        let settings = RemoteSettings { token_file: Some(path.to_owned()), ..RemoteSettings::default() };
        Ok(settings.read()?.token)
    };
    let token = args.token_file.as_deref().map(secret).transpose()?.unwrap_or_default();
    if let Some(path) = &args.token_file {
        anyhow::ensure!(!token.is_empty(), "{} is empty", path.display());
    }
    let identity = match (&args.tls_cert, &args.tls_key) {
        (Some(cert), Some(key)) => {
            let chain = std::fs::read_to_string(cert).with_context(|| cert.display().to_string())?;
            Some((chain, secret(key)?))
        }
        _ => None,
    };
    let scheme = if identity.is_some() { "tls" } else { "tcp" };
    let receiver = Receiver::new(&Options { dir: args.dir.clone(), token, identity }, |event| tell(&event))?;
    let addresses = addresses(&args.listen)?;
    let listener = TcpListener::bind(addresses.as_slice())
        .with_context(|| format!("cannot listen on {}", args.listen))?;
    let address = listener.local_addr()?;
    writeln!(io::stdout(), "receiving into {} by {scheme}://{address}", args.dir.display())?;
    Arc::new(receiver).serve(&listener)?;
    Ok(Exit::Complete)
}

fn addresses(listen: &str) -> anyhow::Result<Vec<SocketAddr>> {
    if let Ok(address) = listen.trim_matches(['[', ']']).parse() {
        return Ok(vec![SocketAddr::new(address, protocol::PORT)]);
    }
    let found = listen.to_socket_addrs().or_else(|e| match listen.contains(':') {
        true => Err(e),
        false => (listen, protocol::PORT).to_socket_addrs(),
    });
    Ok(found.with_context(|| format!("{listen:?} is no address to listen on"))?.collect())
}

/// One line for each event. What cannot be written is not worth a dump.
fn tell(event: &Event) {
    let _ = match event {
        Event::Opened { peer, path, offset: 0 } => writeln!(io::stdout(), "{peer} sends {path}"),
        Event::Opened { peer, path, offset } => {
            writeln!(io::stdout(), "{peer} goes on with {path} at {offset}")
        }
        Event::Stored { peer, path, length } => {
            writeln!(io::stdout(), "{peer} has sent {path}: {length} bytes, on the disk")
        }
        Event::Broke { peer, why } => writeln!(io::stderr(), "kdump-rs: {peer}: {why}"),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_to_listen_on_needs_no_port() {
        for (text, expected) in [
            ("[::]", "[::]:5663"),
            ("::1", "[::1]:5663"),
            ("0.0.0.0", "0.0.0.0:5663"),
            ("127.0.0.1:99", "127.0.0.1:99"),
            ("[::1]:99", "[::1]:99"),
        ] {
            assert_eq!(addresses(text).unwrap(), [expected.parse().unwrap()], "{text}");
        }
        assert!(addresses("127.0.0.1:x").is_err() && addresses("").is_err());
    }
}

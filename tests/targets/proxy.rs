//! A way to a server that breaks.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

/// Passes bytes on, and hangs up on both sides when one of `cuts`, as many bytes on the way to the server, is over; then
/// passes on for ever. Gives its address.
pub fn start(to: SocketAddr, cuts: &'static [usize]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut cuts = cuts.iter().copied();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            // A server that is being restarted.
            let Ok(server) = TcpStream::connect(to) else { continue };
            let limit = cuts.next().unwrap_or(usize::MAX);
            thread::spawn(move || pass(client, server, limit));
        }
    });
    address
}

fn pass(mut client: TcpStream, mut server: TcpStream, limit: usize) {
    let (mut from, mut to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
    let back = thread::spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
    let mut left = limit;
    let mut buffer = vec![0; 1 << 16];
    while left > 0 {
        let want = buffer.len().min(left);
        let Ok(n @ 1..) = client.read(&mut buffer[..want]) else { break };
        if server.write_all(&buffer[..n]).is_err() {
            break;
        }
        left -= n;
    }
    if left == 0 {
        let _ = client.shutdown(Shutdown::Both);
        let _ = server.shutdown(Shutdown::Both);
    } else {
        let _ = server.shutdown(Shutdown::Write);
    }
    let _ = back.join();
}

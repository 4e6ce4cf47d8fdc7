use std::fs;
use std::io::Write;
use std::sync::mpsc;

use super::*;
use crate::remote::{Remote, RemoteOptions, open};

struct Running {
    dir: tempfile::TempDir,
    address: SocketAddr,
    events: mpsc::Receiver<Event>,
}

fn start(dir: tempfile::TempDir, token: &str) -> Running {
    let options =
        Options { dir: dir.path().to_owned(), token: Secret::new(token.to_owned()), identity: None };
    let (send, events) = mpsc::channel();
    let receiver = Receiver::new(&options, move |event| drop(send.send(event))).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || Arc::new(receiver).serve(&listener));
    Running { dir, address, events }
}

fn remote(address: SocketAddr, directory: &str, token: &str) -> Box<dyn Remote> {
    let options = RemoteOptions {
        directory: directory.to_owned(),
        token: Secret::new(token.to_owned()),
        patience: 5,
        ..RemoteOptions::default()
    };
    open(&format!("tcp://{address}/web1"), &options).unwrap()
}

/// Bytes that do not repeat.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Passes bytes on, and closes both sides after each of `cuts` bytes; then passes on for ever.
fn proxy(to: SocketAddr, cuts: Vec<usize>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut cuts = cuts.into_iter();
        for client in listener.incoming() {
            let (client, server) = (client.unwrap(), TcpStream::connect(to).unwrap());
            let mut left = cuts.next().unwrap_or(usize::MAX);
            let (mut back_from, mut back_to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            std::thread::spawn(move || {
                let _ = io::copy(&mut back_from, &mut back_to);
                let _ = back_to.shutdown(Shutdown::Both);
            });
            let (mut client, mut server) = (client, server);
            let mut buffer = [0; 1 << 16];
            while left > 0 {
                let want = buffer.len().min(left);
                let Ok(n @ 1..) = client.read(&mut buffer[..want]) else { break };
                if server.write_all(&buffer[..n]).is_err() {
                    break;
                }
                left -= n;
            }
            let _ = client.shutdown(Shutdown::Both);
            let _ = server.shutdown(Shutdown::Both);
        }
    });
    address
}

#[test]
fn files_arrive_whole_under_their_names() {
    let running = start(tempfile::tempdir().unwrap(), "token");
    let mut remote = remote(running.address, "20261123T134501Z-1f3a9c04", "token");
    remote.put("dmesg.txt", b"panic").unwrap();
    let bytes = noise(20 << 20);
    let mut upload = remote.begin("vmcore").unwrap();
    for piece in bytes.chunks(100_000) {
        upload.write_all(piece).unwrap();
    }
    let dir = running.dir.path().join("web1/20261123T134501Z-1f3a9c04");
    assert!(!dir.join("vmcore").exists() && dir.join("vmcore.partial").exists());
    assert_eq!(upload.finish().unwrap(), bytes.len() as u64);
    remote.put("manifest.json", b"").unwrap();
    assert!(fs::read(dir.join("vmcore")).unwrap() == bytes);
    assert!(!dir.join("vmcore.partial").exists());
    assert_eq!(fs::read(dir.join("dmesg.txt")).unwrap(), b"panic");
    assert_eq!(fs::read(dir.join("manifest.json")).unwrap(), b"");
    let stored = running.events.try_iter().filter(|event| matches!(event, Event::Stored { .. })).count();
    assert_eq!(stored, 3);
}

/// Check that breaks at any place, in the greeting, in a frame and after the end, cost nothing but time.
#[test]
fn a_broken_connection_is_taken_up_where_the_disk_has_it() {
    let running = start(tempfile::tempdir().unwrap(), "token");
    let bytes = noise(24 << 20);
    let whole = bytes.len() + bytes.len().div_ceil(256 << 10) * 20;
    let cuts = vec![30, 5 << 20, 100, 9 << 20, 11_111_111, whole];
    let mut remote = remote(proxy(running.address, cuts), "d", "token");
    let mut upload = remote.begin("vmcore").unwrap();
    upload.write_all(&bytes).unwrap();
    assert_eq!(upload.finish().unwrap(), bytes.len() as u64);
    assert!(fs::read(running.dir.path().join("web1/d/vmcore")).unwrap() == bytes);
    let opened: Vec<u64> = running
        .events
        .try_iter()
        .filter_map(|event| if let Event::Opened { offset, .. } = event { Some(offset) } else { None })
        .collect();
    assert!(opened.len() >= 4 && opened.iter().any(|&offset| offset > 0), "{opened:?}");
    assert!(opened.windows(2).all(|pair| pair[0] <= pair[1]), "{opened:?}");
}

/// Check that the sender learns that it was done when only the last word was lost.
#[test]
fn an_end_whose_answer_was_lost_is_not_sent_twice() {
    let running = start(tempfile::tempdir().unwrap(), "");
    let dir = running.dir.path().join("web1/d");
    let bytes = noise(9 << 20);
    let mut remote = remote(running.address, "d", "");
    let mut upload = remote.begin("vmcore").unwrap();
    upload.write_all(&bytes).unwrap();
    upload.flush().unwrap();
    // As if a sender of the same session had ended it, and the connection broken.
    let session = fs::read_to_string(dir.join(".session")).unwrap();
    let session: Vec<u8> =
        (0..SESSION).map(|i| u8::from_str_radix(&session[2 * i..2 * i + 2], 16).unwrap()).collect();
    let store = Store::open(running.dir.path()).unwrap();
    let session = <[u8; SESSION]>::try_from(session).unwrap();
    assert!(store.whole("web1/d/vmcore", &session).unwrap().is_none());
    while fs::metadata(dir.join("vmcore.partial")).unwrap().len() < bytes.len() as u64 {
        std::thread::sleep(Duration::from_millis(10));
    }
    fs::copy(dir.join("vmcore.partial"), dir.join("vmcore")).unwrap();
    let whole = store.whole("web1/d/vmcore", &session).unwrap().unwrap();
    assert_eq!(whole.length, bytes.len() as u64);
    upload.finish().unwrap();
    assert!(store.whole("web1/d/vmcore", &[0; SESSION]).is_err(), "another session's");
}

#[test]
fn what_was_cut_for_good_stays_partial() {
    let running = start(tempfile::tempdir().unwrap(), "");
    let mut remote = remote(running.address, "d", "");
    let mut upload = remote.begin("vmcore").unwrap();
    upload.write_all(&noise(5 << 20)).unwrap();
    drop(upload);
    remote.put("dmesg.txt", b"x").unwrap();
    let dir = running.dir.path().join("web1/d");
    assert!(dir.join("vmcore.partial").exists() && !dir.join("vmcore").exists());
    // A second attempt begins anew.
    let mut upload = remote.begin("vmcore").unwrap();
    upload.write_all(b"short").unwrap();
    upload.finish().unwrap();
    assert_eq!(fs::read(dir.join("vmcore")).unwrap(), b"short");
}

#[test]
fn a_wrong_token_and_anothers_directory_are_refused_at_once() {
    let running = start(tempfile::tempdir().unwrap(), "token");
    for wrong in ["", "tokem"] {
        let error = remote(running.address, "d", wrong).put("x", b"").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}");
        assert!(error.to_string().contains("token"), "{error}");
    }
    remote(running.address, "d", "token").put("x", b"mine").unwrap();
    let error = remote(running.address, "d", "token").put("x", b"theirs").unwrap_err();
    assert!(error.to_string().contains("another dump's"), "{error}");
    assert_eq!(fs::read(running.dir.path().join("web1/d/x")).unwrap(), b"mine");
    // Nor what lies there for other reasons.
    fs::create_dir(running.dir.path().join("web1/e")).unwrap();
    fs::write(running.dir.path().join("web1/e/x"), "precious").unwrap();
    assert!(remote(running.address, "e", "token").put("x", b"theirs").is_err());
    assert_eq!(fs::read(running.dir.path().join("web1/e/x")).unwrap(), b"precious");
}

#[test]
fn nothing_that_answers_is_waited_for_no_longer_than_patience() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let begin = Instant::now();
    let error = remote(nobody, "d", "").put("x", b"").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{error}");
    assert!(begin.elapsed() < Duration::from_secs(8));
}

/// Check that a sender that is in the middle of much to send hears why it is refused.
#[test]
fn a_no_arrives_although_more_is_on_its_way() {
    let running = start(tempfile::tempdir().unwrap(), "");
    let mut remote = remote(running.address, "d", "");
    let mut upload = remote.begin("vmcore").unwrap();
    // Somebody has put a directory where the file is to be.
    let dir = running.dir.path().join("web1/d");
    fs::remove_file(dir.join("vmcore.partial")).unwrap();
    fs::create_dir_all(dir.join("vmcore/x")).unwrap();
    upload.write_all(&noise(3 << 20)).unwrap();
    let error = upload.finish().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::Unsupported, "{error}");
    assert!(error.to_string().contains("the receiver says"), "{error}");
}

/// Check that what is not a sender does no harm.
#[test]
fn noise_is_refused() {
    let running = start(tempfile::tempdir().unwrap(), "");
    for sent in [noise(1 << 20), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(9), SENDER_MAGIC.repeat(9)] {
        let mut stream = TcpStream::connect(running.address).unwrap();
        let _ = stream.write_all(&sent);
        let event = running.events.recv_timeout(GREETING * 2).unwrap();
        assert!(matches!(event, Event::Broke { .. }), "{event:?}");
    }
    assert_eq!(fs::read_dir(running.dir.path()).unwrap().count(), 0);
}

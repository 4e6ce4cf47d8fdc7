use std::io::{BufRead as _, BufReader};
use std::net::{TcpListener, TcpStream};

use super::*;
use crate::remote::{RemoteOptions, open};

/// Answers each connection with the next of `answers`, and gives back what was sent.
fn serve(answers: Vec<&'static str>) -> (String, std::thread::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/crash", listener.local_addr().unwrap());
    let thread = std::thread::spawn(move || {
        let mut heard = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            heard.push(read_request(&stream));
            stream.write_all(answer.as_bytes()).unwrap();
        }
        heard
    });
    (url, thread)
}

/// Reads a request whose body has a length.
fn read_request(stream: &TcpStream) -> String {
    let mut reader = BufReader::new(stream);
    let (mut text, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.trim().parse().unwrap();
        }
        text.push_str(&line);
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    text + &String::from_utf8(body).unwrap()
}

fn options() -> RemoteOptions {
    RemoteOptions { directory: "d 1".into(), patience: 5, ..RemoteOptions::default() }
}

#[test]
fn a_small_file_is_put_and_tried_again_when_the_server_is_busy() {
    let busy = "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let done =
        "HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    let (url, server) = serve(vec![busy, done]);
    open(&url, &options()).unwrap().put("dmesg.txt", b"panic").unwrap();
    let heard = server.join().unwrap();
    assert!(heard[1].starts_with("PUT /crash/d%201/dmesg.txt HTTP/1.1\r\nhost: 127.0.0.1:"), "{heard:?}");
    assert!(heard[1].ends_with("\r\n\r\npanic"), "{heard:?}");
}

#[test]
fn a_no_is_not_asked_for_twice() {
    for (answer, kind) in [
        ("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", io::ErrorKind::PermissionDenied),
        ("HTTP/1.1 507 Insufficient Storage\r\n\r\n", io::ErrorKind::StorageFull),
        ("HTTP/1.0 405 Not Allowed\r\n\r\nno", io::ErrorKind::Unsupported),
    ] {
        let (url, server) = serve(vec![answer]);
        let error = open(&url, &options()).unwrap().put("x", b"").unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        server.join().unwrap();
    }
}

#[test]
fn missing_directories_are_made_once() {
    let conflict = "HTTP/1.1 409 Conflict\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let made = "HTTP/1.1 201 Created\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let (url, server) = serve(vec![conflict, made, made, made]);
    open(&url, &options()).unwrap().put("x", b"y").unwrap();
    let heard = server.join().unwrap();
    let firsts: Vec<_> = heard.iter().map(|text| text.split(" HTTP").next().unwrap()).collect();
    assert_eq!(firsts, ["PUT /crash/d%201/x", "MKCOL /crash/", "MKCOL /crash/d%201/", "PUT /crash/d%201/x"]);
}

#[test]
fn a_whole_file_goes_in_chunks_and_a_break_is_no_success() {
    let (url, server) = serve(vec!["HTTP/1.1 100 Continue\r\n\r\n"]);
    let mut remote = open(&url, &options()).unwrap();
    let mut upload = remote.begin("vmcore").unwrap();
    let heard = server.join().unwrap();
    assert!(heard[0].contains("transfer-encoding: chunked\r\nexpect: 100-continue\r\n"), "{heard:?}");
    let error = upload.write_all(&vec![7; 64 << 20]).unwrap_err();
    assert!(error.to_string().contains("cannot go on"), "{error}");
}

#[test]
fn an_answer_that_is_none_ends_the_connection_not_the_program() {
    let long: &'static str = Box::leak(format!("HTTP/1.1 200 {}", "x".repeat(40_000)).into_boxed_str());
    for answer in [
        "SSH-2.0-OpenSSH_9.2\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
        "HTTP/1.1 OK\r\n\r\n",
        long,
    ] {
        let (url, server) = serve(vec![answer]);
        let options = RemoteOptions { patience: 0, ..options() };
        assert!(open(&url, &options).unwrap().put("x", b"").is_err(), "{answer}");
        server.join().unwrap();
    }
}

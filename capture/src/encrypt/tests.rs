//! Reading back, by code of its own; tests/targets does it with age(1).

use super::*;

/// Opens the chunks of what `file_key` encrypts: what there is before an end or a cut, and whether it was the end.
pub(crate) fn open_payload(payload: &[u8], file_key: &[u8; FILE_KEY]) -> (Vec<u8>, bool) {
    let (nonce, mut rest) = payload.split_at(PAYLOAD_NONCE);
    let key = cipher(&derive(nonce, file_key, b"payload").unwrap()).unwrap();
    let mut plain = Vec::new();
    for chunk in 0.. {
        let (now, after) = rest.split_at(rest.len().min(CHUNK + TAG));
        rest = after;
        for is_last in [false, true] {
            let nonce = Nonce::assume_unique_for_key(chunk_nonce(chunk, is_last));
            let mut sealed = now.to_vec();
            if let Ok(open) = key.open_in_place(nonce, Aad::empty(), &mut sealed) {
                plain.extend_from_slice(open);
                if is_last {
                    return (plain, rest.is_empty());
                }
            }
        }
        if rest.is_empty() {
            return (plain, false);
        }
    }
    unreachable!()
}

/// An encryptor without a header, and the key that its file has.
fn headless() -> (Encryptor<Vec<u8>>, [u8; FILE_KEY]) {
    let file_key = [7; FILE_KEY];
    let nonce = [9; PAYLOAD_NONCE];
    let key = cipher(&derive(&nonce, &file_key, b"payload").unwrap()).unwrap();
    (Encryptor { out: nonce.to_vec(), key, chunk: 0, buffer: Vec::new(), is_broken: false }, file_key)
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 251) as u8).collect()
}

#[test]
fn files_of_every_length_open_and_end() {
    for len in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 3 * CHUNK + 5] {
        let (mut encryptor, file_key) = headless();
        for piece in bytes(len).chunks(10_007) {
            encryptor.write_all(piece).unwrap();
        }
        let sealed = encryptor.finish().unwrap();
        let chunks = len.div_ceil(CHUNK).max(1);
        assert_eq!(sealed.len(), PAYLOAD_NONCE + len + chunks * TAG, "no chunk that is not needed");
        assert!(open_payload(&sealed, &file_key) == (bytes(len), true), "{len}");
    }
}

#[test]
fn of_a_cut_file_all_whole_chunks_open_and_the_cut_is_seen() {
    let (mut encryptor, file_key) = headless();
    encryptor.write_all(&bytes(4 * CHUNK)).unwrap();
    let sealed = encryptor.finish().unwrap();
    for whole in 0..4 {
        let cut = PAYLOAD_NONCE + whole * (CHUNK + TAG) + 1000;
        assert!(open_payload(&sealed[..cut], &file_key) == (bytes(whole * CHUNK), false), "{whole}");
    }
}

#[test]
fn base64_is_standard_and_unpadded() {
    for (plain, text) in [("", ""), ("f", "Zg"), ("fo", "Zm8"), ("foo", "Zm9v"), ("foob", "Zm9vYg")] {
        assert_eq!(base64(plain.as_bytes()), text);
    }
    assert_eq!(base64(&[0xfb, 0xff]), "+/8");
}

#[test]
fn the_header_has_a_stanza_for_each_recipient() {
    let recipient = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p".to_owned();
    let recipients = Recipients::parse(&[recipient.clone(), recipient]).unwrap();
    let file = Encryptor::new(&recipients, Vec::new()).unwrap().finish().unwrap();
    let text = String::from_utf8_lossy(&file);
    let lines: Vec<&str> = text.lines().take(6).collect();
    assert_eq!(lines[0], VERSION);
    for at in [1, 3] {
        assert!(lines[at].starts_with("-> X25519 ") && lines[at].len() == 10 + 43, "{}", lines[at]);
        assert_eq!(lines[at + 1].len(), 43);
    }
    assert!(lines[1] != lines[3], "each has a key of its own");
    assert!(lines[5].starts_with("--- ") && lines[5].len() == 4 + 43);
}

/// Check that after an error nothing more is written: a nonce must not be used twice.
#[test]
fn an_error_is_final() {
    struct Full(usize);
    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (encryptor, _) = headless();
    let Encryptor { key, .. } = encryptor;
    let mut encryptor =
        Encryptor { out: Full(CHUNK + TAG), key, chunk: 0, buffer: Vec::new(), is_broken: false };
    encryptor.write_all(&bytes(2 * CHUNK)).unwrap();
    assert_eq!(encryptor.write(b"x").unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert!(encryptor.write(b"x").is_err() && encryptor.finish().is_err());
}

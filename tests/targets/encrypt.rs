//! age(1) opens what we encrypt.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output};

use kdump_capture::encrypt::{Encryptor, Recipients};

use crate::armed::key;
use crate::noise;

const CHUNK: usize = 64 << 10;

fn open(key: &Path, file: &Path) -> Output {
    Command::new("age").arg("-d").arg("-i").arg(key).arg(file).output().unwrap()
}

/// Check that each of two recipients opens files of all lengths that are near a chunk's, that of a cut file all before
/// the cut is had, and that another's key opens nothing.
#[test]
#[ignore = "needs age; `make test` runs it"]
fn age_opens_what_was_encrypted_while_it_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let keys = ["one", "two", "three"].map(|name| dir.path().join(name));
    let public: Vec<String> = keys.iter().map(|path| key(path)).collect();
    let recipients = Recipients::parse(&public[..2]).unwrap();
    let file = dir.path().join("vmcore.age");
    let encrypt = |bytes: &[u8]| {
        let mut encryptor = Encryptor::new(&recipients, fs::File::create(&file).unwrap()).unwrap();
        // As a dump is written: in pieces that are no chunks.
        bytes.chunks(100_003).for_each(|piece| encryptor.write_all(piece).unwrap());
        encryptor.finish().unwrap();
    };
    let bytes = noise(32 << 20);
    for len in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 5 * CHUNK, 5 * CHUNK + 7, bytes.len()] {
        encrypt(&bytes[..len]);
        for key in &keys[..2] {
            let out = open(key, &file);
            assert!(out.status.success(), "{len}: {}", String::from_utf8_lossy(&out.stderr));
            assert!(out.stdout == bytes[..len], "{len}");
        }
    }
    let out = open(&keys[2], &file);
    assert!(!out.status.success() && out.stdout.is_empty());

    let sealed = fs::read(&file).unwrap();
    let header = sealed.windows(5).position(|w| w == b"\n--- ").unwrap() + 5 + 43 + 1 + 16;
    for cut in [header + 3 * (CHUNK + 16) + 5, header + 200 * (CHUNK + 16) - 1, sealed.len() - 1] {
        fs::write(&file, &sealed[..cut]).unwrap();
        let out = open(&keys[0], &file);
        let whole = (cut - header) / (CHUNK + 16) * CHUNK;
        assert!(!out.status.success(), "a cut is seen");
        assert!(out.stdout == bytes[..whole], "{cut}: {} of {whole}", out.stdout.len());
    }
}

//! Both engines against published vectors and against an independent implementation.

use super::*;
use sha2::Digest;
use std::vec::Vec;
use std::{format, println, vec};

fn engines() -> Vec<Engine> {
    let mut engines = vec![Engine::PORTABLE];
    match Engine::sha_ni() {
        Some(engine) => engines.push(engine),
        None => println!("this CPU has no SHA instructions: only the portable engine is tested"),
    }
    engines
}

fn hex(bytes: &[u8]) -> std::string::String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Check that every engine gives the digests of the NIST example values and the empty message.
#[test]
fn published_vectors_are_met() {
    let vectors: [(&[u8], &str); 3] = [
        (b"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        (b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (
            b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
        ),
    ];
    for engine in engines() {
        for (message, wanted) in vectors {
            assert_eq!(hex(&digest_with(engine, message)), wanted, "{}", engine.name());
        }
        let million = vec![b'a'; 1_000_000];
        let wanted = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";
        assert_eq!(hex(&digest_with(engine, &million)), wanted, "{}", engine.name());
    }
}

/// Check that all lengths around the padding's edges agree with another implementation.
#[test]
fn every_length_agrees_with_another_implementation() {
    let bytes: Vec<u8> = (0..1000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for engine in engines() {
        for len in 0..bytes.len() {
            let message = &bytes[..len];
            assert_eq!(digest_with(engine, message)[..], sha2::Sha256::digest(message)[..], "{len} bytes");
        }
    }
}

/// Check that the digest does not depend on how the message was cut up.
#[test]
fn pieces_give_the_digest_of_the_whole() {
    let bytes: Vec<u8> = (0..500).map(|i| i as u8).collect();
    for engine in engines() {
        for piece in [1, 3, 63, 64, 65, 127, 200] {
            let mut sha = Sha256::new(engine);
            bytes.chunks(piece).for_each(|chunk| sha.update(chunk));
            assert_eq!(sha.finish(), digest(&bytes), "pieces of {piece}");
        }
    }
}

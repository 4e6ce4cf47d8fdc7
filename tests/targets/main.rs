//! Targets beyond the machine: real servers, connections that break, guests that set up their network, and age(1).
//!
//! Needs what scripts/setup-servers.sh installs; the tests with guests need QEMU and the kernels as well. `make test` runs
//! all of them, a plain `cargo test` lists them as ignored.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod armed;
#[path = "../common/mod.rs"]
mod common;
#[path = "../../src/init/console.rs"]
#[allow(dead_code, reason = "the capture kernel says more")]
mod console;
mod crash;
mod encrypt;
mod guest;
mod http;
#[path = "../../src/init/network/mod.rs"]
mod network;
mod proxy;
mod receiver;
mod s3;
mod servers;
#[path = "../../src/init/system.rs"]
#[allow(dead_code, reason = "the capture kernel does more")]
mod system;
mod up;

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

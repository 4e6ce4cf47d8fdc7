//! Turns a handoff block into a verified capture kernel.
//!
//! The crashed kernel's `machine_kexec` jumps straight into the program of this crate
//! ([`IMAGE`], built from `program/` by `build.rs`). The loader has left a
//! [handoff block](handoff) behind it that says what lies where, what it must hash to, where to print,
//! what to do when something is damaged and where to go when nothing is.
//!
//! Everything that decides or words something lives here, as safe `no_std` code without allocation ([`kimage`] excepted),
//! and is tested on the host; the program adds the entry, the descriptor tables, port I/O and the jump.
//!
//! | module | what |
//! |---|---|
//! | [`handoff`] | the block: layout, sealing (loader), parsing (panic path) |
//! | [`sha256`] | the digest, portable and with the SHA instructions |
//! | [`verify`] | handoff and regions into an [`Action`](verify::Action) |
//! | [`mod@line`], [`messages`] | one line of console text without `core::fmt`; what the lines say |
//! | [`parity`], [`xxh64`], [`repair`] | which pages stand in for which; telling damaged ones; rebuilding them |
//! | [`record`] | what happened, for the dump |
//! | [`selfcheck`] | how the program knows its own image |
//! | [`uart`], [`vga`] | the 8250 over any [`Registers`](uart::Registers), the text screen over any [`Cells`](vga::Cells) |
//! | [`reset`] | the reset controls over any [`Ports`](ports::Ports) |
//! | [`image`] | the program as an ELF file, and its size |
//! | [`kimage`] | the page list of the kexec protocol, for any kernel |
//!
//! May depend on `kdump-arch-x86` only; so far it needs nothing.

#![no_std]

#[cfg(not(kdump_freestanding))]
extern crate alloc;
#[cfg(test)]
extern crate std;

/// Bytes of a page.
pub const PAGE_SIZE: u64 = 4096;

pub mod handoff;
pub mod line;
pub mod messages;
pub mod parity;
pub mod ports;
pub mod record;
pub mod repair;
pub mod reset;
pub mod selfcheck;
pub mod sha256;
pub mod uart;
pub mod verify;
pub mod vga;
pub mod xxh64;

// The program itself is compiled against these modules, before there is an image to embed.
#[cfg(not(kdump_freestanding))]
pub mod image;
// Planning allocates, and is the loader's work.
#[cfg(not(kdump_freestanding))]
pub mod kimage;
#[cfg(not(kdump_freestanding))]
pub use image::IMAGE;

//! What the test kernel and its payload share: the way into 64-bit mode, a serial port, how pages are filled and
//! summed, and the table by which one tells the other what to find.

#![no_std]

pub mod mode;
pub mod pattern;
pub mod ports;
#[path = "../../../panic-kernel/program/runtime.rs"]
mod runtime;
pub mod table;

/// Bytes of a page.
pub const PAGE_SIZE: u64 = 4096;

/// Content of a page.
pub type Page = [u64; 512];

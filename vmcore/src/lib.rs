//! `kdump-vmcore` turns dump files into memory, names and types you can read, and back.
#![cfg_attr(not(feature = "std"), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod elf;

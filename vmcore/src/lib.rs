//! `kdump-vmcore` turns dump files into memory, names and types you can read, and back.
//!
//! [`PhysMem`] is the centre: read bytes at a physical address. Dump files implement it
//! ([`Dump`]), literals implement it in tests, and everything in capture and analyze is generic
//! over it. On top stand [`AddressSpace`] (virtual to physical), [`VmcoreInfo`], and what the
//! kernel carries about itself: [`Symbols`] from kallsyms, [`Btf`] types.
//!
//! Everything read from a dump is hostile: counts are checked before allocating, chains are
//! bounded, and a wrong number is an error with its place. May use `kdump-arch-x86` only.
#![cfg_attr(not(feature = "std"), no_std)]
#![deny(unsafe_code)]

extern crate alloc;

pub mod btf;
#[cfg(feature = "std")]
pub mod dump;
pub mod elf;
#[cfg(feature = "std")]
pub mod file;
pub mod flat;
#[cfg(feature = "std")]
pub mod image;
pub mod kallsyms;
pub mod kdump;
pub mod mem;
pub mod notes;
pub mod record;
#[cfg(feature = "std")]
mod seek;
pub mod seekable;
#[cfg(feature = "std")]
pub mod sink;
pub mod space;
#[cfg(feature = "std")]
pub mod touched;
pub mod vmcoreinfo;

pub use btf::Btf;
#[cfg(feature = "std")]
pub use dump::{Dump, Format, OpenError};
pub use kallsyms::Symbols;
pub use mem::{PhysMem, ReadError};
pub use record::PanicRecord;
pub use space::{AddressSpace, KernelMem};
pub use vmcoreinfo::VmcoreInfo;

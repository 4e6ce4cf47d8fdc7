//! Turns a few lines that say what a machine looked like into the bytes of its vmcore.
//!
//! This crate imports none of our other crates: it writes every format from the documents, with its own
//! constants, so that a mistake in a reader is not mirrored by the same mistake in its fixtures.
//!
//! From the bottom up: [`Memory`] and [`PageTables`] hold bytes; [`Vmcoreinfo`] and [`Notes`] each write one
//! format; [`ElfCore`] makes a file of it. It is not a library for production: misuse panics with a sentence.

mod elf_core;
mod memory;
mod notes;
mod paging;
mod vmcoreinfo;

pub use elf_core::{ElfCore, Load};
pub use memory::{Arena, Memory, PAGE_SIZE};
pub use notes::{Notes, Regs};
pub use paging::{PageSize, PageTables, flags};
pub use vmcoreinfo::Vmcoreinfo;

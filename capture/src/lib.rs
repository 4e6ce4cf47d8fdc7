//! `kdump-capture` turns /proc/vmcore, or any dump, into a small durable dump somewhere safe.
//!
//! Three plans and one pipeline. [`filter::plan`] decides page by page what to keep, from what the
//! kernel says about itself ([`classify::Rules`]); a fact it does not find means *keep*. The
//! layouts of `kdump-vmcore` say where everything goes. [`pipeline`] reads, compresses and hands
//! over pages in order; [`capture()`] writes them, and [`durable::DurableFile`] gives the file its
//! name only when it is complete and on the disk. [`manifest::Manifest`] says what was done.
//!
//! [`classify`], [`sections`] and [`filter`] use `core` and `alloc` only: a later stage runs them
//! without an operating system below. May use `kdump-vmcore` and `kdump-arch-x86`.

extern crate alloc;

pub mod classify;
pub mod config;
pub mod digest;
pub mod durable;
pub mod encrypt;
pub mod filter;
pub mod manifest;
pub mod pipeline;
pub mod remote;
pub mod sections;
pub mod source;

mod capture;
mod compress;
mod uts;

pub use capture::{Error, Options, OutputFormat, Progress, Summary, capture};
pub use filter::DumpLevel;

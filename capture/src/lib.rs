//! `kdump-capture` turns /proc/vmcore, or any dump, into a small durable dump somewhere safe.
//!
//! Three plans and one pipeline. [`filter::Filter`] decides page by page what to keep, from what the
//! kernel says about itself ([`classify::Rules`]); a fact it does not find means *keep*. [`Plan`] does that for all
//! of memory, window by window ([`decide`]), and counts. The layouts of `kdump-vmcore` say where everything
//! goes. [`pipeline`] reads, compresses and hands over pages; [`capture()`] writes them, in order of worth, and
//! [`durable::DurableFile`] gives the file its name only when it is complete and on the disk.
//! [`manifest::Manifest`] says what was done.
//!
//! [`classify`], [`sections`], [`selection`] and [`filter`] use `core` and `alloc` only: a later stage runs them
//! without an operating system below. May use `kdump-vmcore` and `kdump-arch-x86`.

extern crate alloc;

pub mod classify;
pub mod compress;
pub mod config;
pub mod decide;
pub mod digest;
pub mod durable;
pub mod encrypt;
pub mod estimate;
pub mod filter;
pub mod manifest;
pub mod meter;
pub mod pipeline;
pub mod plan;
pub mod remote;
pub mod retention;
pub mod room;
pub mod sections;
pub mod selection;
pub mod source;

mod capture;
mod types;
mod uts;
mod write;

pub use capture::{
    Encryption, Error, Options, Output, OutputFormat, Progress, Summary, capture, write, write_split,
};
pub use compress::Level;
pub use plan::{Census, Plan, Wanted};
pub use selection::{DumpLevel, Kinds, Selection};

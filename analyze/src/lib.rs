//! `kdump-analyze` turns a dump into answers: a report of what happened, and views of the kernel's
//! state, from the core alone. May use `kdump-vmcore` and `kdump-arch-x86`.
#![forbid(unsafe_code)]

pub mod kernel;
pub mod unwind;

pub use kernel::{Gap, Kernel};

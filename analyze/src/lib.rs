//! `kdump-analyze` turns a dump into answers: a report of what happened, and views of the kernel's
//! state, from the core alone. May use `kdump-vmcore` and `kdump-arch-x86`.
//!
//! [`Kernel::open`] finds symbols and types in the dump; [`report::Report::build`] asks everything
//! the default page says. Each module asks one kind of question and gives what it could get
//! together with [`Gap`]s: nothing but a dump without VMCOREINFO is fatal.
#![forbid(unsafe_code)]

pub mod cause;
pub mod kernel;
pub mod log;
pub mod modules;
pub mod panic;
pub mod panic_path;
pub mod percpu;
pub mod report;
pub mod selfcheck;
pub mod slabs;
pub mod symbolize;
pub mod sys;
pub mod tasks;
pub mod unwind;
pub mod view;

pub use kernel::{Gap, Kernel};

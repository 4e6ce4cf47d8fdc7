//! `kdump-rehearse` turns a kernel into proof: it boots the kernel in QEMU, arms it with our own
//! `kdump-rs arm`, panics it, and takes out the dump that our capture kernel wrote.
//!
//! [`Plan::run`] is the host's side: [`initramfs`] (what the guest boots with), [`disk`] (what it
//! dumps to), [`accel`] and [`qemu`] (how it runs), [`phase`] (how far it came, read from its
//! serial console), [`trigger`] (the module that crashes it). [`guest`] is PID 1 inside. What the dump says is not looked at here: the caller
//! analyzes [`Outcome::dump_dir`].
//!
//! May use `kdump-loader` (cpio archives, module trees).

#![forbid(unsafe_code)]

pub mod accel;
mod crash;
pub mod disk;
mod error;
pub mod guest;
pub mod initramfs;
pub mod measure;
pub mod phase;
mod plan;
pub mod qemu;
mod run;
pub mod scene;
pub mod size;
pub mod trigger;

pub use crash::{Crash, UnknownCrash};
pub use error::Error;
pub use phase::{Phase, Progress};
pub use plan::{Outcome, Plan, Programs};
pub use scene::{Added, Held, Load, Mount, Scene, Staged};

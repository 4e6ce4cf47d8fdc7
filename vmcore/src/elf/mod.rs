//! ELF cores: the structures, reading and writing them.

pub mod defs;
#[cfg(feature = "std")]
pub mod read;
#[cfg(feature = "std")]
pub mod write;

//! ELF cores: the structures, and reading them.

pub mod defs;
#[cfg(feature = "std")]
pub mod read;

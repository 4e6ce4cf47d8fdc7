//! kdump-compressed files ("diskdump"): the structures, reading and writing.

#[cfg(feature = "std")]
pub mod read;

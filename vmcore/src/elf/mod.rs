//! ELF cores: the structures, reading and writing.

pub mod defs;

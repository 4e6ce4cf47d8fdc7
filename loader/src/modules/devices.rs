//! Drivers between a directory and its disk.

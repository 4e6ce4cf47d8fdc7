//! The flattened form of a dump: a stream of records, each with its place, for pipes and raw devices that cannot
//! seek.
//!
//! Source: makedumpfile `makedumpfile.h`, `struct makedumpfile_header`, `struct makedumpfile_data_header`.

#[cfg(feature = "std")]
pub mod read;
#[cfg(feature = "std")]
pub mod rearrange;
#[cfg(feature = "std")]
pub mod write;

/// The beginning of a flattened stream, `signature` of its header, without the NULs that pad it to 16 bytes.
pub const SIGNATURE: &[u8; 12] = b"makedumpfile";
/// The only `type` there is, and the only `version`; both 64 bits, big-endian, at 16 and 24.
pub const TYPE_VERSION: (i64, i64) = (1, 1);
/// Bytes of the header, most of them padding; the first record follows.
pub const HEADER_LEN: u64 = 4096;
/// Bytes of a record's own header: place and number of the bytes behind it, both 64 bits, big-endian.
pub const RECORD_LEN: u64 = 16;
/// Place and number in the record that ends the stream.
pub const END: i64 = -1;

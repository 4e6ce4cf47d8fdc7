//! What can be wrong with a handoff block, worded without `core::fmt` for the panic path.

use super::{HANDOFF_SIZE, MAGIC, MAX_REGIONS, VERSION};
use crate::line::Line;

/// Why a block cannot be built or is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HandoffError {
    /// Fewer bytes than a block has.
    Truncated {
        /// Bytes there are.
        have: usize,
    },
    /// The first eight bytes are something else.
    BadMagic {
        /// What they are.
        found: u64,
    },
    /// A block of another version.
    UnknownVersion {
        /// Its version.
        found: u32,
    },
    /// The stated size is not a page.
    BadSize {
        /// The stated size.
        found: u32,
    },
    /// The block does not hash to its own digest.
    BadDigest {
        /// First bytes of the digest it carries.
        expected: [u8; 8],
        /// First bytes of the digest it has.
        found: [u8; 8],
    },
    /// More regions than fit.
    TooManyRegions {
        /// The number of regions.
        nr: usize,
    },
    /// A region that is empty or runs past the end of the address space.
    BadRegion {
        /// Its start.
        start: u64,
        /// Its length.
        len: u64,
    },
    /// A tag that is empty, too long or not printable ASCII.
    BadTag {
        /// Its length.
        len: usize,
    },
    /// A console kind this version does not know.
    UnknownConsole {
        /// The number stored.
        kind: u32,
    },
    /// A port number beyond the I/O space.
    BadPort {
        /// The number stored.
        port: u64,
    },
    /// Registers of a memory-mapped UART that no access fits.
    BadRegisters {
        /// The shift stored.
        shift: u32,
        /// The width stored.
        width: u32,
    },
    /// A console in memory that cannot be there.
    BadConsoleMemory {
        /// Its address.
        base: u64,
    },
    /// An entry mode this version does not know.
    UnknownMode {
        /// The number of bits stored.
        bits: u32,
    },
    /// Parity and digest table that do not belong to the regions.
    BadGeometry {
        /// The number of pages that does not fit.
        nr: u64,
    },
    /// The address of a page that is none.
    BadPage {
        /// The address.
        address: u64,
    },
    /// A policy this version does not know.
    UnknownPolicy {
        /// The number stored.
        code: u32,
    },
}

impl HandoffError {
    /// Words the error, for both sides: this is all the panic path can say.
    pub fn describe(&self, line: &mut Line) {
        match *self {
            Self::Truncated { have } => line.str("truncated, ").dec(have as u64).str(" bytes"),
            Self::BadMagic { found } => line.str("magic is ").hex(found).str(", expected ").hex(MAGIC),
            Self::UnknownVersion { found } => {
                line.str("version is ").dec(found.into()).str(", expected ").dec(VERSION.into())
            }
            Self::BadSize { found } => {
                line.str("size is ").dec(found.into()).str(", expected ").dec(HANDOFF_SIZE as u64)
            }
            Self::BadDigest { expected, found } => {
                line.str("sha256 mismatch, expected ").hex_bytes(&expected).str(" found ").hex_bytes(&found)
            }
            Self::TooManyRegions { nr } => {
                line.dec(nr as u64).str(" regions, room for ").dec(MAX_REGIONS as u64)
            }
            Self::BadRegion { start, len } => {
                line.str("region at ").hex(start).str(" with impossible length ").hex(len)
            }
            Self::BadTag { len } => {
                line.str("tag of ").dec(len as u64).str(" bytes, expected 1 to 12 printable characters")
            }
            Self::UnknownConsole { kind } => line.str("unknown console kind ").dec(kind.into()),
            Self::BadPort { port } => line.str("impossible console port ").hex(port),
            Self::BadRegisters { shift, width } => line
                .str("impossible console registers, shift ")
                .dec(shift.into())
                .str(" width ")
                .dec(width.into()),
            Self::BadConsoleMemory { base } => line.str("impossible console address ").hex(base),
            Self::UnknownMode { bits } => line.str("unknown entry mode ").dec(bits.into()),
            Self::BadGeometry { nr } => line.str("impossible parity or digest table, ").dec(nr).str(" pages"),
            Self::BadPage { address } => line.str("no page at ").hex(address),
            Self::UnknownPolicy { code } => line.str("unknown policy ").dec(code.into()),
        };
    }
}

impl core::fmt::Display for HandoffError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let mut line = Line::empty();
        self.describe(&mut line);
        f.write_str(line.as_str())
    }
}

impl core::error::Error for HandoffError {}

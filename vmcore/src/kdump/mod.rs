//! kdump-compressed files ("diskdump"): the structures, reading and writing.

pub mod bitmap;
pub mod defs;
#[cfg(feature = "std")]
mod filemap;
#[cfg(feature = "std")]
mod header;
#[cfg(feature = "std")]
mod inflate;
#[cfg(feature = "std")]
mod lz;
#[cfg(feature = "std")]
pub mod lzo;
#[cfg(feature = "std")]
pub mod read;
#[cfg(feature = "std")]
pub mod write;

/// How pages are compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Compression {
    /// As they are.
    None,
    /// zlib, what every reader knows.
    Zlib,
    /// zstd, smaller and faster; readers from 2021 on.
    Zstd,
    /// LZO1X, what most distributions' dumps have.
    Lzo,
    /// Snappy, the fastest.
    Snappy,
}

impl Compression {
    /// The flag in page descriptors and in `status`.
    #[must_use]
    pub const fn flag(self) -> u32 {
        match self {
            Self::None => 0,
            Self::Zlib => defs::flags::ZLIB,
            Self::Zstd => defs::flags::ZSTD,
            Self::Lzo => defs::flags::LZO,
            Self::Snappy => defs::flags::SNAPPY,
        }
    }

    /// The way a set of flags names; `None` for flags that name none or several.
    #[must_use]
    pub const fn from_flags(flags: u32) -> Option<Self> {
        match flags & defs::flags::COMPRESSION {
            0 => Some(Self::None),
            defs::flags::ZLIB => Some(Self::Zlib),
            defs::flags::ZSTD => Some(Self::Zstd),
            defs::flags::LZO => Some(Self::Lzo),
            defs::flags::SNAPPY => Some(Self::Snappy),
            _ => None,
        }
    }

    /// Its name on the command line and in manifests.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Zlib => "zlib",
            Self::Zstd => "zstd",
            Self::Lzo => "lzo",
            Self::Snappy => "snappy",
        }
    }
}

impl core::fmt::Display for Compression {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

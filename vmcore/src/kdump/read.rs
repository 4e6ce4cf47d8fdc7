//! Reading a kdump-compressed file.

use std::vec::Vec;

use kdump_arch_x86::{PhysAddr, PhysRange};

use crate::file::DumpFile;
use crate::mem::{PhysMem, ReadError};

/// A damaged kdump-compressed file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Being written.
    #[error("kdump-compressed files are not read yet")]
    NotYet,
}

/// A kdump-compressed file's memory.
#[derive(Debug)]
pub struct KdumpFile {
    notes: Vec<u8>,
}

impl KdumpFile {
    /// Reads headers, notes and bitmaps.
    ///
    /// # Errors
    /// If they are damaged.
    pub fn open(_file: DumpFile) -> Result<Self, Error> {
        Err(Error::NotYet)
    }

    /// The ELF notes.
    #[must_use]
    pub fn notes(&self) -> &[u8] {
        &self.notes
    }

    /// Where there was memory, from the first bitmap.
    #[must_use]
    pub fn ram_ranges(&self) -> Vec<PhysRange> {
        Vec::new()
    }
}

impl PhysMem for KdumpFile {
    fn read(&self, at: PhysAddr, _buf: &mut [u8]) -> Result<(), ReadError> {
        Err(ReadError::NotInDump { phys: at })
    }
}

//! Where a dump is written: bytes at offsets.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::vec::Vec;

/// Something that takes bytes at offsets, as a file does.
pub trait WriteAt {
    /// Writes all of `bytes` from `offset` on. A gap left before it reads as zeros.
    ///
    /// # Errors
    /// Whatever the operating system says.
    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Sets room aside for the first `len` bytes, where that is possible, so that writing them later does
    /// not fail on a full disk.
    ///
    /// # Errors
    /// If there is no room now.
    fn reserve(&mut self, _len: u64) -> io::Result<()> {
        Ok(())
    }

    /// What was written before is on the disk before what follows, where that matters to the output.
    ///
    /// # Errors
    /// Whatever the operating system says.
    fn barrier(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn reserve_in(file: &File, len: u64) -> io::Result<()> {
    use rustix::io::Errno;
    match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, len) {
        Err(full @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG)) => Err(full.into()),
        // Not every file system can, and they have several words for that. A disk that fails will say so when it is
        // written to.
        _ => Ok(()),
    }
}

impl WriteAt for File {
    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(self, bytes, offset)
    }
    fn reserve(&mut self, len: u64) -> io::Result<()> {
        reserve_in(self, len)
    }
}

impl WriteAt for &File {
    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(*self, bytes, offset)
    }
    fn reserve(&mut self, len: u64) -> io::Result<()> {
        reserve_in(self, len)
    }
}

/// A file in memory. For tests.
impl WriteAt for Vec<u8> {
    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let end = start.checked_add(bytes.len()).ok_or(io::ErrorKind::InvalidInput)?;
        if self.len() < end {
            self.resize(end, 0);
        }
        self[start..end].copy_from_slice(bytes);
        Ok(())
    }
}

impl<T: WriteAt + ?Sized> WriteAt for &mut T {
    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        (**self).write_all_at(bytes, offset)
    }
    fn reserve(&mut self, len: u64) -> io::Result<()> {
        (**self).reserve(len)
    }
    fn barrier(&mut self) -> io::Result<()> {
        (**self).barrier()
    }
}

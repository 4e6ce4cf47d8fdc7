//! A dump file's bytes: mapped where that is safe and cheap, read piecewise where not.
//!
//! UNSAFETY: mapping a file is unsafe in Rust, since somebody may shorten or change it while it
//! is mapped. This is the one module that does it.
#![expect(unsafe_code)]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::Path;
use std::sync::OnceLock;

use memmap2::{Mmap, MmapOptions};
use rustix::fs::SeekFrom;

use crate::mem::ReadError;

/// An open file to read at offsets, from any number of threads.
#[derive(Debug)]
pub struct DumpFile {
    file: File,
    map: Option<Mmap>,
    windows: Box<[OnceLock<Option<Window>>; NR_WINDOWS]>,
    len: u64,
    /// Whether it is /proc/vmcore or the like: not bytes in the page cache, but somebody's memory.
    is_memory: bool,
}

/// A mapped stretch of /proc/vmcore, for as long as it is looked at.
#[derive(Debug)]
pub struct Piece(Mmap);

impl core::ops::Deref for Piece {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// Stretches that may be mapped of a file that is not mapped as a whole.
const NR_WINDOWS: usize = 8;

/// A stretch of a file that is not mapped as a whole.
#[derive(Debug)]
struct Window {
    offset: u64,
    map: Mmap,
}

/// From eight pages on, mapping is cheaper than reading.
const PIECE_MIN: usize = 32 << 10;

/// statfs magic of procfs (include/uapi/linux/magic.h, `PROC_SUPER_MAGIC`).
const PROC_SUPER_MAGIC: i64 = 0x9fa0;

impl DumpFile {
    /// Opens `path`.
    ///
    /// # Errors
    /// Whatever the operating system says; a directory is an error too.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let meta = file.metadata()?;
        if meta.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if meta.file_type().is_char_device() || meta.file_type().is_fifo() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "is a stream; a dump is read at offsets",
            ));
        }
        let len = if meta.file_type().is_block_device() {
            io::Seek::seek(&mut (&file), io::SeekFrom::End(0))?
        } else {
            meta.len()
        };
        // Mapping all of /proc/vmcore would cost page tables for the whole machine's memory.
        let in_proc = rustix::fs::fstatfs(&file).is_ok_and(|s| s.f_type == PROC_SUPER_MAGIC);
        let map = if len > 0 && !in_proc && meta.is_file() {
            // SAFETY: the map is only read. A file shortened meanwhile ends the process by SIGBUS, which a
            // dump being analyzed is not expected to suffer and which harms nothing but this process; a
            // file changed meanwhile yields other bytes, and all bytes are checked as hostile anyway.
            unsafe { Mmap::map(&file) }.ok()
        } else {
            None
        };
        Ok(Self { file, map, windows: Box::default(), len, is_memory: in_proc })
    }

    /// Gives up the map of the whole file: what is read once, from one end to the other, would count as this process's
    /// memory and push out what others have in the page cache.
    pub fn unmap(&mut self) {
        self.map = None;
    }

    /// Maps a stretch of a file that is somebody's memory: /proc/vmcore maps the pages themselves, where reading would
    /// map and copy one after the other. None for other files, of which reading is as quick.
    ///
    /// Source: fs/proc/vmcore.c `mmap_vmcore`, `copy_oldmem_page`.
    #[must_use]
    pub fn piece(&self, offset: u64, len: usize) -> Option<Piece> {
        let end = offset.checked_add(len as u64)?;
        if !self.is_memory || len == 0 || end > self.len {
            return None;
        }
        // SAFETY: as for a window of it.
        let map = unsafe { MmapOptions::new().offset(offset).len(len).map(&self.file) };
        Some(Piece(map.ok()?))
    }

    /// Bytes in the file.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Whether the file is empty.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes at `offset`, if the file is mapped and has them all.
    #[must_use]
    pub fn borrow(&self, offset: u64, len: usize) -> Option<&[u8]> {
        let start = usize::try_from(offset).ok()?;
        self.map.as_ref()?.get(start..start.checked_add(len)?)
    }

    /// As [`Self::borrow`], but of a file that is not mapped as a whole the first few stretches that are asked for
    /// are mapped, and stay so.
    #[must_use]
    pub fn window(&self, offset: u64, len: usize) -> Option<&[u8]> {
        if self.map.is_some() {
            return self.borrow(offset, len);
        }
        if len == 0 || offset.checked_add(len as u64).is_none_or(|end| end > self.len) {
            return None;
        }
        self.windows.iter().find_map(|slot| {
            let window = slot.get_or_init(|| {
                // SAFETY: as for a file mapped whole. Of /proc/vmcore, the kernel enters the pages into the page
                // tables when it is mapped and refuses what is no memory: reading faults no more than read(2) does.
                let map = unsafe { MmapOptions::new().offset(offset).len(len).map(&self.file) }.ok()?;
                Some(Window { offset, map })
            });
            let Window { offset: start, map } = window.as_ref()?;
            let from = usize::try_from(offset.checked_sub(*start)?).ok()?;
            map.get(from..from.checked_add(len)?)
        })
    }

    /// Fills `buf` from `offset`.
    ///
    /// # Errors
    /// `Truncated` where the file ends before; `Io` where reading fails.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        let end = offset.checked_add(buf.len() as u64);
        if end.is_none_or(|end| end > self.len) {
            return Err(ReadError::Truncated { at: self.len.max(offset) });
        }
        match self.borrow(offset, buf.len()) {
            Some(bytes) => {
                buf.copy_from_slice(bytes);
                Ok(())
            }
            None => self.pread(offset, buf),
        }
    }

    /// Fills `buf` from `offset` by a read of its own: what is looked at once, in passing, stays out of the map's
    /// share of this process's memory.
    ///
    /// # Errors
    /// As [`Self::read_at`].
    pub fn pread(&self, offset: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        let end = offset.checked_add(buf.len() as u64);
        if end.is_none_or(|end| end > self.len) {
            return Err(ReadError::Truncated { at: self.len.max(offset) });
        }
        if buf.len() >= PIECE_MIN
            && let Some(piece) = self.piece(offset, buf.len())
        {
            buf.copy_from_slice(&piece);
            return Ok(());
        }
        self.file.read_exact_at(buf, offset).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => ReadError::Truncated { at: offset },
            _ => ReadError::Io { at: offset, errno: e.raw_os_error().unwrap_or(0) },
        })
    }

    /// The next stretch of bytes at or after `offset` that are not a hole of the file; what lies between reads as
    /// zeros. Where the file system does not tell, it is all the rest.
    #[must_use]
    pub fn next_data(&self, offset: u64) -> Range<u64> {
        // Moves the file's own offset, which nothing here uses.
        let seek = |from| rustix::fs::seek(&self.file, from);
        match seek(SeekFrom::Data(offset)) {
            Ok(start) => start..seek(SeekFrom::Hole(start)).unwrap_or(self.len),
            Err(rustix::io::Errno::NXIO) => self.len..self.len,
            Err(_) => offset..self.len,
        }
    }

    /// Reads `len` bytes into a vector. Nothing is allocated that the file does not hold.
    ///
    /// # Errors
    /// As [`Self::read_at`].
    pub fn read_vec(&self, offset: u64, len: u64) -> Result<Vec<u8>, ReadError> {
        let end =
            offset.checked_add(len).ok_or(ReadError::Corrupt { what: "offset passes 2^64", at: offset })?;
        if end > self.len {
            return Err(ReadError::Truncated { at: self.len });
        }
        let n = usize::try_from(len)
            .map_err(|_| ReadError::Corrupt { what: "length passes memory", at: offset })?;
        let mut out = vec![0; n];
        self.read_at(offset, &mut out)?;
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn a_file_that_is_not_mapped_gives_a_few_windows() {
        let path = std::env::temp_dir().join(format!("kdump-vmcore-window-{}", std::process::id()));
        let mut file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let bytes: Vec<u8> = (0..100_000u32).map(|i| (i % 251) as u8).collect();
        file.write_all(&bytes).unwrap();
        let len = bytes.len() as u64;
        let file = DumpFile { file, map: None, windows: Box::default(), len, is_memory: false };
        assert_eq!(file.borrow(5000, 9000), None);
        for _ in 0..2 {
            assert_eq!(file.window(5000, 9000), Some(&bytes[5000..14_000]));
            assert_eq!(file.window(5001, 100), Some(&bytes[5001..5101]));
        }
        for beyond in [(len, 1), (len - 1, 2), (u64::MAX, 1), (0, 0)] {
            assert_eq!(file.window(beyond.0, beyond.1), None);
        }
        let windows = (0..20).filter(|i| file.window(20_000 + i * 4000, 4000).is_some()).count();
        assert_eq!(windows, NR_WINDOWS - 1);
    }
}

//! Decompressing pages, and keeping the last of them.

use std::boxed::Box;
use std::sync::{Mutex, PoisonError};
use std::vec::Vec;

use super::{Compression, lz};

const PAGE: usize = 4096;

/// The state of each decompressor, kept from page to page: making one costs more than a page.
struct Inflater {
    zlib: flate2::Decompress,
    zstd: zstd::bulk::Decompressor<'static>,
}

impl Inflater {
    fn new() -> Result<Self, &'static str> {
        let zstd = zstd::bulk::Decompressor::new().map_err(|_| "no memory for a zstd context")?;
        Ok(Self { zlib: flate2::Decompress::new(true), zstd })
    }

    /// Fills `out` from `input`, which must hold exactly one page.
    fn page(&mut self, how: Compression, input: &[u8], out: &mut [u8; PAGE]) -> Result<(), &'static str> {
        let n = match how {
            Compression::Zlib => {
                self.zlib.reset(true);
                self.zlib
                    .decompress(input, out, flate2::FlushDecompress::Finish)
                    .map_err(|_| "page is no zlib stream")?;
                usize::try_from(self.zlib.total_out()).unwrap_or(usize::MAX)
            }
            Compression::Zstd => self
                .zstd
                .decompress_to_buffer(input, out.as_mut_slice())
                .map_err(|_| "page is no zstd frame of page size")?,
            Compression::Lzo => lz::lzo1x(input, out).ok_or("page is no LZO1X block")?,
            Compression::Snappy => lz::snappy(input, out).ok_or("page is no Snappy block")?,
            Compression::None => return Err("raw page shorter than a page"),
        };
        if n == PAGE { Ok(()) } else { Err("page decompresses to less than a page") }
    }
}

/// The last pages that were decompressed, by frame number modulo the number of slots. Each slot
/// has a lock of its own, so threads wait for each other only over the same slot.
pub(super) struct PageCache {
    slots: Box<[Mutex<Slot>]>,
    idle: Mutex<Vec<Inflater>>,
}

#[derive(Default)]
struct Slot {
    pfn: Option<u64>,
    page: Option<Box<[u8; PAGE]>>,
}

impl core::fmt::Debug for PageCache {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "PageCache({} slots)", self.slots.len())
    }
}

impl PageCache {
    /// 4 MiB at most: what a task list or a stack walk comes back to.
    const SLOTS: usize = 1024;

    pub(super) fn new() -> Self {
        Self { slots: (0..Self::SLOTS).map(|_| Mutex::default()).collect(), idle: Mutex::default() }
    }

    /// Copies `buf.len()` bytes from `offset` of page `pfn`, which `input` gives compressed if the
    /// cache does not have it.
    pub(super) fn read<E: From<&'static str>>(
        &self,
        pfn: u64,
        offset: usize,
        buf: &mut [u8],
        input: impl FnOnce(&mut dyn FnMut(Compression, &[u8]) -> Result<(), E>) -> Result<(), E>,
    ) -> Result<(), E> {
        // The remainder is below the number of slots. A thread that panicked in here left a slot whose
        // frame number is `None`, so its lock can be taken over.
        let index = (pfn % Self::SLOTS as u64) as usize;
        let mut slot = self.slots[index].lock().unwrap_or_else(PoisonError::into_inner);
        if slot.pfn != Some(pfn) {
            slot.pfn = None;
            let page = slot.page.get_or_insert_with(|| Box::new([0; PAGE]));
            input(&mut |how, bytes| self.inflate(how, bytes, page).map_err(E::from))?;
            slot.pfn = Some(pfn);
        }
        let bytes = slot.page.as_deref().and_then(|p| p.get(offset..)?.get(..buf.len()));
        buf.copy_from_slice(bytes.ok_or(E::from("read passes the page"))?);
        Ok(())
    }

    fn inflate(&self, how: Compression, input: &[u8], out: &mut [u8; PAGE]) -> Result<(), &'static str> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut inflater = match idle {
            Some(i) => i,
            None => Inflater::new()?,
        };
        let result = inflater.page(how, input, out);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(inflater);
        result
    }
}

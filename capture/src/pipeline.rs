//! Reading, compressing and handing over pages, in parallel and in order.
//!
//! The address space is cut into chunks of 128 frames. Worker `w` of `W` takes every `W`th chunk
//! that has pages to write, and passes it through a channel of its own; the caller's thread takes
//! one chunk from each channel in turn. So the output is in order and the same for any number of
//! workers, and nothing needs reordering. Channels are short: memory stays at three chunks a
//! worker, however slow the disk. Used buffers go back the other way.

use std::io;
use std::num::NonZeroUsize;

use crossbeam_channel::{Receiver, Sender, bounded};
use kdump_arch_x86::{PAGE_SIZE, PhysAddr, PhysRange};
use kdump_vmcore::kdump::Compression;
use kdump_vmcore::kdump::bitmap::PageBitmap;
use kdump_vmcore::kdump::write::Page;
use kdump_vmcore::{PhysMem, ReadError};

use crate::compress::{Compressor, Level};
use crate::source::read_page;

/// Frames in a chunk: 512 KiB. From 16 pages on, the cost of passing them on does not show.
const CHUNK: u64 = 128;
/// Chunks that wait between a worker and the writer.
const WAITING: usize = 2;

const PAGE: usize = PAGE_SIZE as usize;
static ZERO_PAGE: [u8; PAGE] = [0; PAGE];

/// What to do with each page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Coding {
    /// How to compress; a page that does not shrink is stored as it is.
    pub compression: Compression,
    /// Whether zero-filled pages become [`Page::Zero`].
    pub find_zero: bool,
}

/// Some pages, ready to be written.
#[derive(Debug, Default)]
pub struct Chunk {
    /// First frame number of the chunk's window of 128.
    pub first_pfn: u64,
    /// One entry per frame of the window that is to be written.
    pub pages: Vec<Page>,
    /// The bytes of the stored ones, one behind the other.
    pub data: Vec<u8>,
    /// Frames that could not be read, and why.
    pub lost: Vec<(u64, ReadError)>,
}

impl Chunk {
    /// The frames of this chunk's window that are in `pages`: the ones its entries stand for.
    pub fn pfns<'a>(&self, pages: &'a PageBitmap) -> impl Iterator<Item = u64> + use<'a> {
        pages.runs_in(self.first_pfn, self.first_pfn + CHUNK).flat_map(|(start, end)| start..end)
    }
}

/// Where pages come from.
pub struct Source<'a, M: ?Sized> {
    /// Their memory.
    pub mem: &'a M,
    /// What of the address space is memory, for pages that are only in part.
    pub ram: &'a [PhysRange],
    /// The frames to read.
    pub pages: &'a PageBitmap,
}

// Derived, these would ask the memory itself to be copied.
impl<M: ?Sized> Clone for Source<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<M: ?Sized> Copy for Source<'_, M> {}

/// Runs all of `source.pages` through `workers` threads and hands the chunks to `take`, in ascending
/// order, on the caller's thread.
///
/// # Errors
/// The first error of `take`, which ends the run, or of setting up compression.
pub fn run<M: PhysMem + Sync + ?Sized>(
    source: Source<'_, M>,
    coding: Coding,
    workers: NonZeroUsize,
    mut take: impl FnMut(&Chunk) -> io::Result<()>,
) -> io::Result<()> {
    let nr = workers.get();
    let compressors =
        (0..nr).map(|_| Compressor::new(coding.compression, Level::Usual)).collect::<io::Result<Vec<_>>>()?;
    std::thread::scope(|scope| {
        let mut lanes = Vec::with_capacity(nr);
        for (w, compressor) in compressors.into_iter().enumerate() {
            let (full_tx, full_rx) = bounded(WAITING);
            let (empty_tx, empty_rx) = bounded(WAITING + 1);
            let worker = Worker { source, coding, compressor, input: Vec::new() };
            std::thread::Builder::new()
                .name(format!("page-worker-{w}"))
                .spawn_scoped(scope, move || worker.run(w, nr, &full_tx, &empty_rx))?;
            lanes.push((full_rx, empty_tx));
        }
        // One chunk from each lane in turn, until the lane whose turn it is has ended: then all have.
        for (full, empty) in lanes.iter().cycle() {
            let Ok(chunk) = full.recv() else { break };
            // Returning drops the channels, on which the workers end.
            take(&chunk)?;
            let _ = empty.try_send(chunk);
        }
        Ok(())
    })
}

struct Worker<'a, M: ?Sized> {
    source: Source<'a, M>,
    coding: Coding,
    compressor: Compressor,
    input: Vec<u8>,
}

impl<M: PhysMem + ?Sized> Worker<'_, M> {
    fn run(mut self, me: usize, of: usize, full: &Sender<Chunk>, empty: &Receiver<Chunk>) {
        for first_pfn in chunks(self.source.pages).skip(me).step_by(of) {
            let mut chunk = empty.try_recv().unwrap_or_default();
            self.fill(first_pfn, &mut chunk);
            if full.send(chunk).is_err() {
                return;
            }
        }
    }

    fn fill(&mut self, first_pfn: u64, chunk: &mut Chunk) {
        chunk.first_pfn = first_pfn;
        chunk.pages.clear();
        chunk.data.clear();
        chunk.lost.clear();
        let Source { mem, ram, pages } = self.source;
        for (start, end) in pages.runs_in(first_pfn, first_pfn + CHUNK) {
            // At most one chunk, so the product is small.
            let len = (end - start) as usize * PAGE;
            let at = PhysAddr(start * PAGE_SIZE);
            if let Some(bytes) = mem.borrow(at, len) {
                for page in bytes.chunks_exact(PAGE) {
                    self.code(page, chunk);
                }
                continue;
            }
            let mut input = std::mem::take(&mut self.input);
            input.resize(len, 0);
            let is_read = mem.read(at, &mut input).is_ok();
            for (pfn, page) in (start..end).zip(input.chunks_exact_mut(PAGE)) {
                // One page that cannot be read must not cost its neighbours.
                match if is_read { Ok(()) } else { read_page(mem, ram, pfn, page) } {
                    Ok(()) => self.code(page, chunk),
                    Err(e) => {
                        chunk.lost.push((pfn, e));
                        chunk.pages.push(Page::Lost);
                    }
                }
            }
            self.input = input;
        }
    }

    fn code(&mut self, page: &[u8], chunk: &mut Chunk) {
        if self.coding.find_zero && page == ZERO_PAGE {
            chunk.pages.push(Page::Zero);
            return;
        }
        let (mut size, mut flags) = (PAGE, 0);
        let at = chunk.data.len();
        if self.coding.compression == Compression::None {
            chunk.data.extend_from_slice(page);
        } else {
            chunk.data.resize(at + PAGE, 0);
            match self.compressor.page(page, &mut chunk.data[at..]) {
                Some(n) => (size, flags) = (n, self.coding.compression.flag()),
                None => chunk.data[at..].copy_from_slice(page),
            }
            chunk.data.truncate(at + size);
        }
        // A page's size fits, and then some.
        chunk.pages.push(Page::Stored { size: size as u32, flags });
    }
}

/// First frames of the chunks that have a page in `pages`.
fn chunks(pages: &PageBitmap) -> impl Iterator<Item = u64> {
    const WORDS: usize = (CHUNK / 64) as usize;
    (0u64..)
        .step_by(CHUNK as usize)
        .zip(pages.words().chunks(WORDS))
        .filter_map(|(first, words)| words.iter().any(|w| *w != 0).then_some(first))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kdump_vmcore::mem::LiteralMem;

    /// Frames 0 to 999: every third is zero-filled, the others hold their number; 500 is missing.
    fn memory() -> (LiteralMem, PageBitmap) {
        let mut pages = PageBitmap::new(1000);
        pages.insert(0, 1000);
        pages.remove(100, 300);
        let piece = |pfn: u64| {
            let byte = if pfn.is_multiple_of(3) { 0 } else { (pfn % 251) as u8 + 1 };
            (PhysAddr(pfn * PAGE_SIZE), vec![byte; PAGE])
        };
        (LiteralMem(vec![piece(0), piece(1), piece(2), piece(301), piece(999)]), pages)
    }

    fn collect(workers: usize, coding: Coding) -> (Vec<u64>, Vec<Page>, Vec<u8>, usize) {
        let (mem, mut pages) = memory();
        pages.remove(3, 301);
        pages.remove(303, 999);
        let ram = [PhysRange::new(0, 1000 * PAGE_SIZE)];
        let source = Source { mem: &mem, ram: &ram, pages: &pages };
        let (mut pfns, mut out, mut data, mut lost) = (Vec::new(), Vec::new(), Vec::new(), 0);
        run(source, coding, NonZeroUsize::new(workers).unwrap(), |chunk| {
            pfns.extend(chunk.pfns(&pages));
            out.extend_from_slice(&chunk.pages);
            data.extend_from_slice(&chunk.data);
            lost += chunk.lost.len();
            Ok(())
        })
        .unwrap();
        (pfns, out, data, lost)
    }

    #[test]
    fn output_is_in_order_for_any_number_of_workers() {
        let coding = Coding { compression: Compression::None, find_zero: true };
        let one = collect(1, coding);
        assert_eq!(one.0, [0, 1, 2, 301, 302, 999]);
        let stored = Page::Stored { size: 4096, flags: 0 };
        assert_eq!(one.1, [Page::Zero, stored, stored, stored, Page::Lost, Page::Zero]);
        assert_eq!((one.2.len(), one.3), (3 * PAGE, 1));
        assert_eq!((one.2[0], one.2[PAGE], one.2[2 * PAGE]), (2, 3, (301 % 251 + 1) as u8));
        for workers in [2, 3, 8] {
            assert_eq!(collect(workers, coding), one);
        }
    }

    #[test]
    fn an_error_of_the_writer_ends_the_run() {
        let (mem, pages) = memory();
        let source = Source { mem: &mem, ram: &[], pages: &pages };
        let coding = Coding { compression: Compression::None, find_zero: false };
        let mut calls = 0;
        let result = run(source, coding, NonZeroUsize::new(2).unwrap(), |_| {
            calls += 1;
            Err(io::ErrorKind::StorageFull.into())
        });
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(calls, 1);
    }
}

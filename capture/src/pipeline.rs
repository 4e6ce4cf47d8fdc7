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
use kdump_vmcore::seekable::write::FrameCompressor;
use kdump_vmcore::{PhysMem, ReadError};

use crate::compress::{Compressor, Level};
use crate::source::read_page;

/// Frames in a chunk: 512 KiB. From 16 pages on, the cost of passing them on does not show.
pub(crate) const CHUNK: u64 = 128;
/// Chunks that wait between a worker and the writer.
const WAITING: usize = 2;

const PAGE: usize = PAGE_SIZE as usize;
static ZERO_PAGE: [u8; PAGE] = [0; PAGE];

/// What to do with each page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Coding {
    /// How to compress; a page that does not shrink is stored as it is.
    pub compression: Compression,
    /// How hard to try.
    pub level: Level,
    /// Pages are packed together, into zstd frames of at most so many bytes of them, not each by itself; zero-filled
    /// and lost ones as zeros.
    pub frames: Option<usize>,
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
    /// Where pages are packed together: the bytes of each frame, and what it holds.
    pub frames: Vec<(u32, u32)>,
    /// Frames that could not be read, and why.
    pub lost: Vec<(u64, ReadError)>,
}

impl Chunk {
    /// Runs of frames of this chunk's window that are in `pages`: the ones its entries stand for.
    pub fn runs<'a>(&self, pages: &'a PageBitmap) -> impl Iterator<Item = (u64, u64)> + use<'a> {
        pages.runs_in(self.first_pfn, self.first_pfn + CHUNK)
    }

    /// The same frames, one by one.
    pub fn pfns<'a>(&self, pages: &'a PageBitmap) -> impl Iterator<Item = u64> + use<'a> {
        self.runs(pages).flat_map(|(start, end)| start..end)
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

/// Threads that compress, with what they keep from one run to the next.
pub struct Pipeline {
    workers: Vec<Worker>,
}

impl Pipeline {
    /// Sets up `workers` compressors, and the memory they work in.
    ///
    /// # Errors
    /// If compression cannot be set up.
    pub fn new(coding: Coding, workers: NonZeroUsize) -> io::Result<Self> {
        let worker = |_| -> io::Result<Worker> {
            let chunk = || Chunk { data: Vec::with_capacity(CHUNK as usize * PAGE), ..Chunk::default() };
            Ok(Worker {
                coding,
                compressor: match coding.frames {
                    Some(_) => Compressor::new(Compression::None, Level::Usual)?,
                    None => Compressor::new(coding.compression, coding.level)?,
                },
                framer: match coding.frames {
                    Some(_) => {
                        Some(FrameCompressor::new(coding.level.number(Compression::Zstd).unwrap_or(1))?)
                    }
                    None => None,
                },
                plain: Vec::new(),
                input: Vec::with_capacity(CHUNK as usize * PAGE),
                spare: std::iter::repeat_with(chunk).take(WAITING + 1).collect(),
            })
        };
        Ok(Self { workers: (0..workers.get()).map(worker).collect::<io::Result<_>>()? })
    }

    /// Runs all of `source.pages` through the workers and hands the chunks to `take`, in ascending
    /// order, on the caller's thread.
    ///
    /// # Errors
    /// The first error of `take`, which ends the run, or of starting threads.
    pub fn run<M: PhysMem + Sync + ?Sized>(
        &mut self,
        source: Source<'_, M>,
        mut take: impl FnMut(&Chunk) -> io::Result<()>,
    ) -> io::Result<()> {
        let nr = self.workers.len();
        std::thread::scope(|scope| {
            let mut lanes = Vec::with_capacity(nr);
            for (w, worker) in self.workers.iter_mut().enumerate() {
                let (full_tx, full_rx) = bounded(WAITING);
                let (empty_tx, empty_rx) = bounded(WAITING + 1);
                std::thread::Builder::new()
                    .name(format!("page-worker-{w}"))
                    .spawn_scoped(scope, move || worker.run(source, w, nr, &full_tx, &empty_rx))?;
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
}

struct Worker {
    coding: Coding,
    compressor: Compressor,
    framer: Option<FrameCompressor>,
    /// Pages to be packed together.
    plain: Vec<u8>,
    input: Vec<u8>,
    /// Chunks that are on their way nowhere.
    spare: Vec<Chunk>,
}

impl Worker {
    fn run<M: PhysMem + ?Sized>(
        &mut self,
        source: Source<'_, M>,
        me: usize,
        of: usize,
        full: &Sender<Chunk>,
        empty: &Receiver<Chunk>,
    ) {
        for first_pfn in chunks(source.pages).skip(me).step_by(of) {
            let used = empty.try_recv().ok();
            let mut chunk = used.or_else(|| self.spare.pop()).unwrap_or_default();
            self.fill(source, first_pfn, &mut chunk);
            self.pack(&mut chunk);
            if full.send(chunk).is_err() {
                return;
            }
        }
        self.spare.extend(empty.try_iter());
    }

    fn fill<M: PhysMem + ?Sized>(&mut self, source: Source<'_, M>, first_pfn: u64, chunk: &mut Chunk) {
        chunk.first_pfn = first_pfn;
        chunk.pages.clear();
        chunk.data.clear();
        chunk.frames.clear();
        chunk.lost.clear();
        self.plain.clear();
        let Source { mem, ram, pages } = source;
        let runs = pages.runs_in(first_pfn, first_pfn + CHUNK);
        let end = runs.clone().last().map_or(first_pfn, |(_, end)| end);
        let start = runs.clone().next().map_or(end, |(start, _)| start);
        if let Some(piece) = mem.piece(PhysAddr(start * PAGE_SIZE), (end - start) as usize * PAGE) {
            let pages = runs.flat_map(|(s, e)| s - start..e - start);
            for page in pages.filter_map(|i| piece.chunks_exact(PAGE).nth(i as usize)) {
                self.code(page, chunk);
            }
            return;
        }
        for (start, end) in runs {
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
                        self.keep_for_frame(&ZERO_PAGE);
                    }
                }
            }
            self.input = input;
        }
    }

    /// Takes a page for the frames, if there are to be any.
    fn keep_for_frame(&mut self, page: &[u8]) -> bool {
        if self.framer.is_some() {
            self.plain.extend_from_slice(page);
        }
        self.framer.is_some()
    }

    /// Packs what was kept into frames.
    fn pack(&mut self, chunk: &mut Chunk) {
        let (Some(framer), Some(size)) = (&mut self.framer, self.coding.frames) else { return };
        for plain in self.plain.chunks(size.max(PAGE)) {
            // Its room is what zstd needs at worst: it does not fail.
            if let Ok(packed) = framer.frame(plain, &mut chunk.data) {
                chunk.frames.push((packed, plain.len() as u32));
            }
        }
    }

    fn code(&mut self, page: &[u8], chunk: &mut Chunk) {
        if self.coding.find_zero && page == ZERO_PAGE {
            chunk.pages.push(Page::Zero);
            self.keep_for_frame(page);
            return;
        }
        if self.keep_for_frame(page) {
            chunk.pages.push(Page::Stored { size: PAGE as u32, flags: 0 });
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
    (pages.first()..)
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

    fn plainly(find_zero: bool) -> Coding {
        Coding { compression: Compression::None, find_zero, level: Level::Usual, frames: None }
    }

    fn collect(workers: usize, coding: Coding) -> (Vec<u64>, Vec<Page>, Vec<u8>, usize) {
        let (mem, mut pages) = memory();
        pages.remove(3, 301);
        pages.remove(303, 999);
        let ram = [PhysRange::new(0, 1000 * PAGE_SIZE)];
        let source = Source { mem: &mem, ram: &ram, pages: &pages };
        let (mut pfns, mut out, mut data, mut lost) = (Vec::new(), Vec::new(), Vec::new(), 0);
        let mut pipeline = Pipeline::new(coding, NonZeroUsize::new(workers).unwrap()).unwrap();
        let mut take = |chunk: &Chunk| {
            pfns.extend(chunk.pfns(&pages));
            out.extend_from_slice(&chunk.pages);
            data.extend_from_slice(&chunk.data);
            lost += chunk.lost.len();
            Ok(())
        };
        // Two runs, the second beginning in the middle: what is kept between them changes nothing.
        let mut early = pages.clone();
        early.remove(128, 1000);
        pipeline.run(Source { pages: &early, ..source }, &mut take).unwrap();
        let mut late = PageBitmap::window(128, 1000);
        pages.runs_in(128, 1000).for_each(|(start, end)| late.insert(start, end));
        pipeline.run(Source { pages: &late, ..source }, take).unwrap();
        (pfns, out, data, lost)
    }

    #[test]
    fn output_is_in_order_for_any_number_of_workers() {
        let coding = plainly(true);
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
        let coding = plainly(false);
        let mut calls = 0;
        let mut pipeline = Pipeline::new(coding, NonZeroUsize::new(2).unwrap()).unwrap();
        let result = pipeline.run(source, |_| {
            calls += 1;
            Err(io::ErrorKind::StorageFull.into())
        });
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(calls, 1);
    }
}

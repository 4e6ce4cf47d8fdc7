//! Writing what was decided, in one format or another.

mod elf;
mod elf_zstd;
mod kdump;
mod split;
mod stream;

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;

use kdump_vmcore::ReadError;
use kdump_vmcore::kdump::write::Page;

use kdump_vmcore::flat::write::Flattened;
use kdump_vmcore::sink::WriteAt;

use crate::capture::{Encryption, Error, Options, Output, OutputFormat, Progress};
use crate::digest::{Piece, PieceDigests};
use crate::encrypt::{self, Encryptor};
use crate::pipeline::Chunk;
use crate::plan::Plan;

pub(crate) use split::write_parts;
use stream::Counted;

/// Lost pages are named up to this number, and counted beyond.
const LOST_NAMED: usize = 64;

/// Counts on the way.
pub(crate) struct Tally<'a> {
    pub(crate) progress: &'a mut dyn FnMut(Progress),
    pub(crate) done: u64,
    pub(crate) total: u64,
    pub(crate) zero: u64,
    pub(crate) nr_lost: u64,
    pub(crate) lost: Vec<(u64, ReadError)>,
    pub(crate) is_source_incomplete: bool,
    /// Bytes of the file so far.
    pub(crate) bytes: u64,
}

impl Tally<'_> {
    /// Whether the dump is to keep its incomplete mark.
    const fn has_gaps(&self) -> bool {
        self.nr_lost > 0 || self.is_source_incomplete
    }

    fn take(&mut self, chunk: &Chunk, bytes: u64) {
        self.done += chunk.pages.len() as u64;
        self.zero += chunk.pages.iter().filter(|p| **p == Page::Zero).count() as u64;
        self.nr_lost += chunk.lost.len() as u64;
        let room = LOST_NAMED.saturating_sub(self.lost.len());
        self.lost.extend(chunk.lost.iter().take(room).copied());
        self.bytes = bytes;
        (self.progress)(Progress { done: self.done, total: self.total, bytes });
    }
}

/// Something that takes bytes at offsets and can be told that what it has matters.
trait Sink: WriteAt {
    /// Brings what was written to where it is to stay.
    fn settle(&mut self) -> io::Result<()>;
}

impl Sink for &File {
    fn settle(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A file on a disk that may lose its power: descriptors get there after the pages they are of.
struct Ordered<'a>(&'a File);

impl WriteAt for Ordered<'_> {
    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }
    fn reserve(&mut self, len: u64) -> io::Result<()> {
        self.0.reserve(len)
    }
    fn barrier(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }
}

impl Sink for Ordered<'_> {
    fn settle(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }
}

impl<W: io::Write> Sink for Flattened<W> {
    fn settle(&mut self) -> io::Result<()> {
        self.flush()
    }
}

/// Writes in the format that is wanted. Returns the bytes written, and their digests.
pub(crate) fn write_to(
    plan: &Plan<'_>,
    options: &Options,
    out: Output<'_>,
    tally: &mut Tally<'_>,
) -> Result<(u64, Vec<Piece>), Error> {
    match (out, options.format, &options.encryption) {
        (Output::File(file), OutputFormat::Kdump, None) if options.is_ordered => {
            let (_, written) = kdump::write(plan, options, Ordered(file), tally)?;
            written.digested(file)
        }
        (Output::File(file), OutputFormat::Kdump, None) => {
            let (_, written) = kdump::write(plan, options, file, tally)?;
            written.digested(file)
        }
        (Output::File(file), OutputFormat::Elf, None) => {
            let (_, written) = elf::write(plan, options, file, tally)?;
            written.digested(file)
        }
        (Output::File(mut file), _, None) => {
            in_order(&mut file, options, |out| stream_to(plan, options, out, tally))
        }
        (Output::Stream(stream), _, None) => {
            in_order(stream, options, |out| stream_to(plan, options, out, tally))
        }
        (Output::File(mut file), _, Some(encryption)) => {
            in_order(&mut file, options, |out| seal_to(plan, options, encryption, out, tally))
        }
        (Output::Stream(stream), _, Some(encryption)) => {
            in_order(stream, options, |out| seal_to(plan, options, encryption, out, tally))
        }
    }
}

/// Writes in order; what would go to offsets, as a flattened stream.
fn stream_to(
    plan: &Plan<'_>,
    options: &Options,
    out: &mut Counted<'_>,
    tally: &mut Tally<'_>,
) -> Result<(), Error> {
    if options.format == OutputFormat::ElfZstd {
        return elf_zstd::write(plan, options, out, tally);
    }
    // The stream itself is digested, not what it says.
    let options = Options { digests: false, ..options.clone() };
    let flat = Flattened::begin(out).map_err(Error::at(0))?;
    let flat = match options.format {
        OutputFormat::Kdump => kdump::write(plan, &options, flat, tally)?.0,
        _ => elf::write(plan, &options, flat, tally)?.0,
    };
    flat.finish().map_err(Error::at(tally.bytes))?;
    Ok(())
}

/// The same, encrypted on its way out.
fn seal_to(
    plan: &Plan<'_>,
    options: &Options,
    encryption: &Encryption,
    out: &mut Counted<'_>,
    tally: &mut Tally<'_>,
) -> Result<(), Error> {
    let mut sealed = Encryptor::new(&encryption.recipients, out).map_err(Error::at(0))?;
    let mut plain = Counted::new(&mut sealed, false);
    stream_to(plan, options, &mut plain, tally)?;
    if encryption.is_padded {
        let over = plain.bytes() % encrypt::CHUNK as u64;
        let zeros = (encrypt::CHUNK as u64 - over) % encrypt::CHUNK as u64;
        io::copy(&mut io::repeat(0).take(zeros), &mut plain).map_err(Error::at(tally.bytes))?;
    }
    sealed.finish().map_err(Error::at(tally.bytes))?;
    Ok(())
}

/// Counts and digests what `write` puts out in order.
fn in_order(
    out: &mut dyn io::Write,
    options: &Options,
    write: impl FnOnce(&mut Counted<'_>) -> Result<(), Error>,
) -> Result<(u64, Vec<Piece>), Error> {
    let mut out = Counted::new(out, options.digests);
    write(&mut out)?;
    io::Write::flush(&mut out).map_err(Error::at(out.bytes()))?;
    Ok(out.finish())
}

/// What was written at offsets.
struct Written {
    bytes: u64,
    /// Where the pages' bytes begin, and their digests.
    data_at: u64,
    digests: Option<PieceDigests>,
}

impl Written {
    fn digested(self, out: &File) -> Result<(u64, Vec<Piece>), Error> {
        let pieces = finish_digests(self.digests, out, self.data_at).map_err(Error::at(self.bytes))?;
        Ok((self.bytes, pieces))
    }
}

/// Reads back what lies before the pages, which is final only now, and digests it, too.
fn finish_digests(digests: Option<PieceDigests>, out: &File, data_at: u64) -> io::Result<Vec<Piece>> {
    const BUFFER: u64 = 1 << 20;
    let Some(digests) = digests else { return Ok(Vec::new()) };
    let mut head = PieceDigests::new(0);
    let mut buffer = vec![0; data_at.min(BUFFER) as usize];
    let mut at = 0;
    while at < data_at {
        let len = (data_at - at).min(BUFFER) as usize;
        // A dump without any page ends within its padding.
        match out.read_at(&mut buffer[..len], at)? {
            0 => break,
            n => {
                head.update(&buffer[..n]);
                at += n as u64;
            }
        }
    }
    Ok(head.finish().into_iter().chain(digests.finish()).collect())
}

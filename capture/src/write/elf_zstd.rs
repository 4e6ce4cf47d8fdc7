//! An ELF core in zstd frames, written in order from its first byte to its last.
//!
//! Frames end where chunks of the pipeline do, so that its threads pack them; the seek table says how much each holds.
//! The core's header has no incomplete mark, since nothing can be gone back to: a stream that was cut lacks its table.

use std::io::{self, Write};

use kdump_vmcore::elf::write::ElfWriter;
use kdump_vmcore::kdump::Compression;
use kdump_vmcore::seekable::write::{FrameCompressor, SeekTable, frame_size};
use kdump_vmcore::sink::WriteAt;

use super::Tally;
use super::elf::{layout, name_segments};
use super::stream::Counted;
use crate::capture::{Error, Options};
use crate::pipeline::{Coding, Pipeline, Source};
use crate::plan::Plan;

pub(super) fn write(
    plan: &Plan<'_>,
    options: &Options,
    out: &mut Counted<'_>,
    tally: &mut Tally<'_>,
) -> Result<(), Error> {
    let dump = plan.dump;
    let (layout, data_len) = layout(plan);
    let size = frame_size(layout.data_at().saturating_add(data_len));
    let level = options.level.number(Compression::Zstd).unwrap_or(1);
    let mut frames = Frames::new(out, level, size).map_err(Error::Start)?;

    let mut writer = ElfWriter::begin(&mut frames, layout, false).map_err(Error::at(0))?;
    name_segments(plan, &mut writer).and_then(|()| writer.end_headers(dump.notes())).map_err(Error::at(0))?;
    drop(writer);
    frames.pad_to(layout.data_at()).and_then(|()| frames.end_frame()).map_err(Error::at(0))?;

    let coding = Coding {
        compression: Compression::Zstd,
        find_zero: plan.census.selection.excludes_zero(),
        level: options.level,
        frames: Some(size),
    };
    let mut pipeline = Pipeline::new(coding, plan.workers).map_err(Error::Start)?;
    let result = plan.decider.sweep(|decision| {
        let source = Source { mem: dump, ram: dump.ram(), pages: &decision.dumped };
        pipeline.run(source, |chunk| {
            frames.put(&chunk.data, &chunk.frames)?;
            tally.take(chunk, frames.out.bytes());
            Ok(())
        })
    });
    result.and_then(|()| frames.finish()).map_err(Error::at(tally.bytes))
}

/// Frames on their way out. Bytes at offsets are taken as long as these ascend.
struct Frames<'a, 'b> {
    out: &'a mut Counted<'b>,
    compressor: FrameCompressor,
    table: SeekTable,
    pending: Vec<u8>,
    packed: Vec<u8>,
    /// Bytes of the core so far, pending ones included.
    at: u64,
    size: usize,
}

impl<'a, 'b> Frames<'a, 'b> {
    fn new(out: &'a mut Counted<'b>, level: i32, size: usize) -> io::Result<Self> {
        Ok(Self {
            out,
            compressor: FrameCompressor::new(level)?,
            table: SeekTable::new(),
            pending: Vec::with_capacity(size),
            packed: Vec::new(),
            at: 0,
            size,
        })
    }

    /// Fills with zeros up to an offset.
    fn pad_to(&mut self, offset: u64) -> io::Result<()> {
        const ZEROS: [u8; 4096] = [0; 4096];
        while self.at < offset {
            let n = (offset - self.at).min(ZEROS.len() as u64);
            self.take(&ZEROS[..n as usize])?;
        }
        Ok(())
    }

    fn take(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(self.size - self.pending.len()));
            self.pending.extend_from_slice(now);
            self.at += now.len() as u64;
            bytes = later;
            if self.pending.len() == self.size {
                self.end_frame()?;
            }
        }
        Ok(())
    }

    fn end_frame(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        self.packed.clear();
        let packed = self.compressor.frame(&self.pending, &mut self.packed)?;
        self.out.write_all(&self.packed)?;
        self.table.push(packed, self.pending.len() as u32);
        self.pending.clear();
        Ok(())
    }

    /// Takes frames that are packed already.
    fn put(&mut self, data: &[u8], frames: &[(u32, u32)]) -> io::Result<()> {
        self.out.write_all(data)?;
        frames.iter().for_each(|&(packed, plain)| self.table.push(packed, plain));
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        self.table.write(&mut self.out).map(|_| ())
    }
}

impl WriteAt for &mut Frames<'_, '_> {
    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if offset < self.at {
            return Err(io::Error::other("a stream cannot be gone back in"));
        }
        self.pad_to(offset)?;
        self.take(bytes)
    }
}

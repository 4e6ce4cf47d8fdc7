//! The running machine, whose pages change while they are counted.

use std::io;
use std::os::unix::fs::FileExt;

use kdump_arch_x86::{PAGE_SIZE, PhysAddr, PhysRange};
use kdump_vmcore::PhysMem;

use super::page_flags::Classifier;
use super::{Estimate, Sampler, head_bytes};
use crate::capture::{Error, Options};
use crate::classify::PageClass;

/// Words that are read at once.
const WORDS: u64 = 8192;
/// Bytes of a running kernel's notes: registers of some CPUs and VMCOREINFO.
const NOTES: u64 = 8192;

/// Why a machine's pages cannot be counted.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// The words cannot be read.
    #[error("/proc/kpageflags cannot be read from frame {pfn:#x} on: {source}")]
    Flags {
        /// The first frame of those.
        pfn: u64,
        /// What the operating system said.
        source: io::Error,
    },
    /// Compression cannot be set up.
    #[error(transparent)]
    Start(#[from] Error),
}

/// Counts the pages of `ram` by /proc/kpageflags, and reads some where `contents` can.
///
/// # Errors
/// [`LiveError`].
pub fn estimate(
    ram: &[PhysRange],
    flags: &impl FileExt,
    contents: Option<&dyn PhysMem>,
    options: &Options,
) -> Result<Estimate, LiveError> {
    let mut found = [0; PageClass::ALL.len()];
    for_each_run(ram, flags, |start, end, class| found[class as usize] += end - start)?;
    let mut sampler = Sampler::new(&found, options)?;
    let mut troubles = Vec::new();
    match contents {
        Some(mem) => for_each_run(ram, flags, |start, end, class| {
            sampler.take(start, end, class, |pfn, page| mem.read(PhysAddr(pfn * PAGE_SIZE), page).is_ok());
        })?,
        None => {
            troubles
                .push("no page was read: zero-filled ones are not told, and packing is guessed".to_owned());
        }
    }
    let frames = ram.last().map_or(0, |range| range.pfns().1.0);
    Ok(sampler.finish(found, 0, troubles, head_bytes(NOTES, frames)))
}

/// Frames of `ram` by class, in runs.
fn for_each_run(
    ram: &[PhysRange],
    flags: &impl FileExt,
    mut found: impl FnMut(u64, u64, PageClass),
) -> Result<(), LiveError> {
    let mut words = vec![0; WORDS as usize * 8];
    for range in ram {
        let (first, end) = range.pfns();
        let mut classifier = Classifier::default();
        let mut open: Option<(u64, PageClass)> = None;
        let mut pfn = first.0;
        while pfn < end.0 {
            let nr = (end.0 - pfn).min(WORDS);
            let bytes = &mut words[..nr as usize * 8];
            flags.read_exact_at(bytes, pfn * 8).map_err(|source| LiveError::Flags { pfn, source })?;
            for word in bytes.chunks_exact(8) {
                let class = classifier.next(u64::from_le_bytes(word.try_into().unwrap_or_default()));
                match open {
                    Some((_, same)) if same == class => {}
                    _ => {
                        if let Some((start, class)) = open.replace((pfn, class)) {
                            found(start, pfn, class);
                        }
                    }
                }
                pfn += 1;
            }
        }
        if let Some((start, class)) = open {
            found(start, pfn, class);
        }
    }
    Ok(())
}

//! What a kdump-compressed file promises, read by hand: the pages whose descriptors say where they are. A complete dump of
//! the same memory tells whether the promise is kept.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

const PAGE: usize = 4096;
/// Flag of a page packed by zstd.
const ZSTD: u32 = 0x20;
/// Status of a file that was never finished.
const INCOMPLETE: u32 = 0x8;

/// Pages by frame number, each as it would be read.
pub struct Promise {
    pub is_incomplete: bool,
    /// Frames in the bitmap.
    pub wanted: usize,
    pub pages: BTreeMap<u64, Result<Vec<u8>, String>>,
}

/// Reads a file; `None` if it has not even headers and bitmaps.
pub fn read(path: &Path) -> Option<Promise> {
    let bytes = fs::read(path).unwrap();
    let u32_at = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
    let u64_at = |at: usize| Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
    // struct disk_dump_header of version 6.
    if !bytes.starts_with(b"KDUMP   ") {
        return None;
    }
    let (status, sub, bitmaps) = (u32_at(424)?, u32_at(432)? as usize, u32_at(436)? as usize);
    let second = (1 + sub + bitmaps / 2) * PAGE;
    let bitmap = bytes.get(second..second + bitmaps / 2 * PAGE)?;
    let frames = (0..bitmap.len() as u64 * 8).filter(|pfn| bitmap[(pfn / 8) as usize] >> (pfn % 8) & 1 == 1);
    let descs = (1 + sub + bitmaps) * PAGE;
    let mut promise = Promise { is_incomplete: status & INCOMPLETE != 0, wanted: 0, pages: BTreeMap::new() };
    for (index, pfn) in frames.enumerate() {
        promise.wanted += 1;
        let at = descs + index * 24;
        let (Some(offset), Some(size), Some(flags)) = (u64_at(at), u32_at(at + 8), u32_at(at + 12)) else {
            continue;
        };
        if offset != 0 {
            let stored =
                (offset as usize).checked_add(size as usize).and_then(|end| bytes.get(offset as usize..end));
            promise.pages.insert(
                pfn,
                stored.ok_or_else(|| "lies beyond the end".to_owned()).and_then(|b| page(b, flags)),
            );
        }
    }
    Some(promise)
}

fn page(stored: &[u8], flags: u32) -> Result<Vec<u8>, String> {
    let page = match flags {
        0 => stored.to_vec(),
        ZSTD => zstd::bulk::decompress(stored, PAGE).map_err(|e| e.to_string())?,
        other => return Err(format!("flags {other:#x}")),
    };
    if page.len() == PAGE { Ok(page) } else { Err(format!("{} bytes", page.len())) }
}

impl Promise {
    /// The promised pages that are not as in `whole`, in words, and how many there are.
    pub fn broken(&self, whole: &Promise) -> (usize, Vec<String>) {
        let mut broken = Vec::new();
        for (pfn, page) in &self.pages {
            match (page, whole.pages.get(pfn)) {
                (Ok(page), Some(Ok(other))) if page == other => {}
                (Ok(_), other) => broken.push(format!("{pfn:#x} is another page ({})", other.is_some())),
                (Err(why), _) => broken.push(format!("{pfn:#x}: {why}")),
            }
        }
        (broken.len(), broken.into_iter().take(5).collect())
    }
}

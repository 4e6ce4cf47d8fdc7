//! A bitmap that stays in its file. One of a 16 TiB machine has 512 MiB: it is counted once, in passing, and looked
//! into where a page is asked for.

use std::ops::Range;
use std::vec::Vec;

use kdump_arch_x86::{PAGE_SIZE, PhysRange};

use super::bitmap::PageBitmap;
use crate::image::Image;
use crate::mem::ReadError;

/// One bit per page frame, in a file. What a cut file does not have is zero.
#[derive(Clone, Copy, Debug)]
pub(super) struct FileBitmap {
    /// Offset in the file.
    pub(super) at: u64,
    /// Frames `0..bits`.
    pub(super) bits: u64,
}

/// Bytes looked at together: few enough to stay in a fast cache.
const PIECE: u64 = 32 << 10;

/// The same on the stack, for a lookup.
const SHORT: u64 = 4096;

impl FileBitmap {
    /// Calls `each` with pieces of the bitmap, read in passing: the number of the first word, and the words, frame
    /// `64 * i` in bit 0 of word `i`.
    fn words(
        &self,
        image: &Image,
        words: Range<u64>,
        mut each: impl FnMut(u64, &[u64]),
    ) -> Result<(), ReadError> {
        let largest = (words.end.saturating_sub(words.start)).min(PIECE / 8) as usize;
        let mut bytes = std::vec![0; largest * 8];
        let mut piece = std::vec![0; largest];
        let mut data = 0..0;
        let mut word = words.start;
        while word < words.end {
            let nr = (words.end - word).min(PIECE / 8) as usize;
            let at = self.at + word * 8;
            let have = image.len().saturating_sub(at).min(nr as u64 * 8) as usize;
            if have > 0 && at >= data.end {
                data = image.next_data(at);
            }
            // Of 16 TiB of address space, most is no memory: a file system that has holes keeps none of it.
            let is_hole = have == 0 || at + have as u64 <= data.start;
            let raw = &mut bytes[..have];
            if is_hole {
                raw.fill(0);
            } else {
                image.pread(at, raw)?;
            }
            let mut whole = raw.chunks_exact(8);
            for (to, from) in piece.iter_mut().zip(&mut whole) {
                *to = from.first_chunk().map_or(0, |b| u64::from_le_bytes(*b));
            }
            let (done, rest) = (raw.len() / 8, whole.remainder());
            piece[done..nr].fill(0);
            if let Some(to) = piece[..nr].get_mut(done) {
                *to = rest.iter().rev().fold(0, |n, &b| n << 8 | u64::from(b));
            }
            if (word + nr as u64) * 64 > self.bits {
                clear_from(&mut piece[..nr], self.bits - word * 64);
            }
            each(word, &piece[..nr]);
            word += nr as u64;
        }
        Ok(())
    }

    /// Whether `pfn` is in the set.
    pub(super) fn get(&self, image: &Image, pfn: u64) -> Result<bool, ReadError> {
        let at = self.at + pfn / 8;
        if pfn >= self.bits || at >= image.len() {
            return Ok(false);
        }
        let byte = match image.borrow(at, 1) {
            Some(&[byte]) => byte,
            _ => {
                let mut byte = [0];
                image.read_at(at, &mut byte)?;
                byte[0]
            }
        };
        Ok(byte >> (pfn % 8) & 1 == 1)
    }

    /// The part of the set within `frames`.
    pub(super) fn window(&self, image: &Image, frames: Range<u64>) -> Result<PageBitmap, ReadError> {
        let end = frames.end.min(self.bits);
        let start = frames.start.min(end);
        let first = start / 64 * 64;
        let mut out = PageBitmap::window(first, end);
        let to = out.words_mut();
        self.words(image, first / 64..end.div_ceil(64), |word, words| {
            let at = (word - first / 64) as usize;
            if let Some(to) = to.get_mut(at..at + words.len()) {
                to.copy_from_slice(words);
            }
        })?;
        clear_from(out.words_mut(), end - first);
        out.remove(first, start);
        Ok(out)
    }

    /// How many of `start..end` are in the set, `start` being a multiple of 8: for a block of a rank index.
    fn count_in(&self, image: &Image, start: u64, end: u64) -> Result<u64, ReadError> {
        let mut sum = 0;
        let mut start = start;
        let end = end.min(self.bits);
        while start < end {
            let at = self.at + start / 8;
            let here = (end - start).min(SHORT * 8);
            let have = image.len().saturating_sub(at).min(here.div_ceil(8)) as usize;
            sum += match image.borrow(at, have) {
                _ if have == 0 => 0,
                Some(raw) => count(raw, here),
                None => {
                    let mut bytes = [0; SHORT as usize];
                    image.read_at(at, &mut bytes[..have])?;
                    count(&bytes[..have], here)
                }
            };
            start += here;
        }
        Ok(sum)
    }

    /// The last frame of `frames` in the set.
    pub(super) fn last_in(&self, image: &Image, frames: Range<u64>) -> Result<Option<u64>, ReadError> {
        let mut end = frames.end.min(self.bits);
        while end > frames.start {
            let start = ((end - 1) / (PIECE * 8) * PIECE * 8).max(frames.start);
            let here = self.window(image, start..end)?;
            if let Some((_, last)) = here.runs().last() {
                return Ok(Some(last - 1));
            }
            end = start;
        }
        Ok(None)
    }

    /// The set as physical ranges, at most [`MOST_RANGES`]: of more, those closest together are joined.
    pub(super) fn ranges(&self, image: &Image) -> Result<Vec<PhysRange>, ReadError> {
        let mut out = Ranges::default();
        self.words(image, 0..self.bits.div_ceil(64), |first, words| {
            for (&word, nr) in words.iter().zip(first..) {
                let mut rest = word;
                while rest != 0 {
                    let start = u64::from(rest.trailing_zeros());
                    let len = u64::from((rest >> start).trailing_ones());
                    out.push(nr * 64 + start, nr * 64 + start + len);
                    rest &= !low(start + len);
                }
            }
        })?;
        Ok(out.into_phys())
    }
}

/// How many of the first `bits` bits are set; missing bytes are zero.
fn count(bytes: &[u8], bits: u64) -> u64 {
    let whole = ((bits / 8) as usize).min(bytes.len());
    let (full, rest) = bytes.split_at(whole);
    let mut words = full.chunks_exact(8);
    let sum =
        (&mut words).map(|w| w.first_chunk().map_or(0, |b| u64::from_le_bytes(*b).count_ones())).sum::<u32>();
    let tail = words.remainder().iter().map(|b| b.count_ones()).sum::<u32>();
    let last = rest.first().map_or(0, |b| (b & low(bits % 8) as u8).count_ones());
    u64::from(sum + tail + last)
}

/// The lowest `n` bits, at most 64.
const fn low(n: u64) -> u64 {
    if n >= 64 { u64::MAX } else { (1 << n) - 1 }
}

/// Clears the bits of `words` from `bit` on.
fn clear_from(words: &mut [u64], bit: u64) {
    for (word, nr) in words.iter_mut().zip(0u64..) {
        *word &= low(bit.saturating_sub(nr * 64));
    }
}

/// Ranges of memory that are told apart. Real machines have a few dozen.
const MOST_RANGES: usize = 1 << 16;

/// Runs of frames, joined where there are too many.
struct Ranges {
    runs: Vec<(u64, u64)>,
    /// Gaps smaller than this are closed.
    gap: u64,
}

impl Default for Ranges {
    fn default() -> Self {
        Self { runs: Vec::new(), gap: 1 }
    }
}

impl Ranges {
    fn push(&mut self, start: u64, end: u64) {
        match self.runs.last_mut() {
            Some(last) if start - last.1 < self.gap => last.1 = end,
            _ => self.runs.push((start, end)),
        }
        while self.runs.len() > MOST_RANGES {
            self.gap *= 2;
            let gap = self.gap;
            self.runs.dedup_by(|next, before| {
                let is_near = next.0 - before.1 < gap;
                if is_near {
                    before.1 = next.1;
                }
                is_near
            });
        }
    }

    fn into_phys(self) -> Vec<PhysRange> {
        let phys = |(start, end): (u64, u64)| {
            PhysRange::try_new(start.checked_mul(PAGE_SIZE)?, end.checked_mul(PAGE_SIZE)?)
        };
        self.runs.into_iter().filter_map(phys).collect()
    }
}

/// How many members of a bitmap come before a frame: where its descriptor stands.
#[derive(Clone, Debug)]
pub(super) struct FileRank {
    /// Members before each block of frames.
    before: Vec<u64>,
    /// Frames of a block.
    block: u64,
}

impl FileRank {
    /// 1 MiB of counts. So blocks have 512 frames, eight words to count, up to 256 GiB of address space, and
    /// 4 KiB of the bitmap for 16 TiB.
    const MOST: u64 = 1 << 17;

    /// Counts the members of `map`.
    pub(super) fn new(image: &Image, map: &FileBitmap) -> Result<Self, ReadError> {
        let block = map.bits.div_ceil(Self::MOST).next_power_of_two().max(512);
        let mut before = Vec::with_capacity(map.bits.div_ceil(block) as usize);
        let mut sum = 0;
        map.words(image, 0..map.bits.div_ceil(64), |first, words| {
            let mut first = first;
            for piece in words.chunks((block.min(PIECE * 8) / 64) as usize) {
                if first * 64 % block == 0 {
                    before.push(sum);
                }
                sum += piece.iter().map(|w| u64::from(w.count_ones())).sum::<u64>();
                first += piece.len() as u64;
            }
        })?;
        Ok(Self { before, block })
    }

    /// Members below `pfn` of `map`, the one that was counted.
    pub(super) fn rank(&self, image: &Image, map: &FileBitmap, pfn: u64) -> Result<u64, ReadError> {
        let pfn = pfn.min(map.bits);
        // A frame at the very end counts on from the last block.
        let block = (pfn / self.block).min((self.before.len() as u64).saturating_sub(1));
        let before = self.before.get(block as usize).copied().unwrap_or(0);
        Ok(before + map.count_in(image, block * self.block, pfn)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::DumpFile;

    fn image(bytes: &[u8]) -> Image {
        let path = std::env::temp_dir().join(std::format!("kdump-map-{}-{bytes:p}", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        let file = DumpFile::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        file.into()
    }

    /// A set of frames, and a file that has it from byte 5 on, cut where its last quarter begins.
    fn patterned(bits: u64) -> (PageBitmap, Image, FileBitmap) {
        let mut model = PageBitmap::new(bits);
        let mut seed = 3u64;
        let mut at = 0;
        while at < bits {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let len = 1 + (seed >> 33) % if seed & 4 == 0 { 5 } else { 900 };
            if seed & 0x800 == 0 {
                model.insert(at, at + len);
            }
            at += len;
        }
        let mut bytes = std::vec![0xff; 5];
        bytes.extend(model.to_bytes(bits.div_ceil(8) as usize));
        let kept = (bytes.len() * 3 / 4).max(5);
        bytes.truncate(kept);
        model.remove((kept as u64 - 5) * 8, u64::MAX);
        (model, image(&bytes), FileBitmap { at: 5, bits })
    }

    #[test]
    fn a_bitmap_in_a_file_is_as_one_in_memory() {
        for bits in [1, 63, 64, 65, 4000, 32_768, 100_003] {
            let (model, image, map) = patterned(bits);
            for pfn in (0..bits + 70).step_by(if bits < 5000 { 1 } else { 37 }) {
                assert_eq!(map.get(&image, pfn).unwrap(), model.get(pfn), "{pfn} of {bits}");
            }
            assert_eq!(map.ranges(&image).unwrap(), model.ranges().collect::<Vec<_>>());
            let rank = FileRank::new(&image, &map).unwrap();
            for pfn in (0..bits + 700).step_by(29) {
                assert_eq!(rank.rank(&image, &map, pfn).unwrap(), model.count_in(0, pfn), "{pfn} of {bits}");
            }
            for start in [0, 1, 63, 64, 100, 3000, bits, bits + 9] {
                for end in [start, start + 1, start + 64, start + 1000, bits.max(start), bits + 100 + start] {
                    let window = map.window(&image, start..end).unwrap();
                    for pfn in (start..end).step_by(7) {
                        assert_eq!(window.get(pfn), model.get(pfn), "{pfn} in {start}..{end} of {bits}");
                    }
                    assert_eq!(window.count(), model.count_in(start.min(bits), end));
                    let last = model.runs_in(start.min(bits), end).last().map(|r| r.1 - 1);
                    assert_eq!(map.last_in(&image, start..end).unwrap(), last);
                }
            }
        }
    }

    #[test]
    fn ranks_of_a_large_machine_take_little_memory() {
        let bits = FileRank::MOST * 512 + 4097; // 256 GiB and some
        let map = FileBitmap { at: 0, bits };
        let mut bytes = std::vec![0; bits.div_ceil(8) as usize];
        for nr in (0..bytes.len()).step_by(97) {
            bytes[nr] = 0x11;
        }
        let image = image(&bytes);
        let rank = FileRank::new(&image, &map).unwrap();
        assert!(rank.before.len() as u64 <= FileRank::MOST && rank.block == 1024);
        for pfn in [0, 8 * 97, bits / 3, bits - 1, bits, u64::MAX] {
            let whole = pfn.min(bits) / 8;
            let in_part =
                bytes.get(whole as usize).map_or(0, |b| (b & low(pfn.min(bits) % 8) as u8).count_ones());
            let expect = bytes[..whole as usize].iter().map(|b| u64::from(b.count_ones())).sum::<u64>();
            assert_eq!(rank.rank(&image, &map, pfn).unwrap(), expect + u64::from(in_part));
        }
    }

    #[test]
    fn too_many_ranges_are_joined() {
        let bits = 64 * MOST_RANGES as u64;
        let image = image(&std::vec![0x5a; (bits / 8) as usize]);
        let ranges = FileBitmap { at: 0, bits }.ranges(&image).unwrap();
        assert!(ranges.len() <= MOST_RANGES);
        assert_eq!(ranges.first().unwrap().start().0, PAGE_SIZE);
        assert_eq!(ranges.last().unwrap().end().0, (bits - 1) * PAGE_SIZE);
    }
}

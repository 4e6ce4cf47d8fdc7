//! Multiboot headers: found, checked, understood as far as they matter.

use kdump_arch_x86::PAGE_SIZE;

use super::{Error, MAX_SIZE, Program, Protocol};

const MAGIC1: u32 = 0x1bad_b002;
const MAGIC2: u32 = 0xe852_50d6;
/// Bytes of the file in which the header must lie, and its alignment there.
const SEARCH1: (usize, usize) = (8192, 4);
const SEARCH2: (usize, usize) = (32768, 8);

/// Modules page-aligned, memory information: both given anyway. The next, a video mode, is not.
const UNDERSTOOD: u32 = 0x3;
const ADDRESSES_VALID: u32 = 1 << 16;
const ARCHITECTURE_I386: u32 = 0;
const TAG_OPTIONAL: u16 = 1;

/// What a header says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) addresses: Option<Addresses>,
    pub(super) entry: Option<u64>,
}

/// Where the image lies that is no ELF file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Addresses {
    /// Offset of the header in the file.
    at: u64,
    header: u32,
    load: u32,
    load_end: u32,
    bss_end: u32,
    entry: u32,
}

impl Addresses {
    /// Takes the image out of its file.
    pub(super) fn load(self, file: &[u8], protocol: Protocol) -> Result<Program, Error> {
        let wrong = |field, value: u32, problem| Error::Field { field, value: value.into(), problem };
        // load_addr -1 in Multiboot2, and at most header_addr in both.
        let before =
            if self.load == u32::MAX { self.at } else { u64::from(self.header.wrapping_sub(self.load)) };
        let offset =
            self.at.checked_sub(before).filter(|_| self.load == u32::MAX || self.load <= self.header);
        let offset = offset.ok_or(wrong("load_addr", self.load, "the image would begin before the file"))?;
        let load = u64::from(self.header) - before.min(self.header.into());
        let rest = file.get(offset as usize..).unwrap_or_default();
        let len = match self.load_end {
            0 => rest.len() as u64,
            end => u64::from(end).checked_sub(load).unwrap_or(u64::MAX),
        };
        let bytes = rest.get(..usize::try_from(len).unwrap_or(usize::MAX));
        let bytes = bytes.ok_or(wrong("load_end_addr", self.load_end, "the file ends before"))?;
        let end = (load + len).max(self.bss_end.into());
        let start = load & !(PAGE_SIZE - 1);
        let size = (end - start).next_multiple_of(PAGE_SIZE);
        if start == 0 || size > MAX_SIZE {
            return Err(wrong("load_addr", self.load, "no place for an image of that size"));
        }
        let mut memory = vec![0; (load - start) as usize];
        memory.extend_from_slice(bytes);
        Ok(Program { protocol, start, size, memory, entry: self.entry.into() })
    }
}

/// Finds a Multiboot header, if there is one.
pub(super) fn find1(file: &[u8]) -> Result<Option<Header>, Error> {
    let is_header = |at: usize| {
        let words = [u32_at(file, at), u32_at(file, at + 4), u32_at(file, at + 8)];
        matches!(words, [Some(MAGIC1), Some(flags), Some(sum)] if MAGIC1.wrapping_add(flags).wrapping_add(sum) == 0)
    };
    let Some(at) = places(SEARCH1, file).find(|&at| is_header(at)) else { return Ok(None) };
    let word = |offset: usize| u32_at(file, at + offset).unwrap_or_default();
    let flags = word(4);
    let demanded = flags & 0xffff & !UNDERSTOOD;
    if demanded != 0 {
        let problem = "the image demands what is not provided (bit 2: a video mode)";
        return Err(Error::Field { field: "flags", value: flags.into(), problem });
    }
    let addresses = (flags & ADDRESSES_VALID != 0).then(|| Addresses {
        at: at as u64,
        header: word(12),
        load: word(16),
        load_end: word(20),
        bss_end: word(24),
        entry: word(28),
    });
    Ok(Some(Header { addresses, entry: addresses.map(|a| a.entry.into()) }))
}

/// Finds a Multiboot2 header, if there is one, and reads its tags.
pub(super) fn find2(file: &[u8]) -> Result<Option<Header>, Error> {
    let is_header = |at: usize| {
        let words: [Option<u32>; 4] = std::array::from_fn(|i| u32_at(file, at + 4 * i));
        matches!(words, [Some(MAGIC2), Some(arch), Some(len), Some(sum)]
            if MAGIC2.wrapping_add(arch).wrapping_add(len).wrapping_add(sum) == 0)
    };
    let Some(at) = places(SEARCH2, file).find(|&at| is_header(at)) else { return Ok(None) };
    let word = |at: usize| u32_at(file, at).unwrap_or_default();
    let arch = word(at + 4);
    if arch != ARCHITECTURE_I386 {
        let problem = "not for i386, whose protected mode x86-64 images begin in";
        return Err(Error::Field { field: "architecture", value: arch.into(), problem });
    }
    let end = at.saturating_add(word(at + 8) as usize).min(file.len());
    let mut found = Header::default();
    let mut tag = at + 16;
    while tag + 8 <= end {
        let (kind, flags) = (word(tag) & 0xffff, (word(tag) >> 16) as u16);
        let size = word(tag + 4) as usize;
        if kind == 0 {
            break;
        }
        if size < 8 {
            return Err(Error::Field {
                field: "tag size",
                value: size as u64,
                problem: "smaller than a tag",
            });
        }
        match kind {
            2 => {
                found.addresses = Some(Addresses {
                    at: at as u64,
                    header: word(tag + 8),
                    load: word(tag + 12),
                    load_end: word(tag + 16),
                    bss_end: word(tag + 20),
                    entry: 0,
                });
            }
            3 => found.entry = Some(word(tag + 8).into()),
            // Information requested: what is given is checked; 4 console, 6 alignment, 10 relocation: no demand.
            1 if flags & TAG_OPTIONAL == 0 => {
                for i in (tag + 8..tag.saturating_add(size).min(end)).step_by(4) {
                    demand(word(i), &[1, 2, 3, 4, 6], "requested information")?;
                }
            }
            1 | 4 | 6 | 10 => {}
            _ if flags & TAG_OPTIONAL != 0 => {}
            _ => demand(kind, &[], "framebuffer, EFI or unknown")?,
        }
        tag = tag.saturating_add(size).next_multiple_of(8);
    }
    Ok(Some(found))
}

fn demand(tag: u32, known: &[u32], name: &'static str) -> Result<(), Error> {
    if known.contains(&tag) { Ok(()) } else { Err(Error::Demand { tag, name }) }
}

fn places((limit, align): (usize, usize), file: &[u8]) -> impl Iterator<Item = usize> {
    (0..limit.min(file.len())).step_by(align)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|field| u32::from_le_bytes(*field))
}

//! The payload's ELF file, as the pages it has in memory.

use alloc::vec::Vec;

use bare_metal_platform::Page;

static ELF: &[u8] = include_bytes!(env!("BARE_METAL_PAYLOAD"));

/// Where it is linked, and the pages it may take.
pub const PLACE: (u64, u64) = (0x100_0000, 64);

/// The entry in 32-bit mode; the one in 64-bit mode comes 0x200 behind it.
pub const ENTRY_32: u64 = PLACE.0;
pub const ENTRY_64: u64 = PLACE.0 + 0x200;

const PT_LOAD: u32 = 1;
const PF_W: u32 = 2;

/// A page of the payload.
pub struct PayloadPage {
    pub address: u64,
    pub content: Page,
    /// Whether it changes while it runs.
    pub is_variable: bool,
}

/// All pages, by address.
pub fn pages() -> Vec<PayloadPage> {
    assert!(u64_at(0x18) == ENTRY_64, "the payload's entry is {:#x}", u64_at(0x18));
    let (phoff, phnum) = (u64_at(0x20), u64_at(0x38) & 0xffff);
    let mut pages = Vec::new();
    for phdr in (0..phnum).map(|i| phoff as usize + 56 * i as usize) {
        let (kind, flags) = (u64_at(phdr) as u32, (u64_at(phdr) >> 32) as u32);
        if kind != PT_LOAD {
            continue;
        }
        let (offset, start) = (u64_at(phdr + 8) as usize, u64_at(phdr + 16));
        let (filesz, memsz) = (u64_at(phdr + 32) as usize, u64_at(phdr + 40));
        let bytes = &ELF[offset..offset + filesz];
        for i in 0..memsz.div_ceil(4096) {
            let mut content: Page = [0; 512];
            let rest = bytes.get(4096 * i as usize..).unwrap_or_default();
            for (word, bytes) in content.iter_mut().zip(rest.chunks(8)) {
                let mut whole = [0; 8];
                whole[..bytes.len()].copy_from_slice(bytes);
                *word = u64::from_le_bytes(whole);
            }
            pages.push(PayloadPage { address: start + 4096 * i, content, is_variable: flags & PF_W != 0 });
        }
    }
    let end = PLACE.0 + PLACE.1 * 4096;
    assert!(pages.iter().all(|page| (PLACE.0..end).contains(&page.address)), "the payload is too large");
    pages
}

fn u64_at(at: usize) -> u64 {
    u64::from_le_bytes(*ELF[at..].first_chunk().expect("an ELF file"))
}

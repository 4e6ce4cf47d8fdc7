//! Multiboot information, both kinds, for an address.
//!
//! Source: Multiboot Specification 0.6.96, 3.3; Multiboot2 Specification 2.0, 3.6.

use kdump_arch_x86::PhysRange;
use kdump_arch_x86::bootparam::E820Type;

use crate::boot_params::MemoryMapEntry;

const LOADER_NAME: &[u8] = b"kdump-rs\0";
const MIB: u64 = 1 << 20;

/// EAX of a Multiboot image at its entry.
pub const MULTIBOOT1_EAX: u64 = 0x2bad_b002;
/// The same of one of the second kind.
pub const MULTIBOOT2_EAX: u64 = 0x36d7_6289;

/// Bytes that the information takes at most: the command line, names, a map of so many entries, headers.
#[must_use]
pub fn info_room(cmdline: &str, nr_entries: usize) -> u64 {
    // The longer ones, of Multiboot 2.
    const ENTRY: u64 = 24;
    (4 << 10) + 2 * cmdline.len() as u64 + ENTRY * nr_entries as u64
}

/// What a program is told.
#[derive(Clone, Copy, Debug)]
pub struct Info<'a> {
    /// Its command line.
    pub cmdline: &'a str,
    /// Memory.
    pub map: &'a [MemoryMapEntry],
    /// The one module, the capture initramfs; empty for none.
    pub module: PhysRange,
}

impl Info<'_> {
    /// KiB of RAM below 640 KiB, and from 1 MiB on without a hole.
    fn sizes(&self) -> (u32, u32) {
        let ram = || self.map.iter().filter(|e| e.kind == E820Type::RAM).map(|e| e.range);
        let lower = ram().find(|r| r.start().0 == 0).map_or(0, |r| r.end().0.min(640 << 10));
        let upper = ram().find(|r| r.start().0 <= MIB && r.end().0 > MIB).map_or(0, |r| r.end().0 - MIB);
        ((lower >> 10) as u32, u32::try_from(upper >> 10).unwrap_or(u32::MAX))
    }
}

/// Builds Multiboot information that will lie at `at`, below 4 GiB.
#[must_use]
pub fn multiboot1(info: &Info<'_>, at: u32) -> Vec<u8> {
    const SIZE: usize = 120;
    const FLAGS: u32 = 1 | 1 << 2 | 1 << 3 | 1 << 6 | 1 << 9;
    let (lower, upper) = info.sizes();
    let mut tail = Vec::new();
    let place = |tail: &mut Vec<u8>, bytes: &[u8]| {
        tail.resize(tail.len().next_multiple_of(4), 0);
        let address = at + (SIZE + tail.len()) as u32;
        tail.extend_from_slice(bytes);
        address
    };
    let cmdline = place(&mut tail, &[info.cmdline.as_bytes(), &[0]].concat());
    let name = place(&mut tail, LOADER_NAME);
    let module = [info.module.start().0 as u32, info.module.end().0 as u32, cmdline, 0];
    let modules = place(&mut tail, &module.map(u32::to_le_bytes).concat());
    let map: Vec<u8> = info.map.iter().flat_map(map_entry1).collect();
    let map_at = place(&mut tail, &map);

    let mut out = vec![0; SIZE];
    for (offset, value) in [
        (0, FLAGS),
        (4, lower),
        (8, upper),
        (16, cmdline),
        (20, u32::from(!info.module.is_empty())),
        (24, modules),
        (44, map.len() as u32),
        (48, map_at),
        (64, name),
    ] {
        out[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
    }
    out.extend_from_slice(&tail);
    out
}

fn map_entry1(entry: &MemoryMapEntry) -> Vec<u8> {
    // The size counts what follows it.
    let mut out = 20u32.to_le_bytes().to_vec();
    out.extend_from_slice(&entry.range.start().0.to_le_bytes());
    out.extend_from_slice(&entry.range.len().to_le_bytes());
    out.extend_from_slice(&entry.kind.0.to_le_bytes());
    out
}

/// Builds Multiboot2 information; it holds no address of its own parts.
#[must_use]
pub fn multiboot2(info: &Info<'_>) -> Vec<u8> {
    let (lower, upper) = info.sizes();
    let mut out = vec![0; 8];
    let mut tag = |kind: u32, parts: &[&[u8]]| {
        out.resize(out.len().next_multiple_of(8), 0);
        let size = 8 + parts.iter().map(|p| p.len()).sum::<usize>();
        out.extend_from_slice(&kind.to_le_bytes());
        out.extend_from_slice(&(size as u32).to_le_bytes());
        for part in parts {
            out.extend_from_slice(part);
        }
    };
    tag(1, &[info.cmdline.as_bytes(), &[0]]);
    tag(2, &[LOADER_NAME]);
    let module = [info.module.start().0 as u32, info.module.end().0 as u32].map(u32::to_le_bytes).concat();
    if !info.module.is_empty() {
        tag(3, &[&module, b"initramfs\0"]);
    }
    tag(4, &[&[lower, upper].map(u32::to_le_bytes).concat()]);
    let entries: Vec<u8> = info
        .map
        .iter()
        .flat_map(|e| {
            let (start, len) = (e.range.start().0.to_le_bytes(), e.range.len().to_le_bytes());
            [&start[..], &len, &e.kind.0.to_le_bytes(), &[0; 4]].concat()
        })
        .collect();
    tag(6, &[&24u32.to_le_bytes(), &0u32.to_le_bytes(), &entries]);
    tag(0, &[]);
    let total = out.len() as u32;
    out[..4].copy_from_slice(&total.to_le_bytes());
    out
}

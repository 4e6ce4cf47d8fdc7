//! The list of setup_data nodes behind boot_params: what a kernel is told that the page has no field for.
//!
//! Each node has a header of 16 bytes (`next` u64, `type` u32, `len` u32) and its data; the last one's `next` is 0.
//! The kernel reserves the list before it uses memory, so it may lie in any RAM of the kernel's.
//!
//! Source: arch/x86/include/uapi/asm/setup_data.h, arch/x86/kernel/setup.c (`parse_setup_data`),
//! arch/x86/kernel/e820.c (`e820__memory_setup_extended`).

use kdump_arch_x86::PhysAddr;
use kdump_arch_x86::bootparam::{BootE820Entry, E820_MAX_ENTRIES_ZEROPAGE};
use zerocopy::IntoBytes as _;

use crate::boot_params::MemoryMapEntry;

/// Entries of the memory map that boot_params has no room for.
const SETUP_E820_EXT: u32 = 1;
/// Where firmware's tables are, for a kernel that does not come from firmware.
pub const SETUP_EFI: u32 = 4;

/// Bytes before a node's data.
const HEADER: usize = 16;

/// A node, not yet at an address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    /// Its type.
    pub kind: u32,
    /// Its data.
    pub data: Vec<u8>,
}

impl Node {
    /// The part of a memory map that boot_params has no room for, if there is one.
    #[must_use]
    pub fn more_memory(map: &[MemoryMapEntry]) -> Option<Self> {
        let rest = map.get(E820_MAX_ENTRIES_ZEROPAGE..).filter(|rest| !rest.is_empty())?;
        let entries: Vec<_> = rest.iter().map(|entry| BootE820Entry::new(entry.range, entry.kind)).collect();
        Some(Self { kind: SETUP_E820_EXT, data: entries.as_bytes().to_vec() })
    }

    fn size(&self) -> usize {
        (HEADER + self.data.len()).next_multiple_of(8)
    }
}

/// Bytes that the node for a memory map of so many entries takes, or a list that is nothing else; 0 for a map that
/// boot_params has room for.
#[must_use]
pub fn room_for_memory(nr_entries: usize) -> u64 {
    match nr_entries.saturating_sub(E820_MAX_ENTRIES_ZEROPAGE) {
        0 => 0,
        more => (HEADER + more * size_of::<BootE820Entry>()).next_multiple_of(8) as u64,
    }
}

/// The list's bytes for being at an address, a multiple of 8.
#[must_use]
pub fn list(nodes: &[Node], at: PhysAddr) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (i, node) in nodes.iter().enumerate() {
        let end = bytes.len() + node.size();
        let next = if i + 1 < nodes.len() { at.0 + end as u64 } else { 0 };
        bytes.extend(next.to_le_bytes());
        bytes.extend(node.kind.to_le_bytes());
        bytes.extend((node.data.len() as u32).to_le_bytes());
        bytes.extend(&node.data);
        bytes.resize(end, 0);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use kdump_arch_x86::PhysRange;
    use kdump_arch_x86::bootparam::E820Type;

    fn map(len: u64) -> Vec<MemoryMapEntry> {
        let entry = |i: u64| PhysRange::new(i << 20, (i << 20) + 0x1000);
        (0..len).map(|i| MemoryMapEntry { range: entry(i), kind: E820Type::ACPI }).collect()
    }

    #[test]
    fn only_what_does_not_fit_the_page_is_in_a_node() {
        assert_eq!(Node::more_memory(&map(128)), None);
        let node = Node::more_memory(&map(130)).unwrap();
        assert_eq!((node.kind, node.data.len()), (1, 40));
        assert_eq!(node.data[..8], (128u64 << 20).to_le_bytes());
        assert_eq!(node.data[16..20], 3u32.to_le_bytes());
        for nr in [128, 129, 130, 500] {
            let nodes: Vec<_> = Node::more_memory(&map(nr as u64)).into_iter().collect();
            assert_eq!(list(&nodes, PhysAddr(0)).len() as u64, room_for_memory(nr));
        }
    }

    #[test]
    fn nodes_lead_to_each_other() {
        let nodes = [Node { kind: 1, data: vec![7; 3] }, Node { kind: 4, data: vec![9; 8] }];
        let bytes = list(&nodes, PhysAddr(0x1_0000_1000));
        assert_eq!(bytes.len(), 24 + 24);
        assert_eq!(bytes[..8], 0x1_0000_1018u64.to_le_bytes());
        assert_eq!(bytes[8..24], [1, 0, 0, 0, 3, 0, 0, 0, 7, 7, 7, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[24..32], [0; 8]);
        assert_eq!(bytes[32..40], [4, 0, 0, 0, 8, 0, 0, 0]);
    }
}

//! Finding VMCOREINFO in the dumped memory, where the file does not have it: a hypervisor that dumps its guest knows
//! it only if the guest told, through QEMU's vmcoreinfo device, say.
//!
//! Source: kernel/vmcore_info.c (before 6.9 kernel/crash_core.c), `crash_save_vmcoreinfo_init`: the note stands at the
//! beginning of pages of its own from early boot on.

use std::vec::Vec;

use kdump_arch_x86::{PAGE_SIZE, PhysAddr, PhysRange};

use crate::mem::PhysMem;

/// What the note begins with, before and behind the length of its text: the length of the name; type 0, the name padded,
/// and the text as far as every kernel's begins.
const HEAD: ([u8; 4], &[u8; 26]) = (11u32.to_le_bytes(), b"\0\0\0\0VMCOREINFO\0\0OSRELEASE=");
/// Where the text begins.
const TEXT_AT: usize = 24;
/// Longest text that is believed: the kernel's own limit is a page.
const TEXT_MAX: u32 = 64 << 10;

/// Looks at the beginning of every page for a VMCOREINFO note that `is_right`, and gives it.
pub(crate) fn find_vmcoreinfo<M: PhysMem + ?Sized>(
    mem: &M,
    ram: &[PhysRange],
    mut is_right: impl FnMut(&[u8]) -> bool,
) -> Option<Vec<u8>> {
    let mut head = [0; TEXT_AT + 10];
    for range in ram {
        let first = range.start().0.next_multiple_of(PAGE_SIZE);
        for at in (first..range.end().0).step_by(PAGE_SIZE as usize) {
            if mem.read(PhysAddr(at), &mut head).is_err() || head[..4] != HEAD.0 || head[8..] != *HEAD.1 {
                continue;
            }
            let text_len = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
            let mut note = std::vec![0; TEXT_AT + text_len.min(TEXT_MAX) as usize];
            if mem.read(PhysAddr(at), &mut note).is_ok() && is_right(&note) {
                return Some(note);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::LiteralMem;
    use crate::notes::{KernelNotes, append_note};

    #[test]
    fn a_note_at_the_beginning_of_a_page_is_found_and_one_elsewhere_is_not() {
        let mut note = Vec::new();
        append_note(&mut note, "VMCOREINFO", 0, b"OSRELEASE=6.12.0\nPAGESIZE=4096\n");
        let old = [note.clone(), std::vec![0; 4096]].concat();
        let mut page = note.clone();
        page.resize(8192, 0);
        let mem = LiteralMem(std::vec![
            (PhysAddr(0x1800), old.clone()),
            (PhysAddr(0x4000), old),
            (PhysAddr(0x8000), page)
        ]);
        let ram =
            [PhysRange::new(0x1800, 0x2900), PhysRange::new(0x4000, 0x5000), PhysRange::new(0x8000, 0xa000)];
        let mut seen = 0;
        let found = find_vmcoreinfo(&mem, &ram, |_| {
            seen += 1;
            seen == 2
        });
        assert_eq!(found.as_deref(), note.get(..TEXT_AT + 31), "without the padding");
        let info = KernelNotes::parse(&note).vmcoreinfo.unwrap();
        assert_eq!(info.get("OSRELEASE"), Some("6.12.0"));
        assert_eq!(find_vmcoreinfo(&mem, &ram[..1], |_| true), None);
    }
}

//! How much crashkernel memory a capture kernel needs, item by item: what `arm` warns by and `reserve` asks for.
//!
//! Some of it is read (the kernel's header, the initramfs as built, what the kernel wants for elfcorehdr), some is
//! arithmetic (page structures, bitmaps, parity), and two items are measured; each says which it is. Everything is
//! counted as if it were there at once, which it nearly is when the initramfs is unpacked.

use kdump_arch_x86::PAGE_SIZE;
use kdump_panic_kernel::parity::Geometry;
use serde::Serialize;

use super::layout::{MIB, control_room, pages, top_of_ram};
use super::protection::DEFAULT_RUN;
use super::seal::table_pages_for;
use super::show::size_text;
use crate::bzimage::BzImage;
use crate::machine::Machine;

/// The kernel's own memory once it runs, beyond its image and the page structures: hash tables, log, slab, per-CPU
/// memory, stacks, drivers, and what the allocator never hands out.
///
/// Measured with Debian's cloud kernels, one CPU, 192 MiB: of the memory that the `Memory:` line of the boot calls
/// reserved, 6.1 has 10.2, 6.12 has 8.3 and 7.3 has 9.0 MiB besides image, initramfs and page structures; what slab
/// takes later, init sections give back.
const KERNEL_ROOM: u64 = 10 * MIB;

/// kdump-init: it writes the report with symbols and types of the crashed kernel in memory, and then the dump with
/// less.
///
/// Measured, resident at the peak: 14.4 MiB on 6.1, 19.7 on 6.12, 23.7 on 7.3 for the report; 5.6, 7.2, 6.7 for the
/// dump of a 1 GiB guest, bitmaps included.
const INIT_ROOM: u64 = 24 * MIB;

/// Bitmaps of one bit per page frame that the capture program holds at once, up to the top of RAM.
const NR_BITMAPS: u64 = 3;

/// Panic-path program and its copy, page tables, control page, record, boot_params, command line: some 100 KiB.
const OWN_ROOM: u64 = 256 << 10;

/// Page structures come for sections of 128 MiB, 2 MiB for each.
///
/// Source: arch/x86/include/asm/sparsemem.h (`SECTION_SIZE_BITS`), mm/sparse.c.
const SECTION: u64 = 128 * MIB;
const SECTION_STRUCTS: u64 = 2 * MIB;

/// What the sum is rounded up to.
const GRANULE: u64 = 16 * MIB;

/// One item.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Item {
    /// What it is.
    pub what: &'static str,
    /// How much.
    pub bytes: u64,
    /// Where the number is from.
    pub from: String,
}

/// All of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Need {
    /// The items.
    pub items: Vec<Item>,
    /// Their sum.
    pub sum: u64,
    /// The sum, rounded up: what to reserve.
    pub recommended: u64,
    /// What must fit for the load alone to succeed.
    pub staged: u64,
}

impl Need {
    /// What this kernel with this initramfs needs to dump this machine.
    #[must_use]
    pub fn new(image: &BzImage, initramfs_len: u64, unpacked_len: u64, machine: &Machine) -> Self {
        let top = top_of_ram(machine);
        let elfcorehdr = pages(machine.elfcorehdr_size.unwrap_or(PAGE_SIZE));
        let protected = (image.kernel().len() as u64 + initramfs_len + elfcorehdr + OWN_ROOM) / PAGE_SIZE;
        let parity = Geometry::parity_pages_for(DEFAULT_RUN) * PAGE_SIZE;
        let digests = table_pages_for(protected) * PAGE_SIZE;
        let bitmaps = NR_BITMAPS * top.div_ceil(8 * PAGE_SIZE);
        let item = |what, bytes, from: &str| Item { what, bytes, from: from.to_owned() };
        let mut items = vec![
            item("kernel, unpacked", image.init_size(), "init_size in the image's header"),
            item("its alignment", image.alignment(), "kernel_alignment in the image's header"),
            item("initramfs, packed", initramfs_len, "as built now"),
            item(
                "panic path",
                parity + digests + OWN_ROOM,
                "programs and tables, parity for a damaged run of 1 MiB, page digests",
            ),
            item(
                "elfcorehdr",
                elfcorehdr,
                match machine.elfcorehdr_size {
                    Some(_) => "/sys/kernel/crash_elfcorehdr_size",
                    None => "one page: this kernel does not update it on hotplug",
                },
            ),
            item("control pages", control_room(top), "page tables for all RAM, at worst, and slack"),
        ];
        let staged = items.iter().map(|item| item.bytes).sum();
        items.extend([
            item("initramfs, unpacked", pages(unpacked_len), "as built now"),
            item("kernel at run time", KERNEL_ROOM, "measured: hash tables, log, slab, drivers"),
            item("kdump-init", INIT_ROOM, "measured: symbols and types of the crashed kernel, buffers"),
            item(
                "bitmaps",
                bitmaps,
                &format!("{NR_BITMAPS} bits for each page frame up to {}", size_text(top)),
            ),
        ]);
        let others: u64 = items.iter().map(|item| item.bytes).sum();
        // The reservation seldom begins where a section does; low memory has one of its own.
        let nr_sections = others.div_ceil(SECTION) + 2;
        let structs = nr_sections * SECTION_STRUCTS;
        items.push(item(
            "page structures",
            structs,
            &format!("2 MiB for each of {nr_sections} memory sections"),
        ));
        let sum = others + structs;
        Self { items, sum, recommended: sum.next_multiple_of(GRANULE), staged }
    }
}

/// Bytes of crashkernel memory that this kernel with this initramfs can be expected to live in: the sum of
/// [`Need`], rounded up. Below it a warning is due.
///
/// Measured in 1 GiB guests with Debian's cloud kernels, in steps of 8 MiB: 6.1 dumped with 80 MiB of
/// crashkernel memory and not with 72, 6.12 with 88 and not with 80, 7.3 with 104 and not with 96.
#[must_use]
pub fn recommended_bytes(image: &BzImage, initramfs_len: u64, unpacked_len: u64, machine: &Machine) -> u64 {
    Need::new(image, initramfs_len, unpacked_len, machine).recommended
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bzimage::tests::image;
    use crate::iomem::Iomem;

    fn machine(top: u64) -> Machine {
        let text = format!("00100000-{:08x} : System RAM\n", top.max(2 * MIB) - 1);
        Machine { iomem: Iomem::parse(text.as_bytes()).unwrap(), ..Machine::default() }
    }

    fn kernel() -> BzImage {
        BzImage::parse(image(64 << 10, |h| h.init_size = (55 << 20).into())).unwrap()
    }

    /// Check that the dump's bitmaps, 96 MiB for each TiB of RAM, are counted, and hardly for a small machine.
    #[test]
    fn more_ram_takes_more_memory_to_dump() {
        let recommended = |ram: u64| recommended_bytes(&kernel(), 4 * MIB, 8 * MIB, &machine(ram));
        assert!(recommended(1 << 30) <= recommended(0) + 16 * MIB);
        let more = recommended(4 << 40) - recommended(1 << 30);
        assert!((4 * 96 * MIB..4 * 96 * MIB + 64 * MIB).contains(&more), "{more}");
    }

    #[test]
    fn the_items_make_the_sum_and_the_sum_is_rounded_up() {
        let machine = Machine { elfcorehdr_size: Some(917_616), ..machine(1 << 30) };
        let need = Need::new(&kernel(), 2 * MIB, 5 * MIB, &machine);
        assert_eq!(need.items.iter().map(|item| item.bytes).sum::<u64>(), need.sum);
        assert!(need.recommended.is_multiple_of(GRANULE) && need.recommended - need.sum < GRANULE);
        let of = |what: &str| need.items.iter().find(|item| item.what == what).unwrap().bytes;
        assert_eq!(of("kernel, unpacked"), 55 * MIB);
        assert_eq!(of("elfcorehdr"), 225 * PAGE_SIZE);
        assert_eq!(of("initramfs, unpacked"), 5 * MIB);
        assert_eq!(of("bitmaps"), 3 * (1 << 30) / 4096 / 8);
        // 112 MiB and some: one section, one more for a start inside another, one below 1 MiB.
        assert_eq!(of("page structures"), 3 * SECTION_STRUCTS);
        assert!(need.staged < need.sum);
    }
}

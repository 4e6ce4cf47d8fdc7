//! Building boot_params for the capture kernel: its memory map, and what it inherits from the
//! crashed kernel.
//!
//! The memory map gives it the crashkernel memory and the RAM below 1 MiB, nothing else that the
//! crashed kernel used: a wrong entry here would overwrite the evidence. EFI runtime services are
//! not handed over to it; ACPI is reached through `acpi_rsdp_addr`.
//!
//! Source: arch/x86/kernel/crash.c (`crash_setup_memmap_entries`), Documentation/arch/x86/zero-page.rst.

use kdump_arch_x86::bootparam::{BootE820Entry, BootParams, E820_MAX_ENTRIES_ZEROPAGE, E820Type};
use kdump_arch_x86::{PAGE_SIZE, PhysAddr, PhysRange, range};

use crate::bzimage::BzImage;
use crate::iomem::LOW_MEMORY_END;
use crate::machine::Machine;

/// `type_of_loader`: kexec. Source: Documentation/arch/x86/boot.rst.
const LOADER_TYPE_KEXEC: u8 = 0xd0;

/// An entry of the capture kernel's memory map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryMapEntry {
    /// The addresses.
    pub range: PhysRange,
    /// What they are.
    pub kind: E820Type,
}

/// Most entries that a kernel built for 1024 NUMA nodes takes. Source: arch/x86/include/asm/e820/types.h.
const MAX_ENTRIES: usize = E820_MAX_ENTRIES_ZEROPAGE + 3 * 1024;

/// Entries by which a memory map may grow when what is kept from the kernel is cut out of it.
pub const MAP_SLACK: usize = 8;

/// Why the memory map does not fit.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the kernel's memory map has {count} entries, no kernel takes more than {MAX_ENTRIES}")]
pub struct TooManyEntries {
    /// Entries wanted.
    pub count: usize,
}

/// Plans the capture kernel's memory map: RAM below 1 MiB, all crashkernel memory but
/// `kept_from_ram`, CMA memory, memory displaced for it; and what firmware described as other than RAM, which wins where
/// both claim the same bytes. Sorted and free of overlaps.
#[must_use]
pub fn plan_memory_map(
    machine: &Machine,
    kept_from_ram: &[PhysRange],
    displaced: Option<PhysRange>,
) -> Vec<MemoryMapEntry> {
    let low = PhysRange::new(0, LOW_MEMORY_END);
    let mut usable: Vec<_> = range::intersect(machine.iomem.ram(), [low]).collect();
    usable.extend(machine.iomem.crash_kernel());
    usable.extend(&machine.cma_ranges);
    usable.extend(displaced);
    usable.sort_unstable();

    let mut taken: Vec<PhysRange> = Vec::new();
    let mut map: Vec<MemoryMapEntry> = Vec::new();
    let mut add = |range: PhysRange, kind: E820Type| {
        let new: Vec<_> = range::subtract([range], taken.iter().copied()).collect();
        map.extend(new.iter().map(|&range| MemoryMapEntry { range, kind }));
        taken.extend(new);
        taken.sort_unstable();
    };
    // The kernel's own view before the firmware's: it knows quirks. "Reserved" last, so that it
    // does not hide a more telling type.
    let firmware = machine.iomem.firmware().into_iter().chain(machine.firmware_map.iter().copied());
    let (reserved, typed): (Vec<_>, Vec<_>) = firmware.partition(|(_, kind)| *kind == E820Type::RESERVED);
    for (range, kind) in typed.into_iter().chain(reserved) {
        add(range, kind);
    }
    let mut kept: Vec<_> = kept_from_ram.to_vec();
    kept.sort_unstable();
    let (usable, kept): (Vec<_>, Vec<_>) = (range::merge(usable).collect(), range::merge(kept).collect());
    // Reserved and not a gap: into a gap the kernel may put a device's registers, and one beside RAM it makes a
    // "RAM buffer" that /dev/mem does not show (arch/x86/kernel/e820.c).
    for range in range::intersect(usable.iter().copied(), kept.iter().copied()) {
        add(range, E820Type::RESERVED);
    }
    let ram: Vec<_> = range::subtract(usable, kept).collect();
    for range in ram.into_iter().filter_map(PhysRange::shrink_to_pages) {
        add(range, E820Type::RAM);
    }
    map.retain(|e| e.kind != E820Type::RAM || e.range.len() >= PAGE_SIZE);
    map.sort_unstable_by_key(|e| e.range);
    join_equal_neighbours(map)
}

fn join_equal_neighbours(map: Vec<MemoryMapEntry>) -> Vec<MemoryMapEntry> {
    let mut joined: Vec<MemoryMapEntry> = Vec::with_capacity(map.len());
    for entry in map {
        match joined.last_mut() {
            Some(last) if last.kind == entry.kind && last.range.end() == entry.range.start() => {
                last.range = PhysRange::new(last.range.start().0, entry.range.end().0);
            }
            _ => joined.push(entry),
        }
    }
    joined
}

/// Where the loader put what boot_params points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pointers {
    /// The command line, NUL-terminated.
    pub cmdline: PhysAddr,
    /// The initramfs, without padding.
    pub initramfs: PhysRange,
    /// The first node of [`crate::setup_data`]; 0 for none.
    pub setup_data: PhysAddr,
}

/// Builds the page. What of the memory map does not fit is for a [node](crate::setup_data::Node::more_memory).
///
/// # Errors
/// [`TooManyEntries`].
pub fn build(
    machine: &Machine,
    image: &BzImage,
    pointers: Pointers,
    map: &[MemoryMapEntry],
) -> Result<BootParams, TooManyEntries> {
    let mut params = BootParams { hdr: *image.header(), ..BootParams::default() };
    if let Some(running) = &machine.boot_params {
        params.screen_info = running.screen_info;
        params.edid_info = running.edid_info;
        // The panic may be seen on a machine under Secure Boot; its lockdown goes on.
        params.secure_boot = running.secure_boot;
        params.hdr.hardware_subarch = running.hdr.hardware_subarch;
        params.hdr.hardware_subarch_data = running.hdr.hardware_subarch_data;
    }
    params.acpi_rsdp_addr = machine.rsdp.map_or(0, |a| a.0).into();

    params.hdr.type_of_loader = LOADER_TYPE_KEXEC;
    params.hdr.vid_mode = 0xffff.into(); // "normal": nobody asks the BIOS
    let (low, high) = split(pointers.cmdline.0);
    params.hdr.cmd_line_ptr = low.into();
    params.ext_cmd_line_ptr = high.into();
    let (low, high) = split(pointers.initramfs.start().0);
    params.hdr.ramdisk_image = low.into();
    params.ext_ramdisk_image = high.into();
    let (low, high) = split(pointers.initramfs.len());
    params.hdr.ramdisk_size = low.into();
    params.ext_ramdisk_size = high.into();

    params.hdr.setup_data = pointers.setup_data.0.into();

    if map.len() > MAX_ENTRIES {
        return Err(TooManyEntries { count: map.len() });
    }
    for (slot, entry) in params.e820_table.iter_mut().zip(map) {
        *slot = BootE820Entry::new(entry.range, entry.kind);
    }
    params.e820_entries = map.len().min(E820_MAX_ENTRIES_ZEROPAGE) as u8;
    Ok(params)
}

const fn split(value: u64) -> (u32, u32) {
    (value as u32, (value >> 32) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bzimage::tests::image;
    use crate::iomem::{Iomem, tests::SAMPLE};

    fn machine() -> Machine {
        Machine { iomem: Iomem::parse(SAMPLE.as_bytes()).unwrap(), ..Machine::default() }
    }

    #[test]
    fn only_low_memory_and_crash_memory_are_ram() {
        let map = plan_memory_map(&machine(), &[PhysRange::new(0x17f0_0000, 0x1800_0000)], None);
        let ram: Vec<_> = map.iter().filter(|e| e.kind == E820Type::RAM).map(|e| e.range).collect();
        assert_eq!(ram, [PhysRange::new(0x1000, 0x9f000), PhysRange::new(0x800_0000, 0x17f0_0000)]);
        assert!(map.contains(&MemoryMapEntry {
            range: PhysRange::new(0x17f0_0000, 0x1800_0000),
            kind: E820Type::RESERVED
        }));
        assert!(map.is_sorted_by_key(|e| e.range));
        for pair in map.windows(2) {
            assert!(pair[0].range.end() <= pair[1].range.start(), "{pair:?}");
        }
    }

    #[test]
    fn acpi_tables_win_over_reserved() {
        let mut machine = machine();
        machine.firmware_map = vec![(PhysRange::new(0x1ff0_0000, 0x2000_0000), E820Type::RESERVED)];
        let map = plan_memory_map(&machine, &[], None);
        let acpi: Vec<_> = map.iter().filter(|e| e.kind == E820Type::ACPI).map(|e| e.range).collect();
        assert_eq!(acpi, [PhysRange::new(0x1ffd_f000, 0x2000_0000)]);
        assert!(map.contains(&MemoryMapEntry {
            range: PhysRange::new(0x1ff0_0000, 0x1ffd_f000),
            kind: E820Type::RESERVED
        }));
    }

    #[test]
    fn pointers_above_4_gib_are_split() {
        let image = BzImage::parse(image(4096, |_| {})).unwrap();
        let pointers = Pointers {
            cmdline: PhysAddr(0x1_2345_6000),
            initramfs: PhysRange::new(0x2_0000_1000, 0x2_0080_0123),
            setup_data: PhysAddr(0x1_2345_7000),
        };
        let map = plan_memory_map(&machine(), &[], None);
        let params = build(&machine(), &image, pointers, &map).unwrap();
        assert_eq!((params.hdr.cmd_line_ptr.get(), params.ext_cmd_line_ptr.get()), (0x2345_6000, 1));
        assert_eq!((params.hdr.ramdisk_image.get(), params.ext_ramdisk_image.get()), (0x1000, 2));
        assert_eq!((params.hdr.ramdisk_size.get(), params.ext_ramdisk_size.get()), (0x7f_f123, 0));
        assert_eq!(params.hdr.setup_data.get(), 0x1_2345_7000);
        assert_eq!(params.e820_entries as usize, map.len());
        assert_eq!((params.sentinel, params.hdr.type_of_loader), (0, 0xd0));
    }

    #[test]
    fn a_long_map_fills_the_page_and_an_endless_one_is_refused() {
        let image = BzImage::parse(image(4096, |_| {})).unwrap();
        let entry = MemoryMapEntry { range: PhysRange::new(0, 4096), kind: E820Type::RAM };
        let pointers =
            Pointers { cmdline: PhysAddr(0), initramfs: PhysRange::new(0, 1), setup_data: PhysAddr(0) };
        let build = |count: usize| build(&machine(), &image, pointers, &vec![entry; count]);
        assert_eq!(build(200).unwrap().e820_entries, 128);
        assert_eq!(build(3201).unwrap_err(), TooManyEntries { count: 3201 });
    }
}

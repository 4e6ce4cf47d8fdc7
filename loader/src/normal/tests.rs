//! Plans for machines given as text.

use kdump_arch_x86::bootparam::{BootParams, XLF_CAN_BE_LOADED_ABOVE_4G, XLF_KERNEL_64};
use zerocopy::FromBytes as _;

use super::*;
use crate::bzimage::{self, BzImage};
use crate::iomem::{Iomem, tests::SAMPLE};
use crate::program::Protocol;

fn machine() -> Machine {
    Machine { iomem: Iomem::parse(SAMPLE.as_bytes()).unwrap(), ..Machine::default() }
}

fn kernel(edit: impl FnOnce(&mut kdump_arch_x86::bootparam::SetupHeader)) -> BzImage {
    BzImage::parse_any(bzimage::tests::image(5000, edit)).unwrap()
}

fn linux<'a>(image: &'a BzImage, initrd: &'a [u8]) -> Linux<'a> {
    Linux { image, initrd, cmdline: "console=ttyS0", is_32_bit: false }
}

fn segment<'p, 'a>(plan: &'p NormalPlan<'a>, tag: &str) -> &'p Segment<'a> {
    plan.segments.iter().find(|s| s.tag == tag).unwrap_or_else(|| panic!("no {tag} in {plan:?}"))
}

/// No segment overlaps another, lies outside RAM, in crashkernel memory or in the first MiB, or in memory that a
/// driver added.
fn is_sound(plan: &NormalPlan<'_>, machine: &Machine) {
    for pair in plan.segments.windows(2) {
        assert!(pair[0].range.end() <= pair[1].range.start(), "{pair:?}");
    }
    for Segment { tag, range, bytes } in &plan.segments {
        assert!(machine.iomem.boot_ram().iter().any(|ram| ram.covers(*range)), "{tag} {range}");
        assert!(machine.iomem.crash_kernel().iter().all(|crash| crash.overlap(*range).is_none()), "{tag}");
        assert!(range.start().0 >= LOWEST && range.start().0.is_multiple_of(PAGE_SIZE), "{tag} {range}");
        assert!(bytes.len() as u64 <= range.len(), "{tag}");
    }
    assert!(plan.segments.len() <= 16);
}

#[test]
fn a_kernel_gets_its_parts_and_the_whole_memory_map() {
    let machine = machine();
    let image = kernel(|_| {});
    let initrd = vec![7; 10_000];
    let plan = plan(&machine, &linux(&image, &initrd)).unwrap();
    is_sound(&plan, &machine);
    let at = segment(&plan, "kernel").range;
    assert!(at.start().0.is_multiple_of(image.alignment()) && at.start() >= image.pref_address());
    assert_eq!(at.len(), image.init_size());
    let params = segment(&plan, "boot_params");
    assert_eq!((plan.start.rip, plan.start.rsi), (at.start().0 + 0x200, params.range.start().0));
    assert_eq!(plan.start.mode, EntryMode::Bits64);
    let read = BootParams::read_from_bytes(&params.bytes).unwrap();
    let initrd_at = segment(&plan, "initrd").range.start().0;
    assert_eq!(
        u64::from(read.hdr.ramdisk_image.get()) | u64::from(read.ext_ramdisk_image.get()) << 32,
        initrd_at
    );
    assert_eq!(read.hdr.ramdisk_size.get(), 10_000);
    assert_eq!(read.e820_entries as usize, plan.memory_map.len());
    // RAM that the crash kernel would not be given.
    let high = PhysRange::new(0x1_0000_0000, 0x1_8000_0000);
    assert!(plan.memory_map.contains(&MemoryMapEntry { range: high, kind: E820Type::RAM }));
    assert!(plan.memory_map.iter().any(|e| e.kind == E820Type::ACPI));
    // The last word of the control page's parameters is not looked at; its place is.
    assert_eq!(plan.entry, segment(&plan, "control-page").range.start());
}

#[test]
fn what_cannot_reach_beyond_4_gib_lies_below() {
    let machine = machine();
    let image = kernel(|h| h.xloadflags = XLF_KERNEL_64.into());
    let low = plan(&machine, &linux(&image, &[1])).unwrap();
    is_sound(&low, &machine);
    for s in low.segments.iter().filter(|s| s.tag != "control-page") {
        assert!(s.range.end().0 <= LIMIT_32, "{s:?}");
    }
    let image = kernel(|h| h.xloadflags = (XLF_KERNEL_64 | XLF_CAN_BE_LOADED_ABOVE_4G).into());
    let high = plan(&machine, &linux(&image, &[1])).unwrap();
    assert!(segment(&high, "initrd").range.start().0 >= LIMIT_32);
}

#[test]
fn a_32_bit_kernel_is_entered_by_its_32_bit_entry_from_below_4_gib() {
    let machine = machine();
    let image = kernel(|h| h.xloadflags = 0.into());
    let plan = plan(&machine, &linux(&image, &[])).unwrap();
    is_sound(&plan, &machine);
    assert_eq!(plan.start.mode, EntryMode::Bits32);
    assert_eq!(plan.start.rip, segment(&plan, "kernel").range.start().0);
    assert!(plan.segments.iter().all(|s| s.range.end().0 <= LIMIT_32));
}

/// memtest86+ is such a one.
#[test]
fn a_kernel_for_one_place_goes_there_or_nowhere() {
    let machine = machine();
    let fixed = |at: u64| {
        kernel(|h| {
            h.relocatable_kernel = 0;
            h.pref_address = at.into();
        })
    };
    let image = fixed(0x10_0000);
    let good = plan(&machine, &linux(&image, &[])).unwrap();
    assert_eq!(segment(&good, "kernel").range.start().0, 0x10_0000);
    assert_eq!(good.start.rip, 0x10_0200);
    let image = fixed(0x1000_0000);
    let error = plan(&machine, &linux(&image, &[])).unwrap_err();
    assert!(matches!(error, Error::NotFree { tag: "kernel", .. }), "{error}");
}

#[test]
fn a_program_is_entered_with_its_registers_or_its_information() {
    let machine = machine();
    let mut image = program_at(0x20_0000, Protocol::Elf { is_64_bit: true });
    let registers = EntryState { rdi: 77, ..EntryState::default() };
    let given = Program { image: &image, module: &[], cmdline: "words", registers };
    let elf = plan(&machine, &given).unwrap();
    is_sound(&elf, &machine);
    assert_eq!((elf.start.rdi, elf.start.rip, elf.start.mode), (77, image.entry, EntryMode::Bits64));
    image.protocol = Protocol::Multiboot2;
    let given = Program { image: &image, module: &[9; 100], cmdline: "words", registers };
    let multiboot = plan(&machine, &given).unwrap();
    is_sound(&multiboot, &machine);
    assert_eq!(multiboot.start.rax, 0x36d7_6289);
    assert_eq!(multiboot.start.rbx, segment(&multiboot, "info").range.start().0);
    assert_eq!(multiboot.start.mode, EntryMode::Bits32);
}

#[test]
fn more_memory_ranges_than_boot_params_holds_are_passed_on_in_setup_data() {
    let mut machine = machine();
    let reserved =
        (0..200u64).map(|i| PhysRange::new((16 << 30) + (i << 20), (16 << 30) + (i << 20) + 0x1000));
    machine.firmware_map = reserved.map(|range| (range, E820Type::RESERVED)).collect();
    machine.efi = Some(crate::efi::tests::efi());
    let image = kernel(|_| {});
    let plan = plan(&machine, &linux(&image, &[1])).unwrap();
    is_sound(&plan, &machine);
    let params = BootParams::read_from_bytes(&segment(&plan, "boot_params").bytes).unwrap();
    let list = segment(&plan, "setup-data");
    assert_eq!((params.e820_entries, params.hdr.setup_data.get()), (128, list.range.start().0));
    // The first node leads to the second one, of type EFI.
    let next = u64::from_le_bytes(*list.bytes.first_chunk().unwrap()) - list.range.start().0;
    assert_eq!(next, (16u64 + (plan.memory_map.len() as u64 - 128) * 20).next_multiple_of(8));
    assert_eq!(list.bytes[next as usize..][..12], [0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0]);
    let at = segment(&plan, "efi-map").range.start().0;
    assert_eq!(params.efi_info, machine.efi.unwrap().info(PhysAddr(at)));
}

#[test]
fn a_kernel_that_cannot_take_efi_over_is_given_none() {
    let machine = Machine { efi: Some(crate::efi::tests::efi()), ..machine() };
    let image = kernel(|h| h.xloadflags = 0x2f.into());
    let plan = plan(&machine, &linux(&image, &[1])).unwrap();
    let params = BootParams::read_from_bytes(&segment(&plan, "boot_params").bytes).unwrap();
    assert_eq!((params.efi_info, params.hdr.setup_data.get()), ([0; 32], 0));
}

/// A DIMM that was added is RAM to this kernel, and not in the map that the next one is given.
#[test]
fn memory_that_firmware_did_not_know_of_is_not_used() {
    let mut machine = machine();
    machine.firmware_ram = vec![PhysRange::new(0x1000, 0x9fc00), PhysRange::new(0x10_0000, 0x1ffd_f000)];
    let image = kernel(|_| {});
    let plan = plan(&machine, &linux(&image, &[1])).unwrap();
    assert!(plan.segments.iter().all(|s| s.range.end().0 <= 0x1ffd_f000), "{:?}", plan.segments);
}

#[test]
fn what_is_too_large_says_how_much_there_is() {
    let mut machine = machine();
    let image = kernel(|h| h.init_size = (1u32 << 30).into());
    machine.iomem = Iomem::parse(b"00100000-0fffffff : System RAM\n").unwrap();
    let error = plan(&machine, &linux(&image, &[])).unwrap_err().to_string();
    assert!(error.contains("the largest has 267386880"), "{error}");
    machine.total_ram = Some(0x10_0000);
    let image = kernel(|_| {});
    let error = plan(&machine, &linux(&image, &[])).unwrap_err();
    assert!(matches!(error, Error::MoreThanHalf { .. }), "{error}");
    let image = kernel(|h| h.cmdline_size = 5.into());
    let error = plan(&machine, &linux(&image, &[])).unwrap_err();
    assert!(matches!(error, Error::Cmdline(_)), "{error}");
    machine.iomem = Iomem::parse(b"00000000-00000000 : System RAM\n").unwrap();
    assert!(matches!(plan(&machine, &linux(&image, &[])), Err(Error::Hidden)));
}

fn program_at(start: u64, protocol: Protocol) -> crate::program::Program {
    crate::program::Program { protocol, start, size: 0x3000, memory: vec![0x90; 0x1800], entry: start + 0x10 }
}

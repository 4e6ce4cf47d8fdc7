//! Plans over many machines, held against the kernel's rules.

mod displaced;
mod memory;
mod payload;
mod protection;

use super::layout::control_room;
use super::*;
use crate::bzimage::{BzImage, tests::image};
use crate::iomem::Iomem;
use kdump_arch_x86::PAGE_SIZE;
use kdump_arch_x86::bootparam::BootParams;
use kdump_arch_x86::control_page::{EntryState, IND_DONE, x86_64};
use sha2::{Digest as _, Sha256};
use zerocopy::FromBytes as _;

/// A machine with `ram` bytes and a crashkernel region; addresses as in /proc/iomem of a PC.
fn machine(ram: u64, region: PhysRange) -> Machine {
    let text = format!(
        "00000000-00000fff : Reserved\n00001000-0009fbff : System RAM\n000f0000-000fffff : Reserved\n\
         00100000-{:08x} : System RAM\n  {:08x}-{:08x} : Crash kernel\n",
        ram - 1,
        region.start().0,
        region.end().0 - 1
    );
    Machine {
        iomem: Iomem::parse(text.as_bytes()).unwrap(),
        vmcoreinfo: PhysRange::from_len(0x487_a000, 0x1024),
        crash_notes: vec![(0, PhysRange::new(0x1f_d5c0, 0x1f_d730))],
        total_ram: Some(ram - region.len()),
        boot_apic_id: Some(0),
        ..Machine::default()
    }
}

fn region(start_mib: u64, size_mib: u64) -> PhysRange {
    PhysRange::from_len(start_mib * MIB, size_mib * MIB).unwrap()
}

struct Inputs {
    image: BzImage,
    initramfs: Vec<u8>,
    panic_image: PanicImage,
    parity_run: u64,
    console: Console,
}

impl Inputs {
    fn new(init_size: u32, initramfs_len: usize) -> Self {
        Self {
            image: BzImage::parse(image(64 << 10, |h| h.init_size = init_size.into())).unwrap(),
            initramfs: vec![0x1f; initramfs_len],
            panic_image: PanicImage::embedded().unwrap(),
            parity_run: DEFAULT_RUN,
            console: Console::None,
        }
    }

    fn plan(&self, machine: &Machine) -> Result<LoadPlan<'_>, Error> {
        self.plan_at(machine, None, false)
    }

    /// With the kernel at an address outside the reservation, or entered in 32-bit mode.
    fn plan_at(&self, machine: &Machine, at: Option<u64>, is_32_bit: bool) -> Result<LoadPlan<'_>, Error> {
        let payload = Linux {
            image: &self.image,
            initramfs: &self.initramfs,
            initramfs_sha256: None,
            unpacked_len: self.initramfs.len() as u64,
            append: "",
            at: at.map(PhysAddr),
            is_32_bit,
            is_all_appended: false,
        };
        plan(&Request {
            machine,
            payload: &payload,
            panic_image: &self.panic_image,
            console: self.console,
            policy: Policy::Reset,
            parity_run: self.parity_run,
            tsc_khz: 2_400_000,
            test_hook: TestHook::NONE,
        })
    }
}

fn segment<'a, 'b>(plan: &'b LoadPlan<'a>, tag: &str) -> &'b Segment<'a> {
    plan.segments.iter().find(|s| s.tag == tag).unwrap()
}

/// Check the kernel's rules (sanity_check_segment_list) and ours on every plan that is made.
fn assert_loadable(plan: &LoadPlan<'_>, machine: &Machine) {
    assert_eq!(handoff(plan, "panic-kernel"), plan.handoff);
    assert_eq!(handoff(plan, "panic-copy").regions(), plan.handoff.regions());
    assert!(plan.kexec_segments().unwrap().len() <= 16);
    assert!(plan.region.contains(plan.entry));
    for s in &plan.segments {
        assert!(plan.region.covers(s.range), "{s:?} outside {:?}", plan.region);
        assert!(s.range.start().is_aligned(PAGE_SIZE) && s.range.end().is_aligned(PAGE_SIZE), "{s:?}");
        assert!(!s.bytes.is_empty() && s.bytes.len() as u64 <= s.range.len(), "{s:?}");
    }
    for pair in plan.segments.windows(2) {
        assert!(pair[0].range.end() <= pair[1].range.start(), "{pair:?}");
    }
    // The first hole is where the kernel finds its control pages.
    let first = plan.holes()[0];
    let room = control_room(machine.iomem.ram().last().unwrap().end().0);
    assert_eq!(first.start(), plan.region.start());
    assert!(first.len() >= room, "{first:?} is less than {room:#x}");

    let kernel = segment(plan, "bzImage");
    assert!(kernel.range.start().is_aligned(0x20_0000) && kernel.range.start().0 >= 0x100_0000);
    assert_eq!(segment(plan, "elfcorehdr").bytes[..4], *b"\x7fELF");

    // What boot_params says is where it lies; elfcorehdr is not the capture kernel's RAM.
    let params = BootParams::read_from_bytes(&segment(plan, "boot_params").bytes).unwrap();
    let cmdline_at =
        u64::from(params.hdr.cmd_line_ptr.get()) | u64::from(params.ext_cmd_line_ptr.get()) << 32;
    assert_eq!(cmdline_at, segment(plan, "cmdline").range.start().0);
    for entry in plan.memory_map.iter().filter(|e| e.kind == kdump_arch_x86::bootparam::E820Type::RAM) {
        assert_eq!(entry.range.overlap(segment(plan, "elfcorehdr").range), None);
        assert_eq!(entry.range.overlap(segment(plan, "record").range), None);
        let lent = [machine.iomem.crash_kernel(), machine.cma_ranges.clone()].concat();
        let is_lent = lent.iter().any(|range| range.covers(entry.range));
        assert!(entry.range.end().0 <= MIB || is_lent, "{entry:?}");
    }
}

/// Check every combination of region, kernel size and initramfs size: a loadable plan, or numbers.
#[test]
fn a_plan_keeps_the_kernels_rules_or_says_what_is_missing() {
    let mut made = 0;
    for init_mib in [8, 55, 61] {
        for initramfs_len in [1, 4096, 5_000_001, 40 << 20] {
            let inputs = Inputs::new(init_mib << 20, initramfs_len);
            for start_mib in [1, 16, 128, 3072, 5000 * 16] {
                for size_mib in [1, 16, 32, 64, 65, 72, 128, 256, 1024] {
                    let region = region(start_mib, size_mib);
                    let machine = machine(region.end().0 + (6 << 30), region);
                    match inputs.plan(&machine) {
                        Ok(plan) => {
                            assert_loadable(&plan, &machine);
                            made += 1;
                        }
                        Err(Error::TooSmall { need, have, .. }) => assert!(need > have),
                        Err(other) => panic!("{other}"),
                    }
                }
            }
        }
    }
    assert!(made > 200, "{made}");
}

#[test]
fn a_region_below_the_preferred_address_loads_the_kernel_above_it() {
    let region = region(1, 128);
    let machine = machine(8 << 30, region);
    let inputs = Inputs::new(55 << 20, 4096);
    let plan = inputs.plan(&machine).unwrap();
    assert_eq!(segment(&plan, "bzImage").range.start().0, 16 * MIB);
}

#[test]
fn what_is_needed_is_enough() {
    let inputs = Inputs::new(55 << 20, 5_000_001);
    let too_small = machine(8 << 30, region(128, 32));
    let Err(Error::TooSmall { need, .. }) = inputs.plan(&too_small) else { panic!("32 MiB were enough") };
    let enough = machine(8 << 30, region(128, need.div_ceil(MIB)));
    assert_loadable(&inputs.plan(&enough).unwrap(), &enough);
    let less = machine(8 << 30, region(128, need / MIB));
    assert!(matches!(inputs.plan(&less), Err(Error::TooSmall { .. })));
}

#[test]
fn segments_beyond_half_of_ram_are_refused_with_numbers() {
    let region = region(128, 128);
    let machine = machine(256 << 20, region);
    let error = Inputs::new(100 << 20, 4096).plan(&machine).unwrap_err();
    assert!(matches!(error, Error::MoreThanHalf { have, .. } if have == 64 << 20), "{error}");
}

#[test]
fn a_low_reservation_beside_a_high_one_takes_no_segment() {
    let high = region(6 * 1024, 256);
    let mut machine = machine(8 << 30, high);
    let low = crate::iomem::Resource { depth: 1, range: region(1024, 256), name: "Crash kernel".into() };
    machine.iomem.0.insert(4, low);
    let inputs = Inputs::new(55 << 20, 4096);
    let plan = inputs.plan(&machine).unwrap();
    assert_eq!(plan.region, high);
    // But it is RAM of the capture kernel, which needs memory below 4 GiB for DMA.
    assert!(plan.memory_map.iter().any(|e| e.range == region(1024, 256)));
}

#[test]
fn a_kernel_that_updates_elfcorehdr_gets_the_room_it_wants() {
    let region = region(128, 256);
    let mut machine = machine(8 << 30, region);
    let inputs = Inputs::new(55 << 20, 4096);
    machine.elfcorehdr_size = Some(917_616);
    let plan = inputs.plan(&machine).unwrap();
    assert_eq!((plan.flags, segment(&plan, "elfcorehdr").range.len()), (KEXEC_ON_CRASH, PAGE_SIZE));
    assert!(segment(&plan, "elfcorehdr").sha256.is_some());

    machine.has_crash_hotplug = true;
    let plan = inputs.plan(&machine).unwrap();
    assert_eq!(plan.flags, KEXEC_ON_CRASH | KEXEC_UPDATE_ELFCOREHDR);
    assert_eq!(segment(&plan, "elfcorehdr").range.len(), 225 * PAGE_SIZE);
    assert!(segment(&plan, "elfcorehdr").sha256.is_none());
    assert!(!segment(&plan, "elfcorehdr").is_protected);
    assert_loadable(&plan, &machine);
}

/// The handoff block of a segment of the program, as the program would read it.
fn handoff(plan: &LoadPlan<'_>, tag: &str) -> Handoff {
    let bytes = &segment(plan, tag).bytes;
    Handoff::parse(&bytes[bytes.len() - 4096..]).unwrap()
}

#[test]
fn the_handoff_names_every_region_and_the_64_bit_entry() {
    let region = region(128, 256);
    let machine = machine(8 << 30, region);
    let inputs = Inputs::new(55 << 20, 4096);
    let plan = inputs.plan(&machine).unwrap();
    let handoff = handoff(&plan, "panic-kernel");
    assert_eq!(handoff, plan.handoff);
    assert_eq!(handoff.entry.rip, segment(&plan, "bzImage").range.start().0 + 0x200);
    assert_eq!(handoff.entry.argument, segment(&plan, "boot_params").range.start().0);
    let control_page = segment(&plan, "control-page");
    assert_eq!(handoff.control_page, control_page.range.start().0);
    let entry = EntryState { rip: handoff.entry.rip, rsi: handoff.entry.argument, ..EntryState::default() };
    assert_eq!(control_page.bytes[..], x86_64(IND_DONE, false, &entry).unwrap());
    assert_eq!(handoff.record, segment(&plan, "record").range.start().0);
    assert_eq!(segment(&plan, "record").range.end(), segment(&plan, "elfcorehdr").range.start());
    let tables = segment(&plan, "page-tables").range;
    assert_eq!(handoff.page_tables.five_level, tables.start().0);
    assert_eq!((handoff.page_tables.four_level, handoff.tsc_khz), (tables.start().0 + 4096, 2_400_000));
    let tags: Vec<_> = handoff.regions().iter().map(|r| String::from_utf8_lossy(r.tag_bytes())).collect();
    let low = ["panic-copy", "bzImage", "panic-kernel", "control-page", "page-tables"];
    let high = ["cmdline", "boot_params", "initramfs", "digests", "elfcorehdr"];
    assert_eq!(tags, [low, high].concat());
    for r in handoff.regions() {
        let s = plan.segments.iter().find(|s| s.range.start().0 == r.start).unwrap();
        assert_eq!(r.sha256, <[u8; 32]>::from(Sha256::digest(&s.bytes[..r.len as usize])), "{}", s.tag);
    }
}

#[test]
fn the_copy_is_told_the_same_but_who_is_the_other() {
    let region = region(128, 256);
    let machine = machine(8 << 30, region);
    let inputs = Inputs::new(55 << 20, 4096);
    let plan = inputs.plan(&machine).unwrap();
    let (mut primary, copy) = (handoff(&plan, "panic-kernel"), handoff(&plan, "panic-copy"));
    let block = |tag| segment(&plan, tag).range.end().0 - 4096;
    let is_shorter = |tag| segment(&plan, tag).range.len() != segment(&plan, tag).bytes.len() as u64;
    assert!(!is_shorter("panic-kernel") && !is_shorter("panic-copy"));
    assert_eq!((primary.other_copy, copy.other_copy), (block("panic-copy"), block("panic-kernel")));
    primary.other_copy = copy.other_copy;
    assert_eq!(primary, copy);
}

#[test]
fn a_console_behind_mmio_and_all_crash_memory_are_mapped() {
    use kdump_arch_x86::paging::{Mode, Step, Walk};
    use kdump_arch_x86::{PhysAddr, VirtAddr};
    let high = region(6 * 1024, 256);
    let mut machine = machine(8 << 30, high);
    let low = crate::iomem::Resource { depth: 1, range: region(1024, 256), name: "Crash kernel".into() };
    machine.iomem.0.insert(4, low);
    let mut inputs = Inputs::new(55 << 20, 4096);
    inputs.console = Console::Uart8250Mmio { base: 0xfedc_9000, shift: 2, width: 4, baud: 0 };
    let plan = inputs.plan(&machine).unwrap();
    let tables = segment(&plan, "page-tables");
    let walk = |mode, root: u64, virt: u64| {
        let mut walk = Walk::new(mode, PhysAddr(root), VirtAddr(virt), 0);
        let (mut step, mut entry) = (walk.step(), 0);
        while let Step::Read(at) = step {
            let offset = (at.0 - tables.range.start().0) as usize;
            entry = u64::from_le_bytes(*tables.bytes[offset..].first_chunk().unwrap());
            step = walk.feed(entry);
        }
        (matches!(step, Step::Mapped { phys, .. } if phys.0 == virt), entry >> 3 & 3)
    };
    let roots = plan.handoff.page_tables;
    for (mode, root) in [(Mode::FourLevel, roots.four_level), (Mode::FiveLevel, roots.five_level)] {
        let cached = plan.segments.iter().map(|s| s.range.end().0 - 8);
        for at in cached.chain([0, 0x1f_ffff, 1024 * MIB, 1280 * MIB - 1, plan.region.start().0]) {
            assert_eq!(walk(mode, root, at), (true, 0), "{at:#x}");
        }
        for at in [0xb_8000, 0xfedc_9000, 0xfedc_901f] {
            assert_eq!(walk(mode, root, at), (true, 3), "{at:#x}");
        }
        for at in [0x20_0000, 1280 * MIB, 0xfedc_a000, plan.region.end().0, 1 << 46] {
            assert!(!walk(mode, root, at).0, "{at:#x}");
        }
    }
}

#[test]
fn equal_facts_give_equal_plans_and_a_plan_prints_every_segment() {
    let region = region(128, 256);
    let machine = machine(8 << 30, region);
    let inputs = Inputs::new(55 << 20, 4096);
    let plan = inputs.plan(&machine).unwrap();
    assert_eq!(plan, inputs.plan(&machine).unwrap());
    let text = plan.to_string();
    for s in &plan.segments {
        assert!(text.contains(s.tag) && text.contains(&s.range.to_string()), "{text}");
    }
    let json = serde_json::to_value(PlanView::from(&plan)).unwrap();
    assert_eq!(json["segments"].as_array().unwrap().len(), 12);
    assert_eq!(json["region"]["start"], "0x0000000008000000");
}

#[test]
fn a_memory_map_that_is_too_long_for_boot_params_goes_on_in_setup_data() {
    let region = region(128, 256);
    let mut machine = machine(8 << 30, region);
    let reserved = (0..200).map(|i| PhysRange::new((16 << 30) + (i << 20), (16 << 30) + (i << 20) + 0x1000));
    machine.firmware_map = reserved.map(|r| (r, kdump_arch_x86::bootparam::E820Type::RESERVED)).collect();
    let inputs = Inputs::new(55 << 20, 4096);
    for at in [None, Some(1 << 30)] {
        let plan = inputs.plan_at(&machine, at, false).unwrap();
        if at.is_none() {
            assert_loadable(&plan, &machine);
        }
        assert!(plan.memory_map.len() > 200);
        let list = segment(&plan, "setup-data");
        let params = segment(&plan, "boot_params");
        let params = BootParams::read_from_bytes(&params.bytes).unwrap();
        assert_eq!((params.e820_entries, params.hdr.setup_data.get()), (128, list.range.start().0));
        // Type E820_EXT, and as many entries of 20 bytes as are left.
        let more = plan.memory_map.len() - 128;
        assert_eq!(list.bytes[..8], [0; 8]);
        assert_eq!(list.bytes[8..16], [[1, 0, 0, 0], ((more * 20) as u32).to_le_bytes()].concat());
        assert_eq!(list.bytes[16..24], plan.memory_map[128].range.start().0.to_le_bytes());
        assert!(list.is_protected && plan.region.covers(list.range));
        // It is RAM to the kernel that reads it.
        let is_ram = |e: &MemoryMapEntry| e.kind == kdump_arch_x86::bootparam::E820Type::RAM;
        assert!(plan.memory_map.iter().any(|e| is_ram(e) && e.range.covers(list.range)));
    }
}

#[test]
fn a_machine_without_a_reservation_is_told_how_much() {
    let mut machine = machine(8 << 30, region(128, 256));
    machine.iomem.0.retain(|r| r.name != "Crash kernel");
    let error = Inputs::new(55 << 20, 4096).plan(&machine).unwrap_err();
    assert!(matches!(error, Error::NoReservation { need } if need > 55 << 20), "{error}");
}

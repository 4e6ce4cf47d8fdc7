//! Memory of every kind that /proc/iomem knows: what is dumped, what takes segments, what the capture kernel is given.

use kdump_arch_x86::bootparam::E820Type;

use super::*;
use crate::elfcorehdr::dumped_ram;

/// `crashkernel=256M,high` on a machine with 8 GiB, a virtio-mem device and memory that dax/kmem made RAM of.
const IOMEM: &str = "\
00000000-00000fff : Reserved
00001000-0009fbff : System RAM
000f0000-000fffff : Reserved
00100000-bffdefff : System RAM
  7f000000-8effffff : Crash kernel
bffdf000-bffeffff : ACPI Tables
bfff0000-bfffffff : ACPI Non-volatile Storage
100000000-23fffffff : System RAM
  1f0000000-1ffffffff : Crash kernel
240000000-33fffffff : virtio0
  240000000-2bfffffff : System RAM (virtio_mem)
400000000-4ffffffff : Soft Reserved
  400000000-4ffffffff : dax0.0
    400000000-4ffffffff : System RAM (kmem)
500000000-5ffffffff : Persistent Memory
";

const LOW: PhysRange = PhysRange::new(0x7f00_0000, 0x8f00_0000);
const HIGH: PhysRange = PhysRange::new(0x1_f000_0000, 0x2_0000_0000);
const CMA: PhysRange = PhysRange::new(0x1_4000_0000, 0x1_5000_0000);

fn machine_of(iomem: &str) -> Machine {
    Machine { iomem: Iomem::parse(iomem.as_bytes()).unwrap(), ..machine(16 << 30, LOW) }
}

fn ram_of(plan: &LoadPlan<'_>) -> Vec<PhysRange> {
    plan.memory_map.iter().filter(|entry| entry.kind == E820Type::RAM).map(|entry| entry.range).collect()
}

#[test]
fn segments_lie_in_the_high_reservation_and_the_low_one_is_ram() {
    let machine = machine_of(IOMEM);
    let inputs = Inputs::new(55 << 20, 4096);
    let plan = inputs.plan(&machine).unwrap();
    assert_loadable(&plan, &machine);
    assert!(plan.segments.iter().all(|segment| HIGH.covers(segment.range)), "{:?}", plan.segments);
    let kept = [segment(&plan, "record").range, segment(&plan, "elfcorehdr").range];
    let high: Vec<_> = range::subtract([HIGH], range::merge(kept)).collect();
    assert_eq!(ram_of(&plan), [[PhysRange::new(0x1000, 0x9f000), LOW].as_slice(), &high].concat());
    let has = |start, end, kind| {
        use crate::boot_params::MemoryMapEntry;
        plan.memory_map.contains(&MemoryMapEntry { range: PhysRange::new(start, end), kind })
    };
    assert!(has(0xbffd_f000, 0xbfff_0000, E820Type::ACPI) && has(0xbfff_0000, 0xc000_0000, E820Type::NVS));
    assert!(has(0x5_0000_0000, 0x6_0000_0000, E820Type::PMEM));
    // The panic path reaches all of it, and says so to the kernel by pointers above 4 GiB.
    let params = BootParams::read_from_bytes(&segment(&plan, "boot_params").bytes).unwrap();
    assert_eq!(params.ext_ramdisk_image.get(), 1);
    assert_eq!(params.ext_cmd_line_ptr.get(), 1);
}

/// A driver's memory can go away, so nothing is put there; as long as it is there it is in the dump.
#[test]
fn memory_of_drivers_is_dumped_and_takes_no_segment() {
    let machine = machine_of(IOMEM);
    let hotplugged =
        [PhysRange::new(0x2_4000_0000, 0x2_c000_0000), PhysRange::new(0x4_0000_0000, 0x5_0000_0000)];
    for memory in hotplugged {
        assert!(dumped_ram(&machine).iter().any(|ram| ram.covers(memory)), "{memory} in the dump");
        let inputs = Inputs::new(55 << 20, 4096);
        let plan = inputs.plan(&machine).unwrap();
        assert!(plan.segments.iter().all(|segment| segment.range.overlap(memory).is_none()));
        assert!(ram_of(&plan).iter().all(|ram| ram.overlap(memory).is_none()), "{memory} is no RAM to it");
        let error = inputs.plan_at(&machine, Some(memory.start().0), false).unwrap_err().to_string();
        assert!(error.contains("not all of it is System RAM that was there at boot"), "{error}");
    }
}

#[test]
fn cma_memory_is_given_to_the_capture_kernel_and_not_dumped() {
    let machine = Machine { cma_ranges: vec![CMA], ..machine_of(IOMEM) };
    let inputs = Inputs::new(55 << 20, 4096);
    let plan = inputs.plan(&machine).unwrap();
    assert_loadable(&plan, &machine);
    assert!(ram_of(&plan).contains(&CMA));
    assert!(dumped_ram(&machine).iter().all(|ram| ram.overlap(CMA).is_none()));
    assert!(plan.segments.iter().all(|segment| HIGH.covers(segment.range)));
}

/// The kernel rewrites elfcorehdr as large as it wants, so none of that may be RAM, hashed or rebuilt.
#[test]
fn all_of_an_elfcorehdr_that_is_kept_up_to_date_is_kept_from_the_kernel() {
    let machine = Machine { has_crash_hotplug: true, elfcorehdr_size: Some(917_616), ..machine_of(IOMEM) };
    let inputs = Inputs::new(55 << 20, 4096);
    let plan = inputs.plan(&machine).unwrap();
    let at = segment(&plan, "elfcorehdr").range;
    assert_eq!((at.len(), plan.flags), (917_616u64.next_multiple_of(PAGE_SIZE), KEXEC_ON_CRASH | 4));
    assert!(ram_of(&plan).iter().all(|ram| ram.overlap(at).is_none()));
    // The kernel finds it by the ELF magic that a segment of its own begins with.
    let segments = plan.kexec_segments().unwrap();
    assert!(segments.iter().any(|s| s.range == at && s.bytes.starts_with(b"\x7fELF")));
    assert!(plan.handoff.regions().iter().all(|region| region.start != at.start().0));
}

//! Kernels that do not lie in the reservation.

use super::*;
use kdump_arch_x86::bootparam::E820Type;
use kdump_vmcore::elf::defs::{Ehdr, Phdr};

/// Check that a displaced kernel's place is RAM for it, what it displaced is not, and elfcorehdr knows.
#[test]
fn a_displaced_kernel_swaps_places_with_what_was_there() {
    let region = region(128, 256);
    let machine = machine(8 << 30, region);
    let inputs = Inputs::new(55 << 20, 4096);
    let plan = inputs.plan_at(&machine, Some(0x100_0000), false).unwrap();
    let kernel = segment(&plan, "bzImage").range;
    let destination = PhysRange::new(0x100_0000, 0x100_0000 + kernel.len());
    let is_ram = |range: PhysRange| {
        plan.memory_map.iter().any(|e| e.kind == E820Type::RAM && e.range.overlap(range).is_some())
    };
    assert!(is_ram(destination) && !is_ram(kernel));
    assert_eq!(plan.handoff.entry.rip, 0x100_0200);
    assert_eq!(u64::from(plan.handoff.entry.nr_relocated), kernel.len() / 4096);
    let list = segment(&plan, "kimage-list");
    assert!(list.is_protected && list.sha256.is_some());
    let header = &segment(&plan, "elfcorehdr").bytes;
    let count = Ehdr::read_from_prefix(header).unwrap().0.e_phnum.get().into();
    let phdrs = <[Phdr]>::ref_from_prefix_with_elems(&header[64..], count).unwrap().0;
    let moved: Vec<_> = phdrs.iter().filter(|p| p.p_offset != p.p_paddr).collect();
    assert_eq!(moved.len(), 1);
    assert_eq!(moved[0].p_paddr.get(), destination.start().0);
    assert_eq!((moved[0].p_offset.get(), moved[0].p_memsz.get()), (kernel.start().0, kernel.len()));
}

#[test]
fn what_cannot_be_displaced_or_entered_is_refused() {
    let region = region(128, 256);
    let machine = machine(8 << 30, region);
    let inputs = Inputs::new(55 << 20, 4096);
    for at in [0x8_0000, 0x700_0000, 0x100_0800, 9 << 30, u64::MAX] {
        let error = inputs.plan_at(&machine, Some(at), false).unwrap_err();
        assert!(matches!(error, Error::CannotDisplace { .. }), "{at:#x}: {error}");
    }
    assert!(inputs.plan_at(&machine, None, true).is_ok());
    let error = inputs.plan_at(&machine, Some(5 << 30), true).unwrap_err();
    assert!(matches!(error, Error::BeyondReach { .. }), "{error}");
}

//! Where in the crashkernel memory each segment goes, and how much of it a capture kernel needs.

use kdump_arch_x86::{PAGE_SIZE, PhysRange};

use super::Error;
use crate::bzimage::BzImage;
use crate::machine::Machine;

pub(super) const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Free memory at the start of the region besides page tables: control page, PGD, the protected
/// copy of VMCOREINFO, and slack for what later kernels may want.
const CONTROL_ROOM: u64 = MIB;

/// What a capture kernel takes at run time beyond its image and the initramfs, packed and unpacked:
/// struct pages, slab, per-CPU memory, the capture program's buffers. Below it a warning is due.
///
/// Measured in 1 GiB guests with Debian's cloud kernels, in steps of 8 MiB: 6.1 dumped with 80 MiB of
/// crashkernel memory and not with 72, 6.12 with 88 and not with 80, 7.3 with 104 and not with 96. This
/// value recommends 112 MiB for each.
pub const RUN_ROOM: u64 = 40 * MIB;

/// Bitmaps of one bit per page frame that the capture program holds at once, up to the top of RAM.
const NR_BITMAPS: u64 = 3;

/// Bytes of crashkernel memory that this kernel with this initramfs can be expected to live in, to dump
/// RAM up to `top_of_ram`.
#[must_use]
pub fn recommended_bytes(image: &BzImage, initramfs_len: u64, unpacked_len: u64, top_of_ram: u64) -> u64 {
    let need = control_room(top_of_ram) + image.alignment() + image.init_size() + initramfs_len;
    // crashkernel memory comes in multiples of 16 MiB.
    let bitmaps = NR_BITMAPS * top_of_ram.div_ceil(8 * PAGE_SIZE);
    (need + unpacked_len + RUN_ROOM + bitmaps).next_multiple_of(16 * MIB)
}

/// Sizes of the segments, in whole pages, the kernel's excepted.
pub(super) struct Sizes {
    pub(super) elfcorehdr: u64,
    pub(super) initramfs: u64,
    pub(super) boot_params: u64,
    pub(super) cmdline: u64,
    pub(super) panic_image: u64,
}

/// Where the segments go.
pub(super) struct Layout {
    pub(super) region: PhysRange,
    pub(super) kernel: PhysRange,
    pub(super) panic_image: PhysRange,
    pub(super) cmdline: PhysRange,
    pub(super) boot_params: PhysRange,
    pub(super) initramfs: PhysRange,
    pub(super) elfcorehdr: PhysRange,
}

/// Places the segments: the kernel as low as it can lie, the rest from the top of the region down.
///
/// # Errors
/// [`Error::NoReservation`], [`Error::TooSmall`].
pub(super) fn lay_out(machine: &Machine, image: &BzImage, sizes: &Sizes) -> Result<Layout, Error> {
    let rest = sizes.elfcorehdr + sizes.initramfs + sizes.boot_params + sizes.cmdline + sizes.panic_image;
    let top = top_of_ram(machine);
    // With a low and a high reservation the kernel takes segments in the high one alone.
    let region = machine.iomem.crash_kernel().last().copied().and_then(PhysRange::shrink_to_pages);
    let region = region.ok_or_else(|| Error::NoReservation {
        need: recommended_bytes(image, sizes.initramfs, sizes.initramfs * 2, top),
    })?;

    let (low, high) = (region.start().0, region.end().0);
    let control = control_room(top);
    let kernel_at =
        (low + control).max(image.pref_address().0).next_multiple_of(image.alignment().max(PAGE_SIZE));
    let need = (kernel_at - low).saturating_add(image.init_size()).saturating_add(rest);
    if need > region.len() {
        return Err(Error::TooSmall {
            need,
            have: region.len(),
            kernel: image.init_size(),
            rest: need - image.init_size(),
            recommended: recommended_bytes(image, sizes.initramfs, sizes.initramfs * 2, top).max(need),
            region,
        });
    }
    let mut top = high;
    let mut below = |size: u64| {
        let range = PhysRange::new(top - size, top);
        top -= size;
        range
    };
    Ok(Layout {
        region,
        kernel: PhysRange::new(kernel_at, kernel_at + image.init_size()),
        elfcorehdr: below(sizes.elfcorehdr),
        initramfs: below(sizes.initramfs),
        boot_params: below(sizes.boot_params),
        cmdline: below(sizes.cmdline),
        panic_image: below(sizes.panic_image),
    })
}

/// Room for control pages and for the identity map of all RAM: at worst, without 1 GiB pages, one
/// page of PMDs per GiB, and one of PUDs per 512 GiB.
pub(super) fn control_room(top_of_ram: u64) -> u64 {
    CONTROL_ROOM + (top_of_ram.div_ceil(GIB) + top_of_ram.div_ceil(512 * GIB)) * PAGE_SIZE
}

/// The end of RAM, as an address.
#[must_use]
pub fn top_of_ram(machine: &Machine) -> u64 {
    machine.iomem.ram().last().map_or(0, |r| r.end().0)
}

/// Size of the elfcorehdr segment, and whether the kernel is asked to keep it up to date: only
/// where it can, and says how much room it wants.
pub(super) fn elfcorehdr_room(machine: &Machine, len: u64) -> (u64, bool) {
    match machine.elfcorehdr_size {
        Some(wanted) if machine.has_crash_hotplug => (pages(wanted.max(len)), true),
        _ => (pages(len), false),
    }
}

/// Rounds up to whole pages.
pub(super) fn pages(bytes: u64) -> u64 {
    bytes.next_multiple_of(PAGE_SIZE)
}

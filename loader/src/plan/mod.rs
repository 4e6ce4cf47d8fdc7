//! Planning a crash load: which bytes go where in the crashkernel memory.
//!
//! [`plan`] is pure: facts in, a [`LoadPlan`] out, which can be printed (`Display`, [`PlanView`]), compared and
//! performed ([`crate::syscall`]). Everything that kexec_load(2) would refuse is refused here with
//! numbers, because the kernel drops the old image before it looks at the new one.
//!
//! Layout, upwards: free memory for the kernel's control pages and page tables, the protected-mode
//! kernel with its unpacking room, free memory, panic-path program with handoff page, command line,
//! boot_params, initramfs, elfcorehdr. The kernel takes its pages from the first holes it finds.
//!
//! Source: kernel/kexec_core.c (`sanity_check_segment_list`, `kimage_alloc_crash_control_pages`).

mod layout;
mod show;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use kdump_arch_x86::bootparam::{E820_MAX_ENTRIES_ZEROPAGE, ENTRY_64_OFFSET};
use kdump_arch_x86::{PAGE_SIZE, PhysAddr, PhysRange, range};
use kdump_panic_kernel::handoff::{
    Console, Entry, EntryMode, Handoff, HandoffError, Policy, Region, RegionFlags,
};
use sha2::{Digest as _, Sha256};
use zerocopy::IntoBytes as _;

use crate::boot_params::{self, MemoryMapEntry, Pointers};
use crate::bzimage::BzImage;
use crate::machine::Machine;
use crate::panic_image::PanicImage;
use crate::{cmdline, elfcorehdr};

use layout::{MIB, Sizes, elfcorehdr_room, lay_out, pages};
pub use layout::{RUN_ROOM, recommended_bytes, top_of_ram};
pub(crate) use show::hex;
pub use show::{PlanView, SegmentView, size_text};

/// `KEXEC_ON_CRASH`.
pub const KEXEC_ON_CRASH: u64 = 1;
/// `KEXEC_UPDATE_ELFCOREHDR` (6.6 and later): the kernel rewrites elfcorehdr on hotplug.
pub const KEXEC_UPDATE_ELFCOREHDR: u64 = 4;

const PANIC_KERNEL_TAG: &str = "panic-kernel";

/// A stretch of crashkernel memory and what is put there.
#[derive(Clone, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Short name, also in the handoff's region table.
    pub tag: &'static str,
    /// What it is for, for people.
    pub purpose: &'static str,
    /// Whole pages.
    pub range: PhysRange,
    /// Its first bytes; zeros follow.
    pub bytes: Cow<'a, [u8]>,
    /// Digest of `bytes`, where the panic path checks it.
    pub sha256: Option<[u8; 32]>,
}

/// What is to be loaded, complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadPlan<'a> {
    /// Where the crashed kernel jumps to: the panic-path program.
    pub entry: PhysAddr,
    /// The crashkernel memory that takes the segments.
    pub region: PhysRange,
    /// By address.
    pub segments: Vec<Segment<'a>>,
    /// The capture kernel's memory map.
    pub memory_map: Vec<MemoryMapEntry>,
    /// The capture kernel's command line.
    pub cmdline: String,
    /// Flags of kexec_load(2).
    pub flags: u64,
    /// What is not as it should be, but does not prevent the load.
    pub warnings: Vec<String>,
}

/// What a plan is made from.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The running system.
    pub machine: &'a Machine,
    /// The capture kernel.
    pub image: &'a BzImage,
    /// Its initramfs, packed.
    pub initramfs: &'a [u8],
    /// Bytes of the initramfs, unpacked.
    pub unpacked_len: u64,
    /// The panic-path program.
    pub panic_image: &'a PanicImage,
    /// Where the panic path prints.
    pub console: Console,
    /// What it does when a digest is wrong.
    pub policy: Policy,
    /// The user's words for the command line.
    pub append: &'a str,
}

/// Why no plan can be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `crashkernel=` is missing.
    #[error("no memory is reserved for a capture kernel; this one needs crashkernel={}M or more on the kernel command line", .need.div_ceil(MIB))]
    NoReservation {
        /// Bytes that would do.
        need: u64,
    },
    /// The reservation is too small.
    #[error(
        "the capture kernel needs {} MiB of crashkernel memory to be loaded ({kernel} bytes for the kernel, {rest} \
         for initramfs, headers and control pages) and more to run, {region} has {} MiB: reboot with \
         crashkernel={}M", .need.div_ceil(MIB), .have / MIB, .recommended.div_ceil(MIB)
    )]
    TooSmall {
        /// Bytes that would do for loading.
        need: u64,
        /// Bytes there are.
        have: u64,
        /// Of `need`: the kernel while it unpacks.
        kernel: u64,
        /// Of `need`: all else.
        rest: u64,
        /// Bytes to live in.
        recommended: u64,
        /// The region.
        region: PhysRange,
    },
    /// kexec_load(2) refuses more than half of the RAM that the kernel manages.
    #[error("the segments take {need} bytes, the kernel allows no more than half of its RAM, {have} bytes")]
    MoreThanHalf {
        /// Bytes of all segments.
        need: u64,
        /// Bytes allowed.
        have: u64,
    },
    /// The initramfs is empty.
    #[error("the initramfs is empty")]
    NoInitramfs,
    /// The command line is too long.
    #[error(transparent)]
    Cmdline(#[from] cmdline::TooLong),
    /// elfcorehdr cannot be built.
    #[error(transparent)]
    Elfcorehdr(#[from] elfcorehdr::Error),
    /// boot_params cannot be built.
    #[error(transparent)]
    BootParams(#[from] boot_params::TooManyEntries),
    /// The panic-path program cannot be placed.
    #[error("the panic-path program cannot be placed")]
    PanicImage(#[source] crate::panic_image::Error),
    /// The handoff page refuses a value.
    #[error("the handoff page cannot be written")]
    Handoff(#[source] HandoffError),
}

/// Plans the load.
///
/// # Errors
/// [`Error`].
pub fn plan<'a>(request: &Request<'a>) -> Result<LoadPlan<'a>, Error> {
    let Request { machine, image, initramfs, .. } = *request;
    if initramfs.is_empty() {
        return Err(Error::NoInitramfs);
    }
    let elfcorehdr = elfcorehdr::build(machine)?;
    let (elfcorehdr_size, is_updated) = elfcorehdr_room(machine, elfcorehdr.len() as u64);
    let sizes = Sizes {
        elfcorehdr: elfcorehdr_size,
        initramfs: pages(initramfs.len() as u64),
        boot_params: PAGE_SIZE,
        cmdline: pages(image.cmdline_size() as u64 + 1),
        panic_image: pages(request.panic_image.mem_size()),
    };
    let layout = lay_out(machine, image, &sizes)?;

    let cmdline = cmdline::build(
        &machine.cmdline,
        &cmdline::Additions {
            elfcorehdr: layout.elfcorehdr.start(),
            boot_apic_id: machine.boot_apic_id,
            append: request.append,
        },
        image.cmdline_size(),
    )?;
    let mut memory_map = boot_params::plan_memory_map(machine, &[layout.elfcorehdr]);
    let nr_dropped = boot_params::drop_reserved(&mut memory_map);
    let pointers = Pointers {
        cmdline: layout.cmdline.start(),
        initramfs: PhysRange::new(
            layout.initramfs.start().0,
            layout.initramfs.start().0 + initramfs.len() as u64,
        ),
    };
    let params = boot_params::build(machine, image, pointers, &memory_map)?;

    let mut cmdline_bytes = cmdline.clone().into_bytes();
    cmdline_bytes.push(0);
    let mut segments = vec![
        Segment {
            tag: "bzImage",
            purpose: "protected-mode kernel, with room to unpack",
            range: layout.kernel,
            bytes: Cow::Borrowed(image.kernel()),
            sha256: Some(image.kernel_sha256()),
        },
        checked("initramfs", "kdump-init and drivers", layout.initramfs, Cow::Borrowed(initramfs)),
        checked(
            "boot_params",
            "memory map and pointers",
            layout.boot_params,
            params.as_bytes().to_vec().into(),
        ),
        checked("cmdline", "command line", layout.cmdline, cmdline_bytes.into()),
    ];
    let mut header =
        checked("elfcorehdr", "where /proc/vmcore finds memory", layout.elfcorehdr, elfcorehdr.into());
    if is_updated {
        // The kernel rewrites it on hotplug; a digest would then be wrong.
        header.sha256 = None;
    }
    segments.push(header);

    let entry = Entry {
        rip: layout.kernel.start().0 + ENTRY_64_OFFSET,
        argument: layout.boot_params.start().0,
        mode: EntryMode::Long,
        nr_relocated: 0,
    };
    let (start, panic_segment) = place_panic_image(request, layout.panic_image, entry, &segments)?;
    segments.push(panic_segment);
    segments.sort_unstable_by_key(|s| s.range);

    let need: u64 = segments.iter().map(|s| s.range.len()).sum();
    if let Some(total) = machine.total_ram
        && need > total / 2
    {
        return Err(Error::MoreThanHalf { need, have: total / 2 });
    }
    Ok(LoadPlan {
        entry: start,
        region: layout.region,
        segments,
        memory_map,
        cmdline,
        flags: KEXEC_ON_CRASH | if is_updated { KEXEC_UPDATE_ELFCOREHDR } else { 0 },
        warnings: warnings(request, layout.region, nr_dropped),
    })
}

impl LoadPlan<'_> {
    /// Memory of the region that no segment covers; the kernel's control pages go there.
    #[must_use]
    pub fn holes(&self) -> Vec<PhysRange> {
        range::subtract([self.region], self.segments.iter().map(|s| s.range)).collect()
    }
}

fn place_panic_image(
    request: &Request<'_>,
    at: PhysRange,
    entry: Entry,
    segments: &[Segment<'_>],
) -> Result<(PhysAddr, Segment<'static>), Error> {
    let placed = request.panic_image.place(at.start().0).map_err(Error::PanicImage)?;
    let mut bytes = placed.bytes;
    let mut handoff = Handoff::new(request.console, request.policy, entry);
    let mut regions = Vec::new();
    let mut push = |start: PhysAddr, bytes: &[u8], tag: &str, sha256: [u8; 32]| {
        let region = Region::new(start.0, bytes.len() as u64, tag, RegionFlags::default(), sha256);
        regions.push(region.map_err(Error::Handoff)?);
        Ok::<_, Error>(())
    };
    // The program checks its own constant part before all else.
    let constant = bytes.get(..placed.constant_len as usize).unwrap_or_default();
    push(at.start(), constant, PANIC_KERNEL_TAG, Sha256::digest(constant).into())?;
    for segment in segments {
        if let Some(sha256) = segment.sha256 {
            push(segment.range.start(), &segment.bytes, segment.tag, sha256)?;
        }
    }
    regions.sort_unstable_by_key(|region| region.start);
    for region in regions {
        handoff.push_region(region).map_err(Error::Handoff)?;
    }
    // The handoff page lies behind the image.
    let page_at = (placed.handoff - at.start().0) as usize;
    bytes.resize(page_at, 0);
    bytes.extend_from_slice(&handoff.to_bytes());
    let segment = Segment {
        tag: PANIC_KERNEL_TAG,
        purpose: "runs first: checks, reports, enters the kernel",
        range: at,
        bytes: bytes.into(),
        sha256: None, // changes while it runs; constant part and handoff page have their own digests
    };
    Ok((PhysAddr(placed.entry), segment))
}

fn checked<'a>(
    tag: &'static str,
    purpose: &'static str,
    range: PhysRange,
    bytes: Cow<'a, [u8]>,
) -> Segment<'a> {
    let sha256 = Some(Sha256::digest(&bytes).into());
    Segment { tag, purpose, range, bytes, sha256 }
}

fn warnings(request: &Request<'_>, region: PhysRange, nr_dropped: usize) -> Vec<String> {
    let mut warnings = Vec::new();
    if nr_dropped > 0 {
        warnings.push(format!(
            "boot_params holds {E820_MAX_ENTRIES_ZEROPAGE} memory ranges: the {nr_dropped} smallest reserved ones \
             were left out of the capture kernel's memory map"
        ));
    }
    let packed = request.initramfs.len() as u64;
    let wanted = recommended_bytes(request.image, packed, request.unpacked_len, top_of_ram(request.machine));
    let have: u64 = request.machine.iomem.crash_kernel().iter().map(|r| r.len()).sum();
    if have < wanted {
        warnings.push(format!(
            "crashkernel memory is {} MiB; the capture kernel may run out of memory below {} MiB",
            region.len() / MIB,
            wanted / MIB
        ));
    }
    let map = request.machine.kernel_map;
    if map.page_offset.is_none() || map.text.is_none() {
        warnings.push(
            "/proc/kcore does not tell where the kernel is mapped: readers that trust p_vaddr will be misled"
                .to_owned(),
        );
    }
    if request.machine.crash_notes.is_empty() {
        warnings.push("no CPU has a crash_notes file: the dump will have no registers".to_owned());
    }
    warnings
}

impl std::fmt::Debug for Segment<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?} ({} bytes)", self.tag, self.range, self.bytes.len())
    }
}

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

mod error;
mod layout;
mod linux;
mod show;
mod staging;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use kdump_arch_x86::{PhysAddr, PhysRange, range};
use kdump_panic_kernel::handoff::{Console, Entry, Handoff, Policy, Region, RegionFlags};
use sha2::{Digest as _, Sha256};

use crate::boot_params::MemoryMapEntry;
use crate::elfcorehdr;
use crate::machine::Machine;
use crate::panic_image::PanicImage;

pub use error::Error;
use layout::{MIB, elfcorehdr_room, lay_out};
pub use layout::{RUN_ROOM, recommended_bytes, top_of_ram};
pub use linux::Linux;
pub(crate) use show::hex;
pub use show::{PlanView, SegmentView, size_text};
pub use staging::{Content, Needs, Payload, Piece, Place, Placed, Staged};

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
pub struct Request<'a, 'r> {
    /// The running system.
    pub machine: &'r Machine,
    /// What runs after the panic path.
    pub payload: &'r dyn Payload<'a>,
    /// The panic-path program.
    pub panic_image: &'r PanicImage,
    /// Where the panic path prints.
    pub console: Console,
    /// What it does when a digest is wrong.
    pub policy: Policy,
}

/// Plans the load.
///
/// # Errors
/// [`Error`].
pub fn plan<'a>(request: &Request<'a, '_>) -> Result<LoadPlan<'a>, Error> {
    let Request { machine, payload, .. } = *request;
    let elfcorehdr = elfcorehdr::build(machine)?;
    let (elfcorehdr_size, is_updated) = elfcorehdr_room(machine, elfcorehdr.len() as u64);
    let needs = payload.needs(machine);

    let own = |tag, purpose, size| Piece { tag, purpose, size, content: size, place: Place::High };
    let mut pieces = vec![own("elfcorehdr", "where /proc/vmcore finds memory", elfcorehdr_size)];
    pieces.extend(&needs.pieces);
    let payload_pieces = 1..pieces.len();
    pieces.push(own(
        PANIC_KERNEL_TAG,
        "runs first: checks, reports, enters the kernel",
        request.panic_image.mem_size(),
    ));
    let (region, ranges) = lay_out(machine, &pieces, needs.recommended)?;
    let at = |index: usize| ranges.get(index).copied().unwrap_or(region);
    let elfcorehdr_at = at(0);

    let staged = payload.stage(&Placed {
        machine,
        region,
        pieces: ranges.get(payload_pieces.clone()).unwrap_or_default(),
        elfcorehdr: elfcorehdr_at,
        kept_from_ram: &[elfcorehdr_at],
    })?;
    let mut segments = Vec::new();
    let payload_places = pieces.iter().zip(&ranges).skip(payload_pieces.start);
    for ((piece, &range), content) in payload_places.zip(staged.contents) {
        let sha256 = content.sha256.unwrap_or_else(|| Sha256::digest(&content.bytes).into());
        let Piece { tag, purpose, .. } = *piece;
        segments.push(Segment { tag, purpose, range, bytes: content.bytes, sha256: Some(sha256) });
    }
    segments.push(Segment {
        tag: "elfcorehdr",
        purpose: "where /proc/vmcore finds memory",
        range: elfcorehdr_at,
        // The kernel rewrites it on hotplug; a digest would then be wrong.
        sha256: (!is_updated).then(|| Sha256::digest(&elfcorehdr).into()),
        bytes: elfcorehdr.into(),
    });
    let (start, panic_segment) = place_panic_image(request, at(payload_pieces.end), staged.entry, &segments)?;
    segments.push(panic_segment);
    segments.sort_unstable_by_key(|s| s.range);

    let need: u64 = segments.iter().map(|s| s.range.len()).sum();
    if let Some(total) = machine.total_ram
        && need > total / 2
    {
        return Err(Error::MoreThanHalf { need, have: total / 2 });
    }
    let mut warnings = staged.warnings;
    warnings.extend(self::warnings(machine, needs.recommended));
    Ok(LoadPlan {
        entry: start,
        region,
        segments,
        memory_map: staged.memory_map,
        cmdline: staged.cmdline,
        flags: KEXEC_ON_CRASH | if is_updated { KEXEC_UPDATE_ELFCOREHDR } else { 0 },
        warnings,
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
    request: &Request<'_, '_>,
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

fn warnings(machine: &Machine, recommended: u64) -> Vec<String> {
    let mut warnings = Vec::new();
    let have: u64 = machine.iomem.crash_kernel().iter().map(|r| r.len()).sum();
    if have < recommended {
        warnings.push(format!(
            "crashkernel memory is {} MiB; the capture kernel may run out of memory below {} MiB",
            have / MIB,
            recommended / MIB
        ));
    }
    let map = machine.kernel_map;
    if map.page_offset.is_none() || map.text.is_none() {
        warnings.push(
            "/proc/kcore does not tell where the kernel is mapped: readers that trust p_vaddr will be misled"
                .to_owned(),
        );
    }
    if machine.crash_notes.is_empty() {
        warnings.push("no CPU has a crash_notes file: the dump will have no registers".to_owned());
    }
    warnings
}

impl std::fmt::Debug for Segment<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?} ({} bytes)", self.tag, self.range, self.bytes.len())
    }
}

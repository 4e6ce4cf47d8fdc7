//! Planning a crash load: which bytes go where in the crashkernel memory.
//!
//! [`plan`] is pure: facts in, a [`LoadPlan`] out, which can be printed (`Display`, [`PlanView`]), compared and
//! performed ([`crate::syscall`]). Everything that kexec_load(2) would refuse is refused here with
//! numbers, because the kernel drops the old image before it looks at the new one.
//!
//! Layout, upwards: free memory for the kernel's control pages and page tables, a copy of the panic-path
//! program, the protected-mode kernel with its unpacking room, free memory, panic-path program with handoff
//! page, control page, page tables, command line, boot_params, initramfs, page digests, panic record,
//! elfcorehdr, parity. The kernel takes its pages from the first holes it finds.
//!
//! Source: kernel/kexec_core.c (`sanity_check_segment_list`, `kimage_alloc_crash_control_pages`).

mod assemble;
mod displaced;
mod error;
mod layout;
mod linux;
mod need;
mod own;
mod program;
mod protection;
mod seal;
mod segments;
mod show;
mod staging;
mod tables;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use kdump_arch_x86::{PAGE_SIZE, PhysAddr, PhysRange, range};
use kdump_panic_kernel::handoff::{Console, Handoff, PageTables, Policy, TestHook};
use kdump_panic_kernel::record::empty_note;

use crate::boot_params::MemoryMapEntry;
use crate::elfcorehdr::{self, Displaced};
use crate::machine::Machine;
use crate::panic_image::PanicImage;

use assemble::Twins;
pub use error::Error;
pub use layout::top_of_ram;
use layout::{MIB, elfcorehdr_room, lay_out};
pub use linux::Linux;
pub use need::{Item, Need, recommended_bytes};
use own::{Own, Pieces, Sizes};
pub use program::Program;
pub use protection::{BadRun, DEFAULT_RUN, MAX_RUN, Protection, parse_run};
pub use segments::KexecSegment;
pub(crate) use show::hex;
pub use show::{HandoffView, PlanView, SegmentView, size_text, test_hook_name};
pub use staging::{Content, Launch, Needs, Payload, Piece, Place, Placed, Staged};
use tables::Reach;

/// `KEXEC_ON_CRASH`.
pub const KEXEC_ON_CRASH: u64 = 1;
/// `KEXEC_UPDATE_ELFCOREHDR` (6.6 and later): the kernel rewrites elfcorehdr on hotplug.
pub const KEXEC_UPDATE_ELFCOREHDR: u64 = 4;

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
    /// How many of `bytes` the panic path checks, from the first on.
    pub checked: u64,
    /// Digest of those.
    pub sha256: Option<[u8; 32]>,
    /// Whether they can be rebuilt from parity.
    pub is_protected: bool,
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
    /// What the panic path is told.
    pub handoff: Handoff,
    /// What can be rebuilt.
    pub protection: Protection,
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
    /// What it does when something is damaged beyond repair.
    pub policy: Policy,
    /// Longest damaged run that it can rebuild, in bytes; 0 for none.
    pub parity_run: u64,
    /// Ticks of the time stamp counter per millisecond, 0 if unknown.
    pub tsc_khz: u64,
    /// A failure that it brings about itself, for tests.
    pub test_hook: TestHook,
}

/// Plans the load.
///
/// # Errors
/// [`Error`].
pub fn plan<'a>(request: &Request<'a, '_>) -> Result<LoadPlan<'a>, Error> {
    let Request { machine, payload, .. } = *request;
    let needs = payload.needs(machine);
    if let Some((from, _)) = needs.displaced {
        displaced::check(machine, from)?;
    }
    let reach = Reach::new(machine, &needs.outside, request.console);
    let anywhere = PhysRange::new(0, PAGE_SIZE);
    let nowhere = needs.displaced.map(|(from, _)| Displaced { from, to: PhysAddr(0) });
    let (elfcorehdr, is_updated) =
        elfcorehdr_room(machine, elfcorehdr::build(machine, anywhere, nowhere)?.len() as u64);
    // The kernel would write a header that knows nothing of the displaced memory.
    let is_updated = is_updated && needs.displaced.is_none();
    let sizes = Sizes {
        elfcorehdr,
        page_tables: reach.size()?,
        panic_image: request.panic_image.mem_size(),
        ..Sizes::default()
    };
    let (protection, unprotected) = protection::choose(request, &sizes, is_updated, &needs.pieces);
    let mut pieces = Pieces::new(
        &Sizes { parity: protection.parity_bytes, digests: protection.table_bytes, ..sizes },
        &needs.pieces,
    );
    let (region, ranges) = lay_out(machine, &pieces.all, needs.recommended)?;
    pieces.ranges = ranges;

    let (elfcorehdr_at, record) = (pieces.at(Own::Elfcorehdr), pieces.at(Own::Record));
    let displaced = needs.displaced.map(|(from, piece)| Displaced {
        from,
        to: pieces.payload().get(piece).map_or(PhysAddr(0), |r| r.start()),
    });
    let staged = payload.stage(&Placed {
        machine,
        region,
        pieces: pieces.payload(),
        elfcorehdr: elfcorehdr_at,
        record,
    })?;
    let control_page = pieces.at(Own::ControlPage);
    let (page_tables, roots) = reach.build(pieces.at(Own::PageTables).start())?;
    let mut segments = vec![
        pieces.segment(Own::PageTables, page_tables).checked(),
        pieces.segment(Own::ControlPage, staged.launch.control_page(control_page)?).checked(),
        pieces.segment(Own::Record, empty_note().to_vec()),
    ];
    let elfcorehdr = pieces.segment(Own::Elfcorehdr, elfcorehdr::build(machine, record, displaced)?);
    // The kernel rewrites it on hotplug; digest and parity would then be wrong.
    segments.push(if is_updated { elfcorehdr } else { elfcorehdr.checked() });
    for (nr, Content { bytes, sha256 }) in staged.contents.into_iter().enumerate() {
        segments.push(Segment { sha256, ..pieces.payload_segment(nr, bytes).checked() });
    }
    let mut handoff = Handoff::new(request.console, request.policy, staged.launch.for_handoff());
    handoff.control_page = control_page.start().0;
    handoff.page_tables = PageTables { four_level: roots.four_level.0, five_level: roots.five_level.0 };
    handoff.record = record.start().0;
    handoff.tsc_khz = request.tsc_khz;
    handoff.test_hook = request.test_hook;
    let twins = Twins::place(request.panic_image, &pieces, request.console)?;
    let entry = twins.entry();
    let handoff = assemble::finish(handoff, &pieces, twins, &mut segments)?;

    let need: u64 = segments.iter().map(|s| s.range.len()).sum();
    if let Some(total) = machine.total_ram
        && need > total / 2
    {
        return Err(Error::MoreThanHalf { need, have: total / 2 });
    }
    let mut warnings = staged.warnings;
    if displaced.is_some() && machine.has_crash_hotplug {
        warnings.push(
            "the payload displaces memory, so the kernel cannot keep elfcorehdr up to date: arm again when CPUs or \
             memory are added"
                .to_owned(),
        );
    }
    warnings.extend(unprotected);
    warnings.extend(distance_warning(&pieces, &protection));
    warnings.extend(self::warnings(machine, needs.recommended));
    let plan = LoadPlan {
        entry,
        region,
        segments,
        memory_map: staged.memory_map,
        cmdline: staged.cmdline,
        handoff,
        protection,
        flags: KEXEC_ON_CRASH | if is_updated { KEXEC_UPDATE_ELFCOREHDR } else { 0 },
        warnings,
    };
    plan.kexec_segments()?;
    Ok(plan)
}

impl LoadPlan<'_> {
    /// Memory of the region that no segment covers; the kernel's control pages go there.
    #[must_use]
    pub fn holes(&self) -> Vec<PhysRange> {
        range::subtract([self.region], self.segments.iter().map(|s| s.range)).collect()
    }
}

impl Segment<'_> {
    /// The same, checked and rebuilt as a whole.
    fn checked(self) -> Self {
        Self { checked: self.bytes.len() as u64, is_protected: true, ..self }
    }
}

/// The copy is of use only if it does not fall to what fells the program.
fn distance_warning(pieces: &Pieces, protection: &Protection) -> Option<String> {
    let (low, high) = (pieces.at(Own::Copy), pieces.at(Own::Primary));
    let apart = high.start().0.saturating_sub(low.end().0);
    (apart < protection.run_bytes).then(|| {
        format!(
            "the panic-path program and its copy lie {} apart, and one damaged run of {} could hit both: a larger              crashkernel= or a smaller --parity helps",
            size_text(apart),
            size_text(protection.run_bytes)
        )
    })
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

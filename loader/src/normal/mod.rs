//! An ordinary kexec: an image for when the running kernel has been shut down, without firmware in between.
//!
//! The plan names addresses anywhere in RAM, also where the running kernel lies: the kernel keeps the bytes
//! elsewhere and moves them at the end. What it jumps to is our control page, which has nothing to move then and
//! enters the image with the registers it wants.
//!
//! Source: kernel/kexec_core.c (`kimage_load_normal_segment`), Documentation/arch/x86/boot.rst.

mod linux;
mod program;
mod room;
mod show;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use kdump_arch_x86::bootparam::E820Type;
use kdump_arch_x86::control_page::{self, EntryMode, EntryState, IND_DONE};
use kdump_arch_x86::{PAGE_SIZE, PhysAddr, PhysRange, range};

use crate::boot_params::{MemoryMapEntry, TooManyEntries};
use crate::cmdline::TooLong;
use crate::machine::Machine;

pub use linux::Linux;
pub use program::Program;

use room::Room;

/// First address that 32-bit code cannot reach.
const LIMIT_32: u64 = 1 << 32;
/// Below it firmware and old boot loaders have their things.
const LOWEST: u64 = 1 << 20;

/// Why an image cannot be planned.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// RAM is too small or too scattered.
    #[error("no {need} free bytes in one piece for {tag} below {below:#x}: the largest has {have}")]
    NoRoom {
        /// What it is for.
        tag: &'static str,
        /// Bytes.
        need: u64,
        /// The bound.
        below: u64,
        /// The largest stretch there is.
        have: u64,
    },
    /// It is linked for a place that is no RAM.
    #[error("{tag} belongs at {range}, and that is not all RAM that an image may use (/proc/iomem)")]
    NotFree {
        /// What it is.
        tag: &'static str,
        /// Where it belongs.
        range: PhysRange,
    },
    /// No addresses.
    #[error("/proc/iomem shows no RAM: run it as root")]
    Hidden,
    /// The command line.
    #[error(transparent)]
    Cmdline(#[from] TooLong),
    /// The memory map.
    #[error(transparent)]
    MemoryMap(#[from] TooManyEntries),
    /// A register that does not fit.
    #[error(transparent)]
    ControlPage(#[from] control_page::Error),
    /// The kernel takes no image larger than half of RAM.
    #[error("the image takes {need} bytes; the kernel takes at most half of the RAM, {have} bytes")]
    MoreThanHalf {
        /// Bytes of all segments.
        need: u64,
        /// Half of RAM.
        have: u64,
    },
}

/// What is loaded to an address. Behind its bytes come zeros.
#[derive(Clone, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Its name.
    pub tag: &'static str,
    /// Whole pages.
    pub range: PhysRange,
    /// What goes there.
    pub bytes: Cow<'a, [u8]>,
}

/// An image with its addresses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NormalPlan<'a> {
    /// What the kernel jumps to: the control page.
    pub entry: PhysAddr,
    /// How the image is entered from there.
    pub start: EntryState,
    /// In order of their addresses.
    pub segments: Vec<Segment<'a>>,
    /// The memory map it is given.
    pub memory_map: Vec<MemoryMapEntry>,
    /// Its command line.
    pub cmdline: String,
}

/// An image that is loaded as a whole.
pub trait Image<'a> {
    /// Takes the room it needs and says what goes there, and how it is entered.
    ///
    /// # Errors
    /// [`Error`].
    fn stage(
        &self,
        machine: &Machine,
        map: &[MemoryMapEntry],
        room: &mut Room,
    ) -> Result<(Vec<Segment<'a>>, EntryState), Error>;

    /// The command line it will have.
    fn cmdline(&self) -> &str;
}

/// Plans the load of an image.
///
/// # Errors
/// [`Error`].
pub fn plan<'a>(machine: &Machine, image: &dyn Image<'a>) -> Result<NormalPlan<'a>, Error> {
    if machine.iomem.is_hidden() {
        return Err(Error::Hidden);
    }
    let memory_map = memory_map(machine);
    let mut room = Room::new(machine, &memory_map);
    let (mut segments, start) = image.stage(machine, &memory_map, &mut room)?;
    let below = if start.mode == EntryMode::Bits32 { LIMIT_32 } else { u64::MAX };
    let at = room.high("control-page", PAGE_SIZE, below)?;
    let page = control_page::x86_64(IND_DONE, false, &start)?;
    segments.push(Segment { tag: "control-page", range: at, bytes: page.to_vec().into() });
    segments.sort_by_key(|segment| segment.range);
    let need: u64 = segments.iter().map(|segment| segment.range.len()).sum();
    if let Some(total) = machine.total_ram
        && need > total / 2
    {
        return Err(Error::MoreThanHalf { need, have: total / 2 });
    }
    Ok(NormalPlan { entry: at.start(), start, segments, memory_map, cmdline: image.cmdline().to_owned() })
}

/// The memory map that firmware gave, or what can be made out of /proc/iomem where the kernel does not keep it.
fn memory_map(machine: &Machine) -> Vec<MemoryMapEntry> {
    let mut taken: Vec<PhysRange> = Vec::new();
    let mut map = Vec::new();
    let ram = match machine.firmware_ram.as_slice() {
        [] => machine.iomem.boot_ram(),
        ram => ram.to_vec(),
    };
    let other = match machine.firmware_map.as_slice() {
        [] => machine.iomem.firmware(),
        map => map.to_vec(),
    };
    // Reserved after what tells more, RAM last: where two claim the same bytes it is not RAM.
    let (reserved, typed): (Vec<_>, Vec<_>) =
        other.into_iter().partition(|(_, kind)| *kind == E820Type::RESERVED);
    let ram = ram.into_iter().map(|range| (range, E820Type::RAM));
    for (range, kind) in typed.into_iter().chain(reserved).chain(ram) {
        let new: Vec<_> = range::subtract([range], taken.iter().copied()).collect();
        map.extend(new.iter().map(|&range| MemoryMapEntry { range, kind }));
        taken.extend(new);
        taken.sort_unstable();
    }
    map.sort_unstable_by_key(|entry| entry.range);
    map
}

impl std::fmt::Debug for Segment<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} ({} bytes)", self.tag, self.range, self.bytes.len())
    }
}

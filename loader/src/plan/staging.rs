//! What a plan asks of a payload, and what it gives it: sizes first, then addresses, then bytes.
//!
//! A payload is what runs after the panic path: a bzImage ([`super::Linux`]) or another program. It says what memory
//! it wants ([`Needs`]), is told where that lies ([`Placed`]), and says what goes there and how it is
//! entered ([`Staged`]).

use std::borrow::Cow;

use kdump_arch_x86::PhysRange;
use kdump_arch_x86::control_page::{self, EntryMode, EntryState, IND_DONE};
use kdump_panic_kernel::handoff::{self, Entry};

use super::Error;
use crate::boot_params::MemoryMapEntry;
use crate::machine::Machine;

/// Where in the crashkernel memory a piece may lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Exactly here.
    At(u64),
    /// As low as it can, at a multiple of `align` (a power of two) that is at least `min`.
    Low {
        /// Alignment.
        align: u64,
        /// Lowest address.
        min: u64,
    },
    /// As high as it can.
    High,
}

/// A stretch of memory that a payload wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Short name, at most 12 characters: also that of the region in the handoff block.
    pub tag: &'static str,
    /// What it is for, for people.
    pub purpose: &'static str,
    /// Bytes; rounded up to whole pages.
    pub size: u64,
    /// Bytes of content, at most `size`: what the panic path checks and can rebuild.
    pub content: u64,
    /// Where.
    pub place: Place,
}

/// What a payload wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Stretches of the crashkernel memory, in the order in which they are placed.
    pub pieces: Vec<Piece>,
    /// Memory elsewhere that the panic path and the payload's first instructions must reach.
    pub outside: Vec<PhysRange>,
    /// Memory elsewhere that the payload takes the place of, page by page, and the piece, by its place among
    /// `pieces`, that the displaced pages go to. Also among `outside`.
    pub displaced: Option<(PhysRange, usize)>,
    /// Bytes of crashkernel memory that it takes to run well, all told.
    pub recommended: u64,
}

/// What a payload is told.
#[derive(Clone, Copy, Debug)]
pub struct Placed<'p> {
    /// The running system.
    pub machine: &'p Machine,
    /// The crashkernel memory that takes the segments.
    pub region: PhysRange,
    /// One for each piece, in the order of [`Needs::pieces`].
    pub pieces: &'p [PhysRange],
    /// Where elfcorehdr will be.
    pub elfcorehdr: PhysRange,
    /// Where the panic record will be. Neither may be RAM for a kernel.
    pub record: PhysRange,
}

impl Placed<'_> {
    /// Where a piece lies, by its place among the [`Needs::pieces`].
    #[must_use]
    pub fn piece(&self, index: usize) -> PhysRange {
        self.pieces.get(index).copied().unwrap_or(PhysRange::new(0, 0))
    }
}

/// The bytes of a piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content<'a> {
    /// At most as many as [`Piece::content`] said.
    pub bytes: Cow<'a, [u8]>,
    /// Their digest, if it is known already.
    pub sha256: Option<[u8; 32]>,
}

impl<'a> Content<'a> {
    /// Bytes that nobody has hashed yet.
    pub fn new(bytes: impl Into<Cow<'a, [u8]>>) -> Self {
        Self { bytes: bytes.into(), sha256: None }
    }
}

/// How a payload is moved and entered by the control page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Registers and mode.
    pub entry: EntryState,
    /// Which of them leads to what it is given (`boot_params`, Multiboot information), as an address; 0 for nothing.
    pub argument: u64,
    /// First entry of the kimage list: `IND_DONE` where everything lies in place, else a page of entries in one
    /// of the pieces, with `IND_INDIRECTION`.
    pub list_head: u64,
    /// Whether what a page displaces goes where the page was.
    pub swap: bool,
    /// Pages that are moved.
    pub nr_relocated: u32,
}

impl Launch {
    /// Of a payload that lies in place.
    #[must_use]
    pub fn in_place(entry: EntryState, argument: u64) -> Self {
        Self { entry, argument, list_head: IND_DONE, swap: false, nr_relocated: 0 }
    }

    /// The same for the handoff block.
    pub(super) fn for_handoff(&self) -> Entry {
        let mode = match self.entry.mode {
            EntryMode::Bits64 => handoff::EntryMode::Long,
            EntryMode::Bits32 => handoff::EntryMode::Protected,
        };
        Entry { rip: self.entry.rip, argument: self.argument, mode, nr_relocated: self.nr_relocated }
    }

    /// The control page that lies at `at`.
    ///
    /// # Errors
    /// [`Error::ControlPage`]; [`Error::ControlPageTooHigh`] for a payload in 32-bit mode, which is entered from the
    /// page with paging off.
    pub(super) fn control_page(&self, at: PhysRange) -> Result<Vec<u8>, Error> {
        if self.entry.mode == EntryMode::Bits32 && at.end().0 > 1 << 32 {
            return Err(Error::ControlPageTooHigh { at: at.start() });
        }
        Ok(control_page::x86_64(self.list_head, self.swap, &self.entry)?.to_vec())
    }
}

/// A payload that has its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Staged<'a> {
    /// One for each piece, in the order of [`Needs::pieces`].
    pub contents: Vec<Content<'a>>,
    /// What happens at the end.
    pub launch: Launch,
    /// Its command line.
    pub cmdline: String,
    /// The memory map it is given.
    pub memory_map: Vec<MemoryMapEntry>,
    /// What is not as it should be, but does not prevent the load.
    pub warnings: Vec<String>,
}

/// Something that can be loaded for the time after a panic.
pub trait Payload<'a>: std::fmt::Debug {
    /// What it wants.
    fn needs(&self, machine: &Machine) -> Needs;

    /// What goes where, now that the addresses are known.
    ///
    /// # Errors
    /// [`Error`].
    fn stage(&self, placed: &Placed<'_>) -> Result<Staged<'a>, Error>;
}

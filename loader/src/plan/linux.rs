//! A Linux kernel with its initramfs as the payload: a bzImage entered by the 64-bit or the 32-bit boot protocol, or a
//! vmlinux; in the reservation, or swapped to a place outside it.
//!
//! Source: Documentation/arch/x86/boot.rst.

use kdump_arch_x86::bootparam::{ENTRY_32_OFFSET, ENTRY_64_OFFSET};
use kdump_arch_x86::control_page::{EntryMode, EntryState};
use kdump_arch_x86::{PAGE_SIZE, PhysAddr, PhysRange};
use zerocopy::IntoBytes as _;

use super::staging::{Content, Launch, Needs, Payload, Piece, Place, Placed, Staged};
use super::{Error, displaced, recommended_bytes};
use crate::boot_params::{self, Pointers};
use crate::bzimage::BzImage;
use crate::cmdline;
use crate::machine::Machine;
use crate::setup_data::{self, Node};

// Places among the pieces.
const KERNEL: usize = 0;
const INITRAMFS: usize = 1;
const BOOT_PARAMS: usize = 2;
const CMDLINE: usize = 3;
// Behind them where there is need: the list of setup_data, and the kimage list.
const FIRST_MORE: usize = 4;

/// First address that 32-bit mode cannot reach.
const LIMIT_32: u64 = 1 << 32;

/// A capture kernel.
#[derive(Clone, Copy, Debug)]
pub struct Linux<'a> {
    /// The kernel.
    pub image: &'a BzImage,
    /// Its initramfs, packed.
    pub initramfs: &'a [u8],
    /// Its digest, if it is known already.
    pub initramfs_sha256: Option<[u8; 32]>,
    /// Bytes of the initramfs, unpacked.
    pub unpacked_len: u64,
    /// The user's words for the command line.
    pub append: &'a str,
    /// They are all that it has, but for what tells it where elfcorehdr is.
    pub is_all_appended: bool,
    /// Where it is to lie, outside the reservation; else inside, unless it is linked for one place.
    pub at: Option<PhysAddr>,
    /// Entered by the 32-bit boot protocol.
    pub is_32_bit: bool,
}

impl Linux<'_> {
    /// Where the kernel goes that cannot lie just anywhere in the reservation.
    fn destination(&self) -> Option<PhysAddr> {
        self.image.fixed().map(|fixed| fixed.start).or(self.at)
    }

    /// How the kernel at `at` is entered.
    fn entry(&self, at: PhysAddr, boot_params: PhysAddr) -> EntryState {
        let offset = match self.image.fixed() {
            Some(fixed) => fixed.entry.0.saturating_sub(fixed.start.0),
            None if self.is_32_bit => ENTRY_32_OFFSET,
            None => ENTRY_64_OFFSET,
        };
        let mode = if self.is_32_bit { EntryMode::Bits32 } else { EntryMode::Bits64 };
        EntryState { mode, rip: at.0 + offset, rsi: boot_params.0, ..EntryState::default() }
    }
}

impl<'a> Payload<'a> for Linux<'a> {
    fn needs(&self, machine: &Machine) -> Needs {
        let Self { image, initramfs, .. } = self;
        let (kernel, initramfs) = (image.kernel().len() as u64, initramfs.len() as u64);
        let cmdline = image.cmdline_size() as u64 + 1;
        let region = machine.iomem.crash_kernel().last().copied();
        let piece = |tag, purpose, size, content, place| Piece { tag, purpose, size, content, place };
        // An address that is no page, or beyond all memory, is refused when it is checked.
        let wanted =
            self.destination().map(|at| PhysRange::new(at.0, at.0.saturating_add(image.init_size())));
        let displaced = wanted.filter(|range| !region.is_some_and(|region| region.covers(*range)));
        let place = match (wanted, displaced) {
            (Some(inside), None) => Place::At(inside.start().0),
            (_, Some(_)) => Place::Low { align: PAGE_SIZE, min: 0 },
            _ => Place::Low { align: image.alignment().max(PAGE_SIZE), min: image.pref_address().0 },
        };
        let purpose = match displaced {
            Some(_) => "kernel, to be swapped into place",
            None => "protected-mode kernel, with room to unpack",
        };
        let tag = if image.fixed().is_some() { "vmlinux" } else { "bzImage" };
        let mut pieces = vec![
            piece(tag, purpose, image.init_size(), kernel, place),
            piece("initramfs", "kdump-init and drivers", initramfs, initramfs, Place::High),
            piece("boot_params", "memory map and pointers", PAGE_SIZE, PAGE_SIZE, Place::High),
            piece("cmdline", "command line", cmdline, cmdline, Place::High),
        ];
        let more = room_for_setup_data(machine, displaced);
        if more > 0 {
            pieces.push(piece("setup-data", "the memory map's further entries", more, more, Place::High));
        }
        pieces.extend(displaced.map(|range| displaced::list_piece(range.len())));
        Needs {
            pieces,
            outside: displaced.into_iter().collect(),
            displaced: displaced.map(|range| (range, KERNEL)),
            recommended: recommended_bytes(image, initramfs, self.unpacked_len, machine),
        }
    }

    fn stage(&self, placed: &Placed<'_>) -> Result<Staged<'a>, Error> {
        let Self { image, initramfs, .. } = *self;
        let machine = placed.machine;
        if initramfs.is_empty() {
            return Err(Error::NoInitramfs);
        }
        if self.is_32_bit && image.fixed().is_some() {
            return Err(Error::NoEntry32);
        }
        let staging = placed.piece(KERNEL);
        let destination = match self.destination() {
            Some(at) if at != staging.start() => Some(displaced::destination(at.0, image.init_size())?),
            _ => None,
        };
        let cmdline = cmdline::build(
            &machine.cmdline,
            &cmdline::Additions {
                elfcorehdr: Some(placed.elfcorehdr.start()),
                record: Some(placed.record.start()),
                boot_apic_id: machine.boot_apic_id,
                append: self.append,
                is_all: self.is_all_appended,
            },
            image.cmdline_size(),
        )?;
        // Displaced memory is in the staging piece by then: evidence, no RAM; its place is the kernel's.
        let mut kept = vec![placed.elfcorehdr, placed.record];
        kept.extend(destination.map(|_| staging));
        let memory_map = boot_params::plan_memory_map(machine, &kept, destination);
        let mut nr_more = FIRST_MORE;
        let mut setup_data = None;
        if room_for_setup_data(machine, destination) > 0 {
            let at = placed.piece(nr_more).start();
            let nodes: Vec<_> = Node::more_memory(&memory_map).into_iter().collect();
            setup_data = Some((at, setup_data::list(&nodes, at)));
            nr_more += 1;
        }
        let initramfs_at = placed.piece(INITRAMFS).start().0;
        let pointers = Pointers {
            cmdline: placed.piece(CMDLINE).start(),
            initramfs: PhysRange::new(initramfs_at, initramfs_at + initramfs.len() as u64),
            setup_data: match &setup_data {
                Some((at, list)) if !list.is_empty() => *at,
                _ => PhysAddr(0),
            },
        };
        let params = boot_params::build(machine, image, pointers, &memory_map)?;
        let mut cmdline_bytes = cmdline.clone().into_bytes();
        cmdline_bytes.push(0);

        let kernel_at = displaced::moved(staging.start(), staging, destination);
        let entry = self.entry(kernel_at, placed.piece(BOOT_PARAMS).start());
        if self.is_32_bit {
            let ends = [kernel_at.0 + image.init_size(), placed.region.end().0];
            if let Some(&end) = ends.iter().find(|end| **end > LIMIT_32) {
                return Err(Error::BeyondReach { end: PhysAddr(end) });
            }
        }
        let mut contents = vec![
            Content { bytes: image.kernel().into(), sha256: Some(image.kernel_sha256()) },
            Content { bytes: initramfs.into(), sha256: self.initramfs_sha256 },
            Content::new(params.as_bytes().to_vec()),
            Content::new(cmdline_bytes),
        ];
        contents.extend(setup_data.map(|(_, list)| Content::new(list)));
        let mut launch = Launch::in_place(entry, entry.rsi);
        if let Some(destination) = destination {
            let (head, list) = displaced::list(destination, staging, placed.piece(nr_more))?;
            contents.push(Content::new(list));
            let nr_relocated = (destination.len() / PAGE_SIZE) as u32;
            launch = Launch { list_head: head, swap: true, nr_relocated, ..launch };
        }
        Ok(Staged { contents, launch, cmdline, memory_map, warnings: Vec::new() })
    }
}

/// Bytes for what boot_params has no room for; 0 where it has room for all.
fn room_for_setup_data(machine: &Machine, displaced: Option<PhysRange>) -> u64 {
    let map = boot_params::plan_memory_map(machine, &[], displaced);
    setup_data::room_for_memory(map.len() + boot_params::MAP_SLACK)
}

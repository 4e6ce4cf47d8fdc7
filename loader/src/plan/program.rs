//! A program that is no Linux kernel as the payload: where it is linked, swapped there if that is outside the
//! reservation.

use kdump_arch_x86::control_page::{EntryMode, EntryState};
use kdump_arch_x86::{PAGE_SIZE, PhysAddr, PhysRange};

use super::staging::{Content, Launch, Needs, Payload, Piece, Place, Placed, Staged};
use super::{Error, displaced};
use crate::boot_params;
use crate::machine::Machine;
use crate::program::{self, Info, MULTIBOOT1_EAX, MULTIBOOT2_EAX, Protocol};

// Places among the pieces.
const PROGRAM: usize = 0;
const MODULE: usize = 1;
const INFO: usize = 2;
const LIST: usize = 3;

/// First address that 32-bit mode cannot reach.
const LIMIT_32: u64 = 1 << 32;

/// A program.
#[derive(Clone, Copy, Debug)]
pub struct Program<'a> {
    /// The program.
    pub image: &'a program::Program,
    /// Its module, where it can have one: the capture initramfs.
    pub module: &'a [u8],
    /// Its command line, before where elfcorehdr is.
    pub append: &'a str,
    /// Registers of a plain executable.
    pub registers: EntryState,
}

impl Program<'_> {
    fn is_32_bit(&self) -> bool {
        !matches!(self.image.protocol, Protocol::Elf { is_64_bit: true })
    }
}

impl<'a> Payload<'a> for Program<'a> {
    fn needs(&self, machine: &Machine) -> Needs {
        let image = self.image;
        let wanted = PhysRange::new(image.start, image.start + image.size);
        let region = machine.iomem.crash_kernel().last().copied();
        let displaced = Some(wanted).filter(|range| !region.is_some_and(|region| region.covers(*range)));
        let place = match displaced {
            Some(_) => Place::Low { align: PAGE_SIZE, min: 0 },
            None => Place::At(image.start),
        };
        let piece = |tag, purpose, size, content, place| Piece { tag, purpose, size, content, place };
        let module = (self.module.len() as u64).max(1);
        let map = boot_params::plan_memory_map(machine, &[], displaced);
        let info = program::info_room(self.append, map.len() + boot_params::MAP_SLACK);
        let mut pieces = vec![
            piece("program", image.protocol.name(), image.size, image.memory.len() as u64, place),
            piece("module", "the capture initramfs", module, module, Place::High),
            piece("info", "what the program is told", info, info, Place::High),
        ];
        pieces.extend(displaced.map(|range| displaced::list_piece(range.len())));
        Needs {
            pieces,
            outside: displaced.into_iter().collect(),
            displaced: displaced.map(|range| (range, PROGRAM)),
            recommended: image.size + module + (16 << 20),
        }
    }

    fn stage(&self, placed: &Placed<'_>) -> Result<Staged<'a>, Error> {
        let Self { image, module, .. } = *self;
        let staging = placed.piece(PROGRAM);
        let destination = match image.start == staging.start().0 {
            true => None,
            false => Some(displaced::destination(image.start, image.size)?),
        };
        if self.is_32_bit() {
            let ends = [image.start + image.size, placed.region.end().0];
            if let Some(&end) = ends.iter().find(|end| **end > LIMIT_32) {
                return Err(Error::BeyondReach { end: PhysAddr(end) });
            }
        }
        let mut kept = vec![placed.elfcorehdr, placed.record];
        kept.extend(destination.map(|_| staging));
        let memory_map = boot_params::plan_memory_map(placed.machine, &kept, destination);
        let (elfcorehdr, record) = (placed.elfcorehdr.start().0, placed.record.start().0);
        let cmdline = format!("{} elfcorehdr={elfcorehdr:#x} kdump-rs.record={record:#x}", self.append);
        let cmdline = cmdline.trim_start().to_owned();
        let module_at = placed.piece(MODULE).start().0;
        let told = Info {
            cmdline: &cmdline,
            map: &memory_map,
            module: PhysRange::new(module_at, module_at + module.len() as u64),
        };
        let info_at = placed.piece(INFO).start().0;
        let (info, entry) = match image.protocol {
            Protocol::Multiboot1 => (
                program::multiboot1(&told, info_at as u32),
                EntryState { rax: MULTIBOOT1_EAX, rbx: info_at, ..EntryState::default() },
            ),
            Protocol::Multiboot2 => (
                program::multiboot2(&told),
                EntryState { rax: MULTIBOOT2_EAX, rbx: info_at, ..EntryState::default() },
            ),
            Protocol::Elf { .. } => ([cmdline.as_bytes(), &[0]].concat(), self.registers),
        };
        if info.len() as u64 > placed.piece(INFO).len() {
            return Err(Error::InfoTooLong { need: info.len() as u64, have: placed.piece(INFO).len() });
        }
        let mode = if self.is_32_bit() { EntryMode::Bits32 } else { EntryMode::Bits64 };
        let entry = EntryState { mode, rip: image.entry, ..entry };
        let mut contents =
            vec![Content::new(image.memory.as_slice()), Content::new(module), Content::new(info)];
        let argument = if matches!(image.protocol, Protocol::Elf { .. }) { 0 } else { info_at };
        let mut launch = Launch::in_place(entry, argument);
        if let Some(destination) = destination {
            let (head, list) = displaced::list(destination, staging, placed.piece(LIST))?;
            contents.push(Content::new(list));
            let nr_relocated = (destination.len() / PAGE_SIZE) as u32;
            launch = Launch { list_head: head, swap: true, nr_relocated, ..launch };
        }
        let warnings = vec![format!("{}: whether it takes a dump is its own affair", image.protocol.name())];
        Ok(Staged { contents, launch, cmdline, memory_map, warnings })
    }
}

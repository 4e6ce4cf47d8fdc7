//! A program that is no Linux kernel for an ordinary kexec: static ELF, Multiboot 1 and 2.

use kdump_arch_x86::PhysRange;
use kdump_arch_x86::control_page::{EntryMode, EntryState};

use super::{Error, Image, LIMIT_32, Room, Segment};
use crate::boot_params::MemoryMapEntry;
use crate::machine::Machine;
use crate::program::{self, Info, MULTIBOOT1_EAX, MULTIBOOT2_EAX, Protocol};

/// A program with what it is given.
#[derive(Clone, Copy, Debug)]
pub struct Program<'a> {
    /// The program.
    pub image: &'a program::Program,
    /// Its module, where it can have one; empty for none.
    pub module: &'a [u8],
    /// Its command line.
    pub cmdline: &'a str,
    /// Registers of a plain executable.
    pub registers: EntryState,
}

impl<'a> Image<'a> for Program<'a> {
    fn stage(
        &self,
        _machine: &Machine,
        map: &[MemoryMapEntry],
        room: &mut Room,
    ) -> Result<(Vec<Segment<'a>>, EntryState), Error> {
        let Self { image, module, cmdline, registers } = *self;
        let at = room.at("program", image.start, image.size)?;
        let mut segments = vec![Segment { tag: "program", range: at, bytes: image.memory.as_slice().into() }];
        let mut told = Info { cmdline, map, module: PhysRange::new(0, 0) };
        if !module.is_empty() {
            let range = room.high("module", module.len() as u64, LIMIT_32)?;
            told.module = PhysRange::new(range.start().0, range.start().0 + module.len() as u64);
            segments.push(Segment { tag: "module", range, bytes: module.into() });
        }
        let info_at = room.high("info", program::info_room(cmdline, map.len()), LIMIT_32)?;
        let rbx = info_at.start().0;
        let (info, entry) = match image.protocol {
            Protocol::Multiboot1 => {
                let info = program::multiboot1(&told, rbx as u32);
                (info, EntryState { rax: MULTIBOOT1_EAX, rbx, ..EntryState::default() })
            }
            Protocol::Multiboot2 => {
                (program::multiboot2(&told), EntryState { rax: MULTIBOOT2_EAX, rbx, ..EntryState::default() })
            }
            Protocol::Elf { .. } => ([cmdline.as_bytes(), &[0]].concat(), registers),
        };
        segments.push(Segment { tag: "info", range: info_at, bytes: info.into() });
        let mode = match image.protocol {
            Protocol::Elf { is_64_bit: true } => EntryMode::Bits64,
            _ => EntryMode::Bits32,
        };
        Ok((segments, EntryState { mode, rip: image.entry, ..entry }))
    }

    fn cmdline(&self) -> &str {
        self.cmdline
    }
}

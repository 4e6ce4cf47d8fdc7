//! A Linux kernel for an ordinary kexec.

use kdump_arch_x86::bootparam::{BootParams, ENTRY_32_OFFSET, ENTRY_64_OFFSET};
use kdump_arch_x86::control_page::{EntryMode, EntryState};
use kdump_arch_x86::{PhysAddr, PhysRange};
use zerocopy::IntoBytes as _;

use super::{Error, Image, LIMIT_32, Room, Segment};
use crate::boot_params::{self, MemoryMapEntry, Pointers};
use crate::bzimage::BzImage;
use crate::cmdline::TooLong;
use crate::efi::Efi;
use crate::machine::Machine;
use crate::setup_data::{self, Node};

/// A kernel with what it is given.
#[derive(Clone, Copy, Debug)]
pub struct Linux<'a> {
    /// The kernel.
    pub image: &'a BzImage,
    /// Its initramfs; empty for none.
    pub initrd: &'a [u8],
    /// Its command line.
    pub cmdline: &'a str,
    /// Entered by the 32-bit boot protocol though it has a 64-bit entry.
    pub is_32_bit: bool,
}

impl Linux<'_> {
    fn is_32_bit(&self) -> bool {
        self.is_32_bit || !self.image.has_64_bit_entry()
    }
}

impl<'a> Image<'a> for Linux<'a> {
    fn stage(
        &self,
        machine: &Machine,
        map: &[MemoryMapEntry],
        room: &mut Room,
    ) -> Result<(Vec<Segment<'a>>, EntryState), Error> {
        let Self { image, initrd, cmdline, .. } = *self;
        let max = image.cmdline_size();
        if cmdline.len() > max {
            return Err(TooLong { len: cmdline.len(), max, text: cmdline.to_owned() }.into());
        }
        let below = if image.can_be_above_4g() && !self.is_32_bit() { u64::MAX } else { LIMIT_32 };
        let size = image.init_size();
        let kernel = match image.fixed() {
            Some(fixed) => room.at("kernel", fixed.start.0, size)?,
            None => room.low("kernel", size, (image.alignment(), image.pref_address().0), below)?,
        };
        let params = room.high("boot_params", size_of::<BootParams>() as u64, below)?;
        let text = room.high("cmdline", cmdline.len() as u64 + 1, below)?;
        let mut segments = vec![
            Segment { tag: "kernel", range: kernel, bytes: image.kernel().into() },
            Segment { tag: "cmdline", range: text, bytes: [cmdline.as_bytes(), &[0]].concat().into() },
        ];
        let mut pointers =
            Pointers { cmdline: text.start(), initramfs: PhysRange::new(0, 0), setup_data: PhysAddr(0) };
        if !initrd.is_empty() {
            // A kernel that reaches no further than this says so itself.
            let reach = if below == u64::MAX { below } else { self.initrd_limit() };
            let range = room.high("initrd", initrd.len() as u64, reach)?;
            pointers.initramfs = PhysRange::new(range.start().0, range.start().0 + initrd.len() as u64);
            segments.push(Segment { tag: "initrd", range, bytes: initrd.into() });
        }
        let efi = machine.efi.as_ref().filter(|_| image.can_take_efi());
        let nodes: Vec<_> = Node::more_memory(map).into_iter().chain(efi.map(Efi::node)).collect();
        if !nodes.is_empty() {
            // As long wherever it lies.
            let size = setup_data::list(&nodes, PhysAddr(0)).len() as u64;
            let range = room.high("setup-data", size, below)?;
            pointers.setup_data = range.start();
            let bytes = setup_data::list(&nodes, range.start()).into();
            segments.push(Segment { tag: "setup-data", range, bytes });
        }
        let mut built = boot_params::build(machine, image, pointers, map)?;
        if let Some(efi) = efi {
            let range = room.high("efi-map", efi.map().len() as u64, below)?;
            built.efi_info = efi.info(range.start());
            segments.push(Segment { tag: "efi-map", range, bytes: efi.map().to_vec().into() });
        }
        let bytes = built.as_bytes().to_vec();
        segments.push(Segment { tag: "boot_params", range: params, bytes: bytes.into() });

        let (mode, offset) = match self.is_32_bit() {
            true => (EntryMode::Bits32, ENTRY_32_OFFSET),
            false => (EntryMode::Bits64, ENTRY_64_OFFSET),
        };
        let rip = match image.fixed() {
            Some(fixed) if !self.is_32_bit() => fixed.entry.0,
            _ => kernel.start().0 + offset,
        };
        Ok((segments, EntryState { mode, rip, rsi: params.start().0, ..EntryState::default() }))
    }

    fn cmdline(&self) -> &str {
        self.cmdline
    }
}

impl Linux<'_> {
    /// First address that its initramfs must not reach.
    fn initrd_limit(&self) -> u64 {
        match self.image.header().initrd_addr_max.get() {
            0 => 0x3800_0000,
            last => u64::from(last) + 1,
        }
    }
}

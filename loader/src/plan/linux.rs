//! A bzImage with its initramfs as the payload, entered by the 64-bit boot protocol.
//!
//! Source: Documentation/arch/x86/boot.rst.

use kdump_arch_x86::bootparam::{E820_MAX_ENTRIES_ZEROPAGE, ENTRY_64_OFFSET};
use kdump_arch_x86::control_page::{EntryMode, EntryState};
use kdump_arch_x86::{PAGE_SIZE, PhysRange};
use zerocopy::IntoBytes as _;

use super::staging::{Content, Launch, Needs, Payload, Piece, Place, Placed, Staged};
use super::{Error, recommended_bytes, top_of_ram};
use crate::boot_params::{self, Pointers};
use crate::bzimage::BzImage;
use crate::cmdline;
use crate::machine::Machine;

// Places among the pieces.
const KERNEL: usize = 0;
const INITRAMFS: usize = 1;
const BOOT_PARAMS: usize = 2;
const CMDLINE: usize = 3;

/// A capture kernel.
#[derive(Clone, Copy, Debug)]
pub struct Linux<'a> {
    /// The kernel.
    pub image: &'a BzImage,
    /// Its initramfs, packed.
    pub initramfs: &'a [u8],
    /// Bytes of the initramfs, unpacked.
    pub unpacked_len: u64,
    /// The user's words for the command line.
    pub append: &'a str,
}

impl<'a> Payload<'a> for Linux<'a> {
    fn needs(&self, machine: &Machine) -> Needs {
        let Self { image, initramfs, .. } = self;
        let (kernel, initramfs) = (image.kernel().len() as u64, initramfs.len() as u64);
        let cmdline = image.cmdline_size() as u64 + 1;
        let low = Place::Low { align: image.alignment().max(PAGE_SIZE), min: image.pref_address().0 };
        let piece = |tag, purpose, size, content, place| Piece { tag, purpose, size, content, place };
        Needs {
            pieces: vec![
                piece(
                    "bzImage",
                    "protected-mode kernel, with room to unpack",
                    image.init_size(),
                    kernel,
                    low,
                ),
                piece("initramfs", "kdump-init and drivers", initramfs, initramfs, Place::High),
                piece("boot_params", "memory map and pointers", PAGE_SIZE, PAGE_SIZE, Place::High),
                piece("cmdline", "command line", cmdline, cmdline, Place::High),
            ],
            outside: Vec::new(),
            recommended: recommended_bytes(image, initramfs, self.unpacked_len, top_of_ram(machine)),
        }
    }

    fn stage(&self, placed: &Placed<'_>) -> Result<Staged<'a>, Error> {
        let Self { image, initramfs, .. } = *self;
        let machine = placed.machine;
        if initramfs.is_empty() {
            return Err(Error::NoInitramfs);
        }
        let cmdline = cmdline::build(
            &machine.cmdline,
            &cmdline::Additions {
                elfcorehdr: placed.elfcorehdr.start(),
                record: placed.record.start(),
                boot_apic_id: machine.boot_apic_id,
                append: self.append,
            },
            image.cmdline_size(),
        )?;
        let mut memory_map = boot_params::plan_memory_map(machine, &[placed.elfcorehdr, placed.record]);
        let nr_dropped = boot_params::drop_reserved(&mut memory_map);
        let initramfs_at = placed.piece(INITRAMFS).start().0;
        let pointers = Pointers {
            cmdline: placed.piece(CMDLINE).start(),
            initramfs: PhysRange::new(initramfs_at, initramfs_at + initramfs.len() as u64),
        };
        let params = boot_params::build(machine, image, pointers, &memory_map)?;
        let mut cmdline_bytes = cmdline.clone().into_bytes();
        cmdline_bytes.push(0);

        let entry = EntryState {
            mode: EntryMode::Bits64,
            rip: placed.piece(KERNEL).start().0 + ENTRY_64_OFFSET,
            rsi: placed.piece(BOOT_PARAMS).start().0,
            ..EntryState::default()
        };
        let mut warnings = Vec::new();
        if nr_dropped > 0 {
            warnings.push(format!(
                "boot_params holds {E820_MAX_ENTRIES_ZEROPAGE} memory ranges: the {nr_dropped} smallest reserved \
                 ones were left out of the capture kernel's memory map"
            ));
        }
        Ok(Staged {
            contents: vec![
                Content { bytes: image.kernel().into(), sha256: Some(image.kernel_sha256()) },
                Content::new(initramfs),
                Content::new(params.as_bytes().to_vec()),
                Content::new(cmdline_bytes),
            ],
            launch: Launch::in_place(entry, entry.rsi),
            cmdline,
            memory_map,
            warnings,
        })
    }
}

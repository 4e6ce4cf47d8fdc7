//! The probe: the small image that is loaded in place of a kernel and says what it finds.
//!
//! It is entered in 64-bit mode and needs nothing in any register; the handoff block behind it names its
//! console and what it does in the end.

use kdump_arch_x86::control_page::EntryState;
use kdump_arch_x86::{PAGE_SIZE, PhysAddr, PhysRange};
use kdump_panic_kernel::handoff::{Console, Entry, Handoff, Policy};

use crate::boot_params;
use crate::machine::Machine;
use crate::panic_image::{self, PanicImage};
use crate::plan::{self, Content, Launch, Needs, Payload, Piece, Place, Placed, Staged};

/// First address that its 32-bit code cannot reach.
const LIMIT_32: u64 = 1 << 32;
/// Where an ordinary kexec looks for room: above what firmware and old boot loaders touch.
const LOWEST: u64 = 16 << 20;

/// Why the probe cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The build produced something unexpected.
    #[error("the probe in this executable is damaged")]
    Image(#[from] panic_image::Error),
    /// No room.
    #[error("/proc/iomem shows no {need} bytes of System RAM between 16 MiB and 4 GiB for the probe")]
    NoRoom {
        /// Bytes it takes.
        need: u64,
    },
}

/// The probe, with its parameters.
#[derive(Clone, Debug)]
pub struct Probe {
    image: PanicImage,
    console: Console,
    end: Policy,
}

impl Probe {
    /// The probe of this build, printing on a console (one that is no 8250 behind I/O ports is replaced by COM1)
    /// and ending by reset or halt.
    ///
    /// # Errors
    /// [`panic_image::Error`].
    pub fn new(console: Console, end: Policy) -> Result<Self, panic_image::Error> {
        Ok(Self { image: PanicImage::probe()?, console, end })
    }

    /// Bytes it takes in memory, whole pages.
    #[must_use]
    pub fn mem_size(&self) -> u64 {
        self.image.mem_size()
    }

    /// Its bytes for an address, and its first instruction.
    ///
    /// # Errors
    /// [`panic_image::Error`].
    pub fn place(&self, at: PhysAddr) -> Result<(Vec<u8>, PhysAddr), panic_image::Error> {
        let placed = self.image.place(at.0)?;
        let mut bytes = placed.bytes;
        let block = Handoff::new(self.console, self.end, Entry::default());
        bytes.extend_from_slice(&block.to_bytes());
        Ok((bytes, PhysAddr(placed.entry)))
    }

    /// Where an ordinary kexec can put it: RAM that no crashkernel memory lies in, below 4 GiB.
    ///
    /// # Errors
    /// [`Error::NoRoom`].
    pub fn find_room(&self, machine: &Machine) -> Result<PhysRange, Error> {
        let need = self.mem_size();
        let wanted = PhysRange::new(LOWEST, LIMIT_32);
        let crash = machine.iomem.crash_kernel();
        let ram = machine.iomem.boot_ram();
        let usable = kdump_arch_x86::range::intersect(ram, [wanted]);
        let mut free = kdump_arch_x86::range::subtract(usable, kdump_arch_x86::range::merge(crash))
            .filter_map(PhysRange::shrink_to_pages);
        let room = free.find(|range| range.len() >= need).ok_or(Error::NoRoom { need })?;
        Ok(PhysRange::new(room.start().0, room.start().0 + need))
    }
}

impl<'a> Payload<'a> for Probe {
    fn needs(&self, _machine: &Machine) -> Needs {
        let size = self.mem_size();
        let place = Place::Low { align: PAGE_SIZE, min: 0 };
        Needs {
            pieces: vec![Piece {
                tag: "probe",
                purpose: "looks around and says so",
                size,
                content: size,
                place,
            }],
            recommended: size,
            ..Needs::default()
        }
    }

    fn stage(&self, placed: &Placed<'_>) -> Result<Staged<'a>, plan::Error> {
        let at = placed.piece(0);
        if at.end().0 > LIMIT_32 {
            return Err(plan::Error::BeyondReach { end: at.end() });
        }
        let (bytes, entry) = self.place(at.start()).map_err(plan::Error::PanicImage)?;
        let entry = EntryState { rip: entry.0, ..EntryState::default() };
        Ok(Staged {
            contents: vec![Content::new(bytes)],
            launch: Launch::in_place(entry, 0),
            cmdline: String::new(),
            memory_map: boot_params::plan_memory_map(
                placed.machine,
                &[placed.elfcorehdr, placed.record],
                None,
            ),
            warnings: vec!["the probe takes no dump: arm again without --probe".to_owned()],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iomem::{Iomem, tests::SAMPLE};

    #[test]
    fn the_probe_goes_into_plain_ram_outside_the_reservation() {
        let machine = Machine { iomem: Iomem::parse(SAMPLE.as_bytes()).unwrap(), ..Machine::default() };
        let probe = Probe::new(Console::None, Policy::Reset).unwrap();
        let room = probe.find_room(&machine).unwrap();
        assert_eq!((room.start().0, room.len()), (LOWEST, probe.mem_size()));
        let (bytes, entry) = probe.place(room.start()).unwrap();
        assert_eq!(bytes.len() as u64, probe.mem_size());
        assert!(room.contains(entry));
        let error = probe.find_room(&Machine::default()).unwrap_err().to_string();
        assert!(error.starts_with("/proc/iomem shows no "), "{error}");
    }
}

//! Building elfcorehdr: the ELF header through which the capture kernel's /proc/vmcore finds the
//! crashed kernel's notes and memory.
//!
//! In this form `p_offset` is a physical address. Order: a PT_NOTE per possible CPU, one for
//! VMCOREINFO, one for the panic record, a PT_LOAD for the kernel's text, one per range of RAM. RAM means
//! System RAM without the first MiB, the crashkernel memory and CMA memory given to the capture kernel.
//!
//! Memory that makes room for a payload is moved at the panic ([`Displaced`]): `p_paddr` and `p_vaddr` stay
//! the crashed kernel's, `p_offset` says where the bytes have gone. /proc/vmcore reads from there.
//!
//! Source: kernel/crash_core.c (`crash_prepare_elf64_headers`), fs/proc/vmcore.c.

use kdump_arch_x86::{PhysAddr, PhysRange, range};
use kdump_vmcore::elf::defs::{Ehdr, PF_RWX, PN_XNUM, PT_LOAD, PT_NOTE, Phdr};
use zerocopy::IntoBytes as _;

use crate::iomem::LOW_MEMORY_END;
use crate::kernel_map::KernelText;
use crate::machine::Machine;

/// Why no header can be built.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// The dump would have no memory.
    #[error("/proc/iomem shows no System RAM outside the crashkernel memory")]
    NoRam,
    /// The dump could not be made sense of.
    #[error("/sys/kernel/vmcoreinfo gives no address: the kernel has no VMCOREINFO (CONFIG_VMCORE_INFO)")]
    NoVmcoreinfo,
    /// A note would lie in two places.
    #[error(
        "the notes at {range} lie across the border of the memory that the payload displaces: choose another address"
    )]
    NoteCut {
        /// Where the note is.
        range: PhysRange,
    },
    /// The kernel reads no section headers here, so the count is 16-bit.
    #[error("{count} program headers are needed, an ELF header counts {max}")]
    TooManyHeaders {
        /// Program headers wanted.
        count: usize,
        /// Most there can be.
        max: u16,
    },
}

/// Memory whose content is moved before the capture kernel runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Displaced {
    /// Where the crashed kernel had it.
    pub from: PhysRange,
    /// Where it goes, in one piece.
    pub to: PhysAddr,
}

/// Builds the header's bytes. `record` is the page of the panic record, a note.
///
/// # Errors
/// [`Error`].
pub fn build(machine: &Machine, record: PhysRange, displaced: Option<Displaced>) -> Result<Vec<u8>, Error> {
    let ram = dumped_ram(machine);
    if ram.is_empty() {
        return Err(Error::NoRam);
    }
    let vmcoreinfo = machine.vmcoreinfo.ok_or(Error::NoVmcoreinfo)?;

    let mut headers = Vec::new();
    for range in machine.crash_notes.iter().map(|&(_, range)| range).chain([vmcoreinfo]) {
        headers.push(moved_note(range, displaced)?);
    }
    headers.push(note(record));
    let text = machine.kernel_map.text.and_then(text_load);
    let page_offset = machine.kernel_map.page_offset;
    let ram = ram.iter().map(|&range| {
        // Without the direct map's address, as a machine-level dump has it: virtual = physical.
        let virt = page_offset.map_or(range.start().0, |base| base.0.wrapping_add(range.start().0));
        load(range, virt)
    });
    for load in text.into_iter().chain(ram) {
        split(load, displaced, &mut headers);
    }

    let max = PN_XNUM - 1;
    let count = u16::try_from(headers.len()).ok().filter(|&n| n <= max);
    let count = count.ok_or(Error::TooManyHeaders { count: headers.len(), max })?;
    let mut bytes = Ehdr::core(count).as_bytes().to_vec();
    bytes.extend_from_slice(headers.as_bytes());
    Ok(bytes)
}

/// The RAM that belongs into the dump.
#[must_use]
pub fn dumped_ram(machine: &Machine) -> Vec<PhysRange> {
    let mut holes = vec![PhysRange::new(0, LOW_MEMORY_END)];
    holes.extend(machine.iomem.crash_kernel());
    holes.extend(&machine.cma_ranges);
    holes.sort_unstable();
    range::subtract(machine.iomem.ram(), range::merge(holes)).collect()
}

/// A note of the crashed kernel, wherever it is by then.
fn moved_note(range: PhysRange, displaced: Option<Displaced>) -> Result<Phdr, Error> {
    let mut headers = Vec::new();
    split(note(range), displaced, &mut headers);
    match headers[..] {
        [header] => Ok(header),
        _ => Err(Error::NoteCut { range }),
    }
}

/// Splits a header where the memory it names is displaced in part, and tells each part where its bytes are.
fn split(header: Phdr, displaced: Option<Displaced>, headers: &mut Vec<Phdr>) {
    let whole = PhysRange::from_len(header.p_paddr.get(), header.p_memsz.get());
    let (Some(whole), Some(Displaced { from, to })) = (whole, displaced) else {
        headers.push(header);
        return;
    };
    let part = |range: PhysRange, at: u64| {
        let offset = range.start().0 - whole.start().0;
        Phdr {
            p_offset: at.into(),
            p_paddr: range.start().0.into(),
            p_vaddr: if header.p_type.get() == PT_NOTE {
                0
            } else {
                header.p_vaddr.get().wrapping_add(offset)
            }
            .into(),
            p_filesz: range.len().into(),
            p_memsz: range.len().into(),
            ..header
        }
    };
    let moved = whole.overlap(from);
    let stays = range::subtract([whole], moved).map(|range| part(range, range.start().0));
    let mut parts: Vec<Phdr> = stays.collect();
    parts.extend(moved.map(|range| part(range, to.0 + (range.start().0 - from.start().0))));
    parts.sort_unstable_by_key(|part| part.p_paddr.get());
    headers.append(&mut parts);
}

fn note(range: PhysRange) -> Phdr {
    Phdr { p_type: PT_NOTE.into(), p_flags: 0.into(), ..load(range, 0) }
}

fn load(range: PhysRange, virt: u64) -> Phdr {
    Phdr {
        p_type: PT_LOAD.into(),
        p_flags: PF_RWX.into(),
        p_offset: range.start().0.into(),
        p_vaddr: virt.into(),
        p_paddr: range.start().0.into(),
        p_filesz: range.len().into(),
        p_memsz: range.len().into(),
        p_align: 0.into(),
    }
}

fn text_load(text: KernelText) -> Option<Phdr> {
    Some(load(PhysRange::from_len(text.phys.0, text.size)?, text.virt.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iomem::{Iomem, tests::SAMPLE};
    use crate::kernel_map::KernelMap;
    use kdump_arch_x86::VirtAddr;
    use zerocopy::FromBytes as _;

    const RECORD: PhysRange = PhysRange::new(0x17ef_f000, 0x17f0_0000);

    fn machine() -> Machine {
        Machine {
            iomem: Iomem::parse(SAMPLE.as_bytes()).unwrap(),
            crash_notes: vec![
                (0, PhysRange::new(0x1f62_d5c0, 0x1f62_d730)),
                (1, PhysRange::new(0x1f72_d5c0, 0x1f72_d730)),
            ],
            vmcoreinfo: Some(PhysRange::new(0x487_a000, 0x487_b024)),
            cma_ranges: vec![PhysRange::new(0x1_1000_0000, 0x1_2000_0000)],
            kernel_map: KernelMap {
                page_offset: Some(VirtAddr(0xffff_8f45_c000_0000)),
                text: Some(KernelText {
                    virt: VirtAddr(0xffff_ffff_a900_0000),
                    phys: PhysAddr(0x1a20_0000),
                    size: 0x260_0000,
                }),
            },
            ..Machine::default()
        }
    }

    fn headers(bytes: &[u8]) -> Vec<Phdr> {
        let count = Ehdr::read_from_prefix(bytes).unwrap().0.e_phnum.get().into();
        <[Phdr]>::ref_from_bytes_with_elems(&bytes[64..], count).unwrap().to_vec()
    }

    #[test]
    fn crash_memory_cma_and_the_first_mib_are_not_dumped() {
        assert_eq!(
            dumped_ram(&machine()),
            [
                PhysRange::new(0x10_0000, 0x800_0000),
                PhysRange::new(0x1800_0000, 0x1ffd_f000),
                PhysRange::new(0x1_0000_0000, 0x1_1000_0000),
                PhysRange::new(0x1_2000_0000, 0x1_c000_0000),
            ]
        );
    }

    #[test]
    fn notes_text_and_ram_are_in_the_kernels_own_order() {
        let phdrs = headers(&build(&machine(), RECORD, None).unwrap());
        let types: Vec<_> = phdrs.iter().map(|p| p.p_type.get()).collect();
        assert_eq!(types, [4, 4, 4, 4, 1, 1, 1, 1, 1]);
        assert_eq!(phdrs[1].p_offset.get(), 0x1f72_d5c0);
        assert_eq!(phdrs[2].p_memsz.get(), 0x1024);
        assert_eq!((phdrs[3].p_offset.get(), phdrs[3].p_filesz.get()), (0x17ef_f000, 0x1000));
        assert_eq!(phdrs[4].p_vaddr.get(), 0xffff_ffff_a900_0000);
        assert_eq!(phdrs[5].p_vaddr.get(), 0xffff_8f45_c010_0000);
        assert!(phdrs.iter().all(|p| p.p_offset == p.p_paddr && p.p_filesz == p.p_memsz));
    }

    #[test]
    fn an_unknown_direct_map_leaves_physical_addresses() {
        let phdrs = headers(
            &build(&Machine { kernel_map: KernelMap::default(), ..machine() }, RECORD, None).unwrap(),
        );
        assert_eq!(phdrs.len(), 8);
        assert_eq!(phdrs[4].p_vaddr.get(), 0x10_0000);
    }

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(
            build(&Machine { vmcoreinfo: None, ..machine() }, RECORD, None).unwrap_err(),
            Error::NoVmcoreinfo
        );
        assert_eq!(build(&Machine::default(), RECORD, None).unwrap_err(), Error::NoRam);
        let crash_notes = vec![(0, PhysRange::new(0x1000, 0x1170)); 70_000];
        assert!(matches!(
            build(&Machine { crash_notes, ..machine() }, RECORD, None).unwrap_err(),
            Error::TooManyHeaders { .. }
        ));
    }

    /// Check, page by page, that what the headers lead to is what the crashed kernel had there, wherever the payload
    /// goes: the content of a page stands for its address before the swap.
    #[test]
    fn not_a_page_is_lost_by_a_displacement() {
        const PAGE: u64 = 0x1000;
        let staging = 0x900_0000;
        for (start, pages) in
            [(0x10_0000, 1), (0x1000_0000 - 0x80_0000, 0x80), (0x1a1f_f000, 0x300), (0x1_0000_0000, 0x1000)]
        {
            let from = PhysRange::new(start, start + pages * PAGE);
            let displaced = Displaced { from, to: PhysAddr(staging) };
            // What physical memory holds after the swap.
            let holds = |at: u64| match at.checked_sub(staging) {
                Some(offset) if offset < from.len() => start + offset,
                _ => at,
            };
            let machine = machine();
            let (whole, split) = (
                headers(&build(&machine, RECORD, None).unwrap()),
                headers(&build(&machine, RECORD, Some(displaced)).unwrap()),
            );
            let pages_of = |headers: &[Phdr], p_type: u32| -> Vec<(u64, u64, u64)> {
                let chosen = headers.iter().filter(|h| h.p_type.get() == p_type);
                let mut pages: Vec<_> = chosen
                    .flat_map(|h| {
                        let (at, virt, from) = (h.p_paddr.get(), h.p_vaddr.get(), h.p_offset.get());
                        (0..h.p_memsz.get()).step_by(PAGE as usize).map(move |i| (virt + i, at + i, from + i))
                    })
                    .collect();
                pages.sort_unstable();
                pages
            };
            let before = pages_of(&whole, PT_LOAD);
            let after = pages_of(&split, PT_LOAD);
            assert_eq!(before.len(), after.len(), "{start:#x}");
            for (before, after) in before.iter().zip(&after) {
                assert_eq!((before.0, before.1), (after.0, after.1), "{start:#x}");
                assert_eq!(holds(after.2), after.1, "{start:#x}: page {:#x} of the dump", after.1);
            }
            let notes = |h: &[Phdr]| h.iter().filter(|h| h.p_type.get() == PT_NOTE).count();
            assert_eq!(notes(&whole), notes(&split));
        }
    }

    #[test]
    fn notes_move_with_their_memory_and_may_not_be_cut() {
        let displace = |start: u64, end: u64| {
            let from = PhysRange::new(start, end);
            build(&machine(), RECORD, Some(Displaced { from, to: PhysAddr(0x900_0000) }))
        };
        let moved = headers(&displace(0x1f62_d000, 0x1f62_e000).unwrap());
        assert_eq!((moved[0].p_offset.get(), moved[0].p_memsz.get()), (0x900_05c0, 0x170));
        assert_eq!(moved[1].p_offset.get(), 0x1f72_d5c0);
        let cut = displace(0x487_b000, 0x487_c000).unwrap_err();
        assert!(matches!(cut, Error::NoteCut { .. }), "{cut}");
    }
}

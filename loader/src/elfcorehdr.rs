//! Building elfcorehdr: the ELF header through which the capture kernel's /proc/vmcore finds the
//! crashed kernel's notes and memory.
//!
//! In this form `p_offset` is a physical address. Order: a PT_NOTE per possible CPU, one for
//! VMCOREINFO, one for the panic record, a PT_LOAD for the kernel's text, one per range of RAM. RAM means System RAM without
//! the first MiB, the crashkernel memory and CMA memory given to the capture kernel.
//!
//! Source: kernel/crash_core.c (`crash_prepare_elf64_headers`), fs/proc/vmcore.c.

use kdump_arch_x86::{PhysRange, range};
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
    /// The kernel reads no section headers here, so the count is 16-bit.
    #[error("{count} program headers are needed, an ELF header counts {max}")]
    TooManyHeaders {
        /// Program headers wanted.
        count: usize,
        /// Most there can be.
        max: u16,
    },
}

/// Builds the header's bytes. `record` is the page of the panic record, a note.
///
/// # Errors
/// [`Error`].
pub fn build(machine: &Machine, record: PhysRange) -> Result<Vec<u8>, Error> {
    let ram = dumped_ram(machine);
    if ram.is_empty() {
        return Err(Error::NoRam);
    }
    let vmcoreinfo = machine.vmcoreinfo.ok_or(Error::NoVmcoreinfo)?;

    let mut headers: Vec<Phdr> = machine.crash_notes.iter().map(|&(_, range)| note(range)).collect();
    headers.push(note(vmcoreinfo));
    headers.push(note(record));
    if let Some(text) = machine.kernel_map.text {
        headers.extend(text_load(text));
    }
    let page_offset = machine.kernel_map.page_offset;
    headers.extend(ram.iter().map(|&range| {
        // Without the direct map's address, as a machine-level dump has it: virtual = physical.
        let virt = page_offset.map_or(range.start().0, |base| base.0.wrapping_add(range.start().0));
        load(range, virt)
    }));

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
    use kdump_arch_x86::{PhysAddr, VirtAddr};
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
        let phdrs = headers(&build(&machine(), RECORD).unwrap());
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
        let phdrs =
            headers(&build(&Machine { kernel_map: KernelMap::default(), ..machine() }, RECORD).unwrap());
        assert_eq!(phdrs.len(), 8);
        assert_eq!(phdrs[4].p_vaddr.get(), 0x10_0000);
    }

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(
            build(&Machine { vmcoreinfo: None, ..machine() }, RECORD).unwrap_err(),
            Error::NoVmcoreinfo
        );
        assert_eq!(build(&Machine::default(), RECORD).unwrap_err(), Error::NoRam);
        let crash_notes = vec![(0, PhysRange::new(0x1000, 0x1170)); 70_000];
        assert!(matches!(
            build(&Machine { crash_notes, ..machine() }, RECORD).unwrap_err(),
            Error::TooManyHeaders { .. }
        ));
    }
}

//! Where the running kernel's text and direct map are: the `p_vaddr` values of elfcorehdr.
//!
//! /proc/kcore has both as program headers; where lockdown or configuration hides it, /proc/kallsyms
//! still gives the text. A wrong value does not hurt /proc/vmcore, but misleads readers that derive
//! the direct map from `p_vaddr - p_paddr`.
//!
//! Source: fs/proc/kcore.c (`KCORE_RAM`, `KCORE_TEXT`), arch/x86/mm/init_64.c.

use goblin::container::{Container, Ctx};
use goblin::elf::header::header64::{ELFMAG, Header, SIZEOF_EHDR};
use goblin::elf::program_header::{PT_LOAD, ProgramHeader};
use kdump_arch_x86::{PhysAddr, VirtAddr};

/// Bytes of /proc/kcore that hold its program headers on any machine: 64 KiB are 1170 of them.
pub const KCORE_HEAD_BYTES: usize = 64 << 10;

/// Start of the kernel's text mapping, `__START_KERNEL_map`, in both paging modes.
const TEXT_MAP_START: u64 = 0xffff_ffff_8000_0000;

/// The kernel's image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelText {
    /// `_text` at run time.
    pub virt: VirtAddr,
    /// Physical address of `_text`.
    pub phys: PhysAddr,
    /// `_end` - `_text`.
    pub size: u64,
}

/// What was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelMap {
    /// `page_offset_base`: where physical 0 is in the direct map.
    pub page_offset: Option<VirtAddr>,
    /// The kernel's image.
    pub text: Option<KernelText>,
}

impl KernelMap {
    /// Reads the program headers of /proc/kcore from its first bytes.
    ///
    /// # Errors
    /// What goblin says of bytes that are no ELF file.
    pub fn parse_kcore(head: &[u8], kernel_code: Option<PhysAddr>) -> goblin::error::Result<Self> {
        let bytes = head
            .first_chunk::<SIZEOF_EHDR>()
            .ok_or(goblin::error::Error::Malformed(format!("{} bytes are no ELF header", head.len())))?;
        if !bytes.starts_with(ELFMAG) {
            return Err(goblin::error::Error::BadMagic(u64::from(bytes[0])));
        }
        let header = Header::from_bytes(bytes);
        let ctx = Ctx::new(Container::Big, goblin::container::Endian::Little);
        // As many as are in the head; the kernel puts text and the first RAM range first.
        let fits = head.len().saturating_sub(header.e_phoff as usize) / ProgramHeader::size(ctx);
        let count = usize::from(header.e_phnum).min(fits);
        let headers = ProgramHeader::parse(head, header.e_phoff as usize, count, ctx)?;
        let loads = headers.iter().filter(|h| h.p_type == PT_LOAD);

        let mut map = Self::default();
        for load in loads {
            let (virt, phys) = (VirtAddr(load.p_vaddr), PhysAddr(load.p_paddr));
            let is_known = load.p_paddr != u64::MAX;
            if load.p_vaddr >= TEXT_MAP_START {
                // Modules and vsyscall lie there too; the text is the one whose physical address is
                // the kernel's, or, without that knowledge, the first.
                let is_text = kernel_code.map_or(map.text.is_none(), |code| code == phys);
                if is_known && is_text {
                    map.text = Some(KernelText { virt, phys, size: load.p_memsz });
                }
            } else if is_known && load.p_memsz != 0 && map.page_offset.is_none() {
                map.page_offset =
                    load.p_vaddr.checked_sub(load.p_paddr).map(VirtAddr).filter(|v| is_kernel(*v));
            }
        }
        Ok(map)
    }

    /// Adds the text as /proc/kallsyms tells it, where it is missing.
    pub fn add_kallsyms(&mut self, text: &str, kernel_code: Option<PhysAddr>) {
        let (None, Some(phys)) = (self.text, kernel_code) else { return };
        let find = |name: &str| {
            text.lines().find_map(|line| {
                let mut words = line.split_whitespace();
                let address = u64::from_str_radix(words.next()?, 16).ok()?;
                (words.nth(1)? == name && address != 0).then_some(address)
            })
        };
        if let (Some(start), Some(end)) = (find("_text"), find("_end"))
            && let Some(size) = end.checked_sub(start)
        {
            self.text = Some(KernelText { virt: VirtAddr(start), phys, size });
        }
    }
}

/// Whether the address is in the upper half, 5-level or 4-level.
fn is_kernel(address: VirtAddr) -> bool {
    address.0 >= 0xff00_0000_0000_0000
}

#[cfg(test)]
mod tests {
    use super::*;
    use kdump_vmcore::elf::defs::{Ehdr, PF_RWX, PT_NOTE, Phdr};
    use zerocopy::IntoBytes as _;

    fn kcore(loads: &[(u64, u64, u64)]) -> Vec<u8> {
        let mut bytes = Ehdr::core(loads.len() as u16 + 1).as_bytes().to_vec();
        let phdr = |p_type: u32, v: u64, p: u64, size: u64| Phdr {
            p_type: p_type.into(),
            p_flags: PF_RWX.into(),
            p_offset: 0.into(),
            p_vaddr: v.into(),
            p_paddr: p.into(),
            p_filesz: size.into(),
            p_memsz: size.into(),
            p_align: 4096.into(),
        };
        bytes.extend_from_slice(phdr(PT_NOTE, 0, 0, 0).as_bytes());
        for &(v, p, size) in loads {
            bytes.extend_from_slice(phdr(PT_LOAD, v, p, size).as_bytes());
        }
        bytes
    }

    #[test]
    fn text_and_direct_map_come_from_kcore() {
        let bytes = kcore(&[
            (0xffff_ffff_a900_0000, 0x1a20_0000, 0x260_0000),
            (0xffff_9c00_c000_0000, u64::MAX, 0x1000),
            (0xffff_ffff_c000_0000, u64::MAX, 0x3f00_0000),
            (0xffff_8f45_c000_1000, 0x1000, 0x9e000),
        ]);
        let map = KernelMap::parse_kcore(&bytes, Some(PhysAddr(0x1a20_0000))).unwrap();
        assert_eq!(map.page_offset, Some(VirtAddr(0xffff_8f45_c000_0000)));
        assert_eq!(map.text.unwrap().virt, VirtAddr(0xffff_ffff_a900_0000));
        assert_eq!(map.text.unwrap().size, 0x260_0000);
    }

    #[test]
    fn kallsyms_gives_the_text_where_kcore_does_not() {
        let mut map = KernelMap::default();
        map.add_kallsyms("ffffffffa9000000 T _text\nffffffffab600000 B _end\n", Some(PhysAddr(0x1a20_0000)));
        assert_eq!(map.text.unwrap().size, 0x260_0000);
        let mut hidden = KernelMap::default();
        hidden.add_kallsyms("0000000000000000 T _text\n0000000000000000 B _end\n", Some(PhysAddr(0)));
        assert_eq!(hidden.text, None);
    }

    #[test]
    fn a_cut_kcore_gives_what_it_holds() {
        let bytes = kcore(&[
            (0xffff_ffff_a900_0000, 0x1a20_0000, 0x260_0000),
            (0xffff_8f45_c000_1000, 0x1000, 0x9e000),
        ]);
        for len in 0..bytes.len() {
            let _ = KernelMap::parse_kcore(&bytes[..len], None);
        }
        let map = KernelMap::parse_kcore(&bytes[..bytes.len() - 1], None).unwrap();
        assert!(map.text.is_some() && map.page_offset.is_none());
    }
}

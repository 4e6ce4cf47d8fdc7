//! Kernel virtual addresses: which method translates which range.
//!
//! Three methods: the kernel image is linear (`phys_base`), the direct map is linear
//! (`page_offset_base`), everything else goes through the page tables from `init_top_pgt`.
//!
//! Source: arch/x86/include/asm/page_64.h, `__phys_addr_nodebug`; pgtable_64_types.h;
//! Documentation/arch/x86/x86_64/mm.rst.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::Cell;

use kdump_arch_x86::paging::{Mode, Step, Walk};
use kdump_arch_x86::{PhysAddr, VirtAddr};

use crate::mem::{PhysMem, ReadError, page_pieces};
use crate::vmcoreinfo::VmcoreInfo;

/// Where the kernel image is mapped (`__START_KERNEL_map`).
pub const KERNEL_IMAGE_BASE: u64 = 0xffff_ffff_8000_0000;

/// How kernel virtual addresses become physical ones in one dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressSpace {
    /// Number of paging levels.
    pub mode: Mode,
    /// Physical address of the root table.
    pub root: PhysAddr,
    /// Physical minus link address of the kernel image; "negative" numbers wrap.
    pub phys_base: u64,
    /// Bytes of the kernel image mapping.
    pub image_size: u64,
    /// Start of the direct map, once known.
    pub page_offset_base: Option<VirtAddr>,
    /// One past the highest physical address that the direct map is trusted for.
    pub max_phys: PhysAddr,
    /// Encryption bit in table entries (AMD SME), else 0.
    pub sme_mask: u64,
}

/// A key that translation cannot do without is absent from VMCOREINFO.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("VMCOREINFO has no {0}: kernel addresses cannot be translated")]
pub struct MissingKey(pub &'static str);

impl AddressSpace {
    /// Sets up from VMCOREINFO. `max_phys` is one past the dump's highest memory address.
    ///
    /// # Errors
    /// If `SYMBOL(init_top_pgt)`/`SYMBOL(swapper_pg_dir)` or `NUMBER(phys_base)` is absent.
    pub fn new(info: &VmcoreInfo, max_phys: PhysAddr) -> Result<Self, MissingKey> {
        let root_virt = info
            .symbol("init_top_pgt")
            .or_else(|| info.symbol("swapper_pg_dir"))
            .ok_or(MissingKey("SYMBOL(swapper_pg_dir)"))?;
        let phys_base = info.number("phys_base").ok_or(MissingKey("NUMBER(phys_base)"))? as u64;
        let mode =
            if info.number("pgtable_l5_enabled") == Some(1) { Mode::FiveLevel } else { Mode::FourLevel };
        Ok(Self {
            mode,
            root: PhysAddr(root_virt.wrapping_sub(KERNEL_IMAGE_BASE).wrapping_add(phys_base)),
            phys_base,
            // Without the key (it is always there) the larger of the two possible sizes.
            image_size: info.number("KERNEL_IMAGE_SIZE").map_or(1 << 30, |n| n as u64),
            page_offset_base: None,
            max_phys,
            sme_mask: info.number("sme_mask").map_or(0, |n| n as u64),
        })
    }

    /// The linear translations: image and direct map. `None` where tables must be walked.
    #[must_use]
    pub fn linear(&self, virt: VirtAddr) -> Option<PhysAddr> {
        let image = virt.0.wrapping_sub(KERNEL_IMAGE_BASE);
        if virt.0 >= KERNEL_IMAGE_BASE && image < self.image_size {
            return Some(PhysAddr(image.wrapping_add(self.phys_base)));
        }
        let direct = virt.0.checked_sub(self.page_offset_base?.0)?;
        (direct < self.max_phys.0).then_some(PhysAddr(direct))
    }

    /// Finds the start of the direct map by walking the root table: the lowest mapped address from
    /// PGD index 273 on (272 is the LDT remap, below are guards) belongs to it. Its base is that
    /// address minus the physical address it maps.
    ///
    /// # Errors
    /// If a table on the way cannot be read, or no such entry exists.
    pub fn find_page_offset_base<M: PhysMem + ?Sized>(&self, mem: &M) -> Result<VirtAddr, ReadError> {
        let (first, step_top) = match self.mode {
            Mode::FourLevel => (0xffff_8880_0000_0000u64, 1u64 << 39),
            Mode::FiveLevel => (0xff11_0000_0000_0000, 1 << 48),
        };
        // At most 239 top-level entries, and inside one at most 3 × 512 holes.
        let mut virt = first;
        let mut last = ReadError::Corrupt { what: "no direct map in the root table", at: self.root.0 };
        for _ in 0..4096 {
            let mut walk = Walk::new(self.mode, self.root, VirtAddr(virt), self.sme_mask);
            let mut step = walk.step();
            loop {
                match step {
                    Step::Read(at) => match mem.read_u64(at) {
                        Ok(entry) => step = walk.feed(entry),
                        Err(e) => return Err(e),
                    },
                    Step::Mapped { phys, .. } => return Ok(VirtAddr(virt.wrapping_sub(phys.0))),
                    Step::NotPresent { level, at, entry, hole } => {
                        last = ReadError::NotMapped { virt: VirtAddr(virt), level, at, entry };
                        let Some(next) = virt.checked_add(hole.min(step_top)) else { return Err(last) };
                        virt = next;
                        break;
                    }
                }
            }
        }
        Err(last)
    }

    /// Walks the tables below `root` for `virt`: physical address and bytes contiguous from there.
    ///
    /// # Errors
    /// `NotMapped` with the entry that is not present, or what reading a table gave.
    pub fn walk<M: PhysMem + ?Sized>(
        &self,
        mem: &M,
        root: PhysAddr,
        virt: VirtAddr,
    ) -> Result<(PhysAddr, u64), ReadError> {
        let mut walk = Walk::new(self.mode, root, virt, self.sme_mask);
        let mut step = walk.step();
        loop {
            match step {
                Step::Read(at) => step = walk.feed(mem.read_u64(at)?),
                Step::Mapped { phys, contiguous } => return Ok((phys, contiguous)),
                Step::NotPresent { level, at, entry, .. } => {
                    return Err(ReadError::NotMapped { virt, level, at, entry });
                }
            }
        }
    }
}

/// Kernel memory by virtual address: an [`AddressSpace`] over a [`PhysMem`], with the last walked
/// translations kept.
pub struct KernelMem<'a> {
    phys: &'a dyn PhysMem,
    space: AddressSpace,
    /// Recent walks: virtual start, bytes, physical start. Direct-mapped by 2 MiB of address.
    walked: [Cell<(u64, u64, u64)>; 64],
}

impl<'a> KernelMem<'a> {
    /// Puts the two together; finds the direct map if `space` does not have it yet.
    #[must_use]
    pub fn new(phys: &'a dyn PhysMem, mut space: AddressSpace) -> Self {
        if space.page_offset_base.is_none() {
            space.page_offset_base = space.find_page_offset_base(phys).ok();
        }
        Self { phys, space, walked: [const { Cell::new((0, 0, 0)) }; 64] }
    }

    /// The translation in force.
    #[must_use]
    pub const fn space(&self) -> &AddressSpace {
        &self.space
    }

    /// The physical memory below.
    #[must_use]
    pub const fn phys(&self) -> &'a dyn PhysMem {
        self.phys
    }

    /// Translates `virt`.
    ///
    /// # Errors
    /// If it is not mapped, or a table cannot be read.
    pub fn translate(&self, virt: VirtAddr) -> Result<PhysAddr, ReadError> {
        if let Some(phys) = self.space.linear(virt) {
            return Ok(phys);
        }
        let slot = &self.walked[((virt.0 >> 12) % 64) as usize];
        let (start, len, phys) = slot.get();
        if virt.0.wrapping_sub(start) < len {
            return Ok(PhysAddr(phys + (virt.0 - start)));
        }
        let (phys, contiguous) = self.space.walk(self.phys, self.space.root, virt)?;
        slot.set((virt.0, contiguous, phys.0));
        Ok(phys)
    }

    /// Reads `buf.len()` bytes from `virt`.
    ///
    /// # Errors
    /// If any byte cannot be translated or read.
    pub fn read(&self, virt: VirtAddr, buf: &mut [u8]) -> Result<(), ReadError> {
        for (offset, at, n) in page_pieces(virt.0, buf.len()) {
            let phys = self.translate(VirtAddr(at))?;
            self.phys.read(phys, &mut buf[offset..offset + n])?;
        }
        Ok(())
    }

    /// Reads a large piece of the kernel image: without a copy, where the dump can give it so. `limit` is as for
    /// [`Self::read_vec`].
    ///
    /// # Errors
    /// As [`Self::read_vec`].
    pub fn read_piece(&self, virt: VirtAddr, len: u64, limit: usize) -> Result<Cow<'a, [u8]>, ReadError> {
        if len <= limit as u64
            && let Some(bytes) = self.window(virt, len)
        {
            return Ok(Cow::Borrowed(bytes));
        }
        self.read_vec(virt, len, limit).map(Cow::Owned)
    }

    fn window(&self, virt: VirtAddr, len: u64) -> Option<&'a [u8]> {
        let start = self.space.linear(virt)?;
        let last = len.checked_sub(1)?;
        // The image is one piece in physical memory; whatever else is linear may be cut at its end.
        let is_one_piece = self.space.linear(virt.checked_add(last)?)? == start.checked_add(last)?;
        is_one_piece.then(|| self.phys.window(start, usize::try_from(len).ok()?))?
    }

    /// Reads `len` bytes into a new vector. `limit` bounds what a hostile length may allocate.
    ///
    /// # Errors
    /// `Corrupt` if `len` exceeds `limit`; else as [`Self::read`].
    pub fn read_vec(&self, virt: VirtAddr, len: u64, limit: usize) -> Result<Vec<u8>, ReadError> {
        let n = usize::try_from(len)
            .ok()
            .filter(|&n| n <= limit)
            .ok_or(ReadError::Corrupt { what: "length out of all proportion", at: virt.0 })?;
        let mut out = vec![0; n];
        self.read(virt, &mut out)?;
        Ok(out)
    }

    /// Reads an array `[u8; N]`.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_array<const N: usize>(&self, virt: VirtAddr) -> Result<[u8; N], ReadError> {
        let mut b = [0; N];
        self.read(virt, &mut b)?;
        Ok(b)
    }

    /// Reads a u8.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_u8(&self, virt: VirtAddr) -> Result<u8, ReadError> {
        Ok(self.read_array::<1>(virt)?[0])
    }

    /// Reads a u16.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_u16(&self, virt: VirtAddr) -> Result<u16, ReadError> {
        self.read_array(virt).map(u16::from_le_bytes)
    }

    /// Reads a u32.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_u32(&self, virt: VirtAddr) -> Result<u32, ReadError> {
        self.read_array(virt).map(u32::from_le_bytes)
    }

    /// Reads a u64.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_u64(&self, virt: VirtAddr) -> Result<u64, ReadError> {
        self.read_array(virt).map(u64::from_le_bytes)
    }

    /// Reads a pointer.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_ptr(&self, virt: VirtAddr) -> Result<VirtAddr, ReadError> {
        self.read_u64(virt).map(VirtAddr)
    }

    /// Reads a NUL-terminated string of at most `max` bytes; bytes that are not UTF-8 are replaced.
    /// A string that runs to the end of what is readable is what could be read.
    ///
    /// # Errors
    /// If its first byte cannot be read.
    pub fn read_cstr(&self, virt: VirtAddr, max: usize) -> Result<String, ReadError> {
        let mut out = Vec::new();
        for (_, at, n) in page_pieces(virt.0, max) {
            let mut piece = vec![0; n];
            match self.read(VirtAddr(at), &mut piece) {
                Ok(()) => {}
                Err(e) if out.is_empty() => return Err(e),
                Err(_) => break,
            }
            match piece.iter().position(|&b| b == 0) {
                Some(end) => {
                    out.extend_from_slice(&piece[..end]);
                    break;
                }
                None => out.extend_from_slice(&piece),
            }
        }
        Ok(String::from_utf8_lossy(&out).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::LiteralMem;

    fn space() -> AddressSpace {
        AddressSpace {
            mode: Mode::FourLevel,
            root: PhysAddr(0x1000),
            phys_base: 0u64.wrapping_sub(0x100_0000),
            image_size: 1 << 30,
            page_offset_base: None,
            max_phys: PhysAddr(1 << 30),
            sme_mask: 0,
        }
    }

    fn table(entries: &[(usize, u64)]) -> Vec<u8> {
        let mut t = vec![0; 4096];
        for &(i, e) in entries {
            t[i * 8..i * 8 + 8].copy_from_slice(&e.to_le_bytes());
        }
        t
    }

    #[test]
    fn a_negative_phys_base_wraps() {
        assert_eq!(space().linear(VirtAddr(0xffff_ffff_8200_0000)), Some(PhysAddr(0x100_0000)));
    }

    /// Check that a KASLR-moved direct map is found though physical page 0 is not mapped.
    #[test]
    fn the_direct_map_is_found_behind_holes() {
        let mem = LiteralMem(vec![
            (PhysAddr(0x1000), table(&[(280, 0x2003)])),
            (PhysAddr(0x2000), table(&[(3, 0x3003)])),
            (PhysAddr(0x3000), table(&[(0, 0x4003)])),
            (PhysAddr(0x4000), table(&[(1, 0x1003)])),
        ]);
        let expect = 0xffff_8c00_0000_0000u64 + 3 * (1 << 30);
        assert_eq!(space().find_page_offset_base(&mem), Ok(VirtAddr(expect)));
        let k = KernelMem::new(&mem, space());
        assert_eq!(k.read_u64(VirtAddr(expect + 0x1000 + 280 * 8)), Ok(0x2003));
    }

    #[test]
    fn an_unmapped_address_names_the_entry() {
        let mem = LiteralMem(vec![(PhysAddr(0x1000), table(&[]))]);
        let k = KernelMem::new(&mem, space());
        let e = k.read_u8(VirtAddr(0xffff_c900_0000_0000)).unwrap_err();
        assert!(matches!(e, ReadError::NotMapped { at: PhysAddr(0x1c90), entry: 0, .. }), "{e}");
    }
}

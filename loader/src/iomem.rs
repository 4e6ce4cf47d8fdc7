//! The machine's physical memory as /proc/iomem shows it, asked the questions a crash load has.
//!
//! Source: arch/x86/kernel/e820.c (`e820_type_to_string`), kernel/resource.c. A reader without
//! CAP_SYS_ADMIN sees every address as 0.

use kdump_arch_x86::bootparam::E820Type;
use kdump_arch_x86::{PhysAddr, PhysRange, range};
use procfs::FromRead as _;

/// The first MiB is the firmware's and the real-mode trampoline's; since Linux 5.5 the kernel's own
/// loader neither backs it up nor dumps it.
pub const LOW_MEMORY_END: u64 = 1 << 20;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Nesting, 0 outermost.
    pub depth: usize,
    /// The addresses.
    pub range: PhysRange,
    /// What the kernel calls it.
    pub name: String,
}

/// All lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Iomem(pub Vec<Resource>);

/// Text that is no /proc/iomem.
#[derive(Debug, thiserror::Error)]
#[error("/proc/iomem does not parse")]
pub struct Error(#[from] procfs::ProcError);

impl Iomem {
    /// Parses the file's text.
    ///
    /// # Errors
    /// [`Error`]. A line whose range is inverted is left out.
    pub fn parse(text: &[u8]) -> Result<Self, Error> {
        let lines = procfs::Iomem::from_read(text)?.0;
        Ok(Self(
            lines
                .into_iter()
                .filter_map(|(depth, map)| {
                    let (first, last) = map.address;
                    let range = PhysRange::try_new(first, last.checked_add(1)?)?;
                    Some(Resource { depth, range, name: map.name })
                })
                .collect(),
        ))
    }

    /// Whether the kernel hides the addresses from this reader: all are 0.
    #[must_use]
    pub fn is_hidden(&self) -> bool {
        !self.0.is_empty() && self.0.iter().all(|r| r.range.start() == PhysAddr(0) && r.range.len() <= 1)
    }

    fn named(&self, is_wanted: impl Fn(&str) -> bool) -> Vec<PhysRange> {
        let mut found: Vec<_> =
            self.0.iter().filter(|r| is_wanted(&r.name) && !r.range.is_empty()).map(|r| r.range).collect();
        found.sort_unstable();
        range::merge(found).collect()
    }

    /// All RAM, hot-added (`System RAM (kmem)`, `System RAM (virtio_mem)`) included.
    #[must_use]
    pub fn ram(&self) -> Vec<PhysRange> {
        self.named(|n| n == "System RAM" || n.starts_with("System RAM ("))
    }

    /// RAM that was there at boot and cannot be taken away: not hot-added, not a driver's.
    #[must_use]
    pub fn boot_ram(&self) -> Vec<PhysRange> {
        self.named(|n| n == "System RAM")
    }

    /// Memory reserved by `crashkernel=`, lowest first; not merged.
    #[must_use]
    pub fn crash_kernel(&self) -> Vec<PhysRange> {
        let mut found: Vec<_> = self.0.iter().filter(|r| r.name == "Crash kernel").map(|r| r.range).collect();
        found.sort_unstable();
        found
    }

    /// Where the running kernel's text starts.
    #[must_use]
    pub fn kernel_code(&self) -> Option<PhysRange> {
        self.0.iter().find(|r| r.name == "Kernel code").map(|r| r.range)
    }

    /// Memory that firmware described as other than RAM, with its type.
    #[must_use]
    pub fn firmware(&self) -> Vec<(PhysRange, E820Type)> {
        self.0
            .iter()
            .filter(|r| !r.range.is_empty())
            .filter_map(|r| Some((r.range, firmware_type(&r.name)?)))
            .collect()
    }
}

/// The e820 type behind a name of /proc/iomem or /sys/firmware/memmap, RAM excepted.
#[must_use]
pub fn firmware_type(name: &str) -> Option<E820Type> {
    Some(match name {
        "Reserved" | "reserved" => E820Type::RESERVED,
        "ACPI Tables" => E820Type::ACPI,
        "ACPI Non-volatile Storage" => E820Type::NVS,
        "Unusable memory" => E820Type::UNUSABLE,
        "Persistent Memory" => E820Type::PMEM,
        "Persistent Memory (legacy)" => E820Type::PRAM,
        "Soft Reserved" => E820Type::SOFT_RESERVED,
        _ => return None,
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const SAMPLE: &str = "\
00000000-00000fff : Reserved
00001000-0009fbff : System RAM
0009fc00-0009ffff : Reserved
000a0000-000bffff : PCI Bus 0000:00
000f0000-000fffff : Reserved
  000f0000-000fffff : System ROM
00100000-1ffdefff : System RAM
  08000000-17ffffff : Crash kernel
  1a200000-1bffffff : Kernel code
  1c000000-1c7bcfff : Kernel rodata
1ffdf000-1fffffff : ACPI Tables
b0000000-bfffffff : PCI MMCONFIG 0000 [bus 00-ff]
  b0000000-bfffffff : Reserved
fec00000-fec003ff : IOAPIC 0
100000000-17fffffff : System RAM
180000000-1ffffffff : virtio0
  180000000-1bfffffff : System RAM (virtio_mem)
";

    fn r(start: u64, end: u64) -> PhysRange {
        PhysRange::new(start, end)
    }

    #[test]
    fn ram_includes_what_was_hot_added() {
        let iomem = Iomem::parse(SAMPLE.as_bytes()).unwrap();
        assert_eq!(
            iomem.ram(),
            [r(0x1000, 0x9fc00), r(0x10_0000, 0x1ffd_f000), r(0x1_0000_0000, 0x1_c000_0000)]
        );
        assert_eq!(iomem.crash_kernel(), [r(0x800_0000, 0x1800_0000)]);
        assert_eq!(iomem.kernel_code().unwrap().start(), PhysAddr(0x1a20_0000));
        assert!(!iomem.is_hidden());
    }

    #[test]
    fn reserved_memory_is_found_at_every_depth() {
        let firmware = Iomem::parse(SAMPLE.as_bytes()).unwrap().firmware();
        assert!(firmware.contains(&(r(0xb000_0000, 0xc000_0000), E820Type::RESERVED)));
        assert!(firmware.contains(&(r(0x1ffd_f000, 0x2000_0000), E820Type::ACPI)));
        assert_eq!(firmware.len(), 5);
    }

    #[test]
    fn addresses_hidden_from_users_are_recognized() {
        let iomem = Iomem::parse(b"00000000-00000000 : Reserved\n00000000-00000000 : System RAM\n").unwrap();
        assert!(iomem.is_hidden());
    }

    #[test]
    fn text_that_is_no_iomem_is_an_error() {
        assert!(Iomem::parse(b"hello\n").is_err());
    }
}

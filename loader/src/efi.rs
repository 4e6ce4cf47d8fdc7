//! What a kernel that is started by an ordinary kexec must know to call EFI runtime services.
//!
//! Firmware has been moved to virtual addresses once, and cannot be moved again: the next kernel maps its regions
//! where this one has them, as the runtime map says, and finds its tables by the physical addresses that firmware's
//! own system table no longer has.
//!
//! Source: arch/x86/platform/efi/quirks.c (`efi_reuse_config`), arch/x86/platform/efi/runtime-map.c,
//! arch/x86/kernel/kexec-bzimage64.c (`setup_efi_state`), arch/x86/include/asm/efi.h.

use kdump_arch_x86::PhysAddr;
use kdump_arch_x86::bootparam::BootParams;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{Immutable, IntoBytes};

use crate::setup_data::{Node, SETUP_EFI};
use crate::sysfs::parse_hex;

/// `efi_loader_signature` of 64-bit firmware. 32-bit firmware under a 64-bit kernel has no runtime services that could
/// be passed on.
const SIGNATURE_64: &[u8; 4] = b"EL64";
/// Version of [`MemoryDescriptor`].
const DESCRIPTOR_VERSION: u32 = 1;
/// More regions than any firmware has; a bound for what is read.
const MAX_REGIONS: usize = 4096;

/// `efi_memory_desc_t`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, IntoBytes, Immutable)]
#[repr(C)]
struct MemoryDescriptor {
    kind: U32,
    pad: U32,
    phys_addr: U64,
    virt_addr: U64,
    num_pages: U64,
    attribute: U64,
}

/// EFI of the running system.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Efi {
    /// Physical address of the system table.
    system_table: u64,
    /// Physical addresses: the vendor's name, the runtime services, the configuration tables, SMBIOS.
    fw_vendor: u64,
    runtime: u64,
    tables: u64,
    smbios: u64,
    /// Firmware's regions, and where the running kernel has mapped them.
    map: Vec<MemoryDescriptor>,
}

impl Efi {
    /// From the running kernel's boot_params and the files of /sys/firmware/efi; `None` where the running kernel has no
    /// runtime services, or does not say where it mapped them (CONFIG_EFI_RUNTIME_MAP).
    #[must_use]
    pub fn read(boot_params: &BootParams, file: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let info = &boot_params.efi_info;
        let word = |at: usize| info.get(at..).and_then(<[u8]>::first_chunk).map(|b| u32::from_le_bytes(*b));
        let system_table = u64::from(word(4)?) | u64::from(word(24)?) << 32;
        if !info.starts_with(SIGNATURE_64) || system_table == 0 {
            return None;
        }
        let address = |name: &str| parse_hex(&file(name)?);
        let region = |nr: usize| {
            let field = |name: &str| parse_hex(&file(&format!("runtime-map/{nr}/{name}"))?);
            Some(MemoryDescriptor {
                kind: (field("type")? as u32).into(),
                pad: 0.into(),
                phys_addr: field("phys_addr")?.into(),
                virt_addr: field("virt_addr")?.into(),
                num_pages: field("num_pages")?.into(),
                attribute: field("attribute")?.into(),
            })
        };
        let map: Vec<_> = (0..MAX_REGIONS).map_while(region).collect();
        let smbios = file("systab").and_then(|text| find(&text, "SMBIOS="));
        (!map.is_empty()).then_some(Self {
            system_table,
            fw_vendor: address("fw_vendor")?,
            runtime: address("runtime").unwrap_or(0),
            tables: address("config_table")?,
            smbios: smbios.unwrap_or(0),
            map,
        })
    }

    /// The runtime map as it lies in memory.
    #[must_use]
    pub fn map(&self) -> &[u8] {
        self.map.as_bytes()
    }

    /// The node that names firmware's tables.
    #[must_use]
    pub fn node(&self) -> Node {
        // `struct efi_setup_data`: four addresses, eight reserved words.
        let mut data: Vec<u8> = Vec::with_capacity(96);
        for address in [self.fw_vendor, self.runtime, self.tables, self.smbios] {
            data.extend(address.to_le_bytes());
        }
        data.resize(96, 0);
        Node { kind: SETUP_EFI, data }
    }

    /// `efi_info` of boot_params, for a runtime map at an address.
    #[must_use]
    pub fn info(&self, map_at: PhysAddr) -> [u8; 32] {
        let mut info = [0; 32];
        let mut put = |at: usize, value: u32| info[at..at + 4].copy_from_slice(&value.to_le_bytes());
        put(4, self.system_table as u32);
        put(8, size_of::<MemoryDescriptor>() as u32);
        put(12, DESCRIPTOR_VERSION);
        put(16, map_at.0 as u32);
        put(20, self.map().len() as u32);
        put(24, (self.system_table >> 32) as u32);
        put(28, (map_at.0 >> 32) as u32);
        info[..4].copy_from_slice(SIGNATURE_64);
        info
    }
}

/// `KEY=0x…` among the lines of the file systab.
fn find(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| parse_hex(line.strip_prefix(key)?))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn boot_params() -> BootParams {
        let mut params = BootParams::default();
        params.efi_info[..8].copy_from_slice(b"EL64\x18\x80\xee\x7f");
        params.efi_info[24] = 1;
        params
    }

    fn file(name: &str) -> Option<String> {
        let text = match name {
            "fw_vendor" => "0x7fbee098",
            "runtime" => "0x7fbeeb98",
            "config_table" => "0x7f9ee018",
            "systab" => "ACPI20=0x7fb7e014\nSMBIOS=0x7f9cc000\n",
            "runtime-map/0/type" => "0x5",
            "runtime-map/0/phys_addr" => "0x7f8ed000",
            "runtime-map/0/virt_addr" => "0xfffffffeffe00000",
            "runtime-map/1/type" => "0x6",
            "runtime-map/1/phys_addr" => "0x7f9ed000",
            "runtime-map/1/virt_addr" => "0xfffffffefe000000",
            other if other.starts_with("runtime-map/2/") => return None,
            other if other.ends_with("num_pages") => "0x100",
            other if other.ends_with("attribute") => "0x800000000000000f",
            _ => return None,
        };
        Some(format!("{text}\n"))
    }

    pub(crate) fn efi() -> Efi {
        Efi::read(&boot_params(), file).unwrap()
    }

    #[test]
    fn the_runtime_map_and_the_tables_are_passed_on() {
        let efi = efi();
        assert_eq!(efi.map().len(), 80);
        assert_eq!(efi.map()[40..56], [6, 0, 0, 0, 0, 0, 0, 0, 0, 0xd0, 0x9e, 0x7f, 0, 0, 0, 0]);
        assert_eq!(efi.map()[56..64], 0xffff_fffe_fe00_0000u64.to_le_bytes());
        let node = efi.node();
        assert_eq!((node.kind, node.data.len()), (4, 96));
        assert_eq!(node.data[16..32], [0x18, 0xe0, 0x9e, 0x7f, 0, 0, 0, 0, 0, 0xc0, 0x9c, 0x7f, 0, 0, 0, 0]);
        let info = efi.info(PhysAddr(0x2_1234_5000));
        assert_eq!(info[..8], *b"EL64\x18\x80\xee\x7f");
        assert_eq!(info[8..16], [40, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(info[16..24], [0, 0x50, 0x34, 0x12, 80, 0, 0, 0]);
        assert_eq!(info[24..], [1, 0, 0, 0, 2, 0, 0, 0]);
    }

    #[test]
    fn without_runtime_services_there_is_nothing_to_pass_on() {
        assert_eq!(Efi::read(&BootParams::default(), file), None);
        assert_eq!(Efi::read(&boot_params(), |_| None), None);
        let no_map = |name: &str| file(name).filter(|_| !name.starts_with("runtime-map"));
        assert_eq!(Efi::read(&boot_params(), no_map), None);
    }
}

//! The Linux/x86 boot protocol's structures: `boot_params`, `setup_header`, e820.
//!
//! Byte-exact, alignment 1, field names as in the kernel. Only the fields that somebody reads or
//! writes are named; the rest is padding that is carried as it is.
//!
//! Source: arch/x86/include/uapi/asm/bootparam.h, setup_data.h;
//! Documentation/arch/x86/boot.rst, zero-page.rst.

use core::mem::offset_of;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

/// `boot_flag` at 0x1fe.
pub const BOOT_FLAG: u16 = 0xaa55;
/// "HdrS" at 0x202, little endian.
pub const HEADER_MAGIC: u32 = 0x5372_6448;
/// `loadflags` bit 0: the protected-mode code goes to 0x100000 or above.
pub const LOADED_HIGH: u8 = 1;
/// `xloadflags` bit 0: there is a 64-bit entry at +0x200.
pub const XLF_KERNEL_64: u16 = 1;
/// `xloadflags` bit 1: kernel, boot_params, command line and initrd may lie above 4 GiB.
pub const XLF_CAN_BE_LOADED_ABOVE_4G: u16 = 1 << 1;
/// `xloadflags` bit 4: the kernel takes EFI runtime services over from the kernel that a kexec leaves.
pub const XLF_EFI_KEXEC: u16 = 1 << 4;
/// `xloadflags` bit 5: the kernel may be entered with 5-level paging on.
pub const XLF_5LEVEL: u16 = 1 << 5;
/// Offset of the 32-bit entry from the load address of the protected-mode code.
pub const ENTRY_32_OFFSET: u64 = 0;

/// Offset of the 64-bit entry from the load address of the protected-mode code.
pub const ENTRY_64_OFFSET: u64 = 0x200;
/// Offset of [`SetupHeader`] in both the bzImage and `boot_params`.
pub const SETUP_HEADER_OFFSET: usize = 0x1f1;

/// `struct setup_header`: what the kernel image and the loader tell each other.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[doc(alias = "setup_header")]
#[allow(missing_docs)] // the names are the protocol's; Documentation/arch/x86/boot.rst describes each
pub struct SetupHeader {
    pub setup_sects: u8,            // 1f1
    pub root_flags: U16,            // 1f2
    pub syssize: U32,               // 1f4
    pub ram_size: U16,              // 1f8
    pub vid_mode: U16,              // 1fa
    pub root_dev: U16,              // 1fc
    pub boot_flag: U16,             // 1fe
    pub jump: U16,                  // 200
    pub header: U32,                // 202
    pub version: U16,               // 206
    pub realmode_swtch: U32,        // 208
    pub start_sys_seg: U16,         // 20c
    pub kernel_version: U16,        // 20e
    pub type_of_loader: u8,         // 210
    pub loadflags: u8,              // 211
    pub setup_move_size: U16,       // 212
    pub code32_start: U32,          // 214
    pub ramdisk_image: U32,         // 218
    pub ramdisk_size: U32,          // 21c
    pub bootsect_kludge: U32,       // 220
    pub heap_end_ptr: U16,          // 224
    pub ext_loader_ver: u8,         // 226
    pub ext_loader_type: u8,        // 227
    pub cmd_line_ptr: U32,          // 228
    pub initrd_addr_max: U32,       // 22c
    pub kernel_alignment: U32,      // 230
    pub relocatable_kernel: u8,     // 234
    pub min_alignment: u8,          // 235
    pub xloadflags: U16,            // 236
    pub cmdline_size: U32,          // 238
    pub hardware_subarch: U32,      // 23c
    pub hardware_subarch_data: U64, // 240
    pub payload_offset: U32,        // 248
    pub payload_length: U32,        // 24c
    pub setup_data: U64,            // 250
    pub pref_address: U64,          // 258
    pub init_size: U32,             // 260
    pub handover_offset: U32,       // 264
    pub kernel_info_offset: U32,    // 268
}
const _: () = assert!(size_of::<SetupHeader>() == 0x26c - 0x1f1);
macro_rules! header_at {
    ($($field:ident = $at:literal),* $(,)?) => { $(const _: () = assert!(offset_of!(SetupHeader, $field) + 0x1f1 == $at);)* };
}
header_at!(
    boot_flag = 0x1fe,
    header = 0x202,
    version = 0x206,
    type_of_loader = 0x210,
    ramdisk_image = 0x218,
    cmd_line_ptr = 0x228,
    kernel_alignment = 0x230,
    xloadflags = 0x236,
    cmdline_size = 0x238,
    hardware_subarch_data = 0x240,
    setup_data = 0x250,
    pref_address = 0x258,
    init_size = 0x260,
    kernel_info_offset = 0x268,
);

/// An e820 memory type. Open: firmware invents numbers, and they are shown, not refused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct E820Type(pub u32);

impl E820Type {
    /// Usable memory.
    pub const RAM: Self = Self(1);
    /// Not usable, not described further.
    pub const RESERVED: Self = Self(2);
    /// ACPI tables.
    pub const ACPI: Self = Self(3);
    /// ACPI non-volatile storage.
    pub const NVS: Self = Self(4);
    /// Reported bad.
    pub const UNUSABLE: Self = Self(5);
    /// Persistent memory.
    pub const PMEM: Self = Self(7);
    /// Persistent memory, legacy non-standard type.
    pub const PRAM: Self = Self(12);
    /// Set aside for a device, "special purpose".
    pub const SOFT_RESERVED: Self = Self(0xefff_ffff);
}

impl core::fmt::Display for E820Type {
    /// The name /proc/iomem gives it, else the number.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match *self {
            Self::RAM => "System RAM",
            Self::RESERVED => "Reserved",
            Self::ACPI => "ACPI Tables",
            Self::NVS => "ACPI Non-volatile Storage",
            Self::UNUSABLE => "Unusable memory",
            Self::PMEM => "Persistent Memory",
            Self::PRAM => "Persistent Memory (legacy)",
            Self::SOFT_RESERVED => "Soft Reserved",
            Self(other) => return write!(f, "e820 type {other}"),
        })
    }
}

/// `struct boot_e820_entry`, 20 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[doc(alias = "boot_e820_entry")]
pub struct BootE820Entry {
    /// First byte.
    pub addr: U64,
    /// Bytes.
    pub size: U64,
    /// An [`E820Type`].
    pub type_: U32,
}
const _: () = assert!(size_of::<BootE820Entry>() == 20);

impl BootE820Entry {
    /// Describes `range` as `type_`.
    #[must_use]
    pub fn new(range: crate::PhysRange, type_: E820Type) -> Self {
        Self { addr: range.start().0.into(), size: range.len().into(), type_: type_.0.into() }
    }
}

/// Entries that fit in `boot_params`; more go into a SETUP_E820_EXT node.
pub const E820_MAX_ENTRIES_ZEROPAGE: usize = 128;

/// `struct boot_params`, the "zero page".
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[doc(alias = "boot_params")]
#[allow(missing_docs)]
pub struct BootParams {
    pub screen_info: [u8; 0x40],     // 000
    pub apm_bios_info: [u8; 0x14],   // 040
    pub _pad2: [u8; 4],              // 054
    pub tboot_addr: U64,             // 058
    pub ist_info: [u8; 16],          // 060
    pub acpi_rsdp_addr: U64,         // 070
    pub _pad3: [u8; 8],              // 078
    pub hd0_info: [u8; 16],          // 080
    pub hd1_info: [u8; 16],          // 090
    pub sys_desc_table: [u8; 16],    // 0a0
    pub olpc_ofw_header: [u8; 16],   // 0b0
    pub ext_ramdisk_image: U32,      // 0c0
    pub ext_ramdisk_size: U32,       // 0c4
    pub ext_cmd_line_ptr: U32,       // 0c8
    pub _pad4: [u8; 112],            // 0cc
    pub cc_blob_address: U32,        // 13c
    pub edid_info: [u8; 128],        // 140
    pub efi_info: [u8; 32],          // 1c0
    pub alt_mem_k: U32,              // 1e0
    pub scratch: U32,                // 1e4
    pub e820_entries: u8,            // 1e8
    pub eddbuf_entries: u8,          // 1e9
    pub edd_mbr_sig_buf_entries: u8, // 1ea
    pub kbd_status: u8,              // 1eb
    pub secure_boot: u8,             // 1ec
    pub _pad5: [u8; 2],              // 1ed
    /// Must be 0: a kernel that finds 0xff here wipes fields.
    pub sentinel: u8, // 1ef
    pub _pad6: u8,                   // 1f0
    pub hdr: SetupHeader,            // 1f1
    pub _pad7: [u8; 0x290 - 0x26c],  // 26c
    pub edd_mbr_sig_buffer: [U32; 16], // 290
    pub e820_table: [BootE820Entry; E820_MAX_ENTRIES_ZEROPAGE], // 2d0
    pub _pad8: [u8; 48],             // cd0
    pub eddbuf: [u8; 6 * 82],        // d00
    pub _pad9: [u8; 276],            // eec
}
const _: () = assert!(size_of::<BootParams>() == 4096);
macro_rules! params_at {
    ($($field:ident = $at:literal),* $(,)?) => { $(const _: () = assert!(offset_of!(BootParams, $field) == $at);)* };
}
params_at!(
    tboot_addr = 0x58,
    acpi_rsdp_addr = 0x70,
    ext_ramdisk_image = 0xc0,
    cc_blob_address = 0x13c,
    efi_info = 0x1c0,
    e820_entries = 0x1e8,
    secure_boot = 0x1ec,
    sentinel = 0x1ef,
    hdr = 0x1f1,
    edd_mbr_sig_buffer = 0x290,
    e820_table = 0x2d0,
    eddbuf = 0xd00,
);

impl Default for BootParams {
    fn default() -> Self {
        Self::new_zeroed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that the structures agree with the kernel's own numbers, as the sizes and the table
    /// in Documentation/arch/x86/zero-page.rst give them; the const asserts do the offsets.
    #[test]
    fn a_zeroed_boot_params_has_an_innocent_sentinel() {
        let p = BootParams::default();
        assert_eq!(p.sentinel, 0);
        assert_eq!(p.as_bytes().len(), 4096);
    }

    #[test]
    fn header_magic_is_the_text_hdrs() {
        assert_eq!(HEADER_MAGIC.to_le_bytes(), *b"HdrS");
    }
}

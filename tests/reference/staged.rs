//! What a loader staged in a guest's memory, taken apart into named facts.

use std::collections::BTreeMap;

use kdump_arch_x86::bootparam::{BootE820Entry, BootParams, SetupHeader};
use kdump_rehearse::Held;
use kdump_vmcore::elf::defs::{Ehdr, PT_NOTE, Phdr};
use zerocopy::{FromBytes as _, IntoBytes as _};

/// Facts by name, as text.
pub type Facts = BTreeMap<String, String>;

/// Fields of boot_params by their offsets, each reaching to the next: not a byte is left out. `pad` is what the
/// protocol has no use for. Source: Documentation/arch/x86/zero-page.rst, boot.rst.
const FIELDS: [(usize, &str); 83] = [
    (0x000, "screen_info.orig_x"),
    (0x001, "screen_info.orig_y"),
    (0x002, "screen_info.ext_mem_k"),
    (0x004, "screen_info.orig_video_page"),
    (0x006, "screen_info.orig_video_mode"),
    (0x007, "screen_info.orig_video_cols"),
    (0x008, "screen_info.flags"),
    (0x00a, "screen_info.orig_video_ega_bx"),
    (0x00c, "screen_info.unused3"),
    (0x00e, "screen_info.orig_video_lines"),
    (0x00f, "screen_info.orig_video_isVGA"),
    (0x010, "screen_info.orig_video_points"),
    (0x012, "screen_info.lfb"),
    (0x020, "screen_info.cl_magic"),
    (0x022, "screen_info.cl_offset"),
    (0x024, "screen_info.lfb_more"),
    (0x040, "apm_bios_info"),
    (0x054, "pad.054"),
    (0x058, "tboot_addr"),
    (0x060, "ist_info"),
    (0x070, "acpi_rsdp_addr"),
    (0x078, "pad.078"),
    (0x080, "hd0_info"),
    (0x090, "hd1_info"),
    (0x0a0, "sys_desc_table"),
    (0x0b0, "olpc_ofw_header"),
    (0x0c0, "ext_ramdisk_image"),
    (0x0c4, "ext_ramdisk_size"),
    (0x0c8, "ext_cmd_line_ptr"),
    (0x0cc, "pad.0cc"),
    (0x13c, "cc_blob_address"),
    (0x140, "edid_info"),
    (0x1c0, "efi_info"),
    (0x1e0, "alt_mem_k"),
    (0x1e4, "scratch"),
    (0x1e8, "e820_entries"),
    (0x1e9, "eddbuf_entries"),
    (0x1ea, "edd_mbr_sig_buf_entries"),
    (0x1eb, "kbd_status"),
    (0x1ec, "secure_boot"),
    (0x1ed, "pad.1ed"),
    (0x1ef, "sentinel"),
    (0x1f0, "pad.1f0"),
    (0x1f1, "hdr.setup_sects"),
    (0x1f2, "hdr.root_flags"),
    (0x1f4, "hdr.syssize"),
    (0x1f8, "hdr.ram_size"),
    (0x1fa, "hdr.vid_mode"),
    (0x1fc, "hdr.root_dev"),
    (0x1fe, "hdr.boot_flag"),
    (0x200, "hdr.jump"),
    (0x202, "hdr.header"),
    (0x206, "hdr.version"),
    (0x208, "hdr.realmode_swtch"),
    (0x20c, "hdr.start_sys_seg"),
    (0x20e, "hdr.kernel_version"),
    (0x210, "hdr.type_of_loader"),
    (0x211, "hdr.loadflags"),
    (0x212, "hdr.setup_move_size"),
    (0x214, "hdr.code32_start"),
    (0x218, "hdr.ramdisk_image"),
    (0x21c, "hdr.ramdisk_size"),
    (0x220, "hdr.bootsect_kludge"),
    (0x224, "hdr.heap_end_ptr"),
    (0x226, "hdr.ext_loader"),
    (0x228, "hdr.cmd_line_ptr"),
    (0x22c, "hdr.initrd_addr_max"),
    (0x230, "hdr.kernel_alignment"),
    (0x234, "hdr.relocatable_kernel"),
    (0x236, "hdr.xloadflags"),
    (0x238, "hdr.cmdline_size"),
    (0x23c, "hdr.hardware_subarch"),
    (0x240, "hdr.hardware_subarch_data"),
    (0x248, "hdr.payload"),
    (0x250, "hdr.setup_data"),
    (0x258, "hdr.pref_address"),
    (0x260, "hdr.init_size"),
    (0x264, "hdr.handover_offset"),
    (0x268, "hdr.kernel_info_offset"),
    (0x26c, "pad.26c"),
    (0x290, "edd_mbr_sig_buffer"),
    (0x2d0, "e820_table"),
    (0xcd0, "eddbuf"),
];

/// What was staged.
pub struct Staged {
    /// Of boot_params each field, of what it points to the content, of elfcorehdr each header.
    pub facts: Facts,
    /// The memory map: start, end, type.
    pub memory: Vec<(u64, u64, u32)>,
    /// Where elfcorehdr is.
    pub elfcorehdr: u64,
    /// Where a copy of the first MiB will be, if there is to be one.
    pub low_copy: Option<(u64, u64)>,
}

/// Reads what was staged with boot_params at an address.
pub fn read(guest: &Held<'_>, boot_params: u64) -> Staged {
    let bytes_at = |address: u64, len: usize| {
        let mut bytes = vec![0; len];
        guest.read(address, &mut bytes).unwrap();
        bytes
    };
    let page = bytes_at(boot_params, 4096);
    let params = BootParams::read_from_bytes(&page).unwrap();
    let mut facts = Facts::new();
    let ends = FIELDS.iter().skip(1).map(|(at, _)| *at).chain([page.len()]);
    for (&(start, name), end) in FIELDS.iter().zip(ends) {
        if name != "e820_table" {
            facts.insert(name.to_owned(), number(&page[start..end]));
        }
    }
    let entries = &params.e820_table[..params.e820_entries.into()];
    let memory = entries
        .iter()
        .map(|BootE820Entry { addr, size, type_ }| (addr.get(), addr.get() + size.get(), type_.get()));
    let memory = memory.collect();
    let SetupHeader { ramdisk_image, ramdisk_size, cmd_line_ptr, .. } = params.hdr;
    let whole = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    let initrd = whole(ramdisk_image.get(), params.ext_ramdisk_image.get());
    let initrd = bytes_at(initrd, ramdisk_size.get() as usize);
    facts.insert("initramfs".to_owned(), format!("{:x?}", kdump_loader::state::file_sha256(&initrd)));
    let cmdline = bytes_at(whole(cmd_line_ptr.get(), params.ext_cmd_line_ptr.get()), 2048);
    let cmdline = String::from_utf8_lossy(cmdline.split(|byte| *byte == 0).next().unwrap()).into_owned();
    let mut words: Vec<_> = cmdline.split_whitespace().collect();
    words.retain(|word| !word.starts_with("elfcorehdr="));
    facts.insert("command line".to_owned(), words.join(" "));
    let at = elfcorehdr(&cmdline).unwrap_or_else(|| panic!("no elfcorehdr= in {cmdline}"));
    let bytes = bytes_at(at, 64 << 10);
    let headers = headers(&bytes);
    facts.insert("elfcorehdr header".to_owned(), elf_header(&bytes));
    facts.extend(headers.iter().map(describe));
    let low = headers.iter().find(|header| header.p_type.get() != PT_NOTE && header.p_paddr.get() < 1 << 20);
    let low_copy = low.map(|low| (low.p_offset.get(), low.p_offset.get() + low.p_memsz.get()));
    facts.insert("setup_data".to_owned(), nodes(guest, params.hdr.setup_data.get()));
    Staged { facts, memory, elfcorehdr: at, low_copy }
}

/// Types and sizes of the nodes of setup_data.
fn nodes(guest: &Held<'_>, first: u64) -> String {
    let mut found = Vec::new();
    let mut at = first;
    while at != 0 && found.len() < 16 {
        let mut node = [0; 16];
        guest.read(at, &mut node).unwrap();
        let word = |at: usize| u32::from_le_bytes(*node[at..].first_chunk().unwrap());
        found.push(format!("type {} of {} bytes", word(8), word(12)));
        at = u64::from_le_bytes(*node.first_chunk().unwrap());
    }
    if found.is_empty() { "-".to_owned() } else { found.join(", ") }
}

/// Numbers as such, what is longer as bytes, zeros in short.
fn number(bytes: &[u8]) -> String {
    if bytes.iter().all(|byte| *byte == 0) {
        return "0".to_owned();
    }
    if bytes.len() > 8 {
        return bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    }
    let value = bytes.iter().rev().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
    format!("{value:#x}")
}

/// `elfcorehdr=0x3de1e000` or `elfcorehdr=1012600K`.
fn elfcorehdr(cmdline: &str) -> Option<u64> {
    let word = cmdline.split_whitespace().find_map(|word| word.strip_prefix("elfcorehdr="))?;
    match (word.strip_prefix("0x"), word.strip_suffix('K')) {
        (Some(digits), _) => u64::from_str_radix(digits, 16).ok(),
        (_, Some(kib)) => Some(kib.parse::<u64>().ok()? << 10),
        _ => word.parse().ok(),
    }
}

/// All of it but the number of program headers.
fn elf_header(bytes: &[u8]) -> String {
    let mut header = Ehdr::read_from_prefix(bytes).unwrap().0;
    header.e_phnum = 0.into();
    number(header.as_bytes())
}

fn headers(bytes: &[u8]) -> Vec<Phdr> {
    let count = Ehdr::read_from_prefix(bytes).unwrap().0.e_phnum.get().into();
    <[Phdr]>::ref_from_prefix_with_elems(&bytes[64..], count).unwrap().0.to_vec()
}

fn describe(header: &Phdr) -> (String, String) {
    let kind = if header.p_type.get() == PT_NOTE { "PT_NOTE" } else { "PT_LOAD" };
    let rest = [header.p_offset, header.p_vaddr, header.p_filesz, header.p_align];
    let rest: Vec<_> = rest.iter().map(|word| format!("{:#x}", word.get())).collect();
    (
        format!("{kind} {:#x}+{:#x}", header.p_paddr.get(), header.p_memsz.get()),
        format!("flags {} {}", header.p_flags.get(), rest.join(" ")),
    )
}

//! The VMCOREINFO text of a machine, in the order of a real one.
//!
//! Source: `kernel/vmcore_info.c`, `arch/x86/kernel/vmcore_info_64.c`, `kernel/printk/printk.c`.

use crate::machine::memmap::{SECTION_SIZE_BITS, nr_roots};
use crate::machine::spec::MachineSpec;
use crate::space::Space;
use crate::{Kallsyms, Vmcoreinfo};

/// Offsets that VMCOREINFO gives of every kernel here, in three groups between which other lines stand.
const PAGE_OFFSETS: &[&str] =
    &["page.flags", "page._refcount", "page.mapping", "page.lru", "page._mapcount", "page.private"];
const ZONE_OFFSETS: &[&str] = &[
    "pglist_data.node_zones",
    "pglist_data.nr_zones",
    "pglist_data.node_start_pfn",
    "pglist_data.node_spanned_pages",
    "pglist_data.node_id",
    "zone.free_area",
    "zone.vm_stat",
    "zone.spanned_pages",
    "free_area.free_list",
    "list_head.next",
    "list_head.prev",
];
const PRINTK: &[(&str, &[&str])] = &[
    ("printk_ringbuffer", &["desc_ring", "text_data_ring", "fail"]),
    ("prb_desc_ring", &["count_bits", "descs", "infos", "head_id", "tail_id"]),
    ("prb_desc", &["state_var", "text_blk_lpos"]),
    ("prb_data_blk_lpos", &["begin", "next"]),
    ("printk_info", &["seq", "ts_nsec", "text_len", "caller_id", "dev_info"]),
    ("dev_printk_info", &["subsystem", "device"]),
    ("prb_data_ring", &["size_bits", "data", "head_lpos", "tail_lpos"]),
];

/// Returns the text as the running kernel had it, without CRASHTIME.
pub(crate) fn build(space: &Space, spec: &MachineSpec, kallsyms: &Kallsyms) -> Vmcoreinfo {
    let kernel = &space.kernel;
    let types = &kernel.types;
    let mut info = Vmcoreinfo::new(&kernel.release, Some("3bde3ce03156c39bec3310fbdd6bd14bfbefb62e"));
    info.symbol("init_uts_ns", space.address("init_uts_ns"));
    if kernel.at_least(5, 11) {
        info.offset("uts_namespace.name", types.offset("uts_namespace.name"));
    }
    info.symbol("node_online_map", space.address("node_states") + 128);
    info.symbol("swapper_pg_dir", space.address("init_top_pgt"));
    info.symbol("_stext", space.address("_stext"));
    if kernel.at_least(6, 9) {
        info.vmalloc_start(kernel.vmalloc_base).symbol("vmemmap", kernel.vmemmap_base);
    }
    // SYMBOL_ARRAY: the value of the pointer, not its address.
    info.symbol("mem_section", space.read_u64(space.address("mem_section")));
    info.length("mem_section", nr_roots(space) as usize);
    info.size("mem_section", 16).offset("mem_section.section_mem_map", 0);
    info.number("SECTION_SIZE_BITS", i64::from(SECTION_SIZE_BITS));
    info.number("MAX_PHYSMEM_BITS", i64::from(kernel.max_physmem_bits()));
    for name in ["page", "pglist_data", "zone", "free_area", "list_head"] {
        info.size(name, types.size(name));
    }
    info.size("nodemask_t", 128);
    for path in PAGE_OFFSETS.iter().chain(ZONE_OFFSETS) {
        info.offset(path, types.offset(path));
    }
    info.length("zone.free_area", 11);
    printk(&mut info, space);
    info.length("free_area.free_list", types.member_size("free_area.free_list") / 16);
    info.number("NR_FREE_PAGES", 0);
    kernel.pages.vmcoreinfo(&mut info);
    if kernel.at_least(6, 0) {
        for (table, address) in &kallsyms.tables {
            if !matches!(*table, "kallsyms_markers" | "kallsyms_seqs_of_names") {
                info.symbol(table, *address);
            }
        }
    }
    info.number("phys_base", kernel.phys_base());
    info.symbol("init_top_pgt", space.address("init_top_pgt"));
    info.number("pgtable_l5_enabled", i64::from(kernel.levels == 5));
    info.symbol("node_data", space.address("node_data")).length("node_data", 64);
    info.kernel_offset(kernel.kaslr_offset);
    info.number("KERNEL_IMAGE_SIZE", 1 << 30);
    info.number("sme_mask", 0);
    if spec.panic_cpu.is_some() {
        info.crash_time(spec.crash_time_s);
    }
    info
}

fn printk(info: &mut Vmcoreinfo, space: &Space) {
    for name in ["prb", "printk_rb_static", "clear_seq"] {
        info.symbol(name, space.address(name));
    }
    for (name, members) in PRINTK {
        info.size(name, space.kernel.types.size(name));
        for member in *members {
            let path = format!("{name}.{member}");
            info.offset(&path, space.kernel.types.offset(&path));
            match *member {
                "subsystem" => _ = info.length("printk_info_subsystem", 16),
                "device" => _ = info.length("printk_info_device", 48),
                _ => {}
            }
        }
    }
    info.size("atomic_long_t", 8).offset("atomic_long_t.counter", 0);
    if space.kernel.at_least(5, 15) {
        info.size("latched_seq", 24).offset("latched_seq.val", 8);
    }
}

//! The kernel's global variables, and its log.

use crate::machine::spec::MachineSpec;
use crate::space::{BSS, DATA, IMAGE_SIZE, PERCPU, RODATA, Section, Space};
use crate::{PAGE_SIZE, PrintkRing};

/// Names the borders of the image's sections.
pub(crate) fn sections(space: &mut Space) {
    let text = space.kernel.text();
    let data = space.kernel.data_letter;
    for (name, kind, offset) in [
        ("_text", 'T', 0),
        ("_stext", 'T', 0),
        ("_etext", 'T', RODATA),
        ("__start_rodata", 'D', RODATA),
        ("__end_rodata", data, DATA),
        ("_sdata", data, DATA),
        ("_edata", data, PERCPU),
        ("__bss_start", 'B', BSS),
        ("__bss_stop", 'B', IMAGE_SIZE - PAGE_SIZE),
        ("_end", 'B', IMAGE_SIZE),
    ] {
        space.symbol(name, kind, text + offset);
    }
}

/// Returns the 390 bytes of `new_utsname`.
pub(crate) fn utsname(spec: &MachineSpec) -> Vec<u8> {
    let kernel = &spec.kernel;
    ["Linux", &spec.nodename, &kernel.release, &kernel.build, "x86_64", "(none)"]
        .iter()
        .flat_map(|field| {
            let mut bytes = field.as_bytes()[..field.len().min(64)].to_vec();
            bytes.resize(65, 0);
            bytes
        })
        .collect()
}

/// Places names, masks, counters and clocks.
pub(crate) fn build(space: &mut Space, spec: &MachineSpec) {
    let banner = format!(
        "Linux version {} (debian-kernel@lists.debian.org) (gcc-14, GNU ld 2.44) {}\n\0",
        spec.kernel.release, spec.kernel.build
    );
    let at = space.variable("linux_banner", Section::Rodata, banner.len() as u64);
    space.put(at, banner.as_bytes());

    let size = space.kernel.types.size("uts_namespace") as u64;
    let at = space.variable("init_uts_ns", Section::Data, size);
    space.set_bytes(at, "uts_namespace.name", &utsname(spec));

    let command_line = format!("{}\0", spec.command_line);
    let at = space.alloc(command_line.len() as u64, 64);
    space.put(at, command_line.as_bytes());
    space.variable_u64("saved_command_line", Section::Bss, at);

    space.variable_u64("tainted_mask", Section::Bss, spec.tainted_mask);
    let panic_cpu = spec.panic_cpu.unwrap_or(u32::MAX);
    for name in ["panic_cpu", "crashing_cpu"] {
        let at = space.variable(name, Section::Data, 4);
        space.put_u32(at, panic_cpu);
    }
    if space.kernel.at_least(7, 0) {
        let at = space.variable("panic_redirect_cpu", Section::Data, 4);
        space.put_u32(at, u32::MAX);
    }
    let at = space.variable("nr_cpu_ids", Section::Data, 4);
    space.put_u32(at, spec.nr_cpus);
    let mask = (1u64 << spec.nr_cpus) - 1;
    for name in ["__cpu_possible_mask", "__cpu_present_mask", "__cpu_online_mask", "__cpu_active_mask"] {
        let at = space.variable(name, Section::Data, 1024);
        space.put_u64(at, mask);
    }
    let kernel = space.kernel.clone();
    space.variable_u64("page_offset_base", Section::Rodata, kernel.page_offset_base);
    space.variable_u64("vmalloc_base", Section::Rodata, kernel.vmalloc_base);
    space.variable_u64("vmemmap_base", Section::Rodata, kernel.vmemmap_base);
    space.variable_u64("phys_base", Section::Data, kernel.phys_base() as u64);
    let at = space.variable("__pgtable_l5_enabled", Section::Data, 4);
    space.put_u32(at, u32::from(kernel.levels == 5));

    let pages: u64 = spec.ram.iter().map(|(start, end)| (end - start) / PAGE_SIZE).sum();
    space.variable_u64("_totalram_pages", Section::Data, pages);
    let max_pfn = spec.ram.iter().map(|(_, end)| end / PAGE_SIZE).max().unwrap_or(0);
    space.variable_u64("max_pfn", Section::Bss, max_pfn);
    // node_states[N_POSSIBLE], [N_ONLINE], …: bitmaps of 1024 nodes.
    let states = space.variable("node_states", Section::Data, 6 * 128);
    for state in 0..5 {
        space.put_u64(states + 128 * state, 1);
    }
    // Jiffies start five minutes before they overflow 32 bits; HZ is 250.
    let jiffies = u64::from((-300i32 * 250) as u32) + 250 * spec.uptime_s;
    let at = space.variable_u64("jiffies_64", Section::Data, jiffies);
    let letter = space.kernel.data_letter;
    space.symbol("jiffies", letter, at);
    // Load averages in fixed point with 11 bits of fraction: 0.50, 0.25, 0.12.
    let avenrun = space.variable("avenrun", Section::Bss, 24);
    for (index, load) in (0u64..).zip([0x400, 0x200, 0x100]) {
        space.put_u64(avenrun + 8 * index, load);
    }
    timekeeper(space, spec);
}

/// Source: `kernel/time/timekeeping.c`.
fn timekeeper(space: &mut Space, spec: &MachineSpec) {
    let name = if space.kernel.at_least(6, 17) { "timekeeper_data" } else { "tk_core" };
    let base = space.variable(name, Section::Bss, 1024);
    let types = &space.kernel.types;
    // Up to 6.12 the variable's type has no name; the timekeeper stands 8 bytes into it.
    let inner = if types.has("tk_data.timekeeper") { types.offset("tk_data.timekeeper") } else { 8 };
    let timekeeper = base + inner as u64;
    let booted = spec.crash_time_s - spec.uptime_s;
    space.set(timekeeper, "timekeeper.xtime_sec", spec.crash_time_s);
    space.set(timekeeper, "timekeeper.ktime_sec", spec.uptime_s);
    space.set(timekeeper, "timekeeper.wall_to_monotonic.tv_sec", booted.wrapping_neg());
    space.set(timekeeper, "timekeeper.offs_real", booted * 1_000_000_000);
}

/// Places the printk ring buffer with the machine's log in it, and returns nothing that is not in memory.
pub(crate) fn log(space: &mut Space, spec: &MachineSpec) {
    let (count_bits, size_bits) = spec.log_bits;
    let info_size = space.kernel.types.size("printk_info");
    let mut ring = PrintkRing::new(count_bits, size_bits, info_size, space.kernel.is_perfect_fit);
    for record in &spec.log {
        ring.push(record);
    }
    let descs = space.image(Section::Data, ring.descs().len() as u64, 64);
    space.put(descs, ring.descs());
    let infos = space.image(Section::Data, ring.infos().len() as u64, 64);
    space.put(infos, ring.infos());
    let data = space.image(Section::Data, ring.data().len() as u64, 64);
    space.put(data, ring.data());
    let has_last_finalized = space.kernel.types.size("prb_desc_ring") == 48;
    let header = ring.header(descs, infos, data, has_last_finalized);
    let header_at = space.variable("printk_rb_static", Section::Data, header.len() as u64);
    space.put(header_at, &header);
    space.variable_u64("prb", Section::Data, header_at);
    space.variable("clear_seq", Section::Bss, 24);
}

//! The memory map: sections, struct pages of all RAM, and the node they belong to.
//!
//! Source: `mm/sparse.c`, `include/linux/mmzone.h`.

use crate::machine::spec::MachineSpec;
use crate::space::{Section, Space};
use crate::{PAGE_SIZE, PageClass, STRUCT_PAGE, flags};

/// `SECTION_SIZE_BITS`: 128 MiB.
pub(crate) const SECTION_SIZE_BITS: u32 = 27;
/// `SECTION_MARKED_PRESENT | SECTION_HAS_MEM_MAP | SECTION_IS_ONLINE | SECTION_IS_EARLY`.
const SECTION_FLAGS: u64 = 0xf;
const PAGES_PER_SUBSECTION: u64 = 512;
const SECTIONS_PER_ROOT: u64 = PAGE_SIZE / 16;

/// What every page of RAM is used for: first frame, number of pages, class.
pub(crate) type PageRuns = Vec<(u64, u64, PageClass)>;

/// Returns the number of roots, the LENGTH of mem_section.
pub(crate) fn nr_roots(space: &Space) -> u64 {
    (1 << (space.kernel.max_physmem_bits() - SECTION_SIZE_BITS)) / SECTIONS_PER_ROOT
}

/// Builds `mem_section`, vmemmap and `node_data`.
pub(crate) fn build(space: &mut Space, spec: &MachineSpec) -> PageRuns {
    sections(space, spec);
    node(space, spec);
    let mut runs = PageRuns::new();
    for &(start, end) in &spec.ram {
        struct_pages(space, spec, start, end, &mut runs);
    }
    runs
}

fn sections(space: &mut Space, spec: &MachineSpec) {
    let roots = space.alloc(8 * nr_roots(space), 64);
    space.variable_u64("mem_section", Section::Bss, roots);
    let mut numbers: Vec<u64> = spec
        .ram
        .iter()
        .flat_map(|&(start, end)| (start >> SECTION_SIZE_BITS)..=((end - 1) >> SECTION_SIZE_BITS))
        .collect();
    numbers.dedup();
    for number in numbers {
        let slot = roots + 8 * (number / SECTIONS_PER_ROOT);
        let mut root = space.read_u64(slot);
        if root == 0 {
            root = space.alloc(PAGE_SIZE, PAGE_SIZE);
            space.put_u64(slot, root);
        }
        // With vmemmap each section's map pointer, less its first frame's offset, is the same base.
        let section = root + 16 * (number % SECTIONS_PER_ROOT);
        space.put_u64(section, space.kernel.vmemmap_base | SECTION_FLAGS);
        space.put_u64(section + 8, root);
    }
}

fn node(space: &mut Space, spec: &MachineSpec) {
    let node = space.alloc(space.kernel.types.size("pglist_data") as u64, 64);
    let first = spec.ram.iter().map(|(start, _)| start / PAGE_SIZE).min().unwrap_or(0);
    let end = spec.ram.iter().map(|(_, end)| end / PAGE_SIZE).max().unwrap_or(0);
    let present: u64 = spec.ram.iter().map(|(start, end)| (end - start) / PAGE_SIZE).sum();
    space.set(node, "pglist_data.nr_zones", 3);
    space.set(node, "pglist_data.node_start_pfn", first);
    space.set(node, "pglist_data.node_spanned_pages", end - first);
    space.set(node, "pglist_data.node_present_pages", present);
    space.set(node, "pglist_data.node_id", 0);
    let table = space.variable("node_data", Section::Bss, 8 * 64);
    space.put_u64(table, node);
}

fn struct_pages(space: &mut Space, spec: &MachineSpec, start: u64, end: u64, runs: &mut PageRuns) {
    let base = space.kernel.vmemmap_base;
    let of_pfn = |pfn: u64| base + pfn * STRUCT_PAGE as u64;
    // vmemmap is populated by sub-sections of 2 MiB; the struct pages of holes in them belong to nobody.
    let subsection = |phys: u64| (phys / PAGE_SIZE) & !(PAGES_PER_SUBSECTION - 1);
    let pfns = subsection(start)..subsection(end + (PAGES_PER_SUBSECTION - 1) * PAGE_SIZE);
    space.map_fresh(of_pfn(pfns.start), (pfns.end - pfns.start) * STRUCT_PAGE as u64, flags::KERNEL);
    let encoding = space.kernel.pages;
    for pfn in (pfns.start..start / PAGE_SIZE).chain(end / PAGE_SIZE..pfns.end) {
        space.put(of_pfn(pfn), &encoding.encode(PageClass::Kernel, 0).concat());
    }
    let mut pfn = start / PAGE_SIZE;
    while pfn < end / PAGE_SIZE {
        let class = spec.pages.iter().find(|(phys, _)| phys / PAGE_SIZE == pfn).map(|(_, class)| *class);
        let class = class.unwrap_or(PageClass::Kernel);
        assert!(pfn + class.pages() <= end / PAGE_SIZE, "{class:?} at frame {pfn:#x} does not fit its range");
        let words: Vec<u8> = encoding.encode(class, of_pfn(pfn)).concat();
        space.put(of_pfn(pfn), &words);
        match runs.last_mut() {
            Some((from, pages, PageClass::Kernel)) if class == PageClass::Kernel && *from + *pages == pfn => {
                *pages += 1
            }
            _ => runs.push((pfn, class.pages(), class)),
        }
        pfn += class.pages();
    }
}

/// Fills the pages that are not the kernel's with a pattern, so that one can see which of them a dump holds.
pub(crate) fn fill(space: &mut Space, runs: &PageRuns) {
    for &(first, pages, class) in runs {
        if class == PageClass::Kernel {
            continue;
        }
        for pfn in first..first + pages {
            let mut line = format!("page {pfn:#x} {class:?} ").into_bytes();
            line.resize(64, b'.');
            space.memory.write(pfn * PAGE_SIZE, &line.repeat(PAGE_SIZE as usize / 64));
        }
    }
}

//! The filter: which pages a dump holds, decided part by part of the address space.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use kdump_arch_x86::PhysAddr;
use kdump_vmcore::kdump::bitmap::PageBitmap;
use kdump_vmcore::{AddressSpace, PhysMem, VmcoreInfo};

use crate::classify::{Carry, MissingFact, PageClass, Rules, StructPages, TypeFacts};
use crate::sections::Sections;
use crate::selection::Selection;

/// Frames of the part that is decided at once: 1 GiB. No huge page reaches from one into the next.
pub const PART: u64 = 1 << 18;

/// Frames by class.
pub type Counts = [u64; PageClass::ALL.len()];

/// The facts of one kernel and what is wanted of its pages.
#[derive(Clone, Debug)]
pub struct Filter {
    selection: Selection,
    found: Option<(Rules, Sections)>,
    /// Facts that the kernel did not give.
    pub missing: Vec<MissingFact>,
    /// What went wrong on the way to them.
    pub troubles: Vec<String>,
}

/// What was decided of some frames.
#[derive(Clone, Debug)]
pub struct Decided {
    /// Frames to write. Zero-filled ones are among them: that takes reading.
    pub dumped: PageBitmap,
    /// Those of `dumped` that are slabs or page tables.
    pub slabs: PageBitmap,
    /// Those of `dumped` that are the kernel's otherwise, or may be.
    pub kernel: PageBitmap,
    /// Frames that the source holds, by class.
    pub found: Counts,
    /// What went wrong, once each.
    pub troubles: Vec<String>,
}

/// More troubles than this say nothing new.
pub const TROUBLES_MAX: usize = 16;

impl Filter {
    /// Collects the facts. Without VMCOREINFO, or where struct pages cannot be found, all is kept. `max_phys` is one past
    /// the highest address that was memory.
    #[must_use]
    pub fn new<M: PhysMem + ?Sized>(
        mem: &M,
        info: Option<&VmcoreInfo>,
        types: TypeFacts,
        max_phys: PhysAddr,
        selection: Selection,
    ) -> Self {
        let mut filter = Self { selection, found: None, missing: Vec::new(), troubles: Vec::new() };
        match info {
            Some(info) => filter.found = filter.collect(mem, info, types, max_phys),
            None => filter.miss("VMCOREINFO", "no page can be classified: all are kept"),
        }
        filter
    }

    fn miss(&mut self, fact: &str, effect: &'static str) {
        self.missing.push(MissingFact { fact: fact.to_string(), effect });
    }

    fn collect<M: PhysMem + ?Sized>(
        &mut self,
        mem: &M,
        info: &VmcoreInfo,
        types: TypeFacts,
        max_phys: PhysAddr,
    ) -> Option<(Rules, Sections)> {
        let mut rules = Rules::new(info, &mut self.missing)?;
        rules.learn(types);
        let Selection { keep, drop, .. } = self.selection;
        let is_named = |name| keep.names().chain(drop.names()).any(|n| n == name);
        if is_named("dirty-cache") && !rules.can_tell_dirty() {
            self.miss(
                "PG_dirty in BTF",
                "dirty page cache is not told from clean: it is treated as file-cache",
            );
        }
        if is_named("page-tables") && !rules.can_tell_page_tables() {
            self.miss("a page type for page tables in BTF", "page tables are kept");
        }
        let space = AddressSpace::new(info, max_phys).map_err(|e| e.to_string()).and_then(|mut space| {
            let base = space.find_page_offset_base(mem);
            space.page_offset_base = Some(base.map_err(|e| alloc::format!("no direct map: {e}"))?);
            Ok(space)
        });
        let space = match space {
            Ok(space) => space,
            Err(e) => {
                self.troubles.push(e);
                return None;
            }
        };
        let sections = Sections::new(info, space, rules.page_struct_size(), &mut self.missing)?;
        Some((rules, sections))
    }

    /// What was wanted.
    #[must_use]
    pub const fn selection(&self) -> Selection {
        self.selection
    }

    /// Says of runs of frames what class they are, in the sections that have any of `held`: `found(start, end, class)`. Frames
    /// of a section come whole, also those that are not of `held`.
    pub fn classify<M: PhysMem + ?Sized>(
        &self,
        mem: &M,
        held: &PageBitmap,
        buf: &mut Vec<u8>,
        found: &mut dyn FnMut(u64, u64, PageClass),
    ) -> Vec<String> {
        let mut troubles = Vec::new();
        let Some((rules, sections)) = &self.found else { return troubles };
        let per_section = sections.pages_per_section();
        let mut carry = Carry::default();
        let mut next = 0;
        while let Some((start, _)) = held.runs_in(next, u64::MAX).next() {
            let nr = start / per_section;
            // Frame numbers are below 2^52.
            next = (nr + 1) * per_section;
            match sections.first_struct_page(mem, nr) {
                Ok(None) => {}
                Err(e) if troubles.len() < TROUBLES_MAX => troubles.push(e.to_string()),
                Err(_) => {}
                Ok(Some(first_virt)) => {
                    let bytes = sections.struct_pages(mem, first_virt, per_section, buf);
                    let section = StructPages { bytes, first_pfn: nr * per_section, first_virt };
                    rules.classify(section, &mut carry, found);
                }
            }
        }
        troubles
    }

    /// Decides on the frames `held`, a set that begins at a multiple of [`PART`]. `buf` is room to read in.
    #[must_use]
    pub fn decide<M: PhysMem + ?Sized>(&self, mem: &M, held: PageBitmap, buf: &mut Vec<u8>) -> Decided {
        let total = held.count();
        let empty = || PageBitmap::window(held.first(), held.bits());
        let (slabs, kernel) = (empty(), held.clone());
        let found = [0; PageClass::ALL.len()];
        let mut decided = Decided { dumped: held, slabs, kernel, found, troubles: Vec::new() };
        // A copy, to be taken from while it is gone through.
        let sections = decided.dumped.clone();
        decided.troubles = self.classify(mem, &sections, buf, &mut |start, end, class| {
            decided.take(start, end, class, self.selection.excludes(class));
        });
        // What no section describes is as unsure as what cannot be read.
        let classified: u64 = decided.found.iter().sum();
        decided.found[PageClass::Unsure as usize] += total.saturating_sub(classified);
        decided
    }
}

impl Decided {
    fn take(&mut self, start: u64, end: u64, class: PageClass, is_excluded: bool) {
        self.found[class as usize] += if is_excluded {
            self.kernel.remove(start, end);
            self.dumped.remove(start, end)
        } else {
            match class {
                PageClass::Kernel | PageClass::Unsure => {}
                PageClass::Slab | PageClass::PageTables => {
                    self.kernel.remove(start, end);
                    self.slabs.insert(start, end);
                }
                _ => {
                    self.kernel.remove(start, end);
                }
            }
            self.dumped.count_in(start, end)
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::selection::DumpLevel;

    #[test]
    fn without_vmcoreinfo_everything_is_kept_and_said() {
        let mut held = PageBitmap::new(100);
        held.insert(10, 20);
        let mem = kdump_vmcore::mem::LiteralMem::default();
        let selection = DumpLevel::MAX.into();
        let filter = Filter::new(&mem, None, TypeFacts::default(), PhysAddr(100 << 12), selection);
        let decided = filter.decide(&mem, held, &mut Vec::new());
        assert_eq!((decided.dumped.count(), decided.kernel.count(), decided.slabs.count()), (10, 10, 0));
        assert_eq!(decided.found[PageClass::Unsure as usize], 10);
        assert_eq!(filter.missing[0].fact, "VMCOREINFO");
    }
}

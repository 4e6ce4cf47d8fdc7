//! The filter plan: which pages a dump of some level holds, computed and not yet done.

use alloc::string::String;
use alloc::string::ToString;
use alloc::vec::Vec;

use kdump_arch_x86::PhysAddr;
use kdump_vmcore::kdump::bitmap::PageBitmap;
use kdump_vmcore::{AddressSpace, PhysMem, VmcoreInfo};

use crate::classify::{Carry, MissingFact, PageClass, Rules, StructPages};
use crate::sections::Sections;

/// What to leave out: bits as makedumpfile(8) numbers them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DumpLevel(u32);

impl DumpLevel {
    /// Zero-filled pages.
    pub const ZERO: u32 = 1;
    /// Page cache without private data.
    pub const CACHE: u32 = 2;
    /// All page cache.
    pub const CACHE_PRIVATE: u32 = 4;
    /// Memory of processes.
    pub const USER: u32 = 8;
    /// Free pages.
    pub const FREE: u32 = 16;
    /// Everything that can be left out.
    pub const MAX: Self = Self(31);

    /// A level from its number, 0 to 31.
    #[must_use]
    pub const fn new(bits: u32) -> Option<Self> {
        if bits <= 31 { Some(Self(bits)) } else { None }
    }

    /// Its number.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Whether zero-filled pages are left out.
    #[must_use]
    pub const fn excludes_zero(self) -> bool {
        self.0 & Self::ZERO != 0
    }

    /// Whether pages of `class` are left out. Broken and offline ones always are: reading the former
    /// may stop the machine, the latter have nothing behind them.
    #[must_use]
    pub const fn excludes(self, class: PageClass) -> bool {
        let bits = match class {
            PageClass::Kernel | PageClass::Slab | PageClass::Unsure => return false,
            PageClass::HwPoison | PageClass::Offline => return true,
            PageClass::Cache => Self::CACHE | Self::CACHE_PRIVATE,
            PageClass::CachePrivate => Self::CACHE_PRIVATE,
            PageClass::Anon | PageClass::Hugetlb => Self::USER,
            PageClass::Free | PageClass::Unaccepted => Self::FREE,
        };
        self.0 & bits != 0
    }
}

/// The pages a source describes and holds.
#[derive(Clone, Debug, Default)]
pub struct SourcePages {
    /// Frames that were memory.
    pub ram: PageBitmap,
    /// Frames whose bytes the source has.
    pub held: PageBitmap,
}

/// Which pages to write, and why not the others.
#[derive(Clone, Debug)]
pub struct FilterPlan {
    /// The level it was made for.
    pub level: DumpLevel,
    /// The level at which the source was filtered before, if it says so.
    pub source_level: Option<DumpLevel>,
    /// Frames that were memory.
    pub ram: PageBitmap,
    /// Frames to write. Zero-filled ones are among them: that takes reading.
    pub dumped: PageBitmap,
    /// Frames the source holds, by class.
    pub found: [u64; PageClass::ALL.len()],
    /// Frames that were memory and that the source does not hold.
    pub absent: u64,
    /// Facts that the kernel did not give.
    pub missing: Vec<MissingFact>,
    /// What went wrong on the way, once each.
    pub troubles: Vec<String>,
}

impl FilterPlan {
    /// The level as the file's header says it: what either filtering left out is not there.
    #[must_use]
    pub fn level_in_file(&self) -> u32 {
        self.level.bits() | self.source_level.unwrap_or_default().bits()
    }

    /// Frames of `class` that the source holds.
    #[must_use]
    pub const fn found(&self, class: PageClass) -> u64 {
        self.found[class as usize]
    }
}

/// More troubles than this say nothing new.
const TROUBLES_MAX: usize = 16;

/// Decides page by page. Without VMCOREINFO, or where struct pages cannot be found, all is kept.
#[must_use]
pub fn plan<M: PhysMem + ?Sized>(
    mem: &M,
    info: Option<&VmcoreInfo>,
    pages: SourcePages,
    level: DumpLevel,
) -> FilterPlan {
    let SourcePages { ram, held } = pages;
    let (total, nr_ram) = (held.count(), ram.count());
    let mut plan = FilterPlan {
        level,
        source_level: None,
        ram,
        dumped: held,
        found: [0; PageClass::ALL.len()],
        absent: nr_ram.saturating_sub(total),
        missing: Vec::new(),
        troubles: Vec::new(),
    };
    match info {
        Some(info) => plan.classify(mem, info),
        None => plan.missing.push(MissingFact {
            fact: "VMCOREINFO".to_string(),
            effect: "no page can be classified: all are kept",
        }),
    }
    // What no section describes is as unsure as what cannot be read.
    let classified: u64 = plan.found.iter().sum();
    plan.found[PageClass::Unsure as usize] += total.saturating_sub(classified);
    plan
}

impl FilterPlan {
    fn classify<M: PhysMem + ?Sized>(&mut self, mem: &M, info: &VmcoreInfo) {
        let Some(rules) = Rules::new(info, &mut self.missing) else { return };
        let max_phys = PhysAddr(self.ram.bits().saturating_mul(kdump_arch_x86::PAGE_SIZE));
        let space = AddressSpace::new(info, max_phys).map_err(|e| e.to_string()).and_then(|mut space| {
            let base = space.find_page_offset_base(mem);
            space.page_offset_base = Some(base.map_err(|e| alloc::format!("no direct map: {e}"))?);
            Ok(space)
        });
        let space = match space {
            Ok(space) => space,
            Err(e) => return self.troubles.push(e),
        };
        let Some(sections) = Sections::new(info, space, rules.page_struct_size(), &mut self.missing) else {
            return;
        };
        let per_section = sections.pages_per_section();
        let mut buf = Vec::new();
        let mut carry = Carry::default();
        let mut next = 0;
        while let Some((start, _)) = self.dumped.runs_in(next, u64::MAX).next() {
            let nr = start / per_section;
            // Frame numbers are below 2^34, `MAX_FRAMES` of any source.
            next = (nr + 1) * per_section;
            match sections.first_struct_page(mem, nr) {
                Ok(None) => {}
                Err(e) => self.trouble(&e.to_string()),
                Ok(Some(first_virt)) => {
                    let bytes = sections.struct_pages(mem, first_virt, per_section, &mut buf);
                    let section = StructPages { bytes, first_pfn: nr * per_section, first_virt };
                    rules.classify(section, &mut carry, &mut |start, end, class| {
                        self.take(start, end, class);
                    });
                }
            }
        }
    }

    fn take(&mut self, start: u64, end: u64, class: PageClass) {
        self.found[class as usize] += if self.level.excludes(class) {
            self.dumped.remove(start, end)
        } else {
            self.dumped.count_in(start, end)
        };
    }

    fn trouble(&mut self, what: &str) {
        if self.troubles.len() < TROUBLES_MAX {
            self.troubles.push(what.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_exclude_what_makedumpfile_says() {
        use PageClass::*;
        let excluded = |bits| -> Vec<PageClass> {
            let level = DumpLevel::new(bits).unwrap();
            PageClass::ALL.into_iter().filter(|c| level.excludes(*c)).collect()
        };
        assert_eq!(excluded(0), [Offline, HwPoison]);
        assert_eq!(excluded(1), excluded(0));
        assert_eq!(excluded(2), [Cache, Offline, HwPoison]);
        assert_eq!(excluded(4), [Cache, CachePrivate, Offline, HwPoison]);
        assert_eq!(excluded(8), [Anon, Hugetlb, Offline, HwPoison]);
        assert_eq!(excluded(16), [Free, Unaccepted, Offline, HwPoison]);
        assert_eq!(excluded(31).len(), 8);
        assert_eq!(DumpLevel::new(32), None);
    }

    #[test]
    fn without_vmcoreinfo_everything_is_kept_and_said() {
        let mut held = PageBitmap::new(100);
        held.insert(10, 20);
        let pages = SourcePages { ram: held.clone(), held };
        let mem = kdump_vmcore::mem::LiteralMem::default();
        let plan = plan(&mem, None, pages, DumpLevel::MAX);
        assert_eq!(plan.dumped.count(), 10);
        assert_eq!(plan.found(PageClass::Unsure), 10);
        assert_eq!(plan.missing[0].fact, "VMCOREINFO");
    }
}

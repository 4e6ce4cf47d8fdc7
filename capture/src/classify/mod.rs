//! What a page frame is used for, from its struct page.
//!
//! [`Rules`] collects from VMCOREINFO where the fields are, which bits mean what and how this kernel
//! encodes page types; nothing is decided by version number. A fact that is not there takes its
//! class out of the game: such pages are kept, and a [`MissingFact`] says so.
//!
//! Two habits keep the answer on the safe side. A compound page reaches as far as its tails name
//! it as their head, whatever its order field says. A free block counts as free only where its
//! pages have no references.
//!
//! Source: include/linux/page-flags.h, mm_types.h; kernel/vmcore_info.c for the facts; makedumpfile
//! `__exclude_unnecessary_pages` for what readers of dumps expect of each level.

mod rules;

pub use rules::{MissingFact, Rules, TypeFacts};

/// What a page is used for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(usize)]
pub enum PageClass {
    /// Anything not named below: kernel data and text, stacks.
    Kernel,
    /// Page tables, of processes mostly; those of the kernel itself are not told from its data.
    PageTables,
    /// A slab: kernel objects of equal size.
    Slab,
    /// Its struct page cannot be read, was never initialised, or contradicts itself. Kept.
    Unsure,
    /// File contents without private data.
    Cache,
    /// File contents with private data (buffer heads, mostly).
    CachePrivate,
    /// As `Cache`, and not yet on the disk; told where the kernel says which bit that is.
    DirtyCache,
    /// As `CachePrivate`, and not yet on the disk.
    DirtyCachePrivate,
    /// Anonymous memory of processes.
    Anon,
    /// Huge pages of hugetlbfs.
    Hugetlb,
    /// In the free lists.
    Free,
    /// Memory that a confidential guest has not accepted yet.
    Unaccepted,
    /// Given back to the hypervisor.
    Offline,
    /// Broken memory: reading it may stop the machine.
    HwPoison,
}

impl PageClass {
    /// Every class.
    pub const ALL: [Self; 14] = [
        Self::Kernel,
        Self::PageTables,
        Self::Slab,
        Self::Unsure,
        Self::Cache,
        Self::CachePrivate,
        Self::DirtyCache,
        Self::DirtyCachePrivate,
        Self::Anon,
        Self::Hugetlb,
        Self::Free,
        Self::Unaccepted,
        Self::Offline,
        Self::HwPoison,
    ];

    /// Its name in manifests and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::PageTables => "page_tables",
            Self::Slab => "slab",
            Self::Unsure => "unsure",
            Self::Cache => "cache",
            Self::CachePrivate => "cache_private",
            Self::DirtyCache => "dirty_cache",
            Self::DirtyCachePrivate => "dirty_cache_private",
            Self::Anon => "anon",
            Self::Hugetlb => "hugetlb",
            Self::Free => "free",
            Self::Unaccepted => "unaccepted",
            Self::Offline => "offline",
            Self::HwPoison => "hwpoison",
        }
    }
}

/// Consecutive struct pages, as they lie in memory.
#[derive(Clone, Copy, Debug)]
pub struct StructPages<'a> {
    /// Their bytes, a multiple of `SIZE(page)`.
    pub bytes: &'a [u8],
    /// Frame number of the first.
    pub first_pfn: u64,
    /// Virtual address of the first.
    pub first_virt: u64,
}

/// A huge page that reaches beyond the struct pages at hand: what is left of it is its, too.
#[derive(Clone, Copy, Debug, Default)]
pub struct Carry {
    until: u64,
    class: Option<PageClass>,
}

/// Joins neighbouring frames of one class before they are handed over.
struct Runs<'a> {
    first_pfn: u64,
    open: Option<(usize, usize, PageClass)>,
    found: &'a mut dyn FnMut(u64, u64, PageClass),
}

impl Runs<'_> {
    fn push(&mut self, start: usize, end: usize, class: PageClass) {
        match &mut self.open {
            _ if start >= end => {}
            Some((_, open_end, open_class)) if *open_class == class && *open_end == start => *open_end = end,
            _ => {
                self.close();
                self.open = Some((start, end, class));
            }
        }
    }

    fn close(&mut self) {
        if let Some((start, end, class)) = self.open.take() {
            (self.found)(self.first_pfn + start as u64, self.first_pfn + end as u64, class);
        }
    }
}

impl Rules {
    /// Classifies every frame of `pages`, in ascending order: `found(start, end, class)`, runs of
    /// frames. `carry` passes huge pages on from one call to the next.
    pub fn classify(
        &self,
        pages: StructPages<'_>,
        carry: &mut Carry,
        found: &mut dyn FnMut(u64, u64, PageClass),
    ) {
        let n = pages.bytes.len() / self.size;
        let mut runs = Runs { first_pfn: pages.first_pfn, open: None, found };
        let mut i = 0;
        if let (Some(class), left @ 1..) = (carry.class, carry.until.saturating_sub(pages.first_pfn)) {
            i = usize::try_from(left).unwrap_or(usize::MAX).min(n);
            runs.push(0, i, class);
        }
        while i < n {
            let (class, extent) = self.page(pages, i, n);
            let stop = i.saturating_add(extent);
            if stop > n {
                // Only a huge page reaches beyond the section it begins in.
                let until = pages.first_pfn.saturating_add(stop as u64);
                *carry = Carry { until, class: Some(class) };
            }
            let stop = stop.min(n);
            self.split_poison(pages, i, stop, class, &mut runs);
            i = stop;
        }
        runs.close();
    }

    /// Hands over `start..stop`, with broken pages taken out. Not inside a hugetlb page, whose struct
    /// pages may share memory: it is broken as a whole.
    fn split_poison(
        &self,
        pages: StructPages<'_>,
        start: usize,
        stop: usize,
        class: PageClass,
        runs: &mut Runs<'_>,
    ) {
        let mut from = start;
        if let Some(mask) = self.hwpoison.filter(|_| class != PageClass::Hugetlb) {
            for i in start..stop {
                let flags = self.flags_at(pages, i);
                if flags & mask != 0 && flags != u64::MAX {
                    runs.push(from, i, class);
                    runs.push(i, i + 1, PageClass::HwPoison);
                    from = i + 1;
                }
            }
        }
        runs.push(from, stop, class);
    }

    /// Class of page `i`, and how many pages from it on share its fate.
    fn page(&self, pages: StructPages<'_>, i: usize, n: usize) -> (PageClass, usize) {
        let flags = self.flags_at(pages, i);
        if flags == u64::MAX {
            // Never initialised (page poisoning), or could not be read.
            return (PageClass::Unsure, 1);
        }
        let has = |bit: Option<u64>| bit.is_some_and(|mask| flags & mask != 0);
        if self.is_tail(pages, i) {
            // A tail that no head before it reached.
            return (PageClass::Unsure, 1);
        }
        let word = self.u32_at(pages, i, self.mapcount);
        if self.is_hugetlb(pages, i, n, word) {
            if let Some(order) = self.huge_order(pages, i) {
                let class = if has(self.hwpoison) { PageClass::HwPoison } else { PageClass::Hugetlb };
                return (class, 1 << order);
            }
            return (PageClass::Unsure, self.compound_extent(pages, i, n));
        }
        if self.types.is(word, self.offline) {
            return (PageClass::Offline, 1);
        }
        if self.types.is(word, self.buddy) {
            return self.free_block(pages, i, n);
        }
        if self.types.is(word, self.unaccepted) {
            return (PageClass::Unaccepted, self.max_block.min(n - i));
        }
        let extent = self.compound_extent(pages, i, n);
        if has(self.slab_flag) || self.types.is(word, self.slab_type) {
            return (PageClass::Slab, extent);
        }
        if self.types.is(word, self.page_table) {
            return (PageClass::PageTables, extent);
        }
        // Mapping counts start at -1; below are page types. What has a type is the kernel's own.
        if (word as i32) < -1 {
            return (PageClass::Kernel, extent);
        }
        (self.mapped(pages, i, flags), extent)
    }

    /// Page cache, anonymous memory, or neither.
    fn mapped(&self, pages: StructPages<'_>, i: usize, flags: u64) -> PageClass {
        const PAGE_MAPPING_ANON: u64 = 1;
        let Some(mapping) = self.mapping else { return PageClass::Kernel };
        if !self.can_tell_tails() {
            return PageClass::Kernel;
        }
        let has = |bit: Option<u64>| bit.is_some_and(|mask| flags & mask != 0);
        if self.u64_at(pages, i, mapping) & PAGE_MAPPING_ANON != 0 {
            // Since 6.2 a slab has fields of its own there.
            return if self.can_tell_slabs() { PageClass::Anon } else { PageClass::Kernel };
        }
        if has(self.lru) || has(self.swapcache) && has(self.swapbacked) {
            let is_private = self.private_flag.is_none_or(|mask| flags & mask != 0);
            return match (is_private, has(self.dirty)) {
                (false, false) => PageClass::Cache,
                (false, true) => PageClass::DirtyCache,
                (true, false) => PageClass::CachePrivate,
                (true, true) => PageClass::DirtyCachePrivate,
            };
        }
        PageClass::Kernel
    }

    /// A free block: `2^private` pages, if it looks like one.
    fn free_block(&self, pages: StructPages<'_>, i: usize, n: usize) -> (PageClass, usize) {
        let (Some(private), Some(refcount)) = (self.private, self.refcount) else {
            return (PageClass::Kernel, 1);
        };
        let order = self.u64_at(pages, i, private);
        let len = u32::try_from(order).ok().and_then(|o| 1usize.checked_shl(o)).unwrap_or(usize::MAX);
        let pfn = pages.first_pfn + i as u64;
        if len > self.max_block || !pfn.is_multiple_of(len as u64) {
            return (PageClass::Unsure, 1);
        }
        let len = len.min(n - i);
        // A block is free as far as nobody holds a reference into it, and nothing else begins in it.
        let is_plain = |p| (self.u32_at(pages, p, self.mapcount) as i32) >= -1 && !self.is_tail(pages, p);
        let free = (i..i + len)
            .take_while(|&p| self.u32_at(pages, p, refcount) == 0 && (p == i || is_plain(p)))
            .count();
        if free == 0 { (PageClass::Unsure, 1) } else { (PageClass::Free, free) }
    }
}

#[cfg(test)]
mod tests;

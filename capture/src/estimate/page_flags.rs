//! What /proc/kpageflags says of a page: a word for each frame of the running machine.
//!
//! Source: include/uapi/linux/kernel-page-flags.h; fs/proc/page.c, `stable_page_flags`.

use crate::classify::PageClass;

const KPF_DIRTY: u64 = 1 << 4;
const KPF_LRU: u64 = 1 << 5;
const KPF_SLAB: u64 = 1 << 7;
const KPF_BUDDY: u64 = 1 << 10;
const KPF_ANON: u64 = 1 << 12;
const KPF_SWAPCACHE: u64 = 1 << 13;
const KPF_SWAPBACKED: u64 = 1 << 14;
const KPF_COMPOUND_TAIL: u64 = 1 << 16;
const KPF_HUGE: u64 = 1 << 17;
const KPF_HWPOISON: u64 = 1 << 19;
const KPF_NOPAGE: u64 = 1 << 20;
const KPF_OFFLINE: u64 = 1 << 23;
const KPF_PGTABLE: u64 = 1 << 26;
/// Known to the kernel's developers only: not in the uapi header, and the same since 2.6.31.
const KPF_PRIVATE: u64 = 1 << 35;

/// Classifies frames one after the other: the words of a huge page's later frames do not say all.
#[derive(Clone, Copy, Debug, Default)]
pub struct Classifier {
    /// Class of the page that a tail may belong to.
    head: Option<PageClass>,
}

impl Classifier {
    /// The class of the next frame.
    pub fn next(&mut self, flags: u64) -> PageClass {
        let has = |bit: u64| flags & bit != 0;
        let own = class(flags);
        if !has(KPF_COMPOUND_TAIL) {
            self.head = Some(own);
            return own;
        }
        match own {
            PageClass::HwPoison => own,
            _ => self.head.unwrap_or(PageClass::Unsure),
        }
    }
}

fn class(flags: u64) -> PageClass {
    let has = |bits: u64| flags & bits == bits;
    match () {
        () if has(KPF_NOPAGE) => PageClass::Unsure,
        () if has(KPF_HWPOISON) => PageClass::HwPoison,
        () if has(KPF_OFFLINE) => PageClass::Offline,
        () if has(KPF_BUDDY) => PageClass::Free,
        () if has(KPF_HUGE) => PageClass::Hugetlb,
        () if has(KPF_SLAB) => PageClass::Slab,
        () if has(KPF_PGTABLE) => PageClass::PageTables,
        () if has(KPF_ANON) => PageClass::Anon,
        () if has(KPF_LRU) || has(KPF_SWAPCACHE | KPF_SWAPBACKED) => match (has(KPF_PRIVATE), has(KPF_DIRTY))
        {
            (false, false) => PageClass::Cache,
            (false, true) => PageClass::DirtyCache,
            (true, false) => PageClass::CachePrivate,
            (true, true) => PageClass::DirtyCachePrivate,
        },
        () => PageClass::Kernel,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_real_machine_are_told() {
        // Words that a 6.12 machine shows for what tools/mm/page-types calls by these letters.
        for (flags, class) in [
            (0x1_0000_0000, PageClass::Kernel),       // reserved
            (KPF_BUDDY, PageClass::Free),             // B
            (0x80, PageClass::Slab),                  // S
            (0x400_0000, PageClass::PageTables),      // g
            (0x5868, PageClass::Anon),                // U_lA__Ma_b
            (0x68, PageClass::Cache),                 // U_lA
            (0x8_0000_0028, PageClass::CachePrivate), // U_l P
            (0x4838, PageClass::DirtyCache),          // UDl M b: shared memory
            (0x10_0000, PageClass::Unsure),           // n
            (0x80_0000, PageClass::Offline),          // o
            (0x8_0000, PageClass::HwPoison),          // X
        ] {
            assert_eq!(super::class(flags), class, "{flags:#x}");
        }
    }

    #[test]
    fn a_tail_is_what_its_head_is_unless_it_is_broken() {
        let mut classifier = Classifier::default();
        assert_eq!(classifier.next(KPF_COMPOUND_TAIL), PageClass::Unsure, "no head was seen");
        assert_eq!(classifier.next(KPF_LRU), PageClass::Cache);
        assert_eq!(classifier.next(KPF_COMPOUND_TAIL), PageClass::Cache);
        assert_eq!(classifier.next(KPF_COMPOUND_TAIL | KPF_HWPOISON), PageClass::HwPoison);
        assert_eq!(classifier.next(KPF_COMPOUND_TAIL), PageClass::Cache);
        assert_eq!(classifier.next(0), PageClass::Kernel);
    }
}

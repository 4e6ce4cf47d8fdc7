//! Writes `struct page` entries: what a page is used for, in the encoding of a given kernel.
//!
//! Source: `include/linux/page-flags.h`, `include/linux/mm_types.h`; the filter's view of them is that of makedumpfile.

use crate::Vmcoreinfo;

mod encoding;

pub use encoding::{HeadLink, HugetlbMark, OrderPlace, PageEncoding, PageFlags, TypeWord};

/// Bytes of a `struct page`.
pub const STRUCT_PAGE: usize = 64;
/// `_mapcount` of a page that no page table maps; also "no type".
const NO_TYPE: u32 = 0xffff_ffff;
/// `TAIL_MAPPING`, the poison in `mapping` of tail pages.
const TAIL_MAPPING: u64 = 0xdead_0000_0000_0400;

/// What a page, or a block of 2^order pages, is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageClass {
    /// Allocated by the kernel for itself; nothing in the struct page says more.
    Kernel,
    /// A page-table page (typed, must be kept).
    PageTable,
    /// On the buddy allocator's free list; `private` holds the order.
    Free {
        /// Order of the block.
        order: u32,
    },
    /// Not yet accepted memory of a confidential guest.
    Unaccepted,
    /// Page cache.
    FileCache {
        /// PG_private: file system data hangs on the page; dump level 2 keeps it.
        is_private: bool,
    },
    /// A large folio of page cache.
    LargeFileCache {
        /// Order of the folio.
        order: u32,
    },
    /// Anonymous user memory.
    Anon,
    /// Anonymous user memory merged by KSM.
    Ksm,
    /// A transparent huge page of anonymous memory.
    LargeAnon {
        /// Order of the folio.
        order: u32,
    },
    /// Shared memory in the swap cache, off the LRU.
    SwapCache,
    /// A slab, compound from order 1 on. Its `mapping` word is the slab's own and looks anonymous.
    Slab {
        /// Order of the slab.
        order: u32,
    },
    /// A large kmalloc allocation (typed from 6.17 on, before plain compound); must be kept.
    LargeKmalloc {
        /// Order of the allocation.
        order: u32,
    },
    /// A hugetlb page.
    Hugetlb {
        /// Order: 9 for 2 MiB.
        order: u32,
    },
    /// Memory with a hardware error.
    HwPoison,
    /// Taken away by a balloon or virtio-mem.
    Offline,
}

impl PageClass {
    /// Returns how many pages one instance takes.
    pub fn pages(self) -> u64 {
        match self {
            Self::Free { order }
            | Self::LargeFileCache { order }
            | Self::LargeAnon { order }
            | Self::Slab { order }
            | Self::LargeKmalloc { order }
            | Self::Hugetlb { order } => 1 << order,
            // A block of unaccepted memory has the largest order, MAX_ORDER - 1 = 10.
            Self::Unaccepted => 1 << 10,
            _ => 1,
        }
    }

    /// Returns whether a dump of this level leaves such pages out, the zero-filled ones (level 1) aside.
    pub fn is_excluded(self, dump_level: u32) -> bool {
        match self {
            Self::Kernel | Self::PageTable | Self::Slab { .. } | Self::LargeKmalloc { .. } => false,
            Self::Free { .. } | Self::Unaccepted => dump_level & 16 != 0,
            Self::FileCache { is_private: true } => dump_level & 4 != 0,
            Self::FileCache { .. } | Self::LargeFileCache { .. } | Self::SwapCache => {
                dump_level & (2 | 4) != 0
            }
            Self::Anon | Self::Ksm | Self::LargeAnon { .. } | Self::Hugetlb { .. } => dump_level & 8 != 0,
            Self::HwPoison | Self::Offline => true,
        }
    }
}

/// The words of one `struct page` that a filter looks at.
#[derive(Clone, Copy, Debug)]
struct Words {
    flags: u64,
    /// lru, or compound_head / compound_info in a tail page.
    word8: u64,
    /// In tail page 1 of 5.10 to 6.5: destructor and order, one byte each.
    word16: u64,
    mapping: u64,
    private: u64,
    mapcount: u32,
    refcount: u32,
}

impl Words {
    const UNUSED: Self =
        Self { flags: 0, word8: 0, word16: 0, mapping: 0, private: 0, mapcount: NO_TYPE, refcount: 1 };

    fn bytes(&self) -> [u8; STRUCT_PAGE] {
        let mut out = [0; STRUCT_PAGE];
        for (at, word) in [
            (0, self.flags),
            (8, self.word8),
            (16, self.word16),
            (24, self.mapping),
            (40, self.private),
            (48, u64::from(self.mapcount) | u64::from(self.refcount) << 32),
        ] {
            out[at..at + 8].copy_from_slice(&word.to_le_bytes());
        }
        out
    }
}

impl PageEncoding {
    /// Returns the struct pages of one instance of `class`: head, and tails if it is compound. `address` is where the
    /// first one will lie; tails of a compound page refer to it.
    pub fn encode(&self, class: PageClass, address: u64) -> Vec<[u8; STRUCT_PAGE]> {
        let flag = |bit: u32| 1u64 << bit;
        let flags = &self.flags;
        let plain = Words::UNUSED;
        let lru = Words { flags: flag(flags.lru), ..plain };
        // A pointer to some address_space, and the same with the bits that say "anon" and "KSM".
        let mapping = 0xffff_8880_0012_3400;
        match class {
            PageClass::Kernel => vec![plain.bytes()],
            PageClass::PageTable => vec![Words { mapcount: self.page_type(2), ..plain }.bytes()],
            PageClass::Free { order } => {
                let head =
                    Words { mapcount: self.page_type(0), private: u64::from(order), refcount: 0, ..plain };
                let rest = Words { refcount: 0, ..plain };
                self.block(head, rest, 1 << order)
            }
            PageClass::Unaccepted => {
                let head = Words { mapcount: self.page_type(7), refcount: 0, ..plain };
                self.block(head, Words { refcount: 0, ..plain }, class.pages())
            }
            PageClass::FileCache { is_private } => {
                let private = if is_private { flag(flags.private) } else { 0 };
                let head =
                    Words { flags: lru.flags | private, mapping, private: u64::from(is_private), ..lru };
                vec![head.bytes()]
            }
            PageClass::Anon => vec![Words { mapping: mapping | 1, mapcount: 0, ..lru }.bytes()],
            PageClass::Ksm => vec![Words { mapping: mapping | 3, mapcount: 0, ..lru }.bytes()],
            PageClass::SwapCache => {
                let bits = flag(flags.swapcache) | flag(flags.swapbacked);
                vec![Words { flags: bits, mapping, ..plain }.bytes()]
            }
            PageClass::LargeFileCache { order } => {
                self.compound(Words { mapping, ..lru }, order, address, class)
            }
            PageClass::LargeAnon { order } => {
                self.compound(Words { mapping: mapping | 1, ..lru }, order, address, class)
            }
            PageClass::Slab { order } => {
                let head = match flags.slab {
                    Some(bit) => Words { flags: flag(bit), ..plain },
                    None => Words { mapcount: self.page_type(5), ..plain },
                };
                // struct slab keeps its own word here; its lowest bit means nothing.
                self.compound(Words { mapping: 0x11, ..head }, order, address, class)
            }
            PageClass::LargeKmalloc { order } => {
                let is_typed = self.types == TypeWord::TopByte && self.has_large_kmalloc_type;
                let mapcount = if is_typed { self.page_type(8) } else { NO_TYPE };
                self.compound(Words { mapcount, ..plain }, order, address, class)
            }
            PageClass::Hugetlb { order } => {
                let mapcount = match self.hugetlb {
                    HugetlbMark::Type => self.page_type(4),
                    _ => NO_TYPE,
                };
                self.compound(Words { mapcount, mapping, ..plain }, order, address, class)
            }
            PageClass::HwPoison => vec![Words { flags: flag(flags.hwpoison), ..plain }.bytes()],
            PageClass::Offline => vec![Words { mapcount: self.page_type(1), ..plain }.bytes()],
        }
    }

    fn block(&self, head: Words, rest: Words, pages: u64) -> Vec<[u8; STRUCT_PAGE]> {
        (0..pages).map(|index| if index == 0 { head.bytes() } else { rest.bytes() }).collect()
    }

    fn compound(
        &self,
        mut head: Words,
        order: u32,
        address: u64,
        class: PageClass,
    ) -> Vec<[u8; STRUCT_PAGE]> {
        if order == 0 {
            return vec![head.bytes()];
        }
        head.flags |= 1 << self.flags.head;
        let link = match self.head {
            HeadLink::Pointer => address | 1,
            HeadLink::Mask => {
                let span = (STRUCT_PAGE as u64) << order;
                assert_eq!(address % span, 0, "a compound page of order {order} is aligned to its size");
                !(span - 1) | 1
            }
        };
        let mut tail = Words { word8: link, mapping: TAIL_MAPPING, refcount: 0, ..Words::UNUSED };
        if matches!(class, PageClass::Slab { .. }) {
            // Left over from an earlier life as anonymous memory: who misses the tail bit throws the slab away.
            tail.mapping = 0xffff_8880_0045_6701;
            tail.flags = 1 << self.flags.lru;
        }
        let mut first = tail;
        let is_hugetlb = matches!(class, PageClass::Hugetlb { .. });
        match self.order {
            OrderPlace::Byte17 => first.word16 |= u64::from(order) << 8,
            OrderPlace::LowByteOfFlags => first.flags = u64::from(order),
        }
        match self.hugetlb {
            HugetlbMark::Destructor(number) if is_hugetlb => first.word16 |= u64::from(number),
            HugetlbMark::Destructor(_) => first.word16 |= 1, // COMPOUND_PAGE_DTOR
            HugetlbMark::Flag(bit) if is_hugetlb => first.flags |= 1 << bit,
            _ => {}
        }
        let mut out = vec![head.bytes(), first.bytes()];
        out.extend((2..1u64 << order).map(|_| tail.bytes()));
        out
    }

    /// Appends the lines by which VMCOREINFO tells a filter about this encoding.
    pub fn vmcoreinfo(&self, info: &mut Vmcoreinfo) {
        let flags = &self.flags;
        let compound = if self.head == HeadLink::Mask { "page.compound_info" } else { "page.compound_head" };
        info.offset(compound, 8);
        if let HugetlbMark::Destructor(number) = self.hugetlb {
            if self.is_folio {
                info.offset("folio._folio_dtor", 80).offset("folio._folio_order", 81);
            } else {
                info.offset("page.compound_dtor", 16).offset("page.compound_order", 17);
            }
            info.number("HUGETLB_PAGE_DTOR", i64::from(number));
        }
        for (name, bit) in [
            ("PG_lru", Some(flags.lru)),
            ("PG_private", Some(flags.private)),
            ("PG_swapcache", Some(flags.swapcache)),
            ("PG_swapbacked", Some(flags.swapbacked)),
            ("PG_slab", flags.slab),
            ("PG_hwpoison", Some(flags.hwpoison)),
        ] {
            if let Some(bit) = bit {
                info.number(name, i64::from(bit));
            }
        }
        info.number("PG_head_mask", 1 << flags.head);
        info.number("PAGE_BUDDY_MAPCOUNT_VALUE", self.printed_type(0));
        match self.hugetlb {
            HugetlbMark::Flag(bit) => _ = info.number("PG_hugetlb", i64::from(bit)),
            HugetlbMark::Type => _ = info.number("PAGE_HUGETLB_MAPCOUNT_VALUE", self.printed_type(4)),
            HugetlbMark::Destructor(_) => {}
        }
        if flags.slab.is_none() {
            info.number("PAGE_SLAB_MAPCOUNT_VALUE", self.printed_type(5));
        }
        info.number("PAGE_OFFLINE_MAPCOUNT_VALUE", self.printed_type(1));
        if self.exports_unaccepted {
            info.number("PAGE_UNACCEPTED_MAPCOUNT_VALUE", self.printed_type(7));
        }
    }

    fn printed_type(&self, number: u32) -> i64 {
        i64::from(self.page_type(number) as i32)
    }
}

#[cfg(test)]
mod tests;

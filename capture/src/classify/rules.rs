//! The facts about struct page in one kernel, from VMCOREINFO.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use kdump_vmcore::VmcoreInfo;

use super::StructPages;

/// A fact that VMCOREINFO does not give, and what follows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MissingFact {
    /// The key, or keys of which one would do.
    pub fact: String,
    /// What is therefore kept, or not known.
    pub effect: &'static str,
}

/// Where the type of a page stands in the word that it shares with the mapping count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum TypeEncoding {
    /// The whole word, a type being one cleared bit: up to 6.10.
    Word,
    /// One cleared bit above the low 16, which belong to the page's owner: 6.11.
    HighHalf,
    /// The top byte is a number, 0xf0 and up: from 6.12 on.
    TopByte,
}

impl TypeEncoding {
    /// Tells it from the value of one type, as VMCOREINFO prints it.
    const fn of(value: u32) -> Self {
        if value & 0x00ff_ffff == 0 && value >> 24 >= 0xf0 && value >> 24 < 0xff {
            Self::TopByte
        } else if value & 0xffff == 0xffff {
            Self::HighHalf
        } else {
            Self::Word
        }
    }

    /// Whether `word` holds the type `value`.
    pub(super) const fn is(self, word: u32, value: Option<u32>) -> bool {
        let Some(value) = value else { return false };
        match self {
            Self::Word => word == value,
            Self::HighHalf => word | 0xffff == value,
            Self::TopByte => word >> 24 == value >> 24,
        }
    }
}

/// How to find out that a compound page is hugetlb's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum HugetlbTest {
    /// The head has this page type: from 6.9 on.
    Type(u32),
    /// The first tail has this flag: 6.6 to 6.8.
    TailFlag(u64),
    /// The first tail's byte at this offset, from the head, has this value: up to 6.5.
    Dtor { offset: usize, value: u8 },
}

/// How tails name their head.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct TailWord {
    /// Offset in struct page.
    offset: usize,
    /// Whether it may be a mask to apply to the tail's own address (7.1+), not only head + 1.
    may_be_mask: bool,
}

/// The facts about struct page in one kernel. Made by [`Rules::new`].
#[derive(Clone, Debug)]
pub struct Rules {
    pub(super) size: usize,
    pub(super) flags: usize,
    pub(super) mapcount: usize,
    pub(super) mapping: Option<usize>,
    pub(super) private: Option<usize>,
    pub(super) refcount: Option<usize>,
    tail: Option<TailWord>,
    pub(super) types: TypeEncoding,
    pub(super) buddy: Option<u32>,
    pub(super) offline: Option<u32>,
    pub(super) unaccepted: Option<u32>,
    pub(super) slab_type: Option<u32>,
    pub(super) page_table: Option<u32>,
    pub(super) dirty: Option<u64>,
    pub(super) slab_flag: Option<u64>,
    pub(super) lru: Option<u64>,
    pub(super) swapcache: Option<u64>,
    pub(super) swapbacked: Option<u64>,
    pub(super) private_flag: Option<u64>,
    pub(super) hwpoison: Option<u64>,
    hugetlb: Option<HugetlbTest>,
    /// Offset of the order, one byte, from the head; `None`: the low byte of the first tail's flags.
    order_at: Option<usize>,
    /// Pages of the largest free block.
    pub(super) max_block: usize,
}

/// What BTF says and VMCOREINFO does not.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TypeFacts {
    /// `PG_dirty` of `enum pageflags`.
    pub dirty_bit: Option<u32>,
    /// `PGTY_table` of `enum pagetype` (6.12+), a number, or `PG_table` of 6.11, a cleared bit.
    pub table_type: Option<u32>,
}

/// The type of page tables where it follows from other types: up to 6.10 it is the bit above those of free and offline
/// pages.
///
/// Source: include/linux/page-flags.h: `PG_buddy` 0x80, `PG_offline` 0x100, `PG_table` 0x200.
fn table_type(types: TypeEncoding, buddy: Option<u32>, offline: Option<u32>) -> Option<u32> {
    let is_known = buddy == Some(!0x80) && offline == Some(!0x100);
    (types == TypeEncoding::Word && is_known).then_some(!0x200)
}

/// struct page has 56 to 96 bytes, whatever the configuration; more is a damaged note.
const PAGE_STRUCT_MAX: u64 = 128;

impl Rules {
    /// Collects the facts. What is missing of them goes to `missing`; without the size of struct page
    /// and where its flags and its type are, there are no rules.
    pub fn new(info: &VmcoreInfo, missing: &mut Vec<MissingFact>) -> Option<Self> {
        let mut need = |fact: &str, effect| {
            missing.push(MissingFact { fact: fact.to_string(), effect });
        };
        let size = info.size("page").filter(|s| (8..=PAGE_STRUCT_MAX).contains(s));
        let size = usize::try_from(size.or_else(|| {
            need("SIZE(page)", "no page can be classified: all are kept");
            None
        })?)
        .ok()?;
        // An offset counts only if the field it names is inside.
        let field = |member: &str, len: usize| {
            let at = usize::try_from(info.offset(&format!("page.{member}"))?).ok()?;
            (at.checked_add(len)? <= size).then_some(at)
        };
        let all = "no page can be classified: all are kept";
        let flags = field("flags", 8).or_else(|| {
            need("OFFSET(page.flags)", all);
            None
        })?;
        let mapcount = field("_mapcount", 4).or_else(|| {
            need("OFFSET(page._mapcount)", all);
            None
        })?;
        let mask = |name: &str| {
            let bit = u32::try_from(info.number(name)?).ok()?;
            1u64.checked_shl(bit)
        };
        // Signed decimal in the note; the word itself is unsigned.
        let page_type = |name: &str| {
            let v = info.number(&format!("PAGE_{name}_MAPCOUNT_VALUE"))?;
            i32::try_from(v).map(|v| v as u32).or_else(|_| u32::try_from(v)).ok()
        };

        let (buddy, offline) = (page_type("BUDDY"), page_type("OFFLINE"));
        let slab_type = page_type("SLAB");
        let types = buddy.or(offline).or(slab_type).map_or(TypeEncoding::Word, TypeEncoding::of);
        let tail = field("compound_info", 8)
            .map(|offset| TailWord { offset, may_be_mask: true })
            .or_else(|| field("compound_head", 8).map(|offset| TailWord { offset, may_be_mask: false }));
        let order_at = match (info.offset("folio._folio_order"), field("compound_order", 1)) {
            (Some(at), _) => usize::try_from(at).ok().filter(|&at| at >= size && at < 2 * size),
            (None, Some(at)) => Some(at + size),
            (None, None) => None,
        };
        let dtor = || {
            let value = u8::try_from(info.number("HUGETLB_PAGE_DTOR")?).ok()?;
            let in_folio = info.offset("folio._folio_dtor").and_then(|at| usize::try_from(at).ok());
            let offset = in_folio
                .filter(|&at| at >= size && at < 2 * size)
                .or_else(|| field("compound_dtor", 1).map(|at| at + size))?;
            Some(HugetlbTest::Dtor { offset, value })
        };
        let hugetlb = page_type("HUGETLB")
            .map(HugetlbTest::Type)
            .or_else(|| mask("PG_hugetlb").map(HugetlbTest::TailFlag))
            .or_else(dtor);
        let max_order = info.length("zone.free_area").filter(|n| (1..=32).contains(n)).map(|n| n - 1);

        let rules = Self {
            size,
            flags,
            mapcount,
            mapping: field("mapping", 8),
            private: field("private", 8),
            refcount: field("_refcount", 4),
            tail,
            types,
            buddy: buddy.filter(|_| max_order.is_some()),
            offline,
            unaccepted: page_type("UNACCEPTED").filter(|_| max_order.is_some()),
            slab_type,
            page_table: table_type(types, buddy, offline),
            dirty: None,
            slab_flag: mask("PG_slab"),
            lru: mask("PG_lru"),
            swapcache: mask("PG_swapcache"),
            swapbacked: mask("PG_swapbacked"),
            private_flag: mask("PG_private"),
            hwpoison: mask("PG_hwpoison"),
            hugetlb,
            order_at,
            max_block: 1usize << max_order.unwrap_or(0),
        };
        rules.name_missing(&mut need, buddy, max_order);
        Some(rules)
    }

    /// Adds what types say.
    pub fn learn(&mut self, facts: TypeFacts) {
        self.dirty = facts.dirty_bit.and_then(|bit| 1u64.checked_shl(bit));
        let word = |value: u32| match self.types {
            TypeEncoding::Word => None,
            TypeEncoding::HighHalf => Some(!value),
            TypeEncoding::TopByte => (0xf0..0xff).contains(&value).then_some(value << 24),
        };
        self.page_table = self.page_table.or_else(|| word(facts.table_type?));
    }

    /// Whether dirty page cache can be told from clean.
    #[must_use]
    pub const fn can_tell_dirty(&self) -> bool {
        self.dirty.is_some()
    }

    /// Whether page tables can be told.
    #[must_use]
    pub const fn can_tell_page_tables(&self) -> bool {
        self.page_table.is_some()
    }

    /// One line per fact that is not there.
    fn name_missing(
        &self,
        need: &mut dyn FnMut(&str, &'static str),
        buddy: Option<u32>,
        max_order: Option<u64>,
    ) {
        let free = "free pages are kept";
        let mut check = |there: bool, fact: &str, effect| {
            if !there {
                need(fact, effect);
            }
        };
        check(buddy.is_some(), "NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)", free);
        check(max_order.is_some(), "LENGTH(zone.free_area)", free);
        check(self.private.is_some(), "OFFSET(page.private)", free);
        check(self.refcount.is_some(), "OFFSET(page._refcount)", free);
        check(self.mapping.is_some(), "OFFSET(page.mapping)", "page cache and anonymous pages are kept");
        check(
            self.tail.is_some(),
            "OFFSET(page.compound_head) or OFFSET(page.compound_info)",
            "page cache, anonymous and hugetlb pages are kept",
        );
        check(self.lru.is_some(), "NUMBER(PG_lru)", "most page cache is kept");
        check(self.private_flag.is_some(), "NUMBER(PG_private)", "all page cache counts as private");
        check(
            self.can_tell_slabs(),
            "NUMBER(PG_slab) or NUMBER(PAGE_SLAB_MAPCOUNT_VALUE)",
            "anonymous pages are kept, since slabs look alike",
        );
        check(
            self.hugetlb.is_some(),
            "NUMBER(PAGE_HUGETLB_MAPCOUNT_VALUE), NUMBER(PG_hugetlb) or NUMBER(HUGETLB_PAGE_DTOR)",
            "hugetlb pages are kept",
        );
        check(
            self.offline.is_some(),
            "NUMBER(PAGE_OFFLINE_MAPCOUNT_VALUE)",
            "pages given back to the hypervisor are not told from others",
        );
        check(self.hwpoison.is_some(), "NUMBER(PG_hwpoison)", "broken pages are not told from others");
    }

    /// Bytes of a struct page.
    #[must_use]
    pub const fn page_struct_size(&self) -> usize {
        self.size
    }

    pub(super) const fn can_tell_tails(&self) -> bool {
        self.tail.is_some()
    }

    pub(super) const fn can_tell_slabs(&self) -> bool {
        self.slab_flag.is_some() || self.slab_type.is_some()
    }

    pub(super) fn flags_at(&self, pages: StructPages<'_>, i: usize) -> u64 {
        self.u64_at(pages, i, self.flags)
    }

    /// A field of page `i`. Pages not at hand are all ones, as uninitialised ones are.
    pub(super) fn u64_at(&self, pages: StructPages<'_>, i: usize, offset: usize) -> u64 {
        let at = i * self.size + offset;
        match pages.bytes.get(at..).and_then(|b| b.first_chunk()) {
            Some(b) => u64::from_le_bytes(*b),
            None => u64::MAX,
        }
    }

    pub(super) fn u32_at(&self, pages: StructPages<'_>, i: usize, offset: usize) -> u32 {
        let at = i * self.size + offset;
        match pages.bytes.get(at..).and_then(|b| b.first_chunk()) {
            Some(b) => u32::from_le_bytes(*b),
            None => u32::MAX,
        }
    }

    fn byte_after_head(&self, pages: StructPages<'_>, head: usize, offset: usize) -> Option<u8> {
        pages.bytes.get(head * self.size + offset).copied()
    }

    /// Whether page `i` is a tail of some compound page.
    pub(super) fn is_tail(&self, pages: StructPages<'_>, i: usize) -> bool {
        self.tail.is_some_and(|t| self.u64_at(pages, i, t.offset) & 1 != 0)
    }

    /// Whether page `i` is a tail that names page `head` as its head.
    fn is_tail_of(&self, pages: StructPages<'_>, head: usize, i: usize) -> bool {
        let Some(tail) = self.tail else { return false };
        let word = self.u64_at(pages, i, tail.offset);
        if word & 1 == 0 || word == u64::MAX {
            return false;
        }
        let virt = |i: usize| pages.first_virt.wrapping_add((i * self.size) as u64);
        let named = if tail.may_be_mask && is_mask(word) { virt(i) & word } else { word - 1 };
        named == virt(head)
    }

    /// Pages of the compound page that page `i` heads: as many as name it; 1 for a single page.
    pub(super) fn compound_extent(&self, pages: StructPages<'_>, i: usize, n: usize) -> usize {
        1 + (i + 1..n).take_while(|&t| self.is_tail_of(pages, i, t)).count()
    }

    /// Whether page `i` heads a huge page of hugetlb.
    pub(super) fn is_hugetlb(&self, pages: StructPages<'_>, i: usize, n: usize, word: u32) -> bool {
        let tailed = || i + 1 < n && self.is_tail_of(pages, i, i + 1);
        match self.hugetlb {
            None => false,
            Some(HugetlbTest::Type(value)) => self.types.is(word, Some(value)),
            Some(HugetlbTest::TailFlag(mask)) => tailed() && self.flags_at(pages, i + 1) & mask != 0,
            Some(HugetlbTest::Dtor { offset, value }) => {
                tailed() && self.byte_after_head(pages, i, offset) == Some(value)
            }
        }
    }

    /// Order of the huge page that page `i` heads, if it can be one: its first tail names it, and its
    /// frame number is a multiple of its size. Its other tails are not asked: their struct pages may
    /// share memory (CONFIG_HUGETLB_PAGE_OPTIMIZE_VMEMMAP) and look like anything.
    pub(super) fn huge_order(&self, pages: StructPages<'_>, i: usize) -> Option<u32> {
        const GIGANTIC: u32 = 18; // 1 GiB
        if !self.is_tail_of(pages, i, i + 1) {
            return None;
        }
        let order = match self.order_at {
            Some(at) => u32::from(self.byte_after_head(pages, i, at)?),
            None => (self.flags_at(pages, i + 1) & 0xff) as u32,
        };
        let pfn = pages.first_pfn + i as u64;
        ((1..=GIGANTIC).contains(&order) && pfn.is_multiple_of(1 << order)).then_some(order)
    }
}

/// Whether a tail's word is a mask: ones from the top down to bit 7 or higher (two struct pages are
/// 128 bytes), and bit 0 as every tail has it. No pointer into vmemmap looks like that.
fn is_mask(word: u64) -> bool {
    let low = (word & !1).wrapping_neg();
    low.is_power_of_two() && low >= 128
}

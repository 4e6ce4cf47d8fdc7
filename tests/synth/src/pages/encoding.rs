//! Which of the historical encodings of `struct page` to write.

/// Bit numbers of page flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of enum pageflags")]
pub struct PageFlags {
    pub lru: u32,
    pub head: u32,
    pub private: u32,
    pub swapcache: u32,
    pub swapbacked: u32,
    /// Up to 6.9; later slab is a page type.
    pub slab: Option<u32>,
    pub hwpoison: u32,
}

/// How the word that `_mapcount` and `page_type` share names a type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TypeWord {
    /// Up to 6.10: a cleared low bit (5.10 lacks hugetlb and slab, and numbers table and guard one higher).
    LowBits,
    /// 6.11: a cleared high bit.
    HighBits,
    /// 6.12 and later: the top byte.
    TopByte,
}

/// Where the order of a compound page stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrderPlace {
    /// Up to 6.5: byte 17 of the first tail page.
    Byte17,
    /// 6.6 and later: the low byte of the first tail page's flags.
    LowByteOfFlags,
}

/// How a hugetlb page is told from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HugetlbMark {
    /// Up to 6.5: byte 16 of the first tail page has this number.
    Destructor(u8),
    /// 6.6 to 6.8: this bit of the first tail page's flags.
    Flag(u32),
    /// 6.9 and later: the head's page type.
    Type,
}

/// What a tail page knows of its head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadLink {
    /// `compound_head`: the head's address + 1.
    Pointer,
    /// `compound_info` from 7.1 on: a mask that turns a tail's address into the head's, + 1.
    Mask,
}

/// One kernel's encoding; change single fields for mixtures that distributions made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageEncoding {
    /// Flag bits.
    pub flags: PageFlags,
    /// Page types.
    pub types: TypeWord,
    /// Order of compound pages.
    pub order: OrderPlace,
    /// Mark of hugetlb pages.
    pub hugetlb: HugetlbMark,
    /// Link from tail to head.
    pub head: HeadLink,
    /// VMCOREINFO speaks of struct folio (6.3 to 6.5).
    pub is_folio: bool,
    /// Large kmalloc has a type (6.17).
    pub has_large_kmalloc_type: bool,
    /// VMCOREINFO has the unaccepted type (6.16).
    pub exports_unaccepted: bool,
}

impl PageEncoding {
    /// 5.10 to 6.2.
    pub const LINUX_5_10: Self = Self {
        flags: PageFlags {
            lru: 4,
            head: 16,
            private: 13,
            swapcache: 10,
            swapbacked: 19,
            slab: Some(9),
            hwpoison: 23,
        },
        types: TypeWord::LowBits,
        order: OrderPlace::Byte17,
        hugetlb: HugetlbMark::Destructor(2),
        head: HeadLink::Pointer,
        is_folio: false,
        has_large_kmalloc_type: false,
        exports_unaccepted: false,
    };
    /// 6.3 to 6.5.
    pub const LINUX_6_3: Self = Self { is_folio: true, ..Self::LINUX_5_10 };
    /// 6.6 to 6.8, with the flag numbers of 6.8.
    pub const LINUX_6_6: Self = Self {
        flags: PageFlags {
            lru: 5,
            head: 6,
            private: 15,
            swapcache: 12,
            swapbacked: 19,
            slab: Some(11),
            hwpoison: 22,
        },
        order: OrderPlace::LowByteOfFlags,
        hugetlb: HugetlbMark::Flag(8),
        is_folio: false,
        ..Self::LINUX_6_3
    };
    /// 6.9.
    pub const LINUX_6_9: Self = Self { hugetlb: HugetlbMark::Type, ..Self::LINUX_6_6 };
    /// 6.10.
    pub const LINUX_6_10: Self =
        Self { flags: PageFlags { slab: None, ..Self::LINUX_6_9.flags }, ..Self::LINUX_6_9 };
    /// 6.11.
    pub const LINUX_6_11: Self = Self {
        flags: PageFlags {
            lru: 5,
            head: 6,
            private: 14,
            swapcache: 11,
            swapbacked: 18,
            slab: None,
            hwpoison: 21,
        },
        types: TypeWord::HighBits,
        ..Self::LINUX_6_10
    };
    /// 6.12 to 6.15.
    pub const LINUX_6_12: Self = Self {
        flags: PageFlags {
            lru: 5,
            head: 6,
            private: 14,
            swapcache: 10,
            swapbacked: 17,
            slab: None,
            hwpoison: 20,
        },
        types: TypeWord::TopByte,
        ..Self::LINUX_6_11
    };
    /// 6.17 to 7.0.
    pub const LINUX_6_17: Self =
        Self { has_large_kmalloc_type: true, exports_unaccepted: true, ..Self::LINUX_6_12 };
    /// 7.1 and later, with CONFIG_HUGETLB_PAGE_OPTIMIZE_VMEMMAP and the flag numbers of 7.3.
    pub const LINUX_7_1: Self = Self {
        flags: PageFlags { hwpoison: 21, ..Self::LINUX_6_17.flags },
        head: HeadLink::Mask,
        ..Self::LINUX_6_17
    };

    /// Returns the word that says type `number`, counted as the top byte counts them: 0 buddy, 1 offline, 2 table,
    /// 3 guard, 4 hugetlb, 5 slab, 6 zsmalloc, 7 unaccepted, 8 large kmalloc.
    pub fn page_type(&self, number: u32) -> u32 {
        match self.types {
            TypeWord::TopByte => (0xf0 + number) << 24,
            TypeWord::HighBits => !(0x4000_0000 >> number),
            TypeWord::LowBits => !(0x80 << number),
        }
    }
}

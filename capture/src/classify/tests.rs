//! Literal struct pages of each kernel's encoding, and what they mean.

use kdump_vmcore::VmcoreInfo;

use super::*;

/// What every kernel exports alike.
const COMMON: &str = "SIZE(page)=64\nOFFSET(page.flags)=0\nOFFSET(page._refcount)=52\nOFFSET(page.mapping)=24\n\
    OFFSET(page._mapcount)=48\nOFFSET(page.private)=40\nLENGTH(zone.free_area)=11\n\
    NUMBER(PG_lru)=5\nNUMBER(PG_private)=14\nNUMBER(PG_swapcache)=10\nNUMBER(PG_swapbacked)=17\n\
    NUMBER(PG_hwpoison)=20\n";
const V6_12: &str = "OFFSET(page.compound_head)=8\nNUMBER(PAGE_SLAB_MAPCOUNT_VALUE)=-184549376\n\
    NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)=-268435456\nNUMBER(PAGE_HUGETLB_MAPCOUNT_VALUE)=-201326592\n\
    NUMBER(PAGE_OFFLINE_MAPCOUNT_VALUE)=-251658240\n";
const V6_11: &str = "OFFSET(page.compound_head)=8\nNUMBER(PAGE_SLAB_MAPCOUNT_VALUE)=-33554433\n\
    NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)=-1073741825\nNUMBER(PAGE_HUGETLB_MAPCOUNT_VALUE)=-67108865\n\
    NUMBER(PAGE_OFFLINE_MAPCOUNT_VALUE)=-536870913\n";
const V6_1: &str = "OFFSET(page.compound_head)=8\nNUMBER(PG_slab)=9\nNUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)=-129\n\
    NUMBER(PAGE_OFFLINE_MAPCOUNT_VALUE)=-257\nNUMBER(HUGETLB_PAGE_DTOR)=2\n\
    OFFSET(page.compound_dtor)=16\nOFFSET(page.compound_order)=17\n";

const LRU: u64 = 1 << 5;
const PRIVATE: u64 = 1 << 14;
const HWPOISON: u64 = 1 << 20;
const VIRT: u64 = 0xffe9_6398_c000_0000;

fn rules(specific: &str) -> Rules {
    let mut missing = Vec::new();
    let rules = Rules::new(&VmcoreInfo::parse([COMMON, specific].concat().as_bytes()), &mut missing).unwrap();
    assert_eq!(missing, []);
    rules
}

#[derive(Clone, Copy)]
struct P {
    flags: u64,
    tail: u64,
    mapping: u64,
    private: u64,
    mapcount: u32,
    refcount: u32,
}

/// A page in use by the kernel, nothing special about it.
const K: P = P { flags: 0, tail: 0, mapping: 0, private: 0, mapcount: u32::MAX, refcount: 1 };

fn lay_out(pages: &[P]) -> Vec<u8> {
    let mut out = Vec::new();
    for p in pages {
        let mut b = [0; 64];
        b[0..8].copy_from_slice(&p.flags.to_le_bytes());
        b[8..16].copy_from_slice(&p.tail.to_le_bytes());
        b[24..32].copy_from_slice(&p.mapping.to_le_bytes());
        b[40..48].copy_from_slice(&p.private.to_le_bytes());
        b[48..52].copy_from_slice(&p.mapcount.to_le_bytes());
        b[52..56].copy_from_slice(&p.refcount.to_le_bytes());
        out.extend(b);
    }
    out
}

fn classes_of(rules: &Rules, bytes: &[u8], first_pfn: u64) -> Vec<PageClass> {
    let mut out = Vec::new();
    let pages = StructPages { bytes, first_pfn, first_virt: VIRT + first_pfn * 64 };
    rules.classify(pages, &mut Carry::default(), &mut |start, end, class| {
        assert_eq!(start, first_pfn + out.len() as u64, "runs follow each other");
        out.extend(std::iter::repeat_n(class, (end - start) as usize));
    });
    assert_eq!(out.len(), bytes.len() / 64);
    out
}

fn classes(rules: &Rules, pages: &[P]) -> Vec<PageClass> {
    classes_of(rules, &lay_out(pages), 0)
}

/// A pointer to the head, page `head`, as tails before 7.1 hold it.
fn tail_of(head: u64) -> P {
    P { tail: VIRT + head * 64 + 1, mapping: 0xdead_0000_0000_0400, ..K }
}

use PageClass::*;

#[test]
fn single_pages_are_told_by_flags_and_mapping() {
    let pages = [
        K,
        P { flags: LRU, mapping: 0xffff_8880_0000_0000, ..K },
        P { flags: LRU | PRIVATE, mapping: 0xffff_8880_0000_0000, ..K },
        P { flags: LRU, mapping: 0xffff_8880_0000_0001, mapcount: 0, ..K },
        P { flags: 1 << 10 | 1 << 17, mapping: 0xffff_8880_0000_0000, ..K },
        P { flags: 1 << 10, mapping: 0xffff_8880_0000_0000, ..K },
        P { flags: HWPOISON | LRU, ..K },
        P { flags: u64::MAX, tail: u64::MAX, ..K },
    ];
    let expect = [Kernel, Cache, CachePrivate, Anon, Cache, Kernel, HwPoison, Unsure];
    for kernel in [V6_1, V6_11, V6_12] {
        assert_eq!(classes(&rules(kernel), &pages), expect, "{kernel}");
    }
}

#[test]
fn free_blocks_cover_two_to_the_order_in_each_encoding() {
    for (kernel, buddy) in [(V6_1, -129), (V6_11, -1_073_741_825), (V6_12, -268_435_456i32)] {
        let head = P { mapcount: buddy as u32, private: 2, refcount: 0, ..K };
        let rest = P { refcount: 0, ..K };
        let pages = [head, rest, rest, rest, rest];
        assert_eq!(classes(&rules(kernel), &pages), [Free, Free, Free, Free, Kernel], "{kernel}");
    }
}

#[test]
fn a_damaged_free_block_is_kept() {
    let r = rules(V6_12);
    let buddy = |private| P { mapcount: 0xf000_0000, private, refcount: 0, ..K };
    let free = P { refcount: 0, ..K };
    // An order beyond the largest; a block not at a multiple of its size; a page of it in use.
    assert_eq!(classes(&r, &[buddy(11), free]), [Unsure, Kernel]);
    assert_eq!(classes(&r, &[buddy(u64::MAX), free]), [Unsure, Kernel]);
    assert_eq!(classes(&r, &[K, buddy(1), free]), [Kernel, Unsure, Kernel]);
    assert_eq!(classes(&r, &[buddy(2), free, K, free]), [Free, Free, Kernel, Kernel]);
    // A slab without references inside, the tail of something else inside.
    let slab = P { mapcount: 0xf500_0000, ..free };
    assert_eq!(classes(&r, &[buddy(2), free, slab, free]), [Free, Free, Slab, Kernel]);
    let tail = P { refcount: 0, ..tail_of(7) };
    assert_eq!(classes(&r, &[buddy(2), tail, free, free]), [Free, Unsure, Kernel, Kernel]);
}

/// Check that the owner's bits in the type word are looked past, from 6.11 on.
#[test]
fn types_are_told_though_their_owner_uses_the_low_bits() {
    assert_eq!(classes(&rules(V6_12), &[P { mapcount: 0xf512_3456, mapping: 1, ..K }]), [Slab]);
    let slab_6_11 = -33_554_433i32 as u32;
    assert_eq!(classes(&rules(V6_11), &[P { mapcount: slab_6_11 & !0x1234, mapping: 1, ..K }]), [Slab]);
    assert_eq!(classes(&rules(V6_12), &[P { mapcount: 0xf1ff_ffff, ..K }]), [Offline]);
    // Large kmalloc (0xf8), page tables (0xf2): the kernel's, whatever their other fields hold.
    assert_eq!(classes(&rules(V6_12), &[P { mapcount: 0xf8ff_ffff, mapping: 1, flags: LRU, ..K }]), [Kernel]);
}

#[test]
fn a_slab_is_no_anonymous_memory_though_its_mapping_field_is_odd() {
    let slab = P { flags: 1 << 9, mapping: 0xffff_8880_1234_5671, ..K };
    assert_eq!(classes(&rules(V6_1), &[slab]), [Slab]);
}

#[test]
fn tails_share_the_fate_of_the_head_they_name() {
    let anon = P { flags: 1 << 6, mapping: 1, mapcount: 0, ..K };
    let slab = P { flags: 1 << 6, mapcount: 0xf500_0000, mapping: 1, ..K };
    let pages = [anon, tail_of(0), tail_of(0), tail_of(0), slab, tail_of(4), K];
    let expect = [Anon, Anon, Anon, Anon, Slab, Slab, Kernel];
    assert_eq!(classes(&rules(V6_12), &pages), expect);
    // A tail that names another head, or none that is there, is kept.
    assert_eq!(classes(&rules(V6_12), &[anon, tail_of(2), tail_of(0)]), [Anon, Unsure, Unsure]);
}

/// Check that a broken page inside a compound page is left out by itself.
#[test]
fn a_poisoned_tail_is_taken_out_of_its_compound_page() {
    let anon = P { flags: 1 << 6, mapping: 1, mapcount: 0, ..K };
    let poisoned = P { flags: HWPOISON, ..tail_of(0) };
    assert_eq!(
        classes(&rules(V6_12), &[anon, tail_of(0), poisoned, tail_of(0)]),
        [Anon, Anon, HwPoison, Anon]
    );
}

/// Check 7.1's tails: the same word in every tail of an order, a mask for the tail's own address.
#[test]
fn a_compound_info_mask_names_the_head() {
    let v7 = V6_12.replace("compound_head", "compound_info");
    let mask = |order: u32| P { tail: (u64::MAX << (order + 6)) | 1, mapping: 0x400, ..K };
    let slab = P { flags: 1 << 6, mapcount: 0xf500_0000, mapping: 1, ..K };
    let pages = [slab, mask(1), slab, mask(1), slab, mask(2), mask(2), mask(2), K];
    let expect = [Slab, Slab, Slab, Slab, Slab, Slab, Slab, Slab, Kernel];
    assert_eq!(classes(&rules(&v7), &pages), expect);
    // The older pointer is still understood, as kernels without the option write it.
    assert_eq!(classes(&rules(&v7), &[slab, tail_of(0)]), [Slab, Slab]);
    // On a kernel that has no masks, a mask is a pointer to nowhere.
    assert_eq!(classes(&rules(V6_12), &[slab, mask(1)]), [Slab, Unsure]);
}

fn huge(kernel: &str, head: P, edit_tail: impl Fn(&mut [u8])) -> Vec<PageClass> {
    let mut pages = vec![K; 1024];
    pages[512] = head;
    for t in &mut pages[513..1024] {
        *t = tail_of(512);
    }
    // Shared struct pages: every 64th looks like a head again.
    pages[576] = head;
    let mut bytes = lay_out(&pages);
    edit_tail(&mut bytes[513 * 64..514 * 64]);
    classes_of(&rules(kernel), &bytes, 0)
}

#[test]
fn hugetlb_pages_are_found_in_each_encoding() {
    let typed = P { flags: 1 << 6, mapcount: 0xf400_0000, ..K };
    let by_type = huge(V6_12, typed, |t| t[0] = 9);
    assert_eq!((by_type[511], by_type[512], by_type[1023]), (Kernel, Hugetlb, Hugetlb));
    assert_eq!(by_type.iter().filter(|c| **c == Hugetlb).count(), 512);

    let plain = P { flags: 1 << 16, ..K };
    let by_dtor = huge(V6_1, plain, |t| (t[16], t[17]) = (2, 9));
    assert_eq!(by_dtor.iter().filter(|c| **c == Hugetlb).count(), 512);

    let by_folio = V6_1
        .replace("OFFSET(page.compound_dtor)=16", "OFFSET(folio._folio_dtor)=80")
        .replace("OFFSET(page.compound_order)=17", "OFFSET(folio._folio_order)=81");
    let by_folio = huge(&by_folio, plain, |t| (t[16], t[17]) = (2, 9));
    assert_eq!(by_folio.iter().filter(|c| **c == Hugetlb).count(), 512);

    let v6_6 = "OFFSET(page.compound_head)=8\nNUMBER(PG_slab)=9\nNUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)=-129\n\
        NUMBER(PAGE_OFFLINE_MAPCOUNT_VALUE)=-257\nNUMBER(PG_hugetlb)=8\n";
    let by_flag = huge(v6_6, plain, |t| (t[0], t[1]) = (9, 1));
    assert_eq!(by_flag.iter().filter(|c| **c == Hugetlb).count(), 512);
    // An order that cannot be keeps the page.
    assert!(!huge(V6_12, typed, |t| t[0] = 60).contains(&Hugetlb));
}

#[test]
fn a_gigantic_page_reaches_into_the_next_section() {
    let r = rules(V6_12);
    let mut pages = vec![K; 4];
    pages[0] = P { flags: 1 << 6, mapcount: 0xf400_0000, ..K };
    let first_pfn = 1 << 18;
    pages[1] = P { tail: VIRT + first_pfn * 64 + 1, flags: 18, ..K };
    let bytes = lay_out(&pages);
    let mut carry = Carry::default();
    let mut seen = Vec::new();
    for i in 0..2 {
        let first_pfn = first_pfn + 4 * i;
        let pages = StructPages { bytes: &bytes, first_pfn, first_virt: VIRT + first_pfn * 64 };
        r.classify(pages, &mut carry, &mut |s, e, c| seen.push((s, e, c)));
    }
    assert_eq!(seen, [(first_pfn, first_pfn + 4, Hugetlb), (first_pfn + 4, first_pfn + 8, Hugetlb)]);
}

#[test]
fn a_missing_fact_keeps_its_class_and_is_named() {
    let without = |key: &str| {
        let text: String = [COMMON, V6_12]
            .concat()
            .lines()
            .filter(|l| !l.contains(key))
            .map(|l| [l, "\n"].concat())
            .collect();
        let mut missing = Vec::new();
        let rules = Rules::new(&VmcoreInfo::parse(text.as_bytes()), &mut missing);
        (rules, missing)
    };
    let cache = P { flags: LRU, mapping: 0xffff_8880_0000_0000, ..K };
    let anon = P { flags: LRU, mapping: 1, ..K };
    let free = P { mapcount: 0xf000_0000, private: 0, refcount: 0, ..K };
    for (key, expect) in [
        ("PG_lru", [Kernel, Anon, Free]),
        ("page.mapping", [Kernel, Kernel, Free]),
        ("compound_head", [Kernel, Kernel, Free]),
        ("PAGE_SLAB", [Cache, Kernel, Free]),
        ("PAGE_BUDDY", [Cache, Anon, Kernel]),
        ("page.private", [Cache, Anon, Kernel]),
        ("free_area", [Cache, Anon, Kernel]),
        ("PG_private", [CachePrivate, Anon, Free]),
    ] {
        let (rules, missing) = without(key);
        assert_eq!(classes(&rules.unwrap(), &[cache, anon, free]), expect, "{key}");
        assert!(missing.iter().any(|m| m.fact.contains(key)), "{key}: {missing:?}");
    }
    for key in ["SIZE(page)", "page.flags", "page._mapcount"] {
        assert!(without(key).0.is_none(), "{key}");
    }
}

/// Check that no struct page, however damaged, makes the classifier panic or lose count.
#[test]
fn garbage_is_classified_without_panic() {
    let mut seed = 1u64;
    let bytes: Vec<u8> = (0..64 * 4096)
        .map(|_| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) as u8
        })
        .collect();
    for kernel in [V6_1, V6_11, V6_12, &V6_12.replace("compound_head", "compound_info")] {
        assert_eq!(classes_of(&rules(kernel), &bytes, 1 << 20).len(), 4096);
    }
}

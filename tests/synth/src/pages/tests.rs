//! Known words of each encoding.

use super::*;

const HEAD: u64 = 0xffff_ea00_0000_4000;

fn u64_at(page: &[u8; STRUCT_PAGE], at: usize) -> u64 {
    u64::from_le_bytes(page[at..at + 8].try_into().unwrap())
}

fn mapcount(page: &[u8; STRUCT_PAGE]) -> i32 {
    i32::from_le_bytes(page[48..52].try_into().unwrap())
}

#[test]
fn a_free_page_has_the_printed_buddy_value_of_each_era() {
    for (encoding, value) in [
        (PageEncoding::LINUX_5_10, -129),
        (PageEncoding::LINUX_6_10, -129),
        (PageEncoding::LINUX_6_11, -1_073_741_825),
        (PageEncoding::LINUX_6_12, -268_435_456),
    ] {
        let pages = encoding.encode(PageClass::Free { order: 2 }, HEAD);
        assert_eq!((pages.len(), mapcount(&pages[0]), u64_at(&pages[0], 40)), (4, value, 2));
        let mut info = Vmcoreinfo::new("x", None);
        encoding.vmcoreinfo(&mut info);
        let line = format!("NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)={value}\n");
        assert!(String::from_utf8_lossy(info.text()).contains(&line));
    }
}

#[test]
fn a_hugetlb_page_is_marked_in_four_ways() {
    let tail1 =
        |encoding: PageEncoding| encoding.encode(PageClass::Hugetlb { order: 9 }, 0xffff_ea00_0000_8000);
    assert_eq!(u64_at(&tail1(PageEncoding::LINUX_5_10)[1], 16), 0x0902);
    assert_eq!(u64_at(&tail1(PageEncoding::LINUX_6_3)[1], 16), 0x0902);
    assert_eq!(u64_at(&tail1(PageEncoding::LINUX_6_6)[1], 0), 0x109);
    let typed = tail1(PageEncoding::LINUX_6_12);
    assert_eq!((mapcount(&typed[0]) as u32, u64_at(&typed[1], 0), typed.len()), (0xf400_0000, 9, 512));
}

#[test]
fn a_tail_finds_its_head_by_pointer_or_by_mask() {
    let class = PageClass::Slab { order: 3 };
    let old = PageEncoding::LINUX_6_12.encode(class, HEAD);
    assert_eq!(u64_at(&old[5], 8) - 1, HEAD);
    let new = PageEncoding::LINUX_7_1.encode(class, HEAD);
    let tail = HEAD + 5 * 64;
    assert_eq!(u64_at(&new[5], 8), 0xffff_ffff_ffff_fe01);
    assert_eq!(tail & u64_at(&new[5], 8), HEAD);
}

#[test]
fn slab_is_a_flag_up_to_6_9_and_a_type_since() {
    let slab = |encoding: PageEncoding| encoding.encode(PageClass::Slab { order: 0 }, HEAD)[0];
    assert_eq!(u64_at(&slab(PageEncoding::LINUX_6_9), 0), 1 << 11);
    assert_eq!(mapcount(&slab(PageEncoding::LINUX_6_10)), !0x1000);
    assert_eq!(mapcount(&slab(PageEncoding::LINUX_7_1)) as u32, 0xf500_0000);
    assert_eq!(u64_at(&slab(PageEncoding::LINUX_7_1), 24) & 1, 1);
}

#[test]
fn levels_exclude_what_their_bits_say() {
    let cache = PageClass::FileCache { is_private: true };
    assert!(!cache.is_excluded(2) && cache.is_excluded(4));
    assert!(PageClass::Anon.is_excluded(8) && !PageClass::Anon.is_excluded(23));
    assert!(!PageClass::Slab { order: 3 }.is_excluded(31) && PageClass::HwPoison.is_excluded(0));
}

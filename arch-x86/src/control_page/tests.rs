//! What is put where. That the instructions do what they should is seen in an emulator (`tests/bare-metal`).

use super::*;

fn entry() -> EntryState {
    EntryState {
        mode: EntryMode::Bits32,
        rip: 0x10_0000,
        rax: 1,
        rbx: 2,
        rcx: 3,
        rdx: 4,
        rsi: 5,
        rdi: 6,
        rbp: 7,
        rsp: 8,
    }
}

fn word(page: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(*page[at..].first_chunk().unwrap())
}

#[test]
fn parameters_stand_behind_the_code() {
    for page in [x86_64(0x5000 | IND_INDIRECTION, true, &entry()), i386(0x5002, true, &entry())] {
        let page = page.unwrap();
        assert_eq!(&page[..2], [0xfa, 0xfc], "cli, cld");
        assert_eq!((word(&page, 0xf00), word(&page, 0xf08)), (0x5002, 3));
        let registers: [u64; 9] = core::array::from_fn(|i| word(&page, 0xf10 + 8 * i));
        assert_eq!(registers, [0x10_0000, 1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(word(&page, 0xf70), 0x00cf_9b00_0000_ffff);
        assert_eq!(word(&page, 0xf78), 0x00cf_9300_0000_ffff);
        // Room is left before the parameters.
        assert!(page[0x200..0xf00].iter().all(|&byte| byte == 0));
    }
}

#[test]
fn what_no_page_can_do_is_refused_with_the_value() {
    for head in [0, 0x5000, 0x5001, 0x5006, 0x5008, IND_INDIRECTION] {
        assert_eq!(x86_64(head, false, &entry()), Err(Error::BadHead { head }));
    }
    let high = EntryState { rsi: 1 << 32, ..entry() };
    assert_eq!(x86_64(IND_DONE, false, &high), Err(Error::TooWide { value: 1 << 32 }));
    let long = EntryState { mode: EntryMode::Bits64, ..high };
    assert!(x86_64(IND_DONE, false, &long).is_ok());
    assert_eq!(i386(IND_DONE as u32, false, &long), Err(Error::NoLongMode));
}

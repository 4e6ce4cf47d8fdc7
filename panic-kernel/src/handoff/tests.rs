//! The block against damage, and its layout against the table in the documentation.

use super::*;
use std::string::ToString;

const ENTRY: Entry = Entry { rip: 0x2100_0200, rsi: 0x2000_3000 };
const UART: Console = Console::Uart8250Port { port: 0x3f8, baud: 115_200 };

fn sealed() -> Handoff {
    let mut handoff = Handoff::new(UART, Policy::Boot, ENTRY);
    handoff.push_region(0x2100_0000, 0xe3_3a5c, "bzImage", [0xab; 32]).unwrap();
    handoff.push_region(0x2000_3000, 0x3000, "boot_params", [0xcd; 32]).unwrap();
    handoff.seal();
    handoff
}

#[test]
fn a_sealed_block_reads_back_as_it_was_built() {
    let handoff = sealed();
    let read = Handoff::parse(&handoff.to_bytes()).unwrap();
    assert_eq!(read, handoff);
    assert_eq!((read.console(), read.policy(), read.entry()), (UART, Policy::Boot, ENTRY));
    assert_eq!(read.regions().len(), 2);
    assert_eq!(read.regions()[0].tag_bytes(), b"bzImage");
}

#[test]
fn fields_lie_where_the_documentation_says() {
    let bytes = sealed().to_bytes();
    assert_eq!(&bytes[..8], b"KDUMPHND");
    assert_eq!(bytes[0x08..0x10], [1, 0, 0, 0, 0, 0x10, 0, 0]);
    assert_eq!(bytes[0x30..0x40], [1, 0, 0, 0, 0, 0xc2, 1, 0, 0xf8, 3, 0, 0, 0, 0, 0, 0]);
    assert_eq!(bytes[0x40..0x44], [0xfe, 0xff, 0xff, 0xff]);
    assert_eq!(bytes[0x50..0x58], [1, 0, 0, 0, 2, 0, 0, 0]);
    assert_eq!(bytes[0x58..0x60], ENTRY.rip.to_le_bytes());
    assert_eq!(bytes[0x60..0x68], ENTRY.rsi.to_le_bytes());
    assert_eq!(bytes[0x100..0x108], 0x2100_0000u64.to_le_bytes());
    assert_eq!(&bytes[0x110..0x11c], b"bzImage\0\0\0\0\0");
    assert_eq!(bytes[0x120..0x140], [0xab; 32]);
    assert_eq!(&bytes[0x150..0x15b], b"boot_params");
}

/// Check that no byte of the page, used or not, can change unnoticed.
#[test]
fn a_flipped_bit_anywhere_is_noticed() {
    let good = sealed().to_bytes();
    for at in 0..HANDOFF_SIZE {
        let mut bytes = good;
        bytes[at] ^= 1 << (at % 8);
        assert!(Handoff::parse(&bytes).is_err(), "byte {at:#x}");
    }
}

#[test]
fn damage_is_told_from_foreign_memory_and_foreign_versions() {
    let good = sealed().to_bytes();
    let parse_with_byte = |at: usize, value: u8| {
        let mut bytes = good;
        bytes[at] = value;
        Handoff::parse(&bytes).unwrap_err()
    };
    assert!(matches!(parse_with_byte(0, 0), HandoffError::BadMagic { .. }));
    assert_eq!(parse_with_byte(0x08, 9), HandoffError::UnknownVersion { found: 9 });
    assert_eq!(parse_with_byte(0x0d, 0x20), HandoffError::BadSize { found: 0x2000 });
    assert!(matches!(parse_with_byte(0x121, 0), HandoffError::BadDigest { .. }));
    assert_eq!(Handoff::parse(&good[..100]), Err(HandoffError::Truncated { have: 100 }));
    assert!(matches!(Handoff::parse(&[0; HANDOFF_SIZE]), Err(HandoffError::BadMagic { found: 0 })));
}

/// Check what a block is worth that hashes right but says what this version does not know.
#[test]
fn unknown_values_under_a_good_digest_are_refused_with_the_value() {
    let resealed = |change: fn(&mut Handoff)| {
        let mut handoff = sealed();
        change(&mut handoff);
        handoff.seal();
        Handoff::parse(&handoff.to_bytes()).unwrap_err()
    };
    assert_eq!(resealed(|h| h.policy = PolicyCode(7)), HandoffError::UnknownPolicy { code: 7 });
    assert_eq!(resealed(|h| h.console.kind = ConsoleKind(9)), HandoffError::UnknownConsole { kind: 9 });
    assert_eq!(resealed(|h| h.console.address = 0xffff), HandoffError::BadPort { port: 0xffff });
    assert_eq!(resealed(|h| h.nr_regions = 33), HandoffError::TooManyRegions { nr: 33 });
    let wrapping = resealed(|h| h.regions[1].len = u64::MAX);
    assert_eq!(wrapping, HandoffError::BadRegion { start: 0x2000_3000, len: u64::MAX });
}

#[test]
fn the_console_survives_damage_elsewhere_but_not_to_itself() {
    let mut bytes = sealed().to_bytes();
    bytes[0x200] ^= 1;
    assert_eq!(surviving_console(&bytes), Some(UART));
    bytes[0x38] ^= 1;
    assert_eq!(surviving_console(&bytes), None);
    assert_eq!(surviving_console(&[0; HANDOFF_SIZE]), None);
}

#[test]
fn impossible_regions_and_tags_cannot_be_pushed() {
    let mut handoff = Handoff::new(Console::None, Policy::Reset, ENTRY);
    let mut push = |start, len, tag| handoff.push_region(start, len, tag, [0; 32]);
    assert_eq!(push(0x1000, 0, "empty"), Err(HandoffError::BadRegion { start: 0x1000, len: 0 }));
    assert!(matches!(push(u64::MAX, 1, "wraps"), Err(HandoffError::BadRegion { .. })));
    assert_eq!(push(0x1000, 1, ""), Err(HandoffError::BadTag { len: 0 }));
    assert_eq!(push(0x1000, 1, "seventeen_letters"), Err(HandoffError::BadTag { len: 17 }));
    assert_eq!(push(0x1000, 1, "with\nline"), Err(HandoffError::BadTag { len: 9 }));
    assert_eq!(push(0x1000, 1, "sixteen__letters"), Ok(()));
    for _ in 1..MAX_REGIONS {
        assert_eq!(push(0x1000, 1, "more"), Ok(()));
    }
    assert_eq!(push(0x1000, 1, "over"), Err(HandoffError::TooManyRegions { nr: 33 }));
}

#[test]
fn errors_say_what_was_wrong_with_values() {
    let error = HandoffError::BadDigest { expected: [0x11; 8], found: [0x22; 8] };
    assert_eq!(error.to_string(), "sha256 mismatch, expected 1111111111111111 found 2222222222222222");
    let error = HandoffError::UnknownVersion { found: 2 };
    assert_eq!(error.to_string(), "version is 2, expected 1");
}

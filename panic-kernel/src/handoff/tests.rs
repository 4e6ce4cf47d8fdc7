//! The block against damage, and its layout against the table in the documentation.

use super::*;
use std::string::ToString;

const ENTRY: Entry =
    Entry { rip: 0x2100_0200, argument: 0x2000_3000, mode: EntryMode::Long, nr_relocated: 3 };
const UART: Console = Console::Uart8250Port { port: 0x3f8, baud: 115_200 };

/// Two protected regions of 4 pages together, their digests on one page, a parity of 3.
fn built() -> Handoff {
    let mut handoff = Handoff::new(UART, Policy::Boot, ENTRY);
    let region = |start, len, tag, byte| {
        Region::new(start, len, tag, RegionFlags::PROTECTED, [byte; DIGEST_SIZE]).unwrap()
    };
    handoff.push_region(region(0x2000_3000, 0x1000, "boot_params", 0xcd)).unwrap();
    handoff.push_region(region(0x2000_5000, 0x1000, "digests", 0xef)).unwrap();
    handoff.push_region(region(0x2100_0000, 0x1a5c, "bzImage", 0xab)).unwrap();
    handoff.parity = Geometry {
        parity_start: 0x2100_2000,
        nr_parity: 3,
        nr_protected: 4,
        table_start: 0x2000_5000,
        nr_table: 1,
    };
    handoff.set_table_digests(&[[0x5a; 8]]).unwrap();
    handoff.control_page = 0x2000_7000;
    handoff.page_tables = PageTables { four_level: 0x2000_8000, five_level: 0x2000_9000 };
    handoff.record = 0x2000_a000;
    handoff.tsc_khz = 2_400_000;
    handoff.other_copy = 0x2200_0000;
    handoff
}

#[test]
fn a_sealed_block_reads_back_as_it_was_built() {
    let handoff = built();
    assert_eq!(Handoff::parse(&handoff.to_bytes()), Ok(handoff));
}

#[test]
fn consoles_of_every_kind_read_back() {
    for console in [
        Console::None,
        UART,
        Console::Uart8250Mmio { base: 0xfe03_4000, shift: 2, width: 4, baud: 0 },
        Console::Uart8250Mmio { base: 0x90_0000_0000, shift: 0, width: 1, baud: 9600 },
        Console::VgaText { base: 0xb8000 },
    ] {
        let bytes = Handoff { console, ..built() }.to_bytes();
        assert_eq!(Handoff::parse(&bytes).unwrap().console, console);
        assert_eq!(surviving_console(&bytes), Some(console));
    }
}

#[test]
fn fields_lie_where_the_documentation_says() {
    let bytes = built().to_bytes();
    let word = |at: usize| u64::from_le_bytes(*bytes[at..].first_chunk().unwrap());
    assert_eq!(&bytes[..8], b"KDUMPHND");
    assert_eq!(word(0x08), 3 | 4096 << 32);
    assert_eq!((word(0x30), word(0x38)), (1 | 115_200 << 32, 0x3f8));
    assert_eq!((word(0x50), word(0x58)), (!(1 | 115_200 << 32), !0x3f8));
    assert_eq!(word(0x70), 1 | 3 << 32);
    assert_eq!((word(0x78), word(0x80), word(0x88)), (ENTRY.rip, ENTRY.argument, 64 | 3 << 32));
    assert_eq!((word(0x90), word(0x98), word(0xa0)), (0x2000_7000, 0x2000_8000, 0x2000_9000));
    assert_eq!((word(0xa8), word(0xb0), word(0xb8)), (0x2000_a000, 2_400_000, 0x2200_0000));
    assert_eq!((word(0xc0), word(0xc8)), (0x2100_2000, 3 | 4 << 32));
    assert_eq!((word(0xd0), word(0xd8)), (0x2000_5000, 1));
    assert_eq!((word(0x200), word(0x208)), (0x2000_3000, 0x1000));
    assert_eq!(&bytes[0x210..0x21c], b"boot_params\0");
    assert_eq!(bytes[0x21c..0x220], [1, 0, 0, 0]);
    assert_eq!(bytes[0x220..0x240], [0xcd; 32]);
    assert_eq!(&bytes[0x290..0x297], b"bzImage");
    assert_eq!(bytes[0x800..0x808], [0x5a; 8]);
}

/// Check that no byte of the page, used or not, can change unnoticed.
#[test]
fn a_flipped_bit_anywhere_is_noticed() {
    let good = built().to_bytes();
    for at in 0..HANDOFF_SIZE {
        let mut bytes = good;
        bytes[at] ^= 1 << (at % 8);
        assert!(Handoff::parse(&bytes).is_err(), "byte {at:#x}");
    }
}

#[test]
fn damage_is_told_from_foreign_memory_and_foreign_versions() {
    let good = built().to_bytes();
    let parse_with_byte = |at: usize, value: u8| {
        let mut bytes = good;
        bytes[at] = value;
        Handoff::parse(&bytes).unwrap_err()
    };
    assert!(matches!(parse_with_byte(0, 0), HandoffError::BadMagic { .. }));
    assert_eq!(parse_with_byte(0x08, 9), HandoffError::UnknownVersion { found: 9 });
    assert_eq!(parse_with_byte(0x0d, 0x20), HandoffError::BadSize { found: 0x2000 });
    assert!(matches!(parse_with_byte(0x231, 0), HandoffError::BadDigest { .. }));
    assert_eq!(Handoff::parse(&good[..100]), Err(HandoffError::Truncated { have: 100 }));
    assert!(matches!(Handoff::parse(&[0; HANDOFF_SIZE]), Err(HandoffError::BadMagic { found: 0 })));
}

/// Check what a block is worth that hashes right but says what this version does not know.
#[test]
fn unknown_values_under_a_good_digest_are_refused_with_the_value() {
    let resealed = |changes: &[(usize, u8)]| {
        let mut bytes = built().to_bytes();
        for &(at, value) in changes {
            bytes[at] = value;
        }
        let digest = digest_of(&bytes, Engine::PORTABLE);
        put(&mut bytes, at::DIGEST, &digest);
        Handoff::parse(&bytes).unwrap_err()
    };
    assert_eq!(resealed(&[(0x70, 7)]), HandoffError::UnknownPolicy { code: 7 });
    assert_eq!(resealed(&[(0x30, 9)]), HandoffError::UnknownConsole { kind: 9 });
    assert_eq!(resealed(&[(0x3a, 1)]), HandoffError::BadPort { port: 0x1_03f8 });
    assert_eq!(resealed(&[(0x30, 2), (0x40, 5)]), HandoffError::BadRegisters { shift: 5, width: 0 });
    assert_eq!(resealed(&[(0x30, 3)]), HandoffError::BadConsoleMemory { base: 0x3f8 });
    assert_eq!(resealed(&[(0x74, 25)]), HandoffError::TooManyRegions { nr: 25 });
    assert_eq!(resealed(&[(0x88, 16)]), HandoffError::UnknownMode { bits: 16 });
    assert_eq!(resealed(&[(0x90, 8)]), HandoffError::BadPage { address: 0x2000_7008 });
    let huge = resealed(&[(0x28f, 0xff)]);
    assert_eq!(huge, HandoffError::BadRegion { start: 0x2100_0000, len: 0xff00_0000_0000_1a5c });
    // Parity below a region, another number of pages, the table elsewhere, a table of another size.
    for (at, nr) in [(0xc3, 3), (0xcc, 9), (0xd1, 1), (0xd8, 9)] {
        assert_eq!(resealed(&[(at, 9)]), HandoffError::BadGeometry { nr }, "{at:#x}");
    }
}

#[test]
fn the_console_survives_damage_elsewhere_but_not_to_itself() {
    let mut bytes = built().to_bytes();
    bytes[0x200] ^= 1;
    assert_eq!(surviving_console(&bytes), Some(UART));
    bytes[0x38] ^= 1;
    assert_eq!(surviving_console(&bytes), None);
    assert_eq!(surviving_console(&[0; HANDOFF_SIZE]), None);
}

#[test]
fn impossible_regions_and_tags_cannot_be_made() {
    let make = |start, len, tag| Region::new(start, len, tag, RegionFlags::default(), [0; DIGEST_SIZE]);
    assert_eq!(make(0x1000, 0, "empty"), Err(HandoffError::BadRegion { start: 0x1000, len: 0 }));
    assert!(matches!(make(u64::MAX, 1, "wraps"), Err(HandoffError::BadRegion { .. })));
    assert_eq!(make(0x1000, 1, ""), Err(HandoffError::BadTag { len: 0 }));
    assert_eq!(make(0x1000, 1, "thirteen__let"), Err(HandoffError::BadTag { len: 13 }));
    assert_eq!(make(0x1000, 1, "with\nline"), Err(HandoffError::BadTag { len: 9 }));
    assert!(make(0x1001, 1, "unaligned").is_ok());
    let protected = Region::new(0x1001, 1, "unaligned", RegionFlags::PROTECTED, [0; DIGEST_SIZE]);
    assert_eq!(protected, Err(HandoffError::BadRegion { start: 0x1001, len: 1 }));
}

#[test]
fn regions_ascend_and_are_not_too_many() {
    let mut handoff = Handoff::new(Console::None, Policy::Reset, ENTRY);
    let region =
        |start| Region::new(start, 0x1000, "page", RegionFlags::default(), [0; DIGEST_SIZE]).unwrap();
    for i in 1..=MAX_REGIONS as u64 {
        assert_eq!(handoff.push_region(region(i << 12)), Ok(()));
        let again = handoff.push_region(region((i << 12) + 0xfff));
        assert_eq!(again, Err(HandoffError::BadRegion { start: (i << 12) + 0xfff, len: 0x1000 }));
    }
    assert_eq!(handoff.push_region(region(1 << 30)), Err(HandoffError::TooManyRegions { nr: 25 }));
}

#[test]
fn errors_say_what_was_wrong_with_values() {
    let error = HandoffError::BadDigest { expected: [0x11; 8], found: [0x22; 8] };
    assert_eq!(error.to_string(), "sha256 mismatch, expected 1111111111111111 found 2222222222222222");
    let error = HandoffError::UnknownVersion { found: 1 };
    assert_eq!(error.to_string(), "version is 1, expected 3");
}

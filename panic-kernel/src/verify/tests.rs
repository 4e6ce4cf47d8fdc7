//! Verdicts over literal memory: what is said, what is recorded, what is done.

use super::*;
use crate::PAGE_SIZE;
use crate::handoff::{Console, EntryMode, Region, RegionFlags};
use crate::line::{Line, PREFIX};
use crate::parity::{Geometry, page_digest, xor_into};
use crate::sha256::digest;
use std::string::String;
use std::vec;
use std::vec::Vec;

const PAGE: usize = PAGE_SIZE as usize;
const ENTRY: Entry = Entry { rip: 0x1200, argument: 0x4000, mode: EntryMode::Long, nr_relocated: 0 };
const CONTROL_PAGE: u64 = 0x4000;
const ENTER: Action = Action::Enter { entry: ENTRY, control_page: CONTROL_PAGE };

/// Memory from 0 to 0x8000; pages in `unmapped` cannot be reached.
#[derive(Clone)]
struct Ram {
    bytes: Vec<u8>,
    unmapped: Option<u64>,
}

impl Memory for Ram {
    fn bytes(&self, start: u64, len: u64) -> Option<&[u8]> {
        if self.unmapped == Some(start) {
            return None;
        }
        self.bytes.get(start as usize..)?.get(..len as usize)
    }

    fn write_page(&mut self, start: u64, page: &Page) -> bool {
        self.bytes[start as usize..][..PAGE].copy_from_slice(page);
        true
    }
}

#[derive(Default)]
struct Log(Vec<String>);

impl Sink for Log {
    fn line(&mut self, line: &Line) {
        self.0.push(line.as_str().strip_prefix(PREFIX).unwrap().into());
    }
}

/// Kernel of 3 pages at 0x1000, control page at 0x4000, digest table at 0x5000, parity of 2 at 0x6000.
fn staged(policy: Policy, nr_parity: u32) -> (Handoff, Ram) {
    let mut ram = Ram { bytes: (0..8 * PAGE).map(|i| (i * 7 % 253) as u8).collect(), unmapped: None };
    ram.bytes[0x5000..].fill(0);
    let geometry =
        Geometry { parity_start: 0x6000, nr_parity, nr_protected: 5, table_start: 0x5000, nr_table: 1 };
    let page = |ram: &Ram, i: usize| -> Page { *ram.bytes[0x1000 + i * PAGE..].first_chunk().unwrap() };
    for i in 0..4 {
        let digest = page_digest(&page(&ram, i));
        ram.bytes[0x5000 + 8 * i..][..8].copy_from_slice(&digest);
    }
    for i in 0..5 {
        let at = 0x6000 + geometry.parity_page(i).unwrap_or(0) as usize * PAGE;
        let mut sum: Page = *ram.bytes[at..].first_chunk().unwrap();
        xor_into(&mut sum, &page(&ram, i as usize));
        ram.bytes[at..at + PAGE].copy_from_slice(&sum);
    }
    let mut handoff = Handoff::new(Console::None, policy, ENTRY);
    for (start, len, tag) in
        [(0x1000, 0x2f00, "bzImage"), (0x4000, 0x1000, "control-page"), (0x5000, 0x1000, "digests")]
    {
        let sha256 = digest(ram.bytes(start, len).unwrap());
        handoff.push_region(Region::new(start, len, tag, RegionFlags::PROTECTED, sha256).unwrap()).unwrap();
    }
    handoff.control_page = CONTROL_PAGE;
    handoff.parity = geometry;
    let table = page_digest(&page(&ram, 4));
    handoff.set_table_digests(&[table]).unwrap();
    (Handoff::parse(&handoff.to_bytes()).unwrap(), ram)
}

fn check(handoff: &Handoff, ram: &mut Ram) -> (Action, Vec<String>, Record) {
    let (mut log, mut record) = (Log::default(), Record::new());
    let mut inspection = Inspection::new(handoff, Engine::PORTABLE, ram, &mut record, &mut log);
    inspection.check_all();
    let action = inspection.conclude();
    (action, log.0, record)
}

/// Status, damaged and repaired pages of the region at a place of the record.
fn recorded(record: &mut Record, place: usize) -> (u32, u32, u32) {
    let bytes = record.seal(Engine::PORTABLE);
    let word = |at: usize| u32::from_le_bytes(*bytes[0x180 + place * 40 + at..].first_chunk().unwrap());
    (word(28), word(32), word(36))
}

#[test]
fn intact_memory_enters_the_capture_kernel() {
    for policy in [Policy::Reset, Policy::Boot, Policy::Halt] {
        let (handoff, mut ram) = staged(policy, 2);
        let (action, log, mut record) = check(&handoff, &mut ram);
        assert_eq!(action, ENTER);
        assert_eq!(
            log,
            [
                "region bzImage 11.7 KiB sha256 ok",
                "region control-page 4.0 KiB sha256 ok",
                "region digests 4.0 KiB sha256 ok"
            ]
        );
        assert_eq!(recorded(&mut record, 0), (1, 0, 0));
    }
}

#[test]
fn a_damaged_page_is_rebuilt_and_reported() {
    let (handoff, mut ram) = staged(Policy::Reset, 2);
    let whole = ram.clone();
    ram.bytes[0x2345] ^= 0x10;
    let (action, log, mut record) = check(&handoff, &mut ram);
    assert_eq!(action, ENTER);
    assert!(ram.bytes == whole.bytes);
    assert!(log[0].starts_with("region bzImage 11.7 KiB at 0x1000 sha256 MISMATCH: expected "), "{}", log[0]);
    assert_eq!(
        log[1..],
        [
            "region digests 4.0 KiB sha256 ok",
            "region bzImage: 1 page rebuilt from parity, at 0x2000",
            "region bzImage 11.7 KiB sha256 ok after repair",
            "region control-page 4.0 KiB sha256 ok",
        ]
    );
    // The table was looked at first.
    assert_eq!((recorded(&mut record, 0), recorded(&mut record, 1)), ((1, 0, 0), (3, 1, 1)));
}

#[test]
fn a_damaged_table_is_rebuilt_before_it_is_believed() {
    let (handoff, mut ram) = staged(Policy::Reset, 2);
    let whole = ram.clone();
    ram.bytes[0x5000..0x5020].fill(0xaa);
    ram.bytes[0x2000] ^= 1;
    let (action, log, _) = check(&handoff, &mut ram);
    assert_eq!(action, ENTER, "{log:?}");
    assert!(ram.bytes == whole.bytes);
}

#[test]
fn beyond_repair_the_policy_is_followed() {
    for (policy, wanted, last) in [
        (Policy::Reset, Action::Reset, "1 of 3 regions damaged, policy is reset"),
        (Policy::Boot, ENTER, "1 of 3 regions damaged, policy is boot: booting anyway"),
        (Policy::Halt, Action::Halt, "1 of 3 regions damaged, policy is halt"),
    ] {
        let (handoff, mut ram) = staged(policy, 2);
        // Two pages of one stripe.
        ram.bytes[0x1000] ^= 1;
        ram.bytes[0x3000] ^= 1;
        let (action, log, mut record) = check(&handoff, &mut ram);
        assert_eq!(action, wanted);
        assert!(log.contains(&"region bzImage: 2 of 2 damaged pages cannot be rebuilt".into()), "{log:?}");
        assert_eq!(log.last().unwrap(), last);
        assert_eq!(recorded(&mut record, 1), (2, 2, 0));
    }
}

#[test]
fn without_parity_damage_is_named_and_left() {
    let (mut handoff, mut ram) = staged(Policy::Halt, 2);
    handoff.parity.nr_parity = 0;
    ram.bytes[0x1000] ^= 1;
    let (action, log, _) = check(&handoff, &mut ram);
    assert_eq!(action, Action::Halt);
    assert_eq!(log[1], "region bzImage: nothing to rebuild it from");
}

#[test]
fn memory_that_cannot_be_read_counts_as_damaged() {
    let (handoff, mut ram) = staged(Policy::Reset, 2);
    ram.unmapped = Some(0x1000);
    let (action, log, mut record) = check(&handoff, &mut ram);
    assert_eq!(action, Action::Reset);
    assert_eq!(log[0], "region bzImage 11.7 KiB at 0x1000 cannot be read");
    assert_eq!(recorded(&mut record, 0), (4, 0, 0));
}

#[test]
fn a_region_asked_for_by_address_is_checked_once() {
    let (handoff, mut ram) = staged(Policy::Reset, 2);
    let (mut log, mut record) = (Log::default(), Record::new());
    let mut inspection = Inspection::new(&handoff, Engine::PORTABLE, &mut ram, &mut record, &mut log);
    assert!(inspection.check_at(0x4fff));
    assert!(!inspection.check_at(0x7000));
    inspection.check_all();
    assert_eq!((inspection.nr_damaged(), inspection.nr_repaired()), (0, 0));
    assert_eq!(log.0.len(), 3);
    assert!(log.0[0].contains("control-page"));
}

#[test]
fn an_entry_outside_every_region_is_mentioned_but_taken() {
    let (mut handoff, mut ram) = staged(Policy::Reset, 2);
    handoff.entry.rip = 0x7200;
    let (action, log, _) = check(&handoff, &mut ram);
    assert!(matches!(action, Action::Enter { .. }));
    assert_eq!(log[3], "entry 0x7200 lies in no checked region");
    handoff.entry.nr_relocated = 1;
    assert_eq!(check(&handoff, &mut ram).1.len(), 3);
}

#[test]
fn a_control_page_nothing_vouches_for_is_not_entered() {
    let (mut handoff, mut ram) = staged(Policy::Boot, 2);
    handoff.control_page = 0;
    let (action, log, _) = check(&handoff, &mut ram);
    assert_eq!(action, Action::Reset);
    assert_eq!(log[3], "control page 0x0 lies in no checked region");
}

#[test]
fn an_exception_boots_anyway_only_between_handoff_and_jump() {
    let cases = [
        (Stage::Handoff, Policy::Boot, Action::Reset),
        (Stage::Handoff, Policy::Halt, Action::Reset),
        (Stage::Regions, Policy::Boot, ENTER),
        (Stage::Regions, Policy::Reset, Action::Reset),
        (Stage::Regions, Policy::Halt, Action::Halt),
        (Stage::Entered, Policy::Boot, Action::Reset),
        (Stage::Entered, Policy::Halt, Action::Halt),
    ];
    for (stage, policy, wanted) in cases {
        let (handoff, _) = staged(policy, 2);
        assert_eq!(after_exception(stage, Some(&handoff)), wanted, "{stage:?} {policy:?}");
        assert_eq!(after_exception(stage, None), Action::Reset);
    }
}

#[test]
fn every_further_failure_gets_a_simpler_answer() {
    let answers: Vec<_> = [1, 2, 3, 4, u32::MAX].map(answer).into();
    assert_eq!(answers[..2], [Answer::Report, Answer::Reset]);
    assert!(answers[2..].iter().all(|a| *a == Answer::TripleFault));
}

#[test]
fn repeated_sentences_have_their_numbers_right() {
    let (handoff, ram) = staged(Policy::Reset, 2);
    let bits = vec![0x1000usize, 0x2000];
    let mut damaged = ram.clone();
    for at in bits {
        damaged.bytes[at] ^= 1;
    }
    let (_, log, _) = check(&handoff, &mut damaged);
    assert_eq!(log[2], "region bzImage: 2 pages rebuilt from parity, first at 0x1000");
}

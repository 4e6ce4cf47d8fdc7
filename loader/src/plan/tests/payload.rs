//! Payloads that are no bzImage: addresses of their own, memory elsewhere, 32-bit mode, many pieces.

use super::*;
use kdump_arch_x86::control_page::EntryMode;
use kdump_arch_x86::paging::{Mode, Step, Walk};
use kdump_arch_x86::{PhysAddr, VirtAddr};

/// Pieces with a few bytes each, whatever they say of their size.
#[derive(Debug)]
struct Pieces {
    needs: Needs,
    mode: EntryMode,
}

impl Pieces {
    fn new(pieces: Vec<Piece>) -> Self {
        Self { needs: Needs { pieces, ..Needs::default() }, mode: EntryMode::Bits64 }
    }

    fn plan(&self, machine: &Machine) -> Result<LoadPlan<'static>, Error> {
        plan(&Request {
            machine,
            payload: self,
            panic_image: &PanicImage::embedded().unwrap(),
            console: Console::None,
            policy: Policy::Reset,
            parity_run: DEFAULT_RUN,
            tsc_khz: 0,
            test_hook: TestHook::PF,
        })
    }
}

impl Payload<'static> for Pieces {
    fn needs(&self, _: &Machine) -> Needs {
        self.needs.clone()
    }

    fn stage(&self, placed: &Placed<'_>) -> Result<Staged<'static>, Error> {
        let entry = EntryState { mode: self.mode, rip: 0x1000, rax: 0x2bad_b002, ..EntryState::default() };
        Ok(Staged {
            contents: placed.pieces.iter().map(|_| Content::new(&b"payload"[..])).collect(),
            launch: Launch::in_place(entry, 0x5000),
            cmdline: String::new(),
            memory_map: Vec::new(),
            warnings: Vec::new(),
        })
    }
}

fn piece(tag: &'static str, size: u64, place: Place) -> Piece {
    Piece { tag, purpose: "", size, content: size.min(PAGE_SIZE), place }
}

#[test]
fn a_piece_with_an_address_of_its_own_gets_it_and_the_rest_makes_room() {
    let region = region(128, 64);
    let machine = machine(8 << 30, region);
    let (low, mid) = (region.start().0, region.start().0 + 20 * MIB);
    let top = region.end().0 - 2 * MIB;
    let payload = Pieces::new(vec![
        piece("mid", 3 * MIB, Place::At(mid)),
        piece("low", 4 * MIB, Place::At(low)),
        piece("top", 2 * MIB, Place::At(top)),
        piece("any", 5 * MIB, Place::Low { align: 8 * MIB, min: 0 }),
        piece("high", 5 * MIB, Place::High),
    ]);
    let plan = payload.plan(&machine).unwrap();
    for (tag, at) in [("mid", mid), ("low", low), ("top", top)] {
        assert_eq!(segment(&plan, tag).range.start().0, at);
    }
    assert!(segment(&plan, "any").range.start().is_aligned(8 * MIB));
    for pair in plan.segments.windows(2) {
        assert!(pair[0].range.end() <= pair[1].range.start(), "{pair:?}");
    }
    assert!(plan.segments.iter().all(|s| region.covers(s.range)));
    assert_eq!(handoff(&plan, "panic-copy").regions(), plan.handoff.regions());
    assert!(plan.segments.iter().all(|s| s.checked == 0 || s.is_protected == (s.tag != "top")));
    assert!(plan.to_string().contains("not rebuilt: top"), "{plan}");
    let room = control_room(8 << 30);
    assert!(plan.holes().iter().any(|hole| hole.len() >= room), "{plan}");
}

#[test]
fn an_address_that_is_not_free_is_an_error_that_names_it() {
    let machine = machine(8 << 30, region(128, 64));
    let at = |at, other| {
        let pieces = vec![piece("first", MIB, Place::At(140 * MIB)), piece(other, MIB, Place::At(at))];
        Pieces::new(pieces).plan(&machine).unwrap_err()
    };
    for place in [16 * MIB, 192 * MIB, 140 * MIB + PAGE_SIZE, 150 * MIB + 8] {
        let error = at(place, "second");
        assert!(matches!(error, Error::NotFree { tag: "second", .. }), "{error}");
    }
}

#[test]
fn memory_elsewhere_is_mapped_and_nothing_beside_it() {
    let machine = machine(8 << 30, region(128, 64));
    let mut payload = Pieces::new(vec![piece("code", MIB, Place::High)]);
    payload.needs.outside =
        vec![PhysRange::new(0x30_0000, 0x34_1000), PhysRange::new(6 << 30, (6 << 30) + 9)];
    let plan = payload.plan(&machine).unwrap();
    let tables = segment(&plan, "page-tables");
    let is_mapped = |virt: u64| {
        let root = PhysAddr(plan.handoff.page_tables.four_level);
        let mut walk = Walk::new(Mode::FourLevel, root, VirtAddr(virt), 0);
        let mut step = walk.step();
        while let Step::Read(at) = step {
            let offset = (at.0 - tables.range.start().0) as usize;
            step = walk.feed(u64::from_le_bytes(*tables.bytes[offset..].first_chunk().unwrap()));
        }
        matches!(step, Step::Mapped { .. })
    };
    assert!([0x30_0000, 0x34_0fff, 6 << 30].into_iter().all(is_mapped));
    assert!(![0x2f_ffff, 0x34_1000, (6 << 30) + 0x1000].into_iter().any(is_mapped));
}

#[test]
fn many_pieces_are_joined_into_16_segments() {
    let machine = machine(8 << 30, region(128, 64));
    let pieces = |n| Pieces::new(vec![piece("part", 2 * PAGE_SIZE, Place::High); n]);
    let plan = pieces(14).plan(&machine).unwrap();
    assert_eq!((plan.segments.len(), plan.kexec_segments().unwrap().len()), (22, 16));
    let joined: u64 = plan.kexec_segments().unwrap().iter().map(|s| s.range.len()).sum();
    assert_eq!(joined, plan.segments.iter().map(|s| s.range.len()).sum::<u64>());
    assert!(matches!(pieces(20).plan(&machine), Err(Error::Handoff(_))));
}

#[test]
fn a_payload_in_32_bit_mode_is_refused_where_it_cannot_be_entered() {
    let mut payload = Pieces::new(vec![piece("code", MIB, Place::High)]);
    payload.mode = EntryMode::Bits32;
    let low = payload.plan(&machine(8 << 30, region(128, 64))).unwrap();
    assert_eq!((low.handoff.entry.mode.bits(), low.handoff.entry.argument), (32, 0x5000));
    assert_eq!(low.handoff.test_hook, TestHook::PF);
    let error = payload.plan(&machine(16 << 30, region(6 * 1024, 64))).unwrap_err();
    assert!(matches!(error, Error::ControlPageTooHigh { .. }), "{error}");
}

#[test]
fn more_than_page_digests_can_be_kept_of_is_loaded_without_parity() {
    let machine = machine(64 << 30, region(128, 2048));
    let huge = Piece { content: 600 * MIB, ..piece("huge", 600 * MIB, Place::High) };
    let plan = Pieces::new(vec![huge]).plan(&machine).unwrap();
    assert_eq!((plan.protection, plan.handoff.parity.nr_parity), (Protection::default(), 0));
    assert!(plan.warnings.iter().any(|w| w.contains("nothing can be rebuilt")), "{:?}", plan.warnings);
}

/// `cargo test --release -p kdump-loader sealing_costs -- --ignored --nocapture` prints what digests and parity cost.
#[test]
#[ignore = "prints times, checks nothing"]
fn prints_what_sealing_costs() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    std::fs::write(&path, vec![0x5a; 45 << 20]).unwrap();
    let machine = machine(64 << 30, region(128, 512));
    let mut inputs = Inputs::new(64 << 20, 45 << 20);
    for _ in 0..3 {
        let start = std::time::Instant::now();
        let read = std::fs::read(&path).unwrap();
        println!("read {} MiB from the page cache {:?}", read.len() >> 20, start.elapsed());
        let start = std::time::Instant::now();
        let one: [u8; 32] = Sha256::digest(&inputs.initramfs).into();
        println!("one digest of it on one CPU {:?} ({:02x})", start.elapsed(), one[0]);
        for run in [0, MIB, 16 * MIB] {
            inputs.parity_run = run;
            let start = std::time::Instant::now();
            let plan = inputs.plan(&machine).unwrap();
            println!("plan with parity {}: {:?}", plan.protection, start.elapsed());
        }
    }
}

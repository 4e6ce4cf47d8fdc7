//! What the panic path decides: a handoff block and the memory it names into an [`Action`].
//!
//! Safe code over a [`Memory`], so that every verdict is tested on the host. All regions are checked
//! even after the first damaged one: the log is the only witness.

use crate::handoff::{Entry, Handoff, Policy};
use crate::line::Sink;
use crate::messages;
use crate::parity::Page;
use crate::sha256::{Engine, digest_with};

/// Physical memory as the panic path sees it.
pub trait Memory {
    /// The bytes of a physical range, or nothing where none can be read.
    fn bytes(&self, start: u64, len: u64) -> Option<&[u8]>;
    /// Writes a whole page; false where nothing can be written.
    fn write_page(&mut self, start: u64, page: &Page) -> bool;
}

/// What is done in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Enter the capture kernel.
    Enter(Entry),
    /// Reset the machine.
    Reset,
    /// Stop.
    Halt,
}

/// How far the panic path has come, for whoever has to judge an exception.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Nothing is believed yet.
    Handoff = 0,
    /// The handoff block is believed, the regions are being checked.
    Regions = 1,
    /// The capture kernel has been entered and may have changed anything.
    Entered = 2,
}

/// Checks the handoff block.
///
/// # Errors
/// The action to take if it is not believed. Its policy is then not believed either, nor does anybody
/// know where to go: only a reset is left.
pub fn check_handoff<S: Sink>(block: &[u8], engine: Engine, sink: &mut S) -> Result<Handoff, Action> {
    match Handoff::parse_with(block, engine) {
        Ok(handoff) => {
            sink.line(&messages::handoff_ok(&handoff, engine));
            Ok(handoff)
        }
        Err(error) => {
            sink.line(&messages::handoff_refused(&error));
            Err(Action::Reset)
        }
    }
}

/// Checks every region of a believed handoff block.
pub fn check_regions<M: Memory, S: Sink>(
    handoff: &Handoff,
    engine: Engine,
    memory: &M,
    sink: &mut S,
) -> Action {
    let regions = handoff.regions();
    let mut nr_damaged = 0;
    for region in regions {
        let line = match memory.bytes(region.start, region.len).map(|bytes| digest_with(engine, bytes)) {
            Some(found) if found == region.sha256 => messages::region_ok(region),
            Some(found) => {
                nr_damaged += 1;
                messages::region_mismatch(region, &found)
            }
            None => {
                nr_damaged += 1;
                messages::region_unreadable(region)
            }
        };
        sink.line(&line);
    }

    let entry = handoff.entry;
    if !regions.iter().any(|region| region.contains(entry.rip)) {
        sink.line(&messages::entry_unchecked(entry));
    }
    if nr_damaged == 0 {
        return Action::Enter(entry);
    }
    sink.line(&messages::damaged(nr_damaged, regions.len(), handoff.policy));
    by_policy(handoff.policy, entry)
}

/// Decides what follows an exception.
///
/// Booting anyway makes sense only while the capture kernel has not run yet.
pub fn after_exception(stage: Stage, policy: Policy, entry: Entry) -> Action {
    match (stage, policy) {
        (Stage::Handoff, _) => Action::Reset,
        (Stage::Regions, policy) => by_policy(policy, entry),
        (Stage::Entered, Policy::Halt) => Action::Halt,
        (Stage::Entered, _) => Action::Reset,
    }
}

/// How many failures, exceptions or bugs, are reported.
pub const REPORTED_FAILURES: u32 = 1;
/// Up to which failure a reset through ports is tried.
pub const RESET_FAILURES: u32 = 2;

/// What is done about a failure, before the policy has its say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Report it, then follow the policy.
    Report,
    /// Reset through the ports, without console: it came while another one was handled.
    Reset,
    /// Reset the CPU by an exception it cannot deliver: even that failed.
    TripleFault,
}

/// Decides by the number of failures so far, this one included: each answer needs less of the program
/// than the one before, so a failure that repeats itself comes to an end.
pub fn answer(nr_failures: u32) -> Answer {
    if nr_failures <= REPORTED_FAILURES {
        Answer::Report
    } else if nr_failures <= RESET_FAILURES {
        Answer::Reset
    } else {
        Answer::TripleFault
    }
}

fn by_policy(policy: Policy, entry: Entry) -> Action {
    match policy {
        Policy::Reset => Action::Reset,
        Policy::Boot => Action::Enter(entry),
        Policy::Halt => Action::Halt,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handoff::{Console, EntryMode, Region, RegionFlags};
    use crate::line::{Line, PREFIX};
    use crate::sha256::digest;
    use std::string::String;
    use std::vec::Vec;

    #[test]
    fn every_further_failure_gets_a_simpler_answer() {
        let answers: Vec<_> = [1, 2, 3, 4, u32::MAX].map(answer).into();
        assert_eq!(answers[..2], [Answer::Report, Answer::Reset]);
        assert!(answers[2..].iter().all(|a| *a == Answer::TripleFault));
    }

    const ENTRY: Entry = Entry { rip: 0x1200, argument: 0x9000, mode: EntryMode::Long, nr_relocated: 0 };

    struct Literal(&'static [(u64, &'static [u8])]);

    impl Memory for Literal {
        fn bytes(&self, start: u64, len: u64) -> Option<&[u8]> {
            let (_, bytes) = self.0.iter().find(|(at, _)| *at == start)?;
            bytes.get(..len as usize)
        }

        fn write_page(&mut self, _start: u64, _page: &Page) -> bool {
            false
        }
    }

    #[derive(Default)]
    struct Log(Vec<String>);

    impl Sink for Log {
        fn line(&mut self, line: &Line) {
            self.0.push(line.as_str().strip_prefix(PREFIX).unwrap().into());
        }
    }

    const KERNEL: &[u8] = &[0x90; 0x1000];
    const INITRAMFS: &[u8] = &[b'i'; 0x700];

    fn region(start: u64, tag: &str, bytes: &[u8]) -> Region {
        Region::new(start, bytes.len() as u64, tag, RegionFlags::default(), digest(bytes)).unwrap()
    }

    fn handoff(policy: Policy) -> Handoff {
        let mut handoff = Handoff::new(Console::None, policy, ENTRY);
        handoff.push_region(region(0x1000, "bzImage", KERNEL)).unwrap();
        handoff.push_region(region(0x8000, "initramfs", INITRAMFS)).unwrap();
        handoff
    }

    fn check(handoff: &Handoff, memory: &Literal) -> (Action, Vec<String>) {
        let mut log = Log::default();
        let action = check_regions(handoff, Engine::PORTABLE, memory, &mut log);
        (action, log.0)
    }

    #[test]
    fn intact_memory_enters_the_capture_kernel() {
        let memory = Literal(&[(0x1000, KERNEL), (0x8000, INITRAMFS)]);
        for policy in [Policy::Reset, Policy::Boot, Policy::Halt] {
            let (action, log) = check(&handoff(policy), &memory);
            assert_eq!(action, Action::Enter(ENTRY));
            assert_eq!(log, ["region bzImage 4.0 KiB sha256 ok", "region initramfs 1.7 KiB sha256 ok"]);
        }
    }

    #[test]
    fn a_damaged_region_is_named_and_the_policy_followed() {
        let memory = Literal(&[(0x1000, KERNEL), (0x8000, &[b'j'; 0x700])]);
        let expected = "region initramfs 1.7 KiB at 0x8000 sha256 MISMATCH: expected ";
        for (policy, wanted, last) in [
            (Policy::Reset, Action::Reset, "1 of 2 regions damaged, policy is reset"),
            (Policy::Boot, Action::Enter(ENTRY), "1 of 2 regions damaged, policy is boot: booting anyway"),
            (Policy::Halt, Action::Halt, "1 of 2 regions damaged, policy is halt"),
        ] {
            let (action, log) = check(&handoff(policy), &memory);
            assert_eq!(action, wanted);
            assert_eq!(log[0], "region bzImage 4.0 KiB sha256 ok");
            assert!(log[1].starts_with(expected), "{}", log[1]);
            assert_eq!(log[1].len(), expected.len() + 16 + " found ".len() + 16);
            assert_eq!(log[2], last);
        }
    }

    #[test]
    fn memory_that_cannot_be_read_counts_as_damaged() {
        let (action, log) = check(&handoff(Policy::Reset), &Literal(&[(0x8000, INITRAMFS)]));
        assert_eq!(action, Action::Reset);
        assert_eq!(log[0], "region bzImage 4.0 KiB at 0x1000 cannot be read");
        assert_eq!(log[1], "region initramfs 1.7 KiB sha256 ok");
    }

    #[test]
    fn an_entry_outside_every_region_is_mentioned_but_taken() {
        let mut handoff = Handoff::new(Console::None, Policy::Reset, ENTRY);
        handoff.push_region(region(0x8000, "initramfs", INITRAMFS)).unwrap();
        let (action, log) = check(&handoff, &Literal(&[(0x8000, INITRAMFS)]));
        assert_eq!(action, Action::Enter(ENTRY));
        assert_eq!(log[1], "entry 0x1200 lies in no checked region");
    }

    #[test]
    fn a_damaged_handoff_resets_whatever_its_policy_was() {
        let mut bytes = handoff(Policy::Boot).to_bytes();
        bytes[0x300] ^= 4;
        let mut log = Log::default();
        assert_eq!(check_handoff(&bytes, Engine::PORTABLE, &mut log), Err(Action::Reset));
        assert!(log.0[0].starts_with("handoff DAMAGED: sha256 mismatch, expected "), "{}", log.0[0]);
    }

    #[test]
    fn a_good_handoff_says_what_it_holds() {
        let mut log = Log::default();
        assert!(check_handoff(&handoff(Policy::Halt).to_bytes(), Engine::PORTABLE, &mut log).is_ok());
        assert_eq!(log.0, ["handoff ok, 2 regions, on damage halt, sha256 portable"]);
    }

    #[test]
    fn an_exception_boots_anyway_only_between_handoff_and_jump() {
        let cases = [
            (Stage::Handoff, Policy::Boot, Action::Reset),
            (Stage::Handoff, Policy::Halt, Action::Reset),
            (Stage::Regions, Policy::Boot, Action::Enter(ENTRY)),
            (Stage::Regions, Policy::Reset, Action::Reset),
            (Stage::Regions, Policy::Halt, Action::Halt),
            (Stage::Entered, Policy::Boot, Action::Reset),
            (Stage::Entered, Policy::Halt, Action::Halt),
        ];
        for (stage, policy, wanted) in cases {
            assert_eq!(after_exception(stage, policy, ENTRY), wanted, "{stage:?} {policy:?}");
        }
    }
}

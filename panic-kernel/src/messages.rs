//! What the panic path says: one line per phase, and one for everything that went wrong.
//!
//! People search for these lines in serial logs, so their wording is tested where they are used.

use crate::PAGE_SIZE;
use crate::handoff::{Entry, EntryMode, Handoff, HandoffError, Policy, Region};
use crate::line::Line;
use crate::record::NR_EXCEPTION_WORDS;
use crate::repair::Repair;
use crate::sha256::{DIGEST_SIZE, Engine};

/// Bytes of a digest that are printed.
const SHOWN: usize = 8;

/// The first line: which CPU, and where the program lies.
pub fn entered(apic_id: u32, image: u64) -> Line {
    let mut line = Line::new();
    line.str("entered, CPU apic id ").dec(apic_id.into()).str(", image at ").hex(image);
    line
}

/// The copy that the crashed kernel jumped to had changed; another one runs.
pub fn image_damaged(damaged: u64, image: u64) -> Line {
    let mut line = Line::new();
    line.str("image at ").hex(damaged).str(" DAMAGED, running from the copy at ").hex(image);
    line
}

/// The handoff block is believed.
pub fn handoff_ok(handoff: &Handoff, engine: Engine) -> Line {
    let mut line = Line::new();
    let parity = handoff.parity;
    line.str("handoff ok, ").dec(handoff.regions().len() as u64).str(" regions, ");
    if parity.nr_parity == 0 {
        line.str("no parity");
    } else {
        line.dec(parity.nr_protected.into()).str(" pages under ");
        line.size(u64::from(parity.nr_parity) * PAGE_SIZE).str(" of parity");
    }
    line.str(", on damage ").str(policy_name(handoff.policy)).str(", sha256 ").str(engine.name());
    line
}

/// The block of the other copy is used in place of a damaged one.
pub fn handoff_from_copy(address: u64) -> Line {
    let mut line = Line::new();
    line.str("handoff taken from the copy at ").hex(address);
    line
}

/// The loader's page tables are in force.
pub fn page_tables(root: u64, nr_levels: u8) -> Line {
    let mut line = Line::new();
    line.str("page tables at ").hex(root).str(", ").dec(nr_levels.into()).str(" levels");
    line
}

/// The old kernel's page tables stay in force.
pub fn old_page_tables() -> Line {
    let mut line = Line::new();
    line.str("no whole page tables of our own, staying on the crashed kernel's");
    line
}

/// A memory-mapped console that is out of reach.
pub fn console_unmapped() -> Line {
    let mut line = Line::new();
    line.str("console is not mapped, using port 0x3f8");
    line
}

/// The handoff block is not believed, so there is nothing to go by.
pub fn handoff_refused(error: &HandoffError) -> Line {
    let mut line = Line::new();
    line.str("handoff DAMAGED: ");
    error.describe(&mut line);
    line
}

/// A region is what the loader put there, perhaps again.
pub fn region_ok(region: &Region, is_repaired: bool) -> Line {
    let mut line = region_line(region);
    line.str(" sha256 ok");
    if is_repaired {
        line.str(" after repair");
    }
    line
}

/// Pages of a region were rebuilt.
pub fn region_rebuilt(region: &Region, repair: Repair, first: u64) -> Line {
    let mut line = region_name(region);
    line.str(": ").dec(repair.nr_repaired.into());
    line.str(if repair.nr_repaired == 1 {
        " page rebuilt from parity, at "
    } else {
        " pages rebuilt from parity, first at "
    });
    line.hex(first);
    line
}

/// A region stays damaged.
pub fn region_lost(region: &Region, repair: Repair) -> Line {
    let mut line = region_name(region);
    if repair.nr_damaged == 0 {
        line.str(": nothing to rebuild it from");
    } else {
        line.str(": ").dec((repair.nr_damaged - repair.nr_repaired).into());
        line.str(" of ").dec(repair.nr_damaged.into()).str(" damaged pages cannot be rebuilt");
    }
    line
}

/// A region has changed since it was loaded.
pub fn region_mismatch(region: &Region, found: &[u8; DIGEST_SIZE]) -> Line {
    let mut line = region_line(region);
    line.str(" at ").hex(region.start).str(" sha256 MISMATCH: expected ");
    line.hex_bytes(&region.sha256[..SHOWN]).str(" found ").hex_bytes(&found[..SHOWN]);
    line
}

/// A region lies where nothing can be read.
pub fn region_unreadable(region: &Region) -> Line {
    let mut line = region_line(region);
    line.str(" at ").hex(region.start).str(" cannot be read");
    line
}

/// The sum of the damage, and what follows from it.
pub fn damaged(nr_damaged: usize, nr_regions: usize, policy: Policy) -> Line {
    let mut line = Line::new();
    line.dec(nr_damaged as u64).str(" of ").dec(nr_regions as u64).str(" regions damaged, ");
    line.str(match policy {
        Policy::Reset => "policy is reset",
        Policy::Boot => "policy is boot: booting anyway",
        Policy::Halt => "policy is halt",
    });
    line
}

/// The loader asked for a jump to memory nothing vouches for; odd, but no reason to lose the dump.
pub fn entry_unchecked(entry: Entry) -> Line {
    let mut line = Line::new();
    line.str("entry ").hex(entry.rip).str(" lies in no checked region");
    line
}

/// Nothing vouches for the code that would make the jump.
pub fn control_page_unchecked(address: u64) -> Line {
    let mut line = Line::new();
    line.str("control page ").hex(address).str(" lies in no checked region");
    line
}

/// NMIs came and were ignored.
pub fn nmis(nr: u32) -> Line {
    let mut line = Line::new();
    line.dec(nr.into()).str(if nr == 1 { " NMI ignored" } else { " NMIs ignored" });
    line
}

/// The loader wants a failure, to see it handled.
pub fn provoking(hook: u32) -> Line {
    let mut line = Line::new();
    line.str("TEST: provoking failure ").dec(hook.into());
    line
}

/// The last line before the jump.
pub fn entering(entry: Entry) -> Line {
    let mut line = Line::new();
    if entry.nr_relocated != 0 {
        line.str("moving ").dec(entry.nr_relocated.into()).str(" pages, ");
    }
    line.str("entering capture kernel at ").hex(entry.rip).str(", boot_params ").hex(entry.argument);
    if entry.mode == EntryMode::Protected {
        line.str(", 32-bit");
    }
    line
}

/// The machine is about to be reset.
pub fn resetting() -> Line {
    let mut line = Line::new();
    line.str("resetting");
    line
}

/// The machine stays as it is.
pub fn halted() -> Line {
    let mut line = Line::new();
    line.str("halted");
    line
}

/// What the CPU and the stubs say about an exception, as the record keeps it.
///
/// Vector, error code, RIP, CS, RFLAGS, RSP, SS, CR2, RAX, RBX, RCX, RDX, RSI, RDI, RBP, R8 to R15.
pub type Exception = [u64; NR_EXCEPTION_WORDS];

const NAMES: [&str; NR_EXCEPTION_WORDS] = [
    "vector ", "error ", "rip ", "cs ", "rflags ", "rsp ", "ss ", "cr2 ", "rax ", "rbx ", "rcx ", "rdx ",
    "rsi ", "rdi ", "rbp ", "r8 ", "r9 ", "r10 ", "r11 ", "r12 ", "r13 ", "r14 ", "r15 ",
];

/// Lines of registers behind the first line of an exception.
pub const REGISTER_LINES: [core::ops::Range<usize>; 4] = [3..8, 8..13, 13..18, 18..23];

/// An exception, with its address relative to the image where it lies in there.
pub fn exception(exception: &Exception, image: core::ops::Range<u64>) -> Line {
    let [vector, error_code, rip, _, _, rsp, _, cr2, ..] = *exception;
    let mut line = Line::new();
    line.str("EXCEPTION vector ").dec(vector);
    if let Some(name) = exception_name(vector) {
        line.str(" (").str(name).str(")");
    }
    line.str(" error ").hex(error_code).str(" rip ").hex(rip);
    if image.contains(&rip) {
        line.str(" (image+").hex(rip - image.start).str(")");
    }
    line.str(" rsp ").hex(rsp).str(" cr2 ").hex(cr2);
    line
}

/// Some of the registers at an exception, see [`REGISTER_LINES`].
pub fn registers(exception: &Exception, which: &core::ops::Range<usize>) -> Line {
    let mut line = Line::new();
    for (i, (&value, name)) in exception.iter().zip(NAMES).enumerate() {
        if which.contains(&i) {
            line.str(if i == which.start { "  " } else { " " }).str(name).hex(value);
        }
    }
    line
}

/// A bug of the panic path itself, caught by Rust.
pub fn bug(file: &str, line_number: u32) -> Line {
    let mut line = Line::new();
    line.str("BUG at ").str(file).str(":").dec(line_number.into());
    line
}

fn region_name(region: &Region) -> Line {
    let mut line = Line::new();
    line.str("region ");
    for &byte in region.tag_bytes() {
        line.byte(byte);
    }
    line
}

fn region_line(region: &Region) -> Line {
    let mut line = region_name(region);
    line.str(" ").size(region.len);
    line
}

fn policy_name(policy: Policy) -> &'static str {
    match policy {
        Policy::Reset => "reset",
        Policy::Boot => "boot",
        Policy::Halt => "halt",
    }
}

/// Source: Intel SDM volume 3, table 6-1.
fn exception_name(vector: u64) -> Option<&'static str> {
    Some(match vector {
        0 => "#DE",
        1 => "#DB",
        3 => "#BP",
        6 => "#UD",
        8 => "#DF",
        11 => "#NP",
        12 => "#SS",
        13 => "#GP",
        14 => "#PF",
        18 => "#MC",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handoff::RegionFlags;
    use std::borrow::ToOwned as _;

    fn page_fault() -> Exception {
        let mut words = core::array::from_fn(|i| i as u64);
        words[..3].copy_from_slice(&[14, 2, 0x2000_1234]);
        words[5] = 0x2000_8000;
        words[7] = 0xdead_0000;
        words
    }

    #[test]
    fn an_exception_in_the_image_shows_its_offset() {
        assert_eq!(
            exception(&page_fault(), 0x2000_0000..0x2000_9000).as_str(),
            "kdump-rs panic-kernel: EXCEPTION vector 14 (#PF) error 0x2 rip 0x20001234 (image+0x1234) \
             rsp 0x20008000 cr2 0xdead0000"
        );
        let mut unnamed = page_fault();
        unnamed[0] = 16;
        let line = exception(&unnamed, 0..0);
        assert!(line.as_str().contains("vector 16 error 0x2 rip 0x20001234 rsp"), "{}", line.as_str());
    }

    #[test]
    fn every_register_is_printed_once() {
        let text: std::string::String =
            REGISTER_LINES.iter().map(|which| registers(&page_fault(), which).as_str().to_owned()).collect();
        for name in &NAMES[3..] {
            assert_eq!(text.matches(&std::format!(" {name}0x")).count(), 1, "{name}");
        }
        assert!(text.contains("  cs 0x3 rflags 0x4 rsp 0x20008000 ss 0x6 cr2 0xdead0000"), "{text}");
        assert!(text.ends_with("  r11 0x12 r12 0x13 r13 0x14 r14 0x15 r15 0x16"), "{text}");
    }

    #[test]
    fn the_longest_lines_fit() {
        let worst = [u64::MAX; NR_EXCEPTION_WORDS];
        let line = exception(&worst, 0..0);
        assert!(line.as_str().ends_with("cr2 0xffffffffffffffff"), "{}", line.as_str());
        for which in &REGISTER_LINES {
            assert!(registers(&worst, which).as_str().ends_with(" 0xffffffffffffffff"));
        }
        let region = Region {
            start: u64::MAX,
            len: u64::MAX,
            tag: [b'x'; 12],
            flags: RegionFlags(0),
            sha256: [0xff; 32],
        };
        let line = region_mismatch(&region, &[0xee; 32]);
        assert!(line.as_str().ends_with("found eeeeeeeeeeeeeeee"), "{}", line.as_str());
    }

    #[test]
    fn a_bug_names_its_place() {
        assert_eq!(bug("src/verify.rs", 12).as_str(), "kdump-rs panic-kernel: BUG at src/verify.rs:12");
    }
}

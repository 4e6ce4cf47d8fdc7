//! What the panic path says: one line per phase, and one for everything that went wrong.
//!
//! People search for these lines in serial logs, so their wording is tested where they are used.

use crate::handoff::{Entry, Handoff, HandoffError, Policy, Region};
use crate::line::Line;
use crate::sha256::{DIGEST_SIZE, Engine};

/// Bytes of a digest that are printed.
const SHOWN: usize = 8;

/// The first line: which CPU, and where the program lies.
pub fn entered(apic_id: u32, image: u64) -> Line {
    let mut line = Line::new();
    line.str("entered, CPU apic id ").dec(apic_id.into()).str(", image at ").hex(image);
    line
}

/// The handoff block is believed.
pub fn handoff_ok(handoff: &Handoff, engine: Engine) -> Line {
    let mut line = Line::new();
    line.str("handoff ok, ").dec(handoff.regions().len() as u64).str(" regions, on damage ");
    line.str(policy_name(handoff.policy)).str(", sha256 ").str(engine.name());
    line
}

/// The handoff block is not believed, so there is nothing to go by.
pub fn handoff_refused(error: &HandoffError) -> Line {
    let mut line = Line::new();
    line.str("handoff DAMAGED: ");
    error.describe(&mut line);
    line
}

/// A region is what the loader put there.
pub fn region_ok(region: &Region) -> Line {
    let mut line = region_line(region);
    line.str(" sha256 ok");
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

/// The last line before the jump.
pub fn entering(entry: Entry) -> Line {
    let mut line = Line::new();
    line.str("entering capture kernel at ").hex(entry.rip).str(", boot_params ").hex(entry.argument);
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

/// What the CPU says about an exception.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exception {
    /// Number of the exception, 0 to 31.
    pub vector: u64,
    /// Error code, 0 where the vector has none.
    pub error_code: u64,
    /// Address of the instruction.
    pub rip: u64,
    /// Stack pointer at the instruction.
    pub rsp: u64,
    /// Address of the last page fault.
    pub cr2: u64,
}

/// An exception, with its address relative to the image where it lies in there.
pub fn exception(exception: &Exception, image: core::ops::Range<u64>) -> Line {
    let mut line = Line::new();
    line.str("EXCEPTION vector ").dec(exception.vector);
    if let Some(name) = exception_name(exception.vector) {
        line.str(" (").str(name).str(")");
    }
    line.str(" error ").hex(exception.error_code).str(" rip ").hex(exception.rip);
    if image.contains(&exception.rip) {
        line.str(" (image+").hex(exception.rip - image.start).str(")");
    }
    line.str(" rsp ").hex(exception.rsp).str(" cr2 ").hex(exception.cr2);
    line
}

/// A bug of the panic path itself, caught by Rust.
pub fn bug(file: &str, line_number: u32) -> Line {
    let mut line = Line::new();
    line.str("BUG at ").str(file).str(":").dec(line_number.into());
    line
}

fn region_line(region: &Region) -> Line {
    let mut line = Line::new();
    line.str("region ");
    for &byte in region.tag_bytes() {
        line.byte(byte);
    }
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

    #[test]
    fn an_exception_in_the_image_shows_its_offset() {
        let page_fault =
            Exception { vector: 14, error_code: 2, rip: 0x2000_1234, rsp: 0x2000_8000, cr2: 0xdead_0000 };
        assert_eq!(
            exception(&page_fault, 0x2000_0000..0x2000_9000).as_str(),
            "kdump-rs panic-kernel: EXCEPTION vector 14 (#PF) error 0x2 rip 0x20001234 (image+0x1234) \
             rsp 0x20008000 cr2 0xdead0000"
        );
        let stack_fault = Exception { vector: 12, ..page_fault };
        let line = exception(&stack_fault, 0..0);
        assert!(line.as_str().contains("vector 12 error 0x2 rip 0x20001234 rsp"), "{}", line.as_str());
    }

    #[test]
    fn the_longest_lines_fit() {
        let worst =
            Exception { vector: 31, error_code: u64::MAX, rip: u64::MAX, rsp: u64::MAX, cr2: u64::MAX };
        let line = exception(&worst, 0..0);
        assert!(line.as_str().ends_with("cr2 0xffffffffffffffff"), "{}", line.as_str());
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

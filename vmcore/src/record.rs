//! The panic record: what the program between the crashed kernel and the capture kernel saw and did.
//!
//! It arrives as an ELF note named `KDUMP-RS`, written by that program into memory the loader set aside. The
//! layout is in `docs/panic-path.md`; nothing here trusts it further than its length.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use sha2::{Digest as _, Sha256};

use crate::notes::Notes;

/// Name of the note.
pub const NOTE_NAME: &[u8] = b"KDUMP-RS";
/// Type of the note.
pub const NOTE_TYPE: u32 = 1;

const MAGIC: u64 = u64::from_le_bytes(*b"KDUMPREC");
const VERSION: u32 = 1;
const SIZE: usize = 0xe00;

const PHASES: (usize, usize, usize) = (0x080, 16, 16);
const REGIONS: (usize, usize, usize) = (0x180, 24, 40);
const EXCEPTIONS: (usize, usize, usize) = (0x540, 4, 184);
const REPAIRED: (usize, usize, usize) = (0x820, 64, 8);

/// Names of the words of an exception, in their order.
pub const EXCEPTION_WORDS: [&str; 23] = [
    "vector", "error", "rip", "cs", "rflags", "rsp", "ss", "cr2", "rax", "rbx", "rcx", "rdx", "rsi", "rdi",
    "rbp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
];

/// Why there is nothing to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No such note.
    #[error("the dump has no KDUMP-RS note: it was not armed by kdump-rs, or the note was lost")]
    NoNote,
    /// The note is as the loader left it.
    #[error("the panic record is empty: the panic path did not come as far as the jump")]
    Empty,
    /// The note is too short or is something else.
    #[error("the KDUMP-RS note is no panic record: {len} bytes beginning with {magic:#x}")]
    Foreign {
        /// Bytes of the note.
        len: usize,
        /// Its first word.
        magic: u64,
    },
    /// A layout of another version.
    #[error("the panic record has version {found}, this program reads version {VERSION}")]
    Version {
        /// Its version.
        found: u32,
    },
}

/// The record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PanicRecord {
    /// Whether its digest is right; if not, nothing in it is certain.
    pub is_intact: bool,
    /// Whether it was written right before the jump.
    pub is_complete: bool,
    /// The program's second copy ran, because the first was damaged.
    pub from_copy: bool,
    /// The second copy's handoff block was used.
    pub handoff_from_copy: bool,
    /// The capture kernel was entered in spite of damage, by policy.
    pub booted_damaged: bool,
    /// The program stayed on the crashed kernel's page tables.
    pub old_page_tables: bool,
    /// Ticks of the time stamp counter per millisecond, 0 if unknown.
    pub tsc_khz: u64,
    /// APIC id of the CPU that ran it.
    pub apic_id: u32,
    /// Policy as stored: 0 reset, 1 boot, 2 halt.
    pub policy: u32,
    /// Physical address of the program.
    pub image: u64,
    /// Physical address that was entered.
    pub entry: u64,
    /// Bits of the mode it was entered in.
    pub entry_bits: u32,
    /// Pages moved before.
    pub relocated_pages: u32,
    /// Exceptions seen, of which four at most are kept.
    pub nr_exceptions: u32,
    /// Pages found damaged.
    pub damaged_pages: u32,
    /// Pages rebuilt.
    pub repaired_pages: u32,
    /// Kind of console as stored: 0 none, 1 and 2 8250 behind ports and memory, 3 VGA text.
    pub console: u32,
    /// Whether the CPU's SHA instructions were used.
    pub sha_ni: bool,
    /// What was reached when.
    pub phases: Vec<Phase>,
    /// What was checked.
    pub regions: Vec<Region>,
    /// The first exceptions, words in the order of [`EXCEPTION_WORDS`].
    pub exceptions: Vec<[u64; 23]>,
    /// Physical addresses of the first pages rebuilt.
    pub repaired: Vec<u64>,
}

/// A point that was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Phase {
    /// Number of the phase.
    pub id: u32,
    /// What it means depends on the phase.
    pub detail: u32,
    /// The time stamp counter.
    pub tsc: u64,
}

impl Phase {
    /// What was reached.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self.id {
            1 => "entered",
            2 => "handoff",
            3 => "page tables",
            4 => "console",
            5 => "verified",
            6 => "repaired",
            7 => "jump",
            _ => "unknown",
        }
    }
}

/// A stretch of memory that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Physical address.
    pub start: u64,
    /// Bytes.
    pub len: u64,
    /// Its name.
    pub tag: String,
    /// What became of it.
    pub status: u32,
    /// Pages found damaged.
    pub damaged_pages: u32,
    /// Pages rebuilt.
    pub repaired_pages: u32,
}

impl Region {
    /// What became of it.
    #[must_use]
    pub fn outcome(&self) -> &'static str {
        match self.status {
            1 => "ok",
            2 => "damaged",
            3 => "repaired",
            4 => "unreadable",
            _ => "unknown",
        }
    }
}

impl PanicRecord {
    /// Finds and reads the record in a PT_NOTE segment.
    ///
    /// # Errors
    /// [`Error`].
    pub fn find(notes: &[u8]) -> Result<Self, Error> {
        let mut found = Notes::new(notes).filter(|n| n.name == NOTE_NAME && n.kind == NOTE_TYPE);
        Self::parse(found.next().ok_or(Error::NoNote)?.desc)
    }

    /// Reads the note's payload.
    ///
    /// # Errors
    /// [`Error`].
    pub fn parse(desc: &[u8]) -> Result<Self, Error> {
        let desc: &[u8; SIZE] =
            desc.first_chunk().ok_or_else(|| Error::Foreign { len: desc.len(), magic: u64_at(desc, 0) })?;
        let magic = u64_at(desc, 0);
        if desc.iter().all(|&byte| byte == 0) {
            return Err(Error::Empty);
        }
        if magic != MAGIC {
            return Err(Error::Foreign { len: desc.len(), magic });
        }
        let version = u32_at(desc, 0x08);
        if version != VERSION {
            return Err(Error::Version { found: version });
        }
        let mut unsealed = *desc;
        unsealed[0x10..0x18].fill(0);
        let flags = u32_at(desc, 0x0c);
        let nr_exceptions = u32_at(desc, 0x48);
        Ok(Self {
            is_intact: Sha256::digest(unsealed)[..8] == desc[0x10..0x18],
            is_complete: flags & 1 != 0,
            from_copy: flags & 2 != 0,
            booted_damaged: flags & 4 != 0,
            handoff_from_copy: flags & 8 != 0,
            old_page_tables: flags & 16 != 0,
            tsc_khz: u64_at(desc, 0x18),
            apic_id: u32_at(desc, 0x20),
            policy: u32_at(desc, 0x24),
            image: u64_at(desc, 0x28),
            entry: u64_at(desc, 0x30),
            entry_bits: u32_at(desc, 0x38),
            relocated_pages: u32_at(desc, 0x3c),
            nr_exceptions,
            damaged_pages: u32_at(desc, 0x4c),
            repaired_pages: u32_at(desc, 0x50),
            console: u32_at(desc, 0x54),
            sha_ni: u32_at(desc, 0x58) == 1,
            phases: entries(desc, PHASES, u32_at(desc, 0x40))
                .map(|e| Phase { id: u32_at(e, 0), detail: u32_at(e, 4), tsc: u64_at(e, 8) })
                .collect(),
            regions: entries(desc, REGIONS, u32_at(desc, 0x44)).map(region).collect(),
            exceptions: entries(desc, EXCEPTIONS, nr_exceptions)
                .map(|e| core::array::from_fn(|i| u64_at(e, 8 * i)))
                .collect(),
            repaired: entries(desc, REPAIRED, u32::MAX).map(|e| u64_at(e, 0)).filter(|&a| a != 0).collect(),
        })
    }

    /// Time stamp of a phase by its number, the first of several.
    #[must_use]
    pub fn tsc_of(&self, id: u32) -> Option<u64> {
        self.phases.iter().find(|p| p.id == id).map(|p| p.tsc)
    }

    /// Milliseconds from the first phase to a time stamp; none without a known speed, or backwards.
    #[must_use]
    pub fn millis_since_entry(&self, tsc: u64) -> Option<f64> {
        let ticks = tsc.checked_sub(self.tsc_of(1)?)?;
        (self.tsc_khz != 0).then(|| ticks as f64 / self.tsc_khz as f64)
    }
}

/// The filled entries of a table at an offset, of a number and a size.
fn entries(
    desc: &[u8; SIZE],
    (at, max, size): (usize, usize, usize),
    filled: u32,
) -> impl Iterator<Item = &[u8]> {
    desc[at..at + max * size].chunks_exact(size).take(filled as usize)
}

fn region(entry: &[u8]) -> Region {
    let tag = entry.get(16..28).unwrap_or_default().split(|&byte| byte == 0).next().unwrap_or_default();
    Region {
        start: u64_at(entry, 0),
        len: u64_at(entry, 8),
        tag: String::from_utf8_lossy(tag).to_string(),
        status: u32_at(entry, 28),
        damaged_pages: u32_at(entry, 32),
        repaired_pages: u32_at(entry, 36),
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |field| u32::from_le_bytes(*field))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |field| u64::from_le_bytes(*field))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notes::append_note;

    fn seal(desc: &mut [u8]) {
        desc[0x10..0x18].fill(0);
        let digest = Sha256::digest(&desc[..]);
        desc[0x10..0x18].copy_from_slice(&digest[..8]);
    }

    /// By the table of the documentation.
    fn sample() -> Vec<u8> {
        let mut desc = alloc::vec![0; SIZE];
        let mut put = |at: usize, field: &[u8]| desc[at..at + field.len()].copy_from_slice(field);
        put(0x00, b"KDUMPREC\x01\0\0\0\x03\0\0\0");
        put(0x18, &2_000_000u64.to_le_bytes());
        put(0x20, &[3, 0, 0, 0, 1]);
        put(0x30, &0x2100_0200u64.to_le_bytes());
        put(0x38, &[64]);
        put(0x40, &[2, 0, 0, 0, 1, 0, 0, 0, 9]);
        put(0x4c, &[1, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 1]);
        put(0x80, &[1]);
        put(0x88, &1_000u64.to_le_bytes());
        put(0x90, &[7]);
        put(0x98, &5_001_000u64.to_le_bytes());
        put(0x180, &0x2100_0000u64.to_le_bytes());
        put(0x188, &0x5000u64.to_le_bytes());
        put(0x190, b"bzImage");
        put(0x19c, &[3, 0, 0, 0, 1, 0, 0, 0, 1]);
        put(0x540, &[14]);
        put(0x820, &0x2100_3000u64.to_le_bytes());
        seal(&mut desc);
        desc
    }

    #[test]
    fn a_record_is_read_by_its_table() {
        let mut notes = Vec::new();
        append_note(&mut notes, "CORE", 1, &[0; 336]);
        append_note(&mut notes, "KDUMP-RS", 1, &sample());
        let record = PanicRecord::find(&notes).unwrap();
        assert!(record.is_intact && record.is_complete && record.from_copy && !record.booted_damaged);
        assert_eq!((record.apic_id, record.policy, record.console, record.sha_ni), (3, 1, 2, true));
        assert_eq!((record.damaged_pages, record.repaired_pages), (1, 1));
        assert_eq!(record.regions[0].tag, "bzImage");
        assert_eq!((record.regions[0].outcome(), record.regions[0].len), ("repaired", 0x5000));
        assert_eq!((record.nr_exceptions, record.exceptions.len(), record.exceptions[0][0]), (9, 4, 14));
        assert_eq!(record.repaired, [0x2100_3000]);
        assert_eq!(record.millis_since_entry(record.tsc_of(7).unwrap()), Some(2.5));
        assert_eq!(record.millis_since_entry(0), None);
    }

    #[test]
    fn what_is_no_record_says_what_it_is() {
        let error = |desc: &[u8]| PanicRecord::parse(desc).unwrap_err();
        assert_eq!(PanicRecord::find(&[]), Err(Error::NoNote));
        assert_eq!(error(&[0; SIZE]), Error::Empty);
        assert_eq!(error(b"KDUMPREC"), Error::Foreign { len: 8, magic: MAGIC });
        assert_eq!(error(&[1; SIZE]), Error::Foreign { len: SIZE, magic: 0x0101_0101_0101_0101 });
        let mut newer = sample();
        newer[8] = 2;
        assert_eq!(error(&newer), Error::Version { found: 2 });
    }

    /// Check that damage is noticed, and that no value of any byte makes the reader fail.
    #[test]
    fn a_damaged_record_is_shown_as_such() {
        let good = sample();
        for at in 0x0c..SIZE {
            let mut desc = good.clone();
            desc[at] ^= 0xff;
            assert!(!PanicRecord::parse(&desc).unwrap().is_intact, "byte {at:#x}");
        }
    }
}

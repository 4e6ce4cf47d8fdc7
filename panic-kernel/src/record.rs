//! The panic record: what the panic path saw and did, kept for the dump as an ELF note.
//!
//! The loader puts [`empty_note`] on a page of its own and names that page in elfcorehdr; the program keeps a
//! [`Record`] and puts its bytes at [`DESC_OFFSET`] of the page right before the jump. The table is in
//! `docs/panic-path.md`.

use crate::handoff::field::put;
use crate::handoff::{Entry, Policy, PolicyCode, Region};
use crate::sha256::{Engine, digest_with};

/// Name of the note, with its NUL.
pub const NOTE_NAME: &[u8; 9] = b"KDUMP-RS\0";
/// Type of the note.
pub const NOTE_TYPE: u32 = 1;
/// Offset of the record in its page: behind the note's header and its padded name.
pub const DESC_OFFSET: usize = 24;
/// Bytes of the record.
pub const DESC_SIZE: usize = 0xe00;
/// "KDUMPREC" in memory.
pub const MAGIC: u64 = u64::from_le_bytes(*b"KDUMPREC");
/// Version of the layout.
pub const VERSION: u32 = 1;

const MAX_PHASES: usize = 16;
const MAX_REGIONS: usize = 24;
const MAX_EXCEPTIONS: usize = 4;
const MAX_REPAIRED: usize = 64;
const PHASE_SIZE: usize = 16;
const REGION_SIZE: usize = 40;
const EXCEPTION_SIZE: usize = NR_EXCEPTION_WORDS * 8;

/// Words of an exception: vector, error code, RIP, CS, RFLAGS, RSP, SS, CR2, RAX, RBX, RCX, RDX, RSI, RDI, RBP,
/// R8 to R15.
pub const NR_EXCEPTION_WORDS: usize = 23;

mod at {
    pub const MAGIC: usize = 0x000;
    pub const VERSION: usize = 0x008;
    pub const FLAGS: usize = 0x00c;
    pub const DIGEST: usize = 0x010;
    pub const TSC_KHZ: usize = 0x018;
    pub const APIC_ID: usize = 0x020;
    pub const POLICY: usize = 0x024;
    pub const IMAGE: usize = 0x028;
    pub const ENTRY_RIP: usize = 0x030;
    pub const ENTRY_MODE: usize = 0x038;
    pub const NR_RELOCATED: usize = 0x03c;
    pub const NR_PHASES: usize = 0x040;
    pub const NR_REGIONS: usize = 0x044;
    pub const NR_EXCEPTIONS: usize = 0x048;
    pub const NR_DAMAGED: usize = 0x04c;
    pub const NR_REPAIRED: usize = 0x050;
    pub const CONSOLE: usize = 0x054;
    pub const ENGINE: usize = 0x058;
    pub const PHASES: usize = 0x080;
    pub const REGIONS: usize = 0x180;
    pub const EXCEPTIONS: usize = 0x540;
    pub const REPAIRED: usize = 0x820;
}

const _: () = {
    assert!(at::PHASES + MAX_PHASES * PHASE_SIZE == at::REGIONS);
    assert!(at::REGIONS + MAX_REGIONS * REGION_SIZE == at::EXCEPTIONS);
    assert!(at::EXCEPTIONS + MAX_EXCEPTIONS * EXCEPTION_SIZE == at::REPAIRED);
    assert!(at::REPAIRED + MAX_REPAIRED * 8 <= DESC_SIZE);
};

/// What was reached, as stored.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PhaseId(pub u32);

impl PhaseId {
    /// The first instruction.
    pub const ENTERED: Self = Self(1);
    /// The handoff block is believed.
    pub const HANDOFF: Self = Self(2);
    /// The loader's page tables are in force.
    pub const PAGE_TABLES: Self = Self(3);
    /// The console is set up.
    pub const CONSOLE: Self = Self(4);
    /// All regions have been checked; detail: how many were damaged.
    pub const VERIFIED: Self = Self(5);
    /// Repair has ended; detail: pages rebuilt.
    pub const REPAIRED: Self = Self(6);
    /// The control page is about to be entered.
    pub const JUMP: Self = Self(7);
}

/// What became of a region, as stored.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionStatus(pub u32);

impl RegionStatus {
    /// As it was staged.
    pub const OK: Self = Self(1);
    /// Damaged, and so it remained.
    pub const DAMAGED: Self = Self(2);
    /// Damaged and rebuilt.
    pub const REPAIRED: Self = Self(3);
    /// Not mapped.
    pub const UNREADABLE: Self = Self(4);
}

/// What else is to be known, as stored.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordFlags(pub u32);

impl RecordFlags {
    /// Written right before the jump.
    pub const COMPLETE: Self = Self(1);
    /// The program's other copy ran.
    pub const FROM_COPY: Self = Self(2);
    /// Entered in spite of damage, by policy.
    pub const BOOTED_DAMAGED: Self = Self(4);
    /// The handoff block of the other copy was used.
    pub const HANDOFF_FROM_COPY: Self = Self(8);
    /// The old kernel's page tables stayed in force.
    pub const OLD_PAGE_TABLES: Self = Self(16);
}

/// The record under construction.
#[derive(Clone)]
pub struct Record {
    bytes: [u8; DESC_SIZE],
    flags: RecordFlags,
    nr_phases: usize,
    nr_regions: usize,
    nr_exceptions: usize,
    nr_listed: usize,
    nr_damaged: u32,
    nr_repaired: u32,
}

impl Default for Record {
    fn default() -> Self {
        Self::new()
    }
}

impl Record {
    /// An empty record.
    pub const fn new() -> Self {
        Self {
            bytes: [0; DESC_SIZE],
            flags: RecordFlags(0),
            nr_phases: 0,
            nr_regions: 0,
            nr_exceptions: 0,
            nr_listed: 0,
            nr_damaged: 0,
            nr_repaired: 0,
        }
    }

    /// Notes the CPU, where the program lies and which code hashes.
    pub fn set_cpu(&mut self, apic_id: u32, image: u64, engine: Engine) {
        self.put_u32(at::APIC_ID, apic_id);
        self.put_u64(at::IMAGE, image);
        self.put_u32(at::ENGINE, u32::from(engine != Engine::PORTABLE));
    }

    /// Notes what the handoff block said.
    pub fn set_handoff(&mut self, policy: Policy, entry: Entry, tsc_khz: u64) {
        self.put_u32(at::POLICY, PolicyCode::from(policy).0);
        self.put_u64(at::ENTRY_RIP, entry.rip);
        self.put_u32(at::ENTRY_MODE, entry.mode.bits());
        self.put_u32(at::NR_RELOCATED, entry.nr_relocated);
        self.put_u64(at::TSC_KHZ, tsc_khz);
    }

    /// Notes the kind of console in use, see [`crate::handoff::ConsoleKind`].
    pub fn set_console(&mut self, kind: u32) {
        self.put_u32(at::CONSOLE, kind);
    }

    /// Adds flags.
    pub fn flag(&mut self, flags: RecordFlags) {
        self.flags.0 |= flags.0;
    }

    /// Notes that a phase was reached at a time stamp. Phases beyond 16 are not kept.
    pub fn phase(&mut self, id: PhaseId, detail: u32, tsc: u64) {
        if self.nr_phases < MAX_PHASES {
            let at = at::PHASES + self.nr_phases * PHASE_SIZE;
            self.put_u32(at, id.0);
            self.put_u32(at + 4, detail);
            self.put_u64(at + 8, tsc);
            self.nr_phases += 1;
        }
    }

    /// Notes what became of a region.
    pub fn region(&mut self, region: &Region, status: RegionStatus, nr_damaged: u32, nr_repaired: u32) {
        self.nr_damaged = self.nr_damaged.saturating_add(nr_damaged);
        self.nr_repaired = self.nr_repaired.saturating_add(nr_repaired);
        if self.nr_regions < MAX_REGIONS {
            let at = at::REGIONS + self.nr_regions * REGION_SIZE;
            self.put_u64(at, region.start);
            self.put_u64(at + 8, region.len);
            put(&mut self.bytes, at + 16, &region.tag);
            self.put_u32(at + 28, status.0);
            self.put_u32(at + 32, nr_damaged);
            self.put_u32(at + 36, nr_repaired);
            self.nr_regions += 1;
        }
    }

    /// Notes a page that was rebuilt. The first 64 are kept by address.
    pub fn repaired_page(&mut self, address: u64) {
        if self.nr_listed < MAX_REPAIRED {
            self.put_u64(at::REPAIRED + self.nr_listed * 8, address);
            self.nr_listed += 1;
        }
    }

    /// Notes an exception. All are counted, the first 4 are kept.
    pub fn exception(&mut self, words: &[u64; NR_EXCEPTION_WORDS]) {
        if self.nr_exceptions < MAX_EXCEPTIONS {
            let at = at::EXCEPTIONS + self.nr_exceptions * EXCEPTION_SIZE;
            for (i, &word) in words.iter().enumerate() {
                self.put_u64(at + i * 8, word);
            }
        }
        self.nr_exceptions = self.nr_exceptions.saturating_add(1);
    }

    /// Ends the record with its digest and gives its bytes.
    pub fn seal(&mut self, engine: Engine) -> &[u8; DESC_SIZE] {
        self.put_u64(at::MAGIC, MAGIC);
        for (at, value) in [
            (at::VERSION, VERSION),
            (at::FLAGS, self.flags.0),
            (at::NR_PHASES, self.nr_phases as u32),
            (at::NR_REGIONS, self.nr_regions as u32),
            (at::NR_EXCEPTIONS, self.nr_exceptions as u32),
            (at::NR_DAMAGED, self.nr_damaged),
            (at::NR_REPAIRED, self.nr_repaired),
        ] {
            self.put_u32(at, value);
        }
        self.put_u64(at::DIGEST, 0);
        let digest = digest_with(engine, &self.bytes);
        put(&mut self.bytes, at::DIGEST, digest.first_chunk::<8>().unwrap_or(&[0; 8]));
        &self.bytes
    }

    fn put_u32(&mut self, at: usize, value: u32) {
        put(&mut self.bytes, at, &value.to_le_bytes());
    }

    fn put_u64(&mut self, at: usize, value: u64) {
        put(&mut self.bytes, at, &value.to_le_bytes());
    }
}

/// The page of the record before the panic: a note whose contents are zero.
pub fn empty_note() -> [u8; crate::PAGE_SIZE as usize] {
    let mut page = [0; crate::PAGE_SIZE as usize];
    put(&mut page, 0, &(NOTE_NAME.len() as u32).to_le_bytes());
    put(&mut page, 4, &(DESC_SIZE as u32).to_le_bytes());
    put(&mut page, 8, &NOTE_TYPE.to_le_bytes());
    put(&mut page, 12, NOTE_NAME);
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handoff::RegionFlags;

    fn word(bytes: &[u8], at: usize) -> u64 {
        u64::from_le_bytes(*bytes[at..].first_chunk().unwrap())
    }

    #[test]
    fn fields_lie_where_the_documentation_says() {
        let mut record = Record::new();
        record.set_cpu(3, 0x2000_0000, Engine::PORTABLE);
        record.set_handoff(Policy::Halt, Entry { rip: 0x2100_0200, ..Entry::default() }, 2_400_000);
        record.flag(RecordFlags::COMPLETE);
        record.phase(PhaseId::ENTERED, 0, 77);
        record.phase(PhaseId::JUMP, 5, 99);
        let region = Region::new(0x2100_0000, 0x5000, "bzImage", RegionFlags::PROTECTED, [0; 32]).unwrap();
        record.region(&region, RegionStatus::REPAIRED, 2, 2);
        record.repaired_page(0x2100_3000);
        record.exception(&core::array::from_fn(|i| i as u64));
        let bytes = record.seal(Engine::PORTABLE);
        assert_eq!(&bytes[..8], b"KDUMPREC");
        assert_eq!(word(bytes, 0x08), 1 | 1 << 32);
        assert_eq!(word(bytes, 0x18), 2_400_000);
        assert_eq!(word(bytes, 0x20), 3 | 2 << 32);
        assert_eq!((word(bytes, 0x30), word(bytes, 0x38)), (0x2100_0200, 64));
        assert_eq!((word(bytes, 0x40), word(bytes, 0x48)), (2 | 1 << 32, 1 | 2 << 32));
        assert_eq!((word(bytes, 0x90), word(bytes, 0x98)), (7 | 5 << 32, 99));
        assert_eq!(&bytes[0x190..0x197], b"bzImage");
        assert_eq!(word(bytes, 0x19c), 3 | 2 << 32);
        assert_eq!(word(bytes, 0x540 + 22 * 8), 22);
        assert_eq!(word(bytes, 0x820), 0x2100_3000);
        let mut unsealed = *bytes;
        unsealed[0x10..0x18].fill(0);
        assert_eq!(bytes[0x10..0x18], digest_with(Engine::PORTABLE, &unsealed)[..8]);
    }

    #[test]
    fn what_does_not_fit_is_counted_and_not_written_elsewhere() {
        let mut record = Record::new();
        let region = Region::new(0x1000, 1, "x", RegionFlags::default(), [0; 32]).unwrap();
        for i in 0..100 {
            record.phase(PhaseId::ENTERED, i, 0);
            record.region(&region, RegionStatus::OK, 1, 0);
            record.repaired_page(!0);
            record.exception(&[!0; NR_EXCEPTION_WORDS]);
        }
        let bytes = record.seal(Engine::PORTABLE);
        assert_eq!((word(bytes, 0x40), word(bytes, 0x48)), (16 | 24 << 32, 100 | 100 << 32));
        assert!(bytes[0xa20..].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn the_empty_note_ends_within_its_page() {
        let page = empty_note();
        assert_eq!(page[..24], *b"\x09\0\0\0\0\x0e\0\0\x01\0\0\0KDUMP-RS\0\0\0\0");
        assert!(page[DESC_OFFSET..].iter().all(|&byte| byte == 0));
        assert!(DESC_OFFSET + DESC_SIZE + 12 <= page.len());
    }
}

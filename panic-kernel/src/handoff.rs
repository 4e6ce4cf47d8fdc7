//! The handoff block: one sealed page in which the loader tells the panic path what to do.
//!
//! The loader fills a [`Handoff`] and puts [`Handoff::to_bytes`] on the page behind the program. Minutes or
//! months later [`Handoff::parse`] believes it only if magic, version, size and its own SHA-256 agree.
//! Fields are little-endian; the table is in `docs/panic-path.md`.
//!
//! The console is written twice, once inverted, so that a block whose digest is wrong can still be
//! reported on the console it names ([`surviving_console`]).

use crate::parity::{Geometry, PageDigest};
use crate::sha256::{DIGEST_SIZE, Engine, Sha256};

mod console;
mod error;
pub(crate) mod field;
mod region;
#[cfg(test)]
mod tests;

pub use console::{Console, ConsoleKind, VGA_TEXT_SIZE};
pub use error::HandoffError;
pub use region::{Region, RegionFlags, TAG_SIZE};

use console::{CONSOLE_SIZE, RawConsole};
use field::{array_at, put, u32_at, u64_at};
use region::REGION_SIZE;

/// Bytes of the block: one page.
pub const HANDOFF_SIZE: usize = 4096;
/// "KDUMPHND" in memory.
pub const MAGIC: u64 = u64::from_le_bytes(*b"KDUMPHND");
/// Version of the layout; a program and a block of different versions do not go together.
pub const VERSION: u32 = 3;
/// Most regions a block can name; `kexec_load` takes 16 segments.
pub const MAX_REGIONS: usize = 24;
/// Most pages of the digest table, 512 protected pages each: 512 MiB.
pub const MAX_TABLE_PAGES: usize = 256;

/// In which mode the payload begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EntryMode {
    /// 64-bit mode on the identity map.
    #[default]
    Long,
    /// 32-bit protected mode, flat segments, paging off.
    Protected,
}

impl EntryMode {
    /// Bits of the mode, as stored.
    pub fn bits(self) -> u32 {
        match self {
            Self::Long => 64,
            Self::Protected => 32,
        }
    }
}

/// What comes after the jump, for the console and the record; the control page does the work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Physical address of the first instruction (bzImage: load address + 0x200).
    pub rip: u64,
    /// Physical address of what it is given (`boot_params`, Multiboot information), 0 for nothing.
    pub argument: u64,
    /// In which mode.
    pub mode: EntryMode,
    /// Pages that the control page moves before.
    pub nr_relocated: u32,
}

/// Roots of the page tables that the loader built, 0 where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageTables {
    /// CR3 with 4-level paging.
    pub four_level: u64,
    /// CR3 with 5-level paging.
    pub five_level: u64,
}

/// What happens when something is damaged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Reset the machine: no dump, but back in service.
    #[default]
    Reset,
    /// Say so and enter the capture kernel anyway.
    Boot,
    /// Say so and halt, for somebody to look.
    Halt,
}

/// A policy as stored.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyCode(pub u32);

impl PolicyCode {
    /// [`Policy::Reset`].
    pub const RESET: Self = Self(0);
    /// [`Policy::Boot`].
    pub const BOOT: Self = Self(1);
    /// [`Policy::Halt`].
    pub const HALT: Self = Self(2);

    fn decode(self) -> Result<Policy, HandoffError> {
        match self {
            Self::RESET => Ok(Policy::Reset),
            Self::BOOT => Ok(Policy::Boot),
            Self::HALT => Ok(Policy::Halt),
            Self(code) => Err(HandoffError::UnknownPolicy { code }),
        }
    }
}

impl From<Policy> for PolicyCode {
    fn from(policy: Policy) -> Self {
        match policy {
            Policy::Reset => Self::RESET,
            Policy::Boot => Self::BOOT,
            Policy::Halt => Self::HALT,
        }
    }
}

/// A failure that the program brings about itself, for the tests of its exception path. As stored; a
/// number the program does not know is none.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TestHook(pub u32);

impl TestHook {
    /// None: every real load.
    pub const NONE: Self = Self(0);
    /// An undefined instruction (#UD).
    pub const UD2: Self = Self(1);
    /// A non-canonical address (#GP).
    pub const GP: Self = Self(2);
    /// An address outside the page tables (#PF).
    pub const PF: Self = Self(3);
    /// A push through a wild stack pointer (#PF or #DF on the exception stack).
    pub const STACK: Self = Self(4);
    /// A division by zero (#DE).
    pub const DIV: Self = Self(5);
    /// A fault while the first one is reported: reset without a word.
    pub const NESTED: Self = Self(6);
    /// A fault while that reset is tried: triple fault.
    pub const TRIPLE: Self = Self(7);
    /// A failed check of the compiler (Rust panic).
    pub const BUG: Self = Self(8);
    /// An NMI, which must be survived.
    pub const NMI: Self = Self(9);

    /// The names the loader takes, with what they stand for.
    pub const NAMES: [(&'static str, Self); 9] = [
        ("ud2", Self::UD2),
        ("gp", Self::GP),
        ("pf", Self::PF),
        ("stack", Self::STACK),
        ("div", Self::DIV),
        ("nested", Self::NESTED),
        ("triple", Self::TRIPLE),
        ("bug", Self::BUG),
        ("nmi", Self::NMI),
    ];
}

/// What the loader tells the panic path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handoff {
    /// Where to print.
    pub console: Console,
    /// What to do when something is damaged.
    pub policy: Policy,
    /// What the control page enters.
    pub entry: Entry,
    /// Physical address of the control page, which moves pages and enters the payload.
    pub control_page: u64,
    /// Page tables to run on.
    pub page_tables: PageTables,
    /// Physical address of the page of the panic record, 0 for none.
    pub record: u64,
    /// Ticks of the time stamp counter per millisecond, 0 if unknown.
    pub tsc_khz: u64,
    /// Physical address of the block of the other copy of the program, 0 for none.
    pub other_copy: u64,
    /// Where parity and page digests lie.
    pub parity: Geometry,
    /// A failure to bring about.
    pub test_hook: TestHook,
    regions: [Region; MAX_REGIONS],
    nr_regions: u32,
    /// Of the pages of the digest table.
    table_digests: [PageDigest; MAX_TABLE_PAGES],
}

mod at {
    pub const MAGIC: usize = 0x000;
    pub const VERSION: usize = 0x008;
    pub const SIZE: usize = 0x00c;
    pub const DIGEST: usize = 0x010;
    pub const CONSOLE: usize = 0x030;
    pub const CONSOLE_INVERTED: usize = CONSOLE + super::CONSOLE_SIZE;
    pub const POLICY: usize = 0x070;
    pub const NR_REGIONS: usize = 0x074;
    pub const ENTRY_RIP: usize = 0x078;
    pub const ENTRY_ARGUMENT: usize = 0x080;
    pub const ENTRY_MODE: usize = 0x088;
    pub const NR_RELOCATED: usize = 0x08c;
    pub const CONTROL_PAGE: usize = 0x090;
    pub const FOUR_LEVEL: usize = 0x098;
    pub const FIVE_LEVEL: usize = 0x0a0;
    pub const RECORD: usize = 0x0a8;
    pub const TSC_KHZ: usize = 0x0b0;
    pub const OTHER_COPY: usize = 0x0b8;
    pub const PARITY_START: usize = 0x0c0;
    pub const NR_PARITY: usize = 0x0c8;
    pub const NR_PROTECTED: usize = 0x0cc;
    pub const TABLE_START: usize = 0x0d0;
    pub const NR_TABLE: usize = 0x0d8;
    pub const TEST_HOOK: usize = 0x0dc;
    pub const REGIONS: usize = 0x200;
    pub const TABLE_DIGESTS: usize = 0x800;
}

const _: () = {
    assert!(at::CONSOLE_INVERTED + CONSOLE_SIZE == at::POLICY);
    assert!(at::REGIONS + MAX_REGIONS * REGION_SIZE == at::TABLE_DIGESTS);
    assert!(at::TABLE_DIGESTS + MAX_TABLE_PAGES * size_of::<PageDigest>() == HANDOFF_SIZE);
};

impl Handoff {
    /// Makes a block without regions.
    pub fn new(console: Console, policy: Policy, entry: Entry) -> Self {
        Self {
            console,
            policy,
            entry,
            control_page: 0,
            page_tables: PageTables::default(),
            record: 0,
            tsc_khz: 0,
            other_copy: 0,
            parity: Geometry::default(),
            test_hook: TestHook::NONE,
            regions: [Region::EMPTY; MAX_REGIONS],
            nr_regions: 0,
            table_digests: [[0; 8]; MAX_TABLE_PAGES],
        }
    }

    /// Adds a region to be checked. Regions come in ascending order.
    ///
    /// # Errors
    /// If the block is full or the region does not lie above the one before.
    pub fn push_region(&mut self, region: Region) -> Result<(), HandoffError> {
        let nr = self.nr_regions as usize;
        if self.regions().last().is_some_and(|last| last.start + last.len > region.start) {
            return Err(HandoffError::BadRegion { start: region.start, len: region.len });
        }
        let slot = self.regions.get_mut(nr).ok_or(HandoffError::TooManyRegions { nr: nr + 1 })?;
        *slot = region;
        self.nr_regions += 1;
        Ok(())
    }

    /// Says what the pages of the digest table hash to, as many as [`Geometry::nr_table`].
    ///
    /// # Errors
    /// If there are more than fit.
    pub fn set_table_digests(&mut self, digests: &[PageDigest]) -> Result<(), HandoffError> {
        let nr = digests.len();
        let slots = self.table_digests.get_mut(..nr).ok_or(HandoffError::BadGeometry { nr: nr as u64 })?;
        slots.copy_from_slice(digests);
        Ok(())
    }

    /// What to check, in ascending order.
    pub fn regions(&self) -> &[Region] {
        self.regions.get(..self.nr_regions as usize).unwrap_or(&self.regions)
    }

    /// What the pages of the digest table hash to.
    pub fn table_digests(&self) -> &[PageDigest] {
        self.table_digests.get(..self.parity.nr_table as usize).unwrap_or(&self.table_digests)
    }

    /// The block as it lies in memory, sealed with its own digest.
    pub fn to_bytes(&self) -> [u8; HANDOFF_SIZE] {
        let mut bytes = [0; HANDOFF_SIZE];
        let console = RawConsole::from(self.console);
        console.write(&mut bytes, at::CONSOLE);
        console.inverted().write(&mut bytes, at::CONSOLE_INVERTED);
        for (at, value) in [
            (at::VERSION, VERSION),
            (at::SIZE, HANDOFF_SIZE as u32),
            (at::POLICY, PolicyCode::from(self.policy).0),
            (at::NR_REGIONS, self.nr_regions),
            (at::ENTRY_MODE, self.entry.mode.bits()),
            (at::NR_RELOCATED, self.entry.nr_relocated),
            (at::NR_PARITY, self.parity.nr_parity),
            (at::NR_PROTECTED, self.parity.nr_protected),
            (at::NR_TABLE, self.parity.nr_table),
            (at::TEST_HOOK, self.test_hook.0),
        ] {
            put(&mut bytes, at, &value.to_le_bytes());
        }
        for (at, value) in [
            (at::MAGIC, MAGIC),
            (at::ENTRY_RIP, self.entry.rip),
            (at::ENTRY_ARGUMENT, self.entry.argument),
            (at::CONTROL_PAGE, self.control_page),
            (at::FOUR_LEVEL, self.page_tables.four_level),
            (at::FIVE_LEVEL, self.page_tables.five_level),
            (at::RECORD, self.record),
            (at::TSC_KHZ, self.tsc_khz),
            (at::OTHER_COPY, self.other_copy),
            (at::PARITY_START, self.parity.parity_start),
            (at::TABLE_START, self.parity.table_start),
        ] {
            put(&mut bytes, at, &value.to_le_bytes());
        }
        for (i, region) in self.regions().iter().enumerate() {
            region.write(&mut bytes, at::REGIONS + i * REGION_SIZE);
        }
        put(&mut bytes, at::TABLE_DIGESTS, self.table_digests.as_flattened());
        let digest = digest_of(&bytes, Engine::detect());
        put(&mut bytes, at::DIGEST, &digest);
        bytes
    }

    /// Reads a sealed block back.
    ///
    /// # Errors
    /// If the block is not of this version, is damaged, or says something this version does not know.
    pub fn parse(bytes: &[u8]) -> Result<Self, HandoffError> {
        Self::parse_with(bytes, Engine::detect())
    }

    /// Reads a sealed block back, hashing with the given engine.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn parse_with(bytes: &[u8], engine: Engine) -> Result<Self, HandoffError> {
        let bytes: &[u8; HANDOFF_SIZE] =
            bytes.first_chunk().ok_or(HandoffError::Truncated { have: bytes.len() })?;
        check_seal(bytes, engine)?;

        let mode = match u32_at(bytes, at::ENTRY_MODE) {
            64 => EntryMode::Long,
            32 => EntryMode::Protected,
            bits => return Err(HandoffError::UnknownMode { bits }),
        };
        let entry = Entry {
            rip: u64_at(bytes, at::ENTRY_RIP),
            argument: u64_at(bytes, at::ENTRY_ARGUMENT),
            mode,
            nr_relocated: u32_at(bytes, at::NR_RELOCATED),
        };
        let mut handoff = Self {
            control_page: u64_at(bytes, at::CONTROL_PAGE),
            page_tables: PageTables {
                four_level: u64_at(bytes, at::FOUR_LEVEL),
                five_level: u64_at(bytes, at::FIVE_LEVEL),
            },
            record: u64_at(bytes, at::RECORD),
            tsc_khz: u64_at(bytes, at::TSC_KHZ),
            other_copy: u64_at(bytes, at::OTHER_COPY),
            parity: Geometry {
                parity_start: u64_at(bytes, at::PARITY_START),
                nr_parity: u32_at(bytes, at::NR_PARITY),
                nr_protected: u32_at(bytes, at::NR_PROTECTED),
                table_start: u64_at(bytes, at::TABLE_START),
                nr_table: u32_at(bytes, at::NR_TABLE),
            },
            test_hook: TestHook(u32_at(bytes, at::TEST_HOOK)),
            ..Self::new(
                RawConsole::read(bytes, at::CONSOLE).decode()?,
                PolicyCode(u32_at(bytes, at::POLICY)).decode()?,
                entry,
            )
        };
        let nr_regions = u32_at(bytes, at::NR_REGIONS) as usize;
        if nr_regions > MAX_REGIONS {
            return Err(HandoffError::TooManyRegions { nr: nr_regions });
        }
        for i in 0..nr_regions {
            handoff.push_region(Region::read(bytes, at::REGIONS + i * REGION_SIZE)?)?;
        }
        for (i, digest) in handoff.table_digests.iter_mut().enumerate() {
            *digest = array_at(bytes, at::TABLE_DIGESTS + i * size_of::<PageDigest>());
        }
        handoff.parity.check(handoff.regions())?;
        for page in [handoff.control_page, handoff.record] {
            if !page.is_multiple_of(crate::PAGE_SIZE) || page >= 1 << 52 {
                return Err(HandoffError::BadPage { address: page });
            }
        }
        Ok(handoff)
    }
}

/// Whether magic, version, size and digest agree.
fn check_seal(bytes: &[u8; HANDOFF_SIZE], engine: Engine) -> Result<(), HandoffError> {
    let magic = u64_at(bytes, at::MAGIC);
    if magic != MAGIC {
        return Err(HandoffError::BadMagic { found: magic });
    }
    let version = u32_at(bytes, at::VERSION);
    if version != VERSION {
        return Err(HandoffError::UnknownVersion { found: version });
    }
    let size = u32_at(bytes, at::SIZE);
    if size as usize != HANDOFF_SIZE {
        return Err(HandoffError::BadSize { found: size });
    }
    let expected: [u8; DIGEST_SIZE] = array_at(bytes, at::DIGEST);
    let found = digest_of(bytes, engine);
    if expected != found {
        let (expected, found) = (array_at(&expected, 0), array_at(&found, 0));
        return Err(HandoffError::BadDigest { expected, found });
    }
    Ok(())
}

/// The console a block names, if both copies of it agree, whatever has happened to the rest.
pub fn surviving_console(bytes: &[u8]) -> Option<Console> {
    let console = RawConsole::read(bytes, at::CONSOLE);
    let is_intact = RawConsole::read(bytes, at::CONSOLE_INVERTED) == console.inverted();
    if is_intact { console.decode().ok() } else { None }
}

fn digest_of(bytes: &[u8; HANDOFF_SIZE], engine: Engine) -> [u8; DIGEST_SIZE] {
    let mut sha = Sha256::new(engine);
    sha.update(&bytes[..at::DIGEST]);
    sha.update(&[0; DIGEST_SIZE]);
    sha.update(&bytes[at::DIGEST + DIGEST_SIZE..]);
    sha.finish()
}

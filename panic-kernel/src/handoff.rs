//! The handoff block: one sealed page in which the loader tells the panic path what to do.
//!
//! The loader fills it with [`Handoff::push_region`], seals it and puts [`Handoff::to_bytes`] on the page
//! behind the program. Minutes or months later [`Handoff::parse`] believes it only if magic, version,
//! size and its own SHA-256 agree. Fields are little-endian; the table is in `docs/panic-path.md`.
//!
//! The console is written twice, once inverted, so that a block whose digest is wrong can still be
//! reported on the console it names ([`surviving_console`]).

use crate::sha256::{DIGEST_SIZE, Engine, Sha256};
use crate::uart::NR_REGISTERS;

mod error;
#[cfg(test)]
mod tests;

pub use error::HandoffError;

/// Bytes of the block: one page.
pub const HANDOFF_SIZE: usize = 4096;
/// "KDUMPHND" in memory.
pub const MAGIC: u64 = u64::from_le_bytes(*b"KDUMPHND");
/// Version of the layout; a program and a block of different versions do not go together.
pub const VERSION: u32 = 1;
/// Most regions a block can name; `kexec_load` takes 16 segments.
pub const MAX_REGIONS: usize = 32;
/// Longest tag of a region.
pub const TAG_SIZE: usize = 16;

/// A stretch of physical memory and what it must hash to.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Physical address of the first byte.
    pub start: u64, // 0x00
    /// Number of bytes.
    pub len: u64, // 0x08
    /// Name for the console, ASCII, zero-filled.
    pub tag: [u8; TAG_SIZE], // 0x10
    /// SHA-256 of the bytes.
    pub sha256: [u8; DIGEST_SIZE], // 0x20
}

const REGION_SIZE: usize = 0x40;

impl Region {
    const EMPTY: Self = Self { start: 0, len: 0, tag: [0; TAG_SIZE], sha256: [0; DIGEST_SIZE] };

    /// The tag without its zero padding.
    pub fn tag_bytes(&self) -> &[u8] {
        let len = self.tag.iter().position(|&byte| byte == 0).unwrap_or(TAG_SIZE);
        self.tag.get(..len).unwrap_or_default()
    }

    /// Whether `addr` lies in the region.
    pub fn contains(&self, addr: u64) -> bool {
        addr.checked_sub(self.start).is_some_and(|offset| offset < self.len)
    }
}

/// Where and how the capture kernel is entered, in 64-bit mode on the identity map.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Physical address of the first instruction (bzImage: load address + 0x200).
    pub rip: u64,
    /// Physical address of `boot_params`.
    pub rsi: u64,
}

/// Where the panic path prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Console {
    /// Nowhere.
    None,
    /// An 8250 or 16550 behind I/O ports.
    Uart8250Port {
        /// First port.
        port: u16,
        /// Speed; 0 leaves speed and format as the old kernel set them.
        baud: u32,
    },
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

/// A console kind as stored.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConsoleKind(pub u32);

impl ConsoleKind {
    /// [`Console::None`].
    pub const NONE: Self = Self(0);
    /// [`Console::Uart8250Port`].
    pub const UART_8250_PORT: Self = Self(1);
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

    fn decode(self) -> Option<Policy> {
        match self {
            Self::RESET => Some(Policy::Reset),
            Self::BOOT => Some(Policy::Boot),
            Self::HALT => Some(Policy::Halt),
            _ => None,
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

/// A console as stored.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct RawConsole {
    kind: ConsoleKind, // 0x0
    baud: u32,         // 0x4
    address: u64,      // 0x8, a port number so far
}

impl RawConsole {
    fn inverted(self) -> Self {
        Self { kind: ConsoleKind(!self.kind.0), baud: !self.baud, address: !self.address }
    }

    fn decode(self) -> Result<Console, HandoffError> {
        match self.kind {
            ConsoleKind::NONE => Ok(Console::None),
            ConsoleKind::UART_8250_PORT => match u16::try_from(self.address) {
                Ok(port) if port <= u16::MAX - NR_REGISTERS => {
                    Ok(Console::Uart8250Port { port, baud: self.baud })
                }
                _ => Err(HandoffError::BadPort { port: self.address }),
            },
            ConsoleKind(kind) => Err(HandoffError::UnknownConsole { kind }),
        }
    }
}

impl From<Console> for RawConsole {
    fn from(console: Console) -> Self {
        match console {
            Console::None => Self { kind: ConsoleKind::NONE, baud: 0, address: 0 },
            Console::Uart8250Port { port, baud } => {
                Self { kind: ConsoleKind::UART_8250_PORT, baud, address: port.into() }
            }
        }
    }
}

/// The block.
#[repr(C)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handoff {
    magic: u64,                     // 0x000
    version: u32,                   // 0x008
    size: u32,                      // 0x00c
    digest: [u8; DIGEST_SIZE],      // 0x010, of the whole page with this field zero
    console: RawConsole,            // 0x030
    console_inverted: RawConsole,   // 0x040
    policy: PolicyCode,             // 0x050
    nr_regions: u32,                // 0x054
    entry: Entry,                   // 0x058
    reserved1: [u8; 0x98],          // 0x068
    regions: [Region; MAX_REGIONS], // 0x100
    reserved2: [u8; 0x700],         // 0x900
}

mod at {
    pub const MAGIC: usize = 0x000;
    pub const VERSION: usize = 0x008;
    pub const SIZE: usize = 0x00c;
    pub const DIGEST: usize = 0x010;
    pub const CONSOLE: usize = 0x030;
    pub const CONSOLE_INVERTED: usize = 0x040;
    pub const POLICY: usize = 0x050;
    pub const NR_REGIONS: usize = 0x054;
    pub const ENTRY: usize = 0x058;
    pub const REGIONS: usize = 0x100;
}

const _: () = {
    use core::mem::{offset_of, size_of};
    assert!(size_of::<Region>() == REGION_SIZE);
    assert!(size_of::<Handoff>() == HANDOFF_SIZE);
    assert!(offset_of!(Handoff, digest) == at::DIGEST);
    assert!(offset_of!(Handoff, console) == at::CONSOLE);
    assert!(offset_of!(Handoff, console_inverted) == at::CONSOLE_INVERTED);
    assert!(offset_of!(Handoff, policy) == at::POLICY);
    assert!(offset_of!(Handoff, nr_regions) == at::NR_REGIONS);
    assert!(offset_of!(Handoff, entry) == at::ENTRY);
    assert!(offset_of!(Handoff, regions) == at::REGIONS);
};

impl Handoff {
    /// Makes a block without regions.
    pub fn new(console: Console, policy: Policy, entry: Entry) -> Self {
        let console = RawConsole::from(console);
        Self {
            magic: MAGIC,
            version: VERSION,
            size: HANDOFF_SIZE as u32,
            digest: [0; DIGEST_SIZE],
            console,
            console_inverted: console.inverted(),
            policy: policy.into(),
            nr_regions: 0,
            entry,
            reserved1: [0; 0x98],
            regions: [Region::EMPTY; MAX_REGIONS],
            reserved2: [0; 0x700],
        }
    }

    /// Adds a region to be checked, in the order of checking.
    ///
    /// # Errors
    /// If the block is full, the region empty or impossible, or the tag not 1 to 16 printable characters.
    pub fn push_region(
        &mut self,
        start: u64,
        len: u64,
        tag: &str,
        sha256: [u8; DIGEST_SIZE],
    ) -> Result<(), HandoffError> {
        let is_printable = tag.bytes().all(|byte| byte.is_ascii_graphic());
        if tag.is_empty() || tag.len() > TAG_SIZE || !is_printable {
            return Err(HandoffError::BadTag { len: tag.len() });
        }
        let mut region = Region { start, len, tag: [0; TAG_SIZE], sha256 };
        for (slot, byte) in region.tag.iter_mut().zip(tag.bytes()) {
            *slot = byte;
        }
        check_region(&region)?;
        let nr = self.nr_regions as usize;
        let slot = self.regions.get_mut(nr).ok_or(HandoffError::TooManyRegions { nr: nr + 1 })?;
        *slot = region;
        self.nr_regions += 1;
        Ok(())
    }

    /// Computes the block's own digest; nothing may change afterwards.
    pub fn seal(&mut self) {
        self.digest = digest_of(&self.to_bytes(), Engine::detect());
    }

    /// The block as it lies in memory.
    pub fn to_bytes(&self) -> [u8; HANDOFF_SIZE] {
        let mut bytes = [0; HANDOFF_SIZE];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(at::MAGIC, &self.magic.to_le_bytes());
        put(at::VERSION, &self.version.to_le_bytes());
        put(at::SIZE, &self.size.to_le_bytes());
        put(at::DIGEST, &self.digest);
        for (at, console) in [(at::CONSOLE, self.console), (at::CONSOLE_INVERTED, self.console_inverted)] {
            put(at, &console.kind.0.to_le_bytes());
            put(at + 4, &console.baud.to_le_bytes());
            put(at + 8, &console.address.to_le_bytes());
        }
        put(at::POLICY, &self.policy.0.to_le_bytes());
        put(at::NR_REGIONS, &self.nr_regions.to_le_bytes());
        put(at::ENTRY, &self.entry.rip.to_le_bytes());
        put(at::ENTRY + 8, &self.entry.rsi.to_le_bytes());
        for (i, region) in self.regions().iter().enumerate() {
            let at = at::REGIONS + i * REGION_SIZE;
            put(at, &region.start.to_le_bytes());
            put(at + 0x08, &region.len.to_le_bytes());
            put(at + 0x10, &region.tag);
            put(at + 0x20, &region.sha256);
        }
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

        let console = raw_console_at(bytes, at::CONSOLE).decode()?;
        let policy = PolicyCode(u32_at(bytes, at::POLICY));
        let policy = policy.decode().ok_or(HandoffError::UnknownPolicy { code: policy.0 })?;
        let entry = Entry { rip: u64_at(bytes, at::ENTRY), rsi: u64_at(bytes, at::ENTRY + 8) };

        let nr_regions = u32_at(bytes, at::NR_REGIONS);
        if nr_regions as usize > MAX_REGIONS {
            return Err(HandoffError::TooManyRegions { nr: nr_regions as usize });
        }
        let mut handoff = Self { digest: expected, nr_regions, ..Self::new(console, policy, entry) };
        for (i, region) in handoff.regions.iter_mut().take(nr_regions as usize).enumerate() {
            let at = at::REGIONS + i * REGION_SIZE;
            *region = Region {
                start: u64_at(bytes, at),
                len: u64_at(bytes, at + 0x08),
                tag: array_at(bytes, at + 0x10),
                sha256: array_at(bytes, at + 0x20),
            };
            check_region(region)?;
        }
        Ok(handoff)
    }

    /// Where to print.
    pub fn console(&self) -> Console {
        self.console.decode().unwrap_or(Console::None)
    }

    /// What to do when something is damaged.
    pub fn policy(&self) -> Policy {
        self.policy.decode().unwrap_or_default()
    }

    /// Where to go.
    pub fn entry(&self) -> Entry {
        self.entry
    }

    /// What to check, in order.
    pub fn regions(&self) -> &[Region] {
        self.regions.get(..self.nr_regions as usize).unwrap_or(&self.regions)
    }
}

/// The console a block names, if both copies of it agree, whatever has happened to the rest.
pub fn surviving_console(bytes: &[u8]) -> Option<Console> {
    let bytes: &[u8; HANDOFF_SIZE] = bytes.first_chunk()?;
    let console = raw_console_at(bytes, at::CONSOLE);
    let is_intact = raw_console_at(bytes, at::CONSOLE_INVERTED) == console.inverted();
    if is_intact { console.decode().ok() } else { None }
}

fn check_region(region: &Region) -> Result<(), HandoffError> {
    match region.start.checked_add(region.len) {
        Some(end) if end > region.start => Ok(()),
        _ => Err(HandoffError::BadRegion { start: region.start, len: region.len }),
    }
}

fn digest_of(bytes: &[u8; HANDOFF_SIZE], engine: Engine) -> [u8; DIGEST_SIZE] {
    let mut sha = Sha256::new(engine);
    sha.update(&bytes[..at::DIGEST]);
    sha.update(&[0; DIGEST_SIZE]);
    sha.update(&bytes[at::DIGEST + DIGEST_SIZE..]);
    sha.finish()
}

fn raw_console_at(bytes: &[u8; HANDOFF_SIZE], at: usize) -> RawConsole {
    RawConsole {
        kind: ConsoleKind(u32_at(bytes, at)),
        baud: u32_at(bytes, at + 4),
        address: u64_at(bytes, at + 8),
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

/// Copies `N` bytes out; offsets are this file's constants, so they are always there.
fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    if let Some(field) = bytes.get(at..at + N) {
        array.copy_from_slice(field);
    }
    array
}

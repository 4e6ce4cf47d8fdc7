//! Opening a dump, whatever its format.

use std::io;
use std::path::Path;

use kdump_arch_x86::regs::ElfPrstatus;
use kdump_arch_x86::{PhysAddr, PhysRange};

use crate::elf::read::{self as elf, ElfCore, Load};
use crate::file::DumpFile;
use crate::kdump::read::{self as kdump, KdumpFile};
use crate::mem::{PhysMem, ReadError};
use crate::notes::{KernelNotes, Notes};
use crate::space::{AddressSpace, KernelMem, MissingKey};
use crate::vmcoreinfo::VmcoreInfo;

/// Why a file could not be opened as a dump.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The operating system refused.
    #[error("cannot open: {0}")]
    Io(io::Error),
    /// It is a directory.
    #[error("is a directory; name the vmcore file inside it")]
    Directory,
    /// It has no bytes.
    #[error("is empty")]
    Empty,
    /// It begins with zeros, as a file does whose writing never got going.
    #[error("begins with zero bytes: no dump was ever written here, or its first page was lost")]
    Zeros,
    /// It is in a format that is not read yet.
    #[error("is {format}, which this version does not read; {remedy}")]
    Unsupported {
        /// What it is.
        format: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// It is something else.
    #[error("is neither an ELF core nor a kdump-compressed file: it begins with {first:02x?}")]
    NotADump {
        /// Its first bytes.
        first: Vec<u8>,
    },
    /// An ELF file that is not a core.
    #[error(transparent)]
    Elf(#[from] elf::Error),
    /// A damaged kdump-compressed file.
    #[error(transparent)]
    Kdump(#[from] kdump::Error),
}

impl From<io::Error> for OpenError {
    fn from(e: io::Error) -> Self {
        Self::Io(e)
    }
}

/// The format of a dump.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// An ELF core.
    Elf,
    /// kdump-compressed, "diskdump".
    Kdump,
}

impl core::fmt::Display for Format {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Elf => "ELF core",
            Self::Kdump => "kdump-compressed",
        })
    }
}

enum Body {
    Elf(ElfCore),
    Kdump(Box<KdumpFile>),
}

/// An open dump: memory and what its notes say.
pub struct Dump {
    body: Body,
    notes: Vec<u8>,
    parsed: KernelNotes,
    ram: Vec<PhysRange>,
}

impl Dump {
    /// Opens `path` as an ELF core or a kdump-compressed file.
    ///
    /// # Errors
    /// If it is neither, or its headers are damaged.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let file = match DumpFile::open(path) {
            Err(e) if e.kind() == io::ErrorKind::IsADirectory => return Err(OpenError::Directory),
            other => other?,
        };
        if file.is_empty() {
            return Err(OpenError::Empty);
        }
        let head = file.read_vec(0, file.len().min(16)).map_err(|e| OpenError::Io(io::Error::other(e)))?;
        match head.as_slice() {
            [0x7f, b'E', b'L', b'F', ..] => {
                let core = ElfCore::open(file)?;
                let ram = core.ranges().collect();
                let notes = core.notes().to_vec();
                Ok(Self::assemble(Body::Elf(core), notes, ram))
            }
            h if h.starts_with(b"KDUMP   ") || h.starts_with(b"DISKDUMP") => {
                let core = KdumpFile::open(file)?;
                let ram = core.ram_ranges();
                let notes = core.notes().to_vec();
                Ok(Self::assemble(Body::Kdump(Box::new(core)), notes, ram))
            }
            h if h.starts_with(b"makedumpfile") => Err(OpenError::Unsupported {
                format: "a flattened dump",
                remedy: "rearrange it with `makedumpfile -R vmcore < file` first",
            }),
            h if h.iter().all(|&b| b == 0) => Err(OpenError::Zeros),
            h => Err(OpenError::NotADump { first: h.iter().copied().take(8).collect() }),
        }
    }

    fn assemble(body: Body, notes: Vec<u8>, ram: Vec<PhysRange>) -> Self {
        let parsed = KernelNotes::parse(&notes);
        Self { body, notes, parsed, ram }
    }

    /// Adds ELF notes that the file lacks, as if it had them behind its own.
    pub fn add_notes(&mut self, more: &[u8]) {
        self.notes.truncate(Notes::whole_len(&self.notes));
        self.notes.resize(self.notes.len().next_multiple_of(4), 0);
        self.notes.extend_from_slice(more);
        self.parsed = KernelNotes::parse(&self.notes);
    }

    /// The file's format.
    #[must_use]
    pub const fn format(&self) -> Format {
        match self.body {
            Body::Elf(_) => Format::Elf,
            Body::Kdump(_) => Format::Kdump,
        }
    }

    /// All of its ELF notes, as they stand in the file.
    #[must_use]
    pub fn notes(&self) -> &[u8] {
        &self.notes
    }

    /// The registers of each CPU that left a note; the index is not the CPU number.
    #[must_use]
    pub fn prstatus(&self) -> &[ElfPrstatus] {
        &self.parsed.prstatus
    }

    /// The kernel's VMCOREINFO, if the dump has it.
    #[must_use]
    pub const fn vmcoreinfo(&self) -> Option<&VmcoreInfo> {
        self.parsed.vmcoreinfo.as_ref()
    }

    /// Where the crashed machine had memory that the dump describes: sorted, without overlap.
    #[must_use]
    pub fn ram(&self) -> &[PhysRange] {
        &self.ram
    }

    /// The PT_LOADs of an ELF core, in file order; none in other formats.
    #[must_use]
    pub fn loads(&self) -> &[Load] {
        match &self.body {
            Body::Elf(core) => core.headers(),
            Body::Kdump(_) => &[],
        }
    }

    /// The PT_LOAD of an ELF core that a physical address is read from: without the repeated ones, cut to
    /// what it alone describes.
    #[must_use]
    pub fn load_at(&self, at: PhysAddr) -> Option<&Load> {
        match &self.body {
            Body::Elf(core) => core.load_at(at),
            Body::Kdump(_) => None,
        }
    }

    /// Whether the file was not written to its end: it says so itself, or it ends too early.
    #[must_use]
    pub fn is_incomplete(&self) -> bool {
        match &self.body {
            Body::Elf(core) => core.is_marked_incomplete() || core.is_cut(),
            Body::Kdump(core) => core.info().is_incomplete || core.is_cut(),
        }
    }

    /// The kdump-compressed file below, if it is one.
    #[must_use]
    pub const fn kdump(&self) -> Option<&KdumpFile> {
        match &self.body {
            Body::Elf(_) => None,
            Body::Kdump(k) => Some(k),
        }
    }

    /// Kernel memory by virtual address.
    ///
    /// # Errors
    /// If VMCOREINFO is absent or lacks what translation needs.
    pub fn kernel(&self) -> Result<KernelMem<'_>, MissingKey> {
        let info = self.vmcoreinfo().ok_or(MissingKey("note at all"))?;
        let max_phys = self.ram.last().map_or(PhysAddr(0), |r| r.end());
        Ok(KernelMem::new(self, AddressSpace::new(info, max_phys)?))
    }
}

impl PhysMem for Dump {
    fn read(&self, at: PhysAddr, buf: &mut [u8]) -> Result<(), ReadError> {
        match &self.body {
            Body::Elf(core) => core.read(at, buf),
            Body::Kdump(core) => core.read(at, buf),
        }
    }
    fn borrow(&self, at: PhysAddr, len: usize) -> Option<&[u8]> {
        match &self.body {
            Body::Elf(core) => core.borrow(at, len),
            Body::Kdump(core) => core.borrow(at, len),
        }
    }
    fn window(&self, at: PhysAddr, len: usize) -> Option<&[u8]> {
        match &self.body {
            Body::Elf(core) => core.window(at, len),
            Body::Kdump(core) => core.window(at, len),
        }
    }
}

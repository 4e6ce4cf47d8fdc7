//! Opening a dump, whatever its format.

use std::io;
use std::path::Path;

use kdump_arch_x86::regs::ElfPrstatus;
use kdump_arch_x86::{PhysAddr, PhysRange, VirtAddr};

use crate::elf::read::{self as elf, ElfCore, Load};
use crate::file::{DumpFile, Piece};
use crate::flat::SIGNATURE;
use crate::flat::read::{self as flat, FlatFile};
use crate::image::{Image, Wrapping};
use crate::kdump::defs::{DISKDUMP_SIGNATURE, KDUMP_SIGNATURE};
use crate::kdump::read::{self as kdump, KdumpFile};
use crate::mem::{PhysMem, ReadError};
use crate::notes::{KernelNotes, Notes};
use crate::seek::find_vmcoreinfo;
use crate::seekable::FRAME_MAGIC;
use crate::seekable::read::{self as seekable, SeekableFile};
use crate::space::{AddressSpace, KernelMem, MissingKey};
use crate::touched::Touched;
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
    /// A damaged flattened stream.
    #[error(transparent)]
    Flat(#[from] flat::Error),
    /// A zstd file that cannot be read at offsets.
    #[error(transparent)]
    Zstd(#[from] seekable::Error),
    /// One of several files is no kdump-compressed one.
    #[error("file {0} is no kdump-compressed file; only those are split into several")]
    Set(usize),
    /// One of several files cannot be opened.
    #[error("file {nr}: {source}")]
    InSet {
        /// Its number, from 1 on.
        nr: usize,
        /// Why not.
        source: Box<OpenError>,
    },
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
    wrapping: Wrapping,
    touched: Option<Touched>,
}

impl Dump {
    /// Opens `path` as an ELF core or a kdump-compressed file, also within a flattened stream or zstd frames.
    ///
    /// # Errors
    /// If it is neither, or its headers are damaged.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let image = open_image(path)?;
        let head = head_of(&image)?;
        match head.as_slice() {
            [0x7f, b'E', b'L', b'F', ..] => {
                let wrapping = image.wrapping();
                let core = ElfCore::open(image)?;
                let ram = core.ranges().collect();
                let notes = core.notes().to_vec();
                Ok(Self::assemble(Body::Elf(core), notes, ram, wrapping))
            }
            h if is_kdump(h) => Self::of_kdump(std::vec![image]),
            h if h.iter().all(|&b| b == 0) => Err(OpenError::Zeros),
            h => Err(OpenError::NotADump { first: h.iter().copied().take(8).collect() }),
        }
    }

    /// Opens the files of a dump that was split, in any order; one file as [`Self::open`] does.
    ///
    /// # Errors
    /// If any of them cannot be opened, or they do not belong together.
    pub fn open_set<P: AsRef<Path>>(paths: &[P]) -> Result<Self, OpenError> {
        if let [path] = paths {
            return Self::open(path.as_ref());
        }
        let mut images = Vec::with_capacity(paths.len());
        for (path, nr) in paths.iter().zip(1..) {
            let in_set = |source| OpenError::InSet { nr, source: Box::new(source) };
            let image = open_image(path.as_ref()).map_err(in_set)?;
            if !is_kdump(&head_of(&image).map_err(in_set)?) {
                return Err(OpenError::Set(nr));
            }
            images.push(image);
        }
        Self::of_kdump(images)
    }

    fn of_kdump(images: Vec<Image>) -> Result<Self, OpenError> {
        let wrapping = images.first().map_or(Wrapping::Plain, Image::wrapping);
        let core = KdumpFile::open_set(images)?;
        let ram = core.read_ram_ranges().map_err(kdump::Error::Read)?;
        let notes = core.notes().to_vec();
        Ok(Self::assemble(Body::Kdump(Box::new(core)), notes, ram, wrapping))
    }

    fn assemble(body: Body, notes: Vec<u8>, ram: Vec<PhysRange>, wrapping: Wrapping) -> Self {
        let parsed = KernelNotes::parse(&notes);
        Self { body, notes, parsed, ram, wrapping, touched: None }
    }

    /// Reads an ELF core piece by piece from now on, instead of through a map of the whole file: for those who go
    /// through all of it once.
    pub fn read_in_pieces(&mut self) {
        if let Body::Elf(core) = &mut self.body {
            core.unmap();
        }
    }

    /// Notes from now on which pages are read.
    pub fn note_reads(&mut self) {
        self.touched = Some(Touched::default());
    }

    /// The frames that were read since [`Self::note_reads`], as ascending runs.
    #[must_use]
    pub fn touched(&self) -> Vec<(u64, u64)> {
        self.touched.as_ref().map(Touched::runs).unwrap_or_default()
    }

    /// Passes a result on, and notes that these bytes were read.
    fn noted<T>(&self, at: PhysAddr, len: usize, result: T) -> T {
        if let Some(touched) = &self.touched {
            touched.note(at, len);
        }
        result
    }

    /// Adds ELF notes that the file lacks, as if it had them behind its own.
    pub fn add_notes(&mut self, more: &[u8]) {
        self.notes.truncate(Notes::whole_len(&self.notes));
        self.notes.resize(self.notes.len().next_multiple_of(4), 0);
        self.notes.extend_from_slice(more);
        self.parsed = KernelNotes::parse(&self.notes);
    }

    /// Looks for VMCOREINFO in the dumped memory, for a file that does not have it, and adds it to the notes. Says
    /// whether it was found. Goes through the whole dump.
    pub fn find_vmcoreinfo(&mut self) -> bool {
        let found = find_vmcoreinfo(self, &self.ram, |note| {
            KernelNotes::parse(note).vmcoreinfo.is_some_and(|info| self.is_of_this_kernel(&info))
        });
        match found {
            Some(note) => {
                self.add_notes(&note);
                true
            }
            None => false,
        }
    }

    /// Whether what VMCOREINFO says leads to the release that it names, in this memory: one of an earlier kernel can
    /// have been left there.
    fn is_of_this_kernel(&self, info: &VmcoreInfo) -> bool {
        let Some(release) = info.get("OSRELEASE").filter(|r| !r.is_empty()) else { return false };
        let Some(names) = info.symbol("init_uts_ns") else { return false };
        let max_phys = self.ram.last().map_or(PhysAddr(0), |r| r.end());
        let Ok(space) = AddressSpace::new(info, max_phys) else { return false };
        let mut uts = [0; 1024];
        let read = KernelMem::new(self, space).read(VirtAddr(names), &mut uts);
        read.is_ok() && uts.windows(release.len()).any(|w| w == release.as_bytes())
    }

    /// The file's format.
    #[must_use]
    pub const fn format(&self) -> Format {
        match self.body {
            Body::Elf(_) => Format::Elf,
            Body::Kdump(_) => Format::Kdump,
        }
    }

    /// What the file has around the dump.
    #[must_use]
    pub const fn wrapping(&self) -> Wrapping {
        self.wrapping
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

/// Opens the file and takes off what the dump is wrapped in.
fn open_image(path: &Path) -> Result<Image, OpenError> {
    let file = match DumpFile::open(path) {
        Err(e) if e.kind() == io::ErrorKind::IsADirectory => return Err(OpenError::Directory),
        other => other?,
    };
    if file.is_empty() {
        return Err(OpenError::Empty);
    }
    let image = Image::Plain(file);
    let head = head_of(&image)?;
    Ok(match (image, head.as_slice()) {
        (Image::Plain(file), h) if h.starts_with(SIGNATURE) => Image::Flat(FlatFile::open(file)?.into()),
        (Image::Plain(file), h) if h.starts_with(&FRAME_MAGIC.to_le_bytes()) => {
            Image::Zstd(SeekableFile::open(file)?.into())
        }
        (image, _) => image,
    })
}

/// The first bytes, by which formats are told apart.
fn head_of(image: &Image) -> Result<Vec<u8>, OpenError> {
    image.read_vec(0, image.len().min(16)).map_err(|e| OpenError::Io(io::Error::other(e)))
}

fn is_kdump(head: &[u8]) -> bool {
    head.starts_with(&KDUMP_SIGNATURE) || head.starts_with(&DISKDUMP_SIGNATURE)
}

impl PhysMem for Dump {
    fn read(&self, at: PhysAddr, buf: &mut [u8]) -> Result<(), ReadError> {
        let result = match &self.body {
            Body::Elf(core) => core.read(at, buf),
            Body::Kdump(core) => core.read(at, buf),
        };
        if result.is_ok() { self.noted(at, buf.len(), result) } else { result }
    }
    fn borrow(&self, at: PhysAddr, len: usize) -> Option<&[u8]> {
        let found = match &self.body {
            Body::Elf(core) => core.borrow(at, len),
            Body::Kdump(core) => core.borrow(at, len),
        };
        if found.is_some() { self.noted(at, len, found) } else { found }
    }
    fn window(&self, at: PhysAddr, len: usize) -> Option<&[u8]> {
        let found = match &self.body {
            Body::Elf(core) => core.window(at, len),
            Body::Kdump(core) => core.window(at, len),
        };
        if found.is_some() { self.noted(at, len, found) } else { found }
    }
    fn piece(&self, at: PhysAddr, len: usize) -> Option<Piece> {
        match &self.body {
            Body::Elf(core) => core.piece(at, len),
            Body::Kdump(_) => None,
        }
    }
}

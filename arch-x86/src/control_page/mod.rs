//! The control page: the code that moves a kexec image into place and enters it.
//!
//! It walks a kimage list (entries of a page's address and a flag) and copies or swaps page by page, then
//! loads the entry registers and jumps. Everything it needs lies in its own 4096 bytes, so that it may
//! overwrite whatever ran before it: code, stack, descriptor tables, page tables excepted.
//!
//! | | [`x86_64`] | [`i386`] |
//! |---|---|---|
//! | entered at | offset 0, 64-bit mode, CPL 0 | offset 0, 32-bit protected mode, flat segments, CPL 0 |
//! | registers | any | EAX = address of the page |
//! | paging | identity map of the page, list, sources, destinations | off, or on with the page identity-mapped |
//! | list entries | 64 bits | 32 bits |
//! | enters | 64-bit mode, or 32-bit protected mode with paging off | 32-bit protected mode with paging off |
//!
//! Interrupts must be off and the page writable: its descriptor table pointers are completed on the run.
//! No stack is used. A list ends with [`IND_DONE`]; with an image already in place it is nothing but that.
//!
//! Entering 64-bit mode leaves control registers, GDT, IDT and segments as they are. Entering 32-bit mode loads a
//! GDT in the page (0x10 flat code, 0x18 flat data), an IDT without entries, CR4 = 0 and EFER.LME = 0, and clears PG,
//! AM, WP, TS and EM of CR0.
//!
//! Source: `include/linux/kexec.h` (flags), `arch/x86/kernel/relocate_kernel_{32,64}.S` (what Linux does);
//! Intel SDM volume 3, section 4.10.1 (PCIDE) and 10.8.5.4 (leaving IA-32e mode).

// UNSAFETY: the code is assembly; reading its bytes needs a foreign static. The only such place of the crate.
#![expect(unsafe_code)]

mod code;
#[cfg(test)]
mod tests;

/// Bytes of a control page.
pub const CONTROL_PAGE_SIZE: usize = 4096;

/// Flag of a list entry: the page that the next source goes to.
pub const IND_DESTINATION: u64 = 1;
/// Flag of a list entry: the list goes on there.
pub const IND_INDIRECTION: u64 = 2;
/// Flag of a list entry: the end.
pub const IND_DONE: u64 = 4;
/// Flag of a list entry: a page that goes to the destination, which then moves on by a page.
pub const IND_SOURCE: u64 = 8;

/// Offsets of what a builder fills in.
mod at {
    pub const HEAD: usize = 0xf00;
    pub const FLAGS: usize = 0xf08;
    pub const REGISTERS: usize = 0xf10;
    pub const GDT: usize = 0xf60;
    pub const GDT_POINTER: usize = 0xf80;
    pub const FAR_POINTER: usize = 0xf90;
    pub const NO_IDT: usize = 0xfa0;
}

const FLAG_SWAP: u32 = 1;
const FLAG_ENTER_32: u32 = 2;

/// First address that 32-bit mode cannot reach.
const LIMIT_32: u64 = 1 << 32;

/// In which mode the payload begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EntryMode {
    /// 32-bit protected mode, flat segments, paging off.
    Bits32,
    /// 64-bit mode on the identity map.
    #[default]
    Bits64,
}

/// The registers a payload is entered with; in 64-bit mode R8 to R15 are 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "registers by their names")]
pub struct EntryState {
    pub mode: EntryMode,
    pub rip: u64,
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rbp: u64,
    pub rsp: u64,
}

impl EntryState {
    fn registers(&self) -> [u64; 9] {
        [self.rip, self.rax, self.rbx, self.rcx, self.rdx, self.rsi, self.rdi, self.rbp, self.rsp]
    }
}

/// Why a page cannot be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The first entry of the list neither ends it nor leads to a page of it.
    BadHead {
        /// The entry.
        head: u64,
    },
    /// A register of a payload in 32-bit mode that does not fit 32 bits.
    TooWide {
        /// Its value.
        value: u64,
    },
    /// The i386 page cannot enter 64-bit mode.
    NoLongMode,
}

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::BadHead { head } => write!(f, "{head:#x} is no first entry of a kimage list"),
            Self::TooWide { value } => write!(f, "{value:#x} is out of reach in 32-bit mode"),
            Self::NoLongMode => f.write_str("the i386 control page cannot enter 64-bit mode"),
        }
    }
}

impl core::error::Error for Error {}

/// Builds the page for a CPU in 64-bit mode. `list_head` is the list's first entry: [`IND_DONE`], or the address of
/// a page of entries and [`IND_INDIRECTION`]. To enter a payload in 32-bit mode the page itself must lie below 4 GiB.
///
/// # Errors
/// [`Error::BadHead`], [`Error::TooWide`].
pub fn x86_64(list_head: u64, swap: bool, entry: &EntryState) -> Result<[u8; CONTROL_PAGE_SIZE], Error> {
    build(&code::x86_64_template(), list_head, swap, entry)
}

/// Builds the page for a CPU in 32-bit mode; entries of the list are 32 bits wide.
///
/// # Errors
/// [`Error::BadHead`], [`Error::TooWide`], [`Error::NoLongMode`].
pub fn i386(list_head: u32, swap: bool, entry: &EntryState) -> Result<[u8; CONTROL_PAGE_SIZE], Error> {
    if entry.mode != EntryMode::Bits32 {
        return Err(Error::NoLongMode);
    }
    build(&code::i386_template(), list_head.into(), swap, entry)
}

fn build(
    template: &[u8; CONTROL_PAGE_SIZE],
    head: u64,
    swap: bool,
    entry: &EntryState,
) -> Result<[u8; CONTROL_PAGE_SIZE], Error> {
    let leads_to_a_page = head & 0xfff == IND_INDIRECTION && head > 0xfff;
    if head != IND_DONE && !leads_to_a_page {
        return Err(Error::BadHead { head });
    }
    let registers = entry.registers();
    let mut flags = if swap { FLAG_SWAP } else { 0 };
    if entry.mode == EntryMode::Bits32 {
        flags |= FLAG_ENTER_32;
        if let Some(&value) = registers.iter().find(|&&value| value >= LIMIT_32) {
            return Err(Error::TooWide { value });
        }
    }
    let mut page = *template;
    page[at::HEAD..at::HEAD + 8].copy_from_slice(&head.to_le_bytes());
    page[at::FLAGS..at::FLAGS + 4].copy_from_slice(&flags.to_le_bytes());
    for (slot, value) in page[at::REGISTERS..].chunks_exact_mut(8).zip(registers) {
        slot.copy_from_slice(&value.to_le_bytes());
    }
    Ok(page)
}

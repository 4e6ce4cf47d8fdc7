//! Both entries, the state they find, and the way back.

// UNSAFETY: assembly, as nothing may be lost of what the registers held.
#![expect(unsafe_code)]

use core::arch::{asm, global_asm};
use core::cell::UnsafeCell;

use bare_metal_platform::mode::{EFER_LME, MSR_EFER};
use bare_metal_platform::table;

const CR0_PE: u64 = 1;
const CR0_PG: u64 = 1 << 31;
/// CR0.TS, CR0.WP and CR0.AM, which the kernel had set.
const CR0_TS_WP_AM: u64 = 1 << 3 | 1 << 16 | 1 << 18;
const RFLAGS_IF: u64 = 1 << 9;
const RFLAGS_DF: u64 = 1 << 10;

/// The CPU as it was found. The assembly below knows the offsets.
#[derive(Debug)]
#[repr(C)]
pub struct State {
    /// RAX, RBX, RCX, RDX, RSI, RDI, RBP, RSP.
    registers: [u64; table::NR_REGISTERS],
    r8_to_r15: [u64; 8],
    cr0: u64,
    cr3: u64,
    cr4: u64,
    efer: u64,
    rflags: u64,
    cs: u64,
    ds: u64,
    es: u64,
    ss: u64,
    /// Limit in the lower 16 bits, then the base, as SIDT stores them.
    idt: [u64; 2],
    /// Bits of the mode.
    pub mode: u64,
}

struct Found(UnsafeCell<State>);

// SAFETY: there is one CPU, and the entry has written it before any compiled code runs.
unsafe impl Sync for Found {}

static FOUND: Found = Found(UnsafeCell::new(State {
    registers: [0; _],
    r8_to_r15: [0; _],
    cr0: 0,
    cr3: 0,
    cr4: 0,
    efer: 0,
    rflags: 0,
    cs: 0,
    ds: 0,
    es: 0,
    ss: 0,
    idt: [0; _],
    mode: 0,
}));

global_asm!(
    ".pushsection .text.entry, \"ax\", @progbits",
    "payload_entry_32:",
    ".code32",
    "    mov [{found} + 0x00], eax",
    "    mov [{found} + 0x08], ebx",
    "    mov [{found} + 0x10], ecx",
    "    mov [{found} + 0x18], edx",
    "    mov [{found} + 0x20], esi",
    "    mov [{found} + 0x28], edi",
    "    mov [{found} + 0x30], ebp",
    "    mov [{found} + 0x38], esp",
    "    mov eax, cr0",
    "    mov [{found} + 0x80], eax",
    "    mov eax, cr3",
    "    mov [{found} + 0x88], eax",
    "    mov eax, cr4",
    "    mov [{found} + 0x90], eax",
    "    mov ecx, {efer}",
    "    rdmsr",
    "    mov [{found} + 0x98], eax",
    "    mov esp, offset platform_stack_top",
    "    pushfd",
    "    pop dword ptr [{found} + 0xa0]",
    "    mov [{found} + 0xa8], cs",
    "    mov [{found} + 0xb0], ds",
    "    mov [{found} + 0xb8], es",
    "    mov [{found} + 0xc0], ss",
    "    sidt [{found} + 0xc8]",
    "    mov byte ptr [{found} + 0xd8], 32",
    "    mov edi, offset {start}",
    "    jmp platform_enter_64",
    ".code64",
    "    .org payload_entry_32 + 0x200",
    ".global payload_entry_64",
    "payload_entry_64:",
    "    mov [{found} + 0x00], rax",
    "    mov [{found} + 0x08], rbx",
    "    mov [{found} + 0x10], rcx",
    "    mov [{found} + 0x18], rdx",
    "    mov [{found} + 0x20], rsi",
    "    mov [{found} + 0x28], rdi",
    "    mov [{found} + 0x30], rbp",
    "    mov [{found} + 0x38], rsp",
    "    mov [{found} + 0x40], r8",
    "    mov [{found} + 0x48], r9",
    "    mov [{found} + 0x50], r10",
    "    mov [{found} + 0x58], r11",
    "    mov [{found} + 0x60], r12",
    "    mov [{found} + 0x68], r13",
    "    mov [{found} + 0x70], r14",
    "    mov [{found} + 0x78], r15",
    "    mov rax, cr0",
    "    mov [{found} + 0x80], rax",
    "    mov rax, cr3",
    "    mov [{found} + 0x88], rax",
    "    mov rax, cr4",
    "    mov [{found} + 0x90], rax",
    "    mov ecx, {efer}",
    "    rdmsr",
    "    mov [{found} + 0x98], eax",
    "    mov rsp, offset platform_stack_top",
    "    pushfq",
    "    pop qword ptr [{found} + 0xa0]",
    "    mov [{found} + 0xa8], cs",
    "    mov [{found} + 0xb0], ds",
    "    mov [{found} + 0xb8], es",
    "    mov [{found} + 0xc0], ss",
    "    sidt [{found} + 0xc8]",
    "    mov byte ptr [{found} + 0xd8], 64",
    "    mov rdi, offset {start}",
    "    jmp platform_set_up",
    ".popsection",
    found = sym FOUND,
    start = sym start,
    efer = const MSR_EFER,
);

extern "C" fn start() -> ! {
    // SAFETY: written by the entry alone, which is behind us.
    let found = unsafe { &*FOUND.0.get() };
    crate::run(found)
}

impl State {
    /// Holds the state against what the control page promises.
    pub fn check(&self, table: &[u64; table::NR_WORDS]) -> Result<(), &'static str> {
        let is = |condition: bool, what: &'static str| if condition { Ok(()) } else { Err(what) };
        is(self.mode == table[table::MODE], "entered in the wrong mode")?;
        is(self.registers[..] == table[table::REGISTERS..][..table::NR_REGISTERS], "registers differ")?;
        is(self.r8_to_r15 == [0; 8], "R8 to R15 are not 0")?;
        is(self.cr0 & CR0_PE != 0, "not in protected mode")?;
        is(self.cr3 == table[table::CR3], "CR3 differs")?;
        is(self.cr4 == table[table::CR4], "CR4 differs")?;
        is(self.rflags & (RFLAGS_IF | RFLAGS_DF) == 0, "interrupts are on, or strings go down")?;
        let selectors = table[table::SELECTORS];
        is(self.cs == selectors & 0xffff, "CS differs")?;
        is([self.ds, self.es, self.ss] == [selectors >> 16; 3], "data segments differ")?;
        let base = self.idt[0] >> 16 | self.idt[1] << 48;
        is(base == table[table::IDT_BASE], "the IDT differs")?;
        if self.mode == 32 {
            is(self.cr0 & CR0_PG == 0, "paging is on")?;
            is(self.cr0 & CR0_TS_WP_AM == 0, "CR0 has TS, WP or AM")?;
            is(self.efer & u64::from(EFER_LME) == 0, "EFER.LME is set")?;
            is(self.idt[0] & 0xffff == 0, "the IDT has entries")?;
        } else {
            is(self.cr0 & CR0_TS_WP_AM == CR0_TS_WP_AM, "CR0 is not as it was")?;
        }
        Ok(())
    }
}

/// Goes back to the kernel.
pub fn resume(address: u64) -> ! {
    // SAFETY: the table's sum was right, and the kernel has an entry there which loads its own stack and tables.
    unsafe { asm!("jmp {}", in(reg) address, options(noreturn)) }
}

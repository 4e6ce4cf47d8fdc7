//! The jump into the control page, in the mode that it wants.

// UNSAFETY: what follows is no compiled code any more.
#![expect(unsafe_code)]

use core::arch::{asm, global_asm};

use bare_metal_platform::mode::{CODE32, CR4_PAE, DATA, EFER_LME, MSR_EFER};

const CR0_PG: u32 = 1 << 31;
/// CR4.PSE and CR4.PGE, for the control page to clear together with PAE.
const CR4_PSE_PGE: u32 = 1 << 4 | 1 << 7;

global_asm!(
    ".pushsection .text.crossing, \"ax\", @progbits",
    // Out of 64-bit mode into 32-bit protected mode with PAE paging, to the page at RDI, whose address EAX holds then.
    "kernel_cross_to_32:",
    "    push {code32}",
    "    lea rax, [rip + 2f]",
    "    push rax",
    "    retfq",
    ".code32",
    "2:",
    "    mov eax, {data}",
    "    mov ds, eax",
    "    mov es, eax",
    "    mov ss, eax",
    "    mov eax, cr0",
    "    and eax, ~{pg}",
    "    mov cr0, eax",
    "    mov ecx, {efer}",
    "    rdmsr",
    "    and eax, ~{lme}",
    "    wrmsr",
    "    mov eax, offset platform_pdpt_32",
    "    mov cr3, eax",
    "    mov eax, cr4",
    "    or eax, {pae} + {pse_pge}",
    "    mov cr4, eax",
    "    mov eax, cr0",
    "    or eax, {pg}",
    "    mov cr0, eax",
    "    mov eax, edi",
    "    jmp eax",
    ".code64",
    ".popsection",
    code32 = const CODE32,
    data = const DATA,
    pg = const CR0_PG,
    efer = const MSR_EFER,
    lme = const EFER_LME,
    pae = const CR4_PAE,
    pse_pge = const CR4_PSE_PGE,
);

unsafe extern "C" {
    fn kernel_cross_to_32(page: u64) -> !;
}

/// Enters a control page for 64-bit mode.
pub fn enter_64(page: u64) -> ! {
    // SAFETY: the page holds what `control_page::x86_64` made, and the identity map has all it touches.
    unsafe { asm!("jmp {}", in(reg) page, options(noreturn)) }
}

/// Enters a control page for 32-bit mode, with paging and PAE on.
pub fn enter_32(page: u64) -> ! {
    // SAFETY: the page holds what `control_page::i386` made, below 4 GiB, mapped at its address.
    unsafe { kernel_cross_to_32(page) }
}

/// CR3 and CR4 as they are.
pub fn paging() -> [u64; 2] {
    let (cr3, cr4);
    // SAFETY: reads control registers at CPL 0.
    unsafe { asm!("mov {}, cr3", "mov {}, cr4", out(reg) cr3, out(reg) cr4, options(nomem, nostack)) }
    [cr3, cr4]
}

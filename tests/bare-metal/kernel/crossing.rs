//! The jump into the control page, in the mode that it wants.

// UNSAFETY: what follows is no compiled code any more.
#![expect(unsafe_code)]

use core::arch::{asm, global_asm};

use bare_metal_platform::mode::{CODE32, CR4_PAE, DATA, EFER_LME, MSR_EFER};

const CR0_PG: u32 = 1 << 31;
/// CR0.TS, CR0.WP and CR0.AM, as kernels have them.
const CR0_TS_WP_AM: u32 = 1 << 3 | 1 << 16 | 1 << 18;
/// CR4.PSE and CR4.PGE.
const CR4_PSE_PGE: u32 = 1 << 4 | 1 << 7;

/// What is paged in 32-bit mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paging {
    /// Everything, by entries of 64 bits.
    Pae,
    /// Everything, by entries of 32 bits.
    Pse,
    /// Nothing.
    Off,
}

global_asm!(
    ".pushsection .text.crossing, \"ax\", @progbits",
    // Out of 64-bit mode into 32-bit protected mode, to the page at RDI, whose address EAX holds then. CR3: RSI, CR4: RDX,
    // CR0.PG: RCX.
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
    "    mov ebx, ecx",
    "    mov ebp, edx",
    "    mov ecx, {efer}",
    "    rdmsr",
    "    and eax, ~{lme}",
    "    wrmsr",
    "    mov cr4, ebp",
    "    mov cr3, esi",
    "    mov eax, cr0",
    "    or eax, ebx",
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
);

unsafe extern "C" {
    fn kernel_cross_to_32(page: u64, cr3: u64, cr4: u64, pg: u64) -> !;
    safe static platform_pdpt_32: [u8; 0];
    safe static platform_pd_32: [u8; 0];
}

/// Enters a control page for 64-bit mode.
pub fn enter_64(page: u64) -> ! {
    set_as_kernels_do();
    // SAFETY: the page holds what `control_page::x86_64` made, and the identity map has all it touches.
    unsafe { asm!("jmp {}", in(reg) page, options(noreturn)) }
}

/// Enters a control page for 32-bit mode.
pub fn enter_32(page: u64, paging: Paging) -> ! {
    set_as_kernels_do();
    let (cr3, cr4, pg) = match paging {
        Paging::Pae => (platform_pdpt_32.as_ptr() as u64, CR4_PAE | CR4_PSE_PGE, CR0_PG),
        Paging::Pse => (platform_pd_32.as_ptr() as u64, CR4_PSE_PGE, CR0_PG),
        Paging::Off => (0, CR4_PSE_PGE, 0),
    };
    // SAFETY: the page holds what `control_page::i386` made, below 4 GiB, mapped at its address; the tables are of the
    // kind that CR4 says.
    unsafe { kernel_cross_to_32(page, cr3, cr4.into(), pg.into()) }
}

/// Sets what kernels have set in CR0, for the control page to leave or to clear. No SSE after this.
fn set_as_kernels_do() {
    // SAFETY: TS makes SSE fault, of which none comes any more; every page is writable, and CPL 0 checks no alignment.
    unsafe {
        asm!("mov {0}, cr0", "or {0:e}, {bits}", "mov cr0, {0}", out(reg) _, bits = const CR0_TS_WP_AM,
            options(nostack))
    }
}

/// CR3 and CR4 as they are.
pub fn paging() -> [u64; 2] {
    let (cr3, cr4);
    // SAFETY: reads control registers at CPL 0.
    unsafe { asm!("mov {}, cr3", "mov {}, cr4", out(reg) cr3, out(reg) cr4, options(nomem, nostack)) }
    [cr3, cr4]
}

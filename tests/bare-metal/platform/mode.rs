//! From 32-bit protected mode to 64-bit mode with a stack, an identity map and SSE, as compiled code wants it.
//!
//! `platform_enter_64` is jumped to in 32-bit mode, `platform_set_up` in 64-bit mode; both go on at the function
//! in RDI, which does not return. The map covers 6 GiB with pages of 2 MiB. The tables are the program's own:
//! kernel and payload each link a copy.
//!
//! Source: Intel SDM volume 3, section 10.8.5 (entering IA-32e mode), 4.4 (PAE paging), 4.5 (4-level paging).

// UNSAFETY: there is no compiled code before there is a stack; the map is read by the CPU.
#![expect(unsafe_code)]

use core::arch::global_asm;

/// Selector of 64-bit code. All differ from those in a control page, so that a page which does not load its own
/// descriptors is found out.
pub const CODE64: u16 = 0x08;
/// Selector of data.
pub const DATA: u16 = 0x10;
/// Selector of 32-bit code.
pub const CODE32: u16 = 0x28;

const FLAT_CODE64: u64 = 0x00af_9b00_0000_ffff;
const FLAT_CODE32: u64 = 0x00cf_9b00_0000_ffff;
const FLAT_DATA: u64 = 0x00cf_9300_0000_ffff;

/// CR0.PG and CR0.PE.
const CR0_PG_PE: u32 = 1 << 31 | 1;
/// CR0.MP.
const CR0_MP: u32 = 1 << 1;
/// CR0.EM and CR0.TS, which make SSE fault.
const CR0_EM_TS: u32 = 1 << 2 | 1 << 3;
/// CR4.PAE.
pub const CR4_PAE: u32 = 1 << 5;
/// CR4.OSFXSR and CR4.OSXMMEXCPT.
const CR4_SSE: u32 = 1 << 9 | 1 << 10;
/// Extended features.
pub const MSR_EFER: u32 = 0xc000_0080;
/// EFER.LME.
pub const EFER_LME: u32 = 1 << 8;

const STACK_SIZE: usize = 64 << 10;
/// GiB in the map: all that low and high memory of the guest take.
const NR_GIB: usize = 6;
/// GiB that the map of 32-bit mode has.
const NR_GIB_32: usize = 4;

global_asm!(
    ".pushsection .data.platform_tables, \"aw\", @progbits",
    "    .balign 4096",
    "platform_pml4:",
    "    .quad platform_pdpt + 3",
    "    .fill 511, 8, 0",
    "platform_pdpt:",
    ".set n, 0",
    ".rept {nr_gib}",
    "    .quad platform_pd + n * 4096 + 3",
    ".set n, n + 1",
    ".endr",
    "    .fill 512 - {nr_gib}, 8, 0",
    "platform_pd:",
    // Present, writable, a page of 2 MiB.
    ".set n, 0",
    ".rept {nr_gib} * 512",
    "    .quad (n << 21) + 0x83",
    ".set n, n + 1",
    ".endr",
    // For 32-bit mode with PAE; writable is a reserved bit on this level.
    ".global platform_pdpt_32",
    "platform_pdpt_32:",
    ".set n, 0",
    ".rept {nr_gib_32}",
    "    .quad platform_pd + n * 4096 + 1",
    ".set n, n + 1",
    ".endr",
    // The same without PAE, pages of 4 MiB; pages of tables begin at page borders.
    "    .balign 4096",
    ".global platform_pd_32",
    "platform_pd_32:",
    ".set n, 0",
    ".rept 1024",
    "    .long (n << 22) + 0x83",
    ".set n, n + 1",
    ".endr",
    "platform_gdt:",
    "    .quad 0, {flat_code64}, {flat_data}, 0, 0, {flat_code32}, 0",
    "platform_gdt_pointer:",
    "    .short 7 * 8 - 1",
    "    .quad platform_gdt",
    ".popsection",
    ".pushsection .bss.platform_stack, \"aw\", @nobits",
    "    .balign 16",
    "    .skip {stack_size}",
    ".global platform_stack_top",
    "platform_stack_top:",
    ".popsection",
    ".pushsection .text.platform, \"ax\", @progbits",
    ".global platform_enter_64",
    "platform_enter_64:",
    ".code32",
    "    lgdt [platform_gdt_pointer]",
    "    mov eax, {pae}",
    "    mov cr4, eax",
    "    mov eax, offset platform_pml4",
    "    mov cr3, eax",
    "    mov ecx, {efer}",
    "    rdmsr",
    "    or eax, {lme}",
    "    wrmsr",
    "    mov eax, cr0",
    "    or eax, {pg_pe}",
    "    mov cr0, eax",
    // JMP ptr16:32.
    "    .byte 0xea",
    "    .long platform_set_up",
    "    .short {code64}",
    ".code64",
    ".global platform_set_up",
    "platform_set_up:",
    // Code goes on with the descriptor found: it is the same one in kernel and payload.
    "    lgdt [platform_gdt_pointer]",
    "    mov eax, offset platform_pml4",
    "    mov cr3, rax",
    "    mov eax, {data}",
    "    mov ds, eax",
    "    mov es, eax",
    "    mov ss, eax",
    "    mov rsp, offset platform_stack_top",
    "    xor ebp, ebp",
    "    mov rax, cr0",
    "    and eax, ~{em_ts}",
    "    or eax, {mp}",
    "    mov cr0, rax",
    "    mov rax, cr4",
    "    or eax, {sse}",
    "    mov cr4, rax",
    "    call rdi",
    "    ud2",
    ".popsection",
    nr_gib = const NR_GIB,
    nr_gib_32 = const NR_GIB_32,
    flat_code64 = const FLAT_CODE64,
    flat_data = const FLAT_DATA,
    flat_code32 = const FLAT_CODE32,
    stack_size = const STACK_SIZE,
    pae = const CR4_PAE,
    efer = const MSR_EFER,
    lme = const EFER_LME,
    pg_pe = const CR0_PG_PE,
    code64 = const CODE64,
    data = const DATA,
    em_ts = const CR0_EM_TS,
    mp = const CR0_MP,
    sse = const CR4_SSE,
);

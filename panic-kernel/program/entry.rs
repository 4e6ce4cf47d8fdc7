//! The first instructions: a stack, SSE, then Rust.
//!
//! SSE comes first because the compiler, and the core library it brings, use it for plain copies.
//! Descriptor tables can wait for Rust: nothing here loads a segment or faults.

// UNSAFETY: assembly, because there is no stack before it and no SSE.
#![expect(unsafe_code)]

use core::arch::global_asm;

use crate::start;

/// CR0.MP (monitor coprocessor): WAIT obeys TS.
pub const CR0_MP: u64 = 1 << 1;
/// CR0.EM (no FPU) and CR0.TS (FPU state not ours): both would make SSE fault.
pub const CR0_EM_TS: u64 = 1 << 2 | 1 << 3;
/// CR4.OSFXSR and CR4.OSXMMEXCPT: SSE is managed, its exceptions are #XM.
pub const CR4_SSE: u64 = 1 << 9 | 1 << 10;
/// All SSE exceptions masked, round to nearest: the value after reset.
const MXCSR_DEFAULT: u32 = 0x1f80;

/// Stack of the program; the deepest use is the handoff block parsed by value.
const STACK_SIZE: usize = 32 << 10;

global_asm!(
    ".pushsection .text.kdump_entry, \"ax\", @progbits",
    ".global kdump_entry",
    ".type kdump_entry, @function",
    "kdump_entry:",
    "    cli",
    "    cld",
    // Ours: the one found lies in a page that is not.
    "    lea rsp, [rip + kdump_stack_top]",
    // Frame pointers end here.
    "    xor ebp, ebp",
    "    mov rax, cr0",
    "    and rax, ~{em_ts}",
    "    or rax, {mp}",
    "    mov cr0, rax",
    // Remembered, because the capture kernel gets CR4 as it was.
    "    mov rdx, cr4",
    "    mov rax, rdx",
    "    or rax, {sse}",
    "    mov cr4, rax",
    // So that a CR2 in a report is ours and not the crash's.
    "    xor eax, eax",
    "    mov cr2, rax",
    // The old kernel's user program may have unmasked any FPU exception.
    "    fninit",
    "    push {mxcsr}",
    "    ldmxcsr [rsp]",
    "    lea rdi, [rip + kdump_image]",
    "    lea rsi, [rip + kdump_handoff]",
    // 16-byte alignment before the call.
    "    lea rsp, [rip + kdump_stack_top]",
    "    call {start}",
    "    ud2",
    ".size kdump_entry, . - kdump_entry",
    ".popsection",
    ".pushsection .bss.kdump_stack, \"aw\", @nobits",
    "    .balign 16",
    "    .skip {stack_size}",
    "kdump_stack_top:",
    ".popsection",
    em_ts = const CR0_EM_TS,
    mp = const CR0_MP,
    sse = const CR4_SSE,
    mxcsr = const MXCSR_DEFAULT,
    stack_size = const STACK_SIZE,
    start = sym start,
);

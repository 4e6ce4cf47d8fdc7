//! The first instructions: is this image whole? Then a stack, SSE, and Rust.
//!
//! The image is summed before anything else of it is used. A damaged one hands over to the other copy, which
//! is summed in its turn; if both are damaged there is nothing left but to say so and to reset. These
//! instructions are the one part that nothing can stand in for.
//!
//! SSE comes before Rust because the compiler, and the core library it brings, use it for plain copies.
//! Descriptor tables can wait for Rust: nothing here loads a segment or faults.

// UNSAFETY: assembly, because there is no stack before it and no SSE.
#![expect(unsafe_code)]

use core::arch::global_asm;

use kdump_panic_kernel::selfcheck::ROTATION;

use crate::start;

/// CR0.MP (monitor coprocessor): WAIT obeys TS.
pub const CR0_MP: u64 = 1 << 1;
/// CR0.EM (no FPU) and CR0.TS (FPU state not ours): both would make SSE fault.
pub const CR0_EM_TS: u64 = 1 << 2 | 1 << 3;
/// CR4.OSFXSR and CR4.OSXMMEXCPT: SSE is managed, its exceptions are #XM.
pub const CR4_SSE: u64 = 1 << 9 | 1 << 10;
/// All SSE exceptions masked, round to nearest: the value after reset.
const MXCSR_DEFAULT: u32 = 0x1f80;

/// Stack of the program; the deepest use is a page rebuilt by value, several calls below the handoff block. It
/// ends where the constant part begins.
const STACK_SIZE: usize = 64 << 10;

/// Reads of the line status after which a character of the last message is given up.
const EARLY_POLLS: u32 = 100_000;

global_asm!(
    ".pushsection .text.kdump_entry, \"ax\", @progbits",
    ".global kdump_entry",
    ".type kdump_entry, @function",
    "kdump_entry:",
    // R15: the damaged image this one stands in for, 0 for none.
    "    xor r15d, r15d",
    // R14: when the panic path began.
    "    rdtsc",
    "    shl rdx, 32",
    "    lea r14, [rax + rdx]",
    ".global kdump_takeover",
    "kdump_takeover:",
    "    cli",
    "    cld",
    "    mov rcx, [rip + kdump_sum]",
    "    test rcx, rcx",
    "    jz 4f",
    "    lea rsi, [rip + kdump_image]",
    "    lea rdi, [rip + kdump_mutable]",
    "    lea rdx, [rip + kdump_sum]",
    "    xor eax, eax",
    "2:",
    "    rol rax, {rotation}",
    // The word that holds the sum counts as zero.
    "    cmp rsi, rdx",
    "    je 3f",
    "    add rax, [rsi]",
    "3:",
    "    add rsi, 8",
    "    cmp rsi, rdi",
    "    jb 2b",
    "    cmp rax, 1",
    "    adc rax, 0",
    "    cmp rax, rcx",
    "    jne 5f",
    "4:",
    // The loader left zeros here, and no sum vouches for them: a stray write after arming would be believed.
    "    lea rdi, [rip + kdump_bss]",
    "    lea rcx, [rip + kdump_handoff]",
    "    sub rcx, rdi",
    "    shr rcx, 3",
    "    xor eax, eax",
    "    rep stosq",
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
    "    mov rcx, r14",
    "    mov r8, r15",
    "    mov r9, [rip + kdump_copy_handoff]",
    // 16-byte alignment before the call.
    "    lea rsp, [rip + kdump_stack_top]",
    "    call {start}",
    "    ud2",
    // This image is damaged. Not the first one to be: both are.
    "5:",
    "    test r15, r15",
    "    jnz 6f",
    "    mov rax, [rip + kdump_copy_entry]",
    "    test rax, rax",
    "    jz 6f",
    "    lea r15, [rip + kdump_image]",
    "    jmp rax",
    "6:",
    "    mov rbx, [rip + kdump_early_port]",
    "    test rbx, rbx",
    "    jz 9f",
    "    lea rsi, [rip + kdump_both_damaged]",
    "7:",
    "    lodsb",
    "    test al, al",
    "    jz 9f",
    "    mov edi, eax",
    "    mov ecx, {polls}",
    "    lea edx, [rbx + 5]",
    "8:",
    "    in al, dx",
    "    test al, 0x20",
    "    loopz 8b",
    "    mov eax, edi",
    "    mov edx, ebx",
    "    out dx, al",
    "    jmp 7b",
    // As `reset::reset_by_ports`, once each, with time for the last character; then the CPU's own way.
    "9:",
    "    mov ecx, 20000",
    "2:",
    "    in al, 0x80",
    "    loop 2b",
    "    mov edx, 0xcf9",
    "    mov al, 0x02",
    "    out dx, al",
    "    in al, 0x80",
    "    mov al, 0x0e",
    "    out dx, al",
    "    mov ecx, 20000",
    "3:",
    "    in al, 0x80",
    "    loop 3b",
    "    mov al, 0xfe",
    "    out 0x64, al",
    "    lidt [rip + kdump_no_idt]",
    "    int3",
    "    .balign 8",
    // Filled in by the loader: `kdump_panic_kernel::selfcheck`.
    ".global kdump_sum",
    "kdump_sum: .quad 0",
    ".global kdump_copy_entry",
    "kdump_copy_entry: .quad 0",
    ".global kdump_copy_handoff",
    "kdump_copy_handoff: .quad 0",
    ".global kdump_early_port",
    "kdump_early_port: .quad 0",
    "kdump_both_damaged:",
    "    .asciz \"\\r\\nkdump-rs panic-kernel: both copies DAMAGED, resetting\\r\\n\"",
    ".size kdump_entry, . - kdump_entry",
    ".popsection",
    ".pushsection .bss.kdump_stack, \"aw\", @nobits",
    "    .balign 16",
    "    .skip {stack_size}",
    "kdump_stack_top:",
    ".popsection",
    rotation = const ROTATION,
    polls = const EARLY_POLLS,
    em_ts = const CR0_EM_TS,
    mp = const CR0_MP,
    sse = const CR4_SSE,
    mxcsr = const MXCSR_DEFAULT,
    stack_size = const STACK_SIZE,
    start = sym start,
);

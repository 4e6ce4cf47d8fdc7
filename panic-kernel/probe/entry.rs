//! The first instructions: all registers kept, a stack, SSE, then Rust.

// UNSAFETY: assembly, because there is no stack before it and no SSE.
#![expect(unsafe_code)]

use core::arch::{asm, global_asm};

use crate::output::say;
use crate::start;

/// CR0.MP; CR0.EM and CR0.TS; CR4.OSFXSR and CR4.OSXMMEXCPT: SSE may be used.
const CR0_MP: u64 = 1 << 1;
const CR0_EM_TS: u64 = 1 << 2 | 1 << 3;
const CR4_SSE: u64 = 1 << 9 | 1 << 10;

const STACK_SIZE: usize = 16 << 10;

global_asm!(
    ".pushsection .text.kdump_entry, \"ax\", @progbits",
    ".global kdump_entry",
    "kdump_entry:",
    // The loader takes the probe for a program of its kind, which has these; here nobody reads them.
    ".global kdump_takeover",
    "kdump_takeover:",
    "    cli",
    "    cld",
    "    mov [rip + kdump_found + 0x00], rax",
    "    mov [rip + kdump_found + 0x08], rbx",
    "    mov [rip + kdump_found + 0x10], rcx",
    "    mov [rip + kdump_found + 0x18], rdx",
    "    mov [rip + kdump_found + 0x20], rsi",
    "    mov [rip + kdump_found + 0x28], rdi",
    "    mov [rip + kdump_found + 0x30], rbp",
    "    mov [rip + kdump_found + 0x38], rsp",
    "    mov [rip + kdump_found + 0x40], r8",
    "    mov [rip + kdump_found + 0x48], r9",
    "    mov [rip + kdump_found + 0x50], r10",
    "    mov [rip + kdump_found + 0x58], r11",
    "    mov [rip + kdump_found + 0x60], r12",
    "    mov [rip + kdump_found + 0x68], r13",
    "    mov [rip + kdump_found + 0x70], r14",
    "    mov [rip + kdump_found + 0x78], r15",
    "    lea rsp, [rip + kdump_stack_top]",
    "    pushfq",
    "    pop rax",
    "    mov [rip + kdump_found + 0x80], rax",
    "    xor ebp, ebp",
    "    mov rax, cr0",
    "    and rax, ~{em_ts}",
    "    or rax, {mp}",
    "    mov cr0, rax",
    "    mov rax, cr4",
    "    or rax, {sse}",
    "    mov cr4, rax",
    "    fninit",
    "    push 0x1f80",
    "    ldmxcsr [rsp]",
    "    lea rdi, [rip + kdump_found]",
    "    lea rsi, [rip + kdump_handoff]",
    "    lea rsp, [rip + kdump_stack_top]",
    "    call {start}",
    "    ud2",
    "    .balign 8",
    ".global kdump_sum",
    "kdump_sum: .quad 0",
    ".global kdump_copy_entry",
    "kdump_copy_entry: .quad 0",
    ".global kdump_copy_handoff",
    "kdump_copy_handoff: .quad 0",
    ".global kdump_early_port",
    "kdump_early_port: .quad 0",
    ".popsection",
    ".pushsection .bss.kdump_found, \"aw\", @nobits",
    "    .balign 16",
    "kdump_found:",
    "    .skip 17 * 8",
    "    .balign 16",
    "    .skip {stack_size}",
    "kdump_stack_top:",
    ".popsection",
    em_ts = const CR0_EM_TS,
    mp = const CR0_MP,
    sse = const CR4_SSE,
    stack_size = const STACK_SIZE,
    start = sym start,
);

/// General registers and RFLAGS as they were found. RFLAGS but for what CLI and CLD cleared.
#[repr(C)]
pub struct Registers {
    words: [u64; 17],
}

impl Registers {
    /// Prints them, four to a line.
    pub fn print(&self) {
        let [rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp, r8, r9, r10, r11, r12, r13, r14, r15, rflags] =
            self.words;
        say!("  rax {h} rbx {h} rcx {h} rdx {h}", rax, rbx, rcx, rdx);
        say!("  rsi {h} rdi {h} rbp {h} rsp {h}", rsi, rdi, rbp, rsp);
        say!("  r8 {h} r9 {h} r10 {h} r11 {h}", r8, r9, r10, r11);
        say!("  r12 {h} r13 {h} r14 {h} r15 {h}", r12, r13, r14, r15);
        say!("  rflags {h}", rflags);
    }
}

/// Where the image lies.
pub fn image() -> u64 {
    let image: u64;
    // SAFETY: takes the address of a symbol of this image.
    unsafe { asm!("lea {}, [rip + kdump_image]", out(reg) image, options(nomem, nostack, preserves_flags)) }
    image
}

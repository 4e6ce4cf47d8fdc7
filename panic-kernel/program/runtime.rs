//! What the compiler and the core library take for granted and no C library provides here.

// UNSAFETY: these symbols are the memory functions themselves. They are assembly, because the compiler
// would turn a loop in Rust back into a call of the function it stands in.
#![expect(unsafe_code)]

use core::arch::naked_asm;

/// Copies `n` bytes forwards.
///
/// # Safety
/// As `memcpy` of C.
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "C" fn memcpy(dest: *mut u8, src: *const u8, n: usize) -> *mut u8 {
    naked_asm!("mov rax, rdi", "mov rcx, rdx", "rep movsb", "ret")
}

/// Copies `n` bytes in the direction that leaves overlapping ones right.
///
/// # Safety
/// As `memmove` of C.
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "C" fn memmove(dest: *mut u8, src: *const u8, n: usize) -> *mut u8 {
    naked_asm!(
        "mov rax, rdi",
        "mov rcx, rdx",
        // Forwards unless dest lies in [src, src + n).
        "sub rdi, rsi",
        "cmp rdi, rdx",
        "lea rdi, [rax]",
        "jb 2f",
        "rep movsb",
        "ret",
        "2:",
        "lea rsi, [rsi + rdx - 1]",
        "lea rdi, [rdi + rdx - 1]",
        "std",
        "rep movsb",
        "cld",
        "ret",
    )
}

/// Fills `n` bytes.
///
/// # Safety
/// As `memset` of C.
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "C" fn memset(dest: *mut u8, byte: i32, n: usize) -> *mut u8 {
    naked_asm!("mov r8, rdi", "mov eax, esi", "mov rcx, rdx", "rep stosb", "mov rax, r8", "ret")
}

/// Compares `n` bytes as unsigned numbers.
///
/// # Safety
/// As `memcmp` of C.
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, n: usize) -> i32 {
    naked_asm!(
        "xor eax, eax",
        "xor ecx, ecx",
        "2:",
        "cmp rcx, rdx",
        "je 3f",
        "movzx eax, byte ptr [rdi + rcx]",
        "movzx r8d, byte ptr [rsi + rcx]",
        "inc rcx",
        "sub eax, r8d",
        "je 2b",
        "3:",
        "ret",
    )
}

/// Tells whether `n` bytes differ.
///
/// # Safety
/// As `bcmp` of C.
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, n: usize) -> i32 {
    naked_asm!("jmp {}", sym memcmp)
}

/// Named by the prebuilt core library, which was compiled to unwind; nothing here does.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

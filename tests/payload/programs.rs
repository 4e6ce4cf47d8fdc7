//! Programs that say on the serial port what they were given: the smallest there can be of each kind.

// UNSAFETY: assembly that is never run here; its bytes are read through foreign statics.
#![expect(unsafe_code)]

use std::arch::global_asm;

/// Where the programs are linked: outside every reservation.
pub const LINKED_AT: u32 = 640 << 20;
const CODE_SIZE: usize = 0x200;
const STACK_TOP: u32 = LINKED_AT + 0x2000;

// Both say "payload: AX BX DI" in hexadecimal, the 32-bit one then the command line it finds through Multiboot
// information, and reset the machine by port 0xcf9. The 16 bytes before the code are for headers.
global_asm!(
    ".pushsection .rodata.test_programs, \"a\", @progbits",
    ".balign 16",
    "test_program_32:",
    ".code32",
    "    mov esp, {stack}",
    "    push edi",
    "    push ebx",
    "    push eax",
    // MOV ESI, imm32: the assembler would take the sum for a memory operand.
    "    .byte 0xbe",
    "    .long {base} + (8f - test_program_32)",
    "    call 3f",
    "    pop eax",
    "    mov ebp, eax",
    "    call 5f",
    "    mov eax, [esp]",
    "    call 5f",
    "    mov eax, [esp + 4]",
    "    call 5f",
    "    pop ebx",
    "    cmp ebp, 0x2badb002",
    "    jne 2f",
    "    mov esi, [ebx + 16]",
    "    call 3f",
    "2:  cmp ebp, 0x36d76289",
    "    jne 2f",
    "    lea esi, [ebx + 16]",
    "    call 3f",
    "2:  mov al, 10",
    "    call 4f",
    "    mov dx, 0xcf9",
    "    mov al, 6",
    "    out dx, al",
    "2:  hlt",
    "    jmp 2b",
    // Prints the string at ESI.
    "3:  lodsb",
    "    test al, al",
    "    jz 2f",
    "    call 4f",
    "    jmp 3b",
    "2:  ret",
    // Prints AL.
    "4:  mov dx, 0x3fd",
    "    mov ah, al",
    "2:  in al, dx",
    "    test al, 0x20",
    "    jz 2b",
    "    mov al, ah",
    "    mov dx, 0x3f8",
    "    out dx, al",
    "    ret",
    // Prints EAX and a space.
    "5:  mov ecx, 8",
    "    mov edi, eax",
    "2:  rol edi, 4",
    "    mov eax, edi",
    "    and al, 15",
    "    cmp al, 10",
    "    sbb al, 0x69",
    "    das",
    "    push ecx",
    "    call 4b",
    "    pop ecx",
    "    dec ecx",
    "    jnz 2b",
    "    mov al, 32",
    "    jmp 4b",
    "8:  .asciz \"\\npayload: \"",
    ".org test_program_32 + {size}",
    "test_program_64:",
    ".code64",
    "    mov esp, {stack}",
    "    mov rbp, rdi",
    "    .byte 0xbe",
    "    .long {base} + (8f - test_program_64)",
    "3:  lodsb",
    "    test al, al",
    "    jz 5f",
    "    call 4f",
    "    jmp 3b",
    "5:  mov ecx, 16",
    "2:  rol rbp, 4",
    "    mov eax, ebp",
    "    and al, 15",
    "    add al, 48",
    "    cmp al, 58",
    "    jb 6f",
    "    add al, 7",
    "6:  call 4f",
    "    dec ecx",
    "    jnz 2b",
    "    mov al, 10",
    "    call 4f",
    "    mov dx, 0xcf9",
    "    mov al, 6",
    "    out dx, al",
    "7:  hlt",
    "    jmp 7b",
    "4:  mov ah, al",
    "    mov dx, 0x3fd",
    "9:  in al, dx",
    "    test al, 0x20",
    "    jz 9b",
    "    mov al, ah",
    "    mov dx, 0x3f8",
    "    out dx, al",
    "    ret",
    "8:  .asciz \"\\npayload: \"",
    ".org test_program_64 + {size}",
    ".popsection",
    stack = const STACK_TOP,
    base = const LINKED_AT,
    size = const CODE_SIZE,
);

unsafe extern "C" {
    safe static test_program_32: [u8; CODE_SIZE];
    safe static test_program_64: [u8; CODE_SIZE];
}

/// An ELF file of class 32 or 64 with these bytes as its one segment, entered at its first.
fn elf(is_64_bit: bool, bytes: &[u8]) -> Vec<u8> {
    let at = u64::from(LINKED_AT);
    let mut file = vec![0u8; 0x1000];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    let size = bytes.len() as u64;
    if is_64_bit {
        put(0, b"\x7fELF\x02\x01\x01");
        put(0x10, &[2, 0, 62, 0, 1]);
        put(0x18, &at.to_le_bytes());
        put(0x20, &64u64.to_le_bytes());
        put(0x34, &[64, 0, 56, 0, 1, 0]);
        put(64, &[0x7_0000_0001u64, 0x1000, at, at, size, 0x3000, 0x1000].map(u64::to_le_bytes).concat());
    } else {
        put(0, b"\x7fELF\x01\x01\x01");
        put(0x10, &[2, 0, 3, 0, 1]);
        put(0x18, &LINKED_AT.to_le_bytes());
        put(0x1c, &52u32.to_le_bytes());
        put(0x28, &[52, 0, 32, 0, 1, 0]);
        let segment = [1u32, 0x1000, LINKED_AT, LINKED_AT, size as u32, 0x3000, 7, 0x1000];
        put(52, &segment.map(u32::to_le_bytes).concat());
    }
    file.extend_from_slice(bytes);
    file
}

pub fn elf64() -> Vec<u8> {
    elf(true, &test_program_64)
}

pub fn elf32() -> Vec<u8> {
    elf(false, &test_program_32)
}

/// With a Multiboot header behind the code.
pub fn multiboot1() -> Vec<u8> {
    let words = [0x1bad_b002u32, 3, 0u32.wrapping_sub(0x1bad_b002 + 3)];
    let mut bytes = test_program_32.to_vec();
    bytes.extend(words.iter().flat_map(|w| w.to_le_bytes()));
    elf(false, &bytes)
}

/// With a Multiboot2 header behind the code, which says no more than that it ends.
pub fn multiboot2() -> Vec<u8> {
    let words = [0xe852_50d6u32, 0, 24, 0u32.wrapping_sub(0xe852_50d6).wrapping_sub(24), 0, 8];
    let mut bytes = test_program_32.to_vec();
    bytes.extend(words.iter().flat_map(|w| w.to_le_bytes()));
    elf(false, &bytes)
}

//! The way down: 64-bit mode, 32-bit protected mode, 16-bit protected mode, real mode, and back.
//!
//! Code that runs in all of them lies where all of them reach: it is copied to a page below 640 KiB, with a
//! buffer and a stack on the next. A crash or kexec leaves that memory to whoever comes next. On the way
//! back the page tables are ours, with four levels: CR4.LA57 cannot change in 64-bit mode.

// UNSAFETY: memory at fixed addresses, and assembly for four modes.
#![expect(unsafe_code)]

use core::arch::{asm, global_asm};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::descriptors::{self, TablePointer};
use crate::output::{Probe, say};

/// Where the code goes; parameters stand at its end.
const LOW: u32 = 0x7000;
/// Memory that a BIOS call may fill.
pub const BUFFER: u32 = 0x8000;
const STACK_TOP: u32 = 0x9000;
const LOW_SIZE: usize = 0x1000;

const CODE32: u16 = 0x08;
/// Selectors as the boot protocol has them.
pub const CODE64: u16 = 0x10;
const DATA: u16 = 0x18;
const CODE16: u16 = 0x20;
const DATA16: u16 = 0x28;
const GDT: [u64; 6] = [
    0,
    0x00cf_9b00_0000_ffff,
    0x00af_9b00_0000_ffff,
    0x00cf_9300_0000_ffff,
    0x0000_9b00_0000_ffff,
    0x0000_9300_0000_ffff,
];

/// Offsets in the low page.
mod at {
    pub const INT: u32 = 0x300;
    pub const RSP: u32 = 0xe00;
    pub const CR3: u32 = 0xe08;
    pub const WANTED: u32 = 0xe0c;
    pub const REACHED: u32 = 0xe10;
    pub const IN: u32 = 0xe20;
    pub const OUT: u32 = 0xe40;
    pub const GDT_POINTER: u32 = 0xe60;
    pub const REAL_IDT_POINTER: u32 = 0xe70;
    pub const GDT: u32 = 0xf00;
}

const REACHED_32: u32 = 1;
const REACHED_REAL: u32 = 2;

const CR4_PAE_SSE: u32 = 1 << 5 | 1 << 9 | 1 << 10;
const MSR_EFER: u32 = 0xc000_0080;
const EFER_LME: u32 = 1 << 8;

global_asm!(
    ".pushsection .rodata.kdump_low, \"a\", @progbits",
    "    .balign 16",
    "kdump_low:",
    ".code64",
    "    push rbx",
    "    push rbp",
    "    push r12",
    "    push r13",
    "    push r14",
    "    push r15",
    "    mov [{low} + {rsp}], rsp",
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
    "    mov esp, {stack_top}",
    "    mov eax, cr0",
    "    and eax, 0x7fffffff",
    "    mov cr0, eax",
    "    mov ecx, {efer}",
    "    rdmsr",
    "    and eax, ~{lme}",
    "    wrmsr",
    "    xor eax, eax",
    "    mov cr4, eax",
    "    or dword ptr [{low} + {reached}], {reached_32}",
    "    cmp dword ptr [{low} + {wanted}], {reached_real}",
    "    jne kdump_low_back",
    // JMP ptr16:32 into 16-bit protected mode.
    "    .byte 0xea",
    "    .long {low} + (3f - kdump_low)",
    "    .short {code16}",
    ".code16",
    "3:",
    "    mov ax, {data16}",
    "    mov ds, ax",
    "    mov es, ax",
    "    mov fs, ax",
    "    mov gs, ax",
    "    mov ss, ax",
    "    lidt [{low} + {real_idt_pointer}]",
    "    mov eax, cr0",
    "    and al, 0xfe",
    "    mov cr0, eax",
    // JMP ptr16:16 into real mode.
    "    .byte 0xea",
    "    .short {low} + (4f - kdump_low)",
    "    .short 0",
    "4:",
    "    xor ax, ax",
    "    mov ds, ax",
    "    mov es, ax",
    "    mov fs, ax",
    "    mov gs, ax",
    "    mov ss, ax",
    "    mov sp, {stack_top} - 16",
    "    or dword ptr [{low} + {reached}], {reached_real}",
    "    mov eax, dword ptr [{low} + {input} + 0]",
    "    mov ebx, dword ptr [{low} + {input} + 4]",
    "    mov ecx, dword ptr [{low} + {input} + 8]",
    "    mov edx, dword ptr [{low} + {input} + 12]",
    "    mov esi, dword ptr [{low} + {input} + 16]",
    "    mov edi, dword ptr [{low} + {input} + 20]",
    "    jmp 5f",
    "    .org kdump_low + {int}",
    "5:",
    // INT imm8; the number is filled in. 0 stands for none: two NOPs.
    "    .byte 0x90, 0x90",
    "    mov dword ptr cs:[{low} + {output} + 0], eax",
    "    mov dword ptr cs:[{low} + {output} + 4], ebx",
    "    mov dword ptr cs:[{low} + {output} + 8], ecx",
    "    mov dword ptr cs:[{low} + {output} + 12], edx",
    "    mov dword ptr cs:[{low} + {output} + 16], esi",
    "    mov dword ptr cs:[{low} + {output} + 20], edi",
    "    pushfd",
    "    pop eax",
    "    mov dword ptr cs:[{low} + {output} + 24], eax",
    "    cli",
    "    cld",
    "    lgdt cs:[{low} + {gdt_pointer}]",
    "    mov eax, cr0",
    "    or al, 1",
    "    mov cr0, eax",
    // JMP ptr16:32 into 32-bit protected mode.
    "    .byte 0x66, 0xea",
    "    .long {low} + (kdump_low_back - kdump_low)",
    "    .short {code32}",
    ".code32",
    "kdump_low_back:",
    "    mov eax, {data}",
    "    mov ds, eax",
    "    mov es, eax",
    "    mov ss, eax",
    "    mov fs, eax",
    "    mov gs, eax",
    "    mov eax, {cr4}",
    "    mov cr4, eax",
    "    mov eax, [{low} + {cr3}]",
    "    mov cr3, eax",
    "    mov ecx, {efer}",
    "    rdmsr",
    "    or eax, {lme}",
    "    wrmsr",
    "    mov eax, cr0",
    "    or eax, 0x80000000",
    "    mov cr0, eax",
    // JMP ptr16:32 into 64-bit mode.
    "    .byte 0xea",
    "    .long {low} + (6f - kdump_low)",
    "    .short {code64}",
    ".code64",
    "6:",
    "    mov rsp, [{low} + {rsp}]",
    "    pop r15",
    "    pop r14",
    "    pop r13",
    "    pop r12",
    "    pop rbp",
    "    pop rbx",
    "    ret",
    "kdump_low_end:",
    ".popsection",
    low = const LOW,
    stack_top = const STACK_TOP,
    int = const at::INT,
    rsp = const at::RSP,
    cr3 = const at::CR3,
    wanted = const at::WANTED,
    reached = const at::REACHED,
    input = const at::IN,
    output = const at::OUT,
    gdt_pointer = const at::GDT_POINTER,
    real_idt_pointer = const at::REAL_IDT_POINTER,
    code32 = const CODE32,
    code64 = const CODE64,
    data = const DATA,
    code16 = const CODE16,
    data16 = const DATA16,
    reached_32 = const REACHED_32,
    reached_real = const REACHED_REAL,
    cr4 = const CR4_PAE_SSE,
    efer = const MSR_EFER,
    lme = const EFER_LME,
);

/// Page tables: the first 4 GiB, in 2 MiB pages.
#[repr(C, align(4096))]
struct Tables {
    levels: [[u64; 512]; 6],
}

struct SharedTables(UnsafeCell<Tables>);

// SAFETY: one CPU runs this program, and only `install` writes the tables.
unsafe impl Sync for SharedTables {}

static TABLES: SharedTables = SharedTables(UnsafeCell::new(Tables { levels: [[0; 512]; 6] }));

const PRESENT_WRITABLE: u64 = 3;
const PAGE_2_MIB: u64 = 1 << 7;

/// Whether a real-mode round trip may change CR3: once the tables are built.
static IS_INSTALLED: AtomicBool = AtomicBool::new(false);

/// Copies the code down, builds GDT and page tables, and loads the GDT.
pub fn install() {
    let (start, end): (u64, u64);
    // SAFETY: takes the addresses of two symbols of this image.
    unsafe {
        asm!("lea {}, [rip + kdump_low]", "lea {}, [rip + kdump_low_end]", out(reg) start, out(reg) end, options(nomem, nostack, preserves_flags));
    }
    let len = ((end - start) as usize).min(at::RSP as usize);
    // SAFETY: conventional memory that the identity map holds and nobody owns; the code is shorter than the page.
    unsafe {
        core::ptr::write_bytes(LOW as *mut u8, 0, LOW_SIZE);
        core::ptr::copy_nonoverlapping(start as *const u8, LOW as *mut u8, len);
    }
    // SAFETY: called once, before the tables are loaded.
    let tables = unsafe { &mut *TABLES.0.get() };
    let base = TABLES.0.get() as u64;
    let [pml4, pdpt, directories @ ..] = &mut tables.levels;
    pml4[0] = (base + 0x1000) | PRESENT_WRITABLE;
    for (i, directory) in directories.iter_mut().enumerate() {
        pdpt[i] = (base + 0x2000 + 0x1000 * i as u64) | PRESENT_WRITABLE;
        for (j, entry) in directory.iter_mut().enumerate() {
            *entry = ((i as u64) << 30 | (j as u64) << 21) | PRESENT_WRITABLE | PAGE_2_MIB;
        }
    }
    write_u32(LOW + at::CR3, base as u32);
    for (i, entry) in GDT.iter().enumerate() {
        write_u32(LOW + at::GDT + 8 * i as u32, *entry as u32);
        write_u32(LOW + at::GDT + 8 * i as u32 + 4, (*entry >> 32) as u32);
    }
    for (pointer, limit, base) in
        [(at::GDT_POINTER, size_of_val(&GDT) as u32 - 1, LOW + at::GDT), (at::REAL_IDT_POINTER, 0x3ff, 0)]
    {
        write_u32(LOW + pointer, limit | base << 16);
        write_u32(LOW + pointer + 4, base >> 16);
    }
    let pointer = TablePointer { limit: size_of_val(&GDT) as u16 - 1, base: u64::from(LOW + at::GDT) };
    // SAFETY: the table holds flat descriptors at the selectors loaded; the far return goes on at the next
    // instruction.
    unsafe {
        asm!(
            "lgdt [{gdt}]",
            "mov ds, {data:x}", "mov es, {data:x}", "mov ss, {data:x}", "mov fs, {data:x}", "mov gs, {data:x}",
            "push {code}",
            "lea {scratch}, [rip + 2f]",
            "push {scratch}",
            "retfq",
            "2:",
            gdt = in(reg) &pointer,
            data = in(reg) u32::from(DATA),
            code = const CODE64,
            scratch = out(reg) _,
        )
    }
    IS_INSTALLED.store(true, Relaxed);
}

/// Reads low memory.
pub fn read_u32(address: u32) -> u32 {
    // SAFETY: the first 2 MiB are mapped, and reading them changes nothing.
    unsafe { (u64::from(address) as *const u32).read_unaligned() }
}

fn write_u32(address: u32, value: u32) {
    // SAFETY: called with addresses in the low page only, which is ours.
    unsafe { (u64::from(address) as *mut u32).write_unaligned(value) }
}

/// Goes down as far as `wanted`, and back. What was reached.
fn go(wanted: u32) -> u32 {
    if !IS_INSTALLED.load(Relaxed) {
        return 0;
    }
    write_u32(LOW + at::WANTED, wanted);
    write_u32(LOW + at::REACHED, 0);
    // SAFETY: the code was copied there, keeps the registers a function must, and comes back with a GDT whose
    // selectors are those in force and page tables that hold this image. Interrupts are off.
    unsafe {
        asm!("call {}", in(reg) u64::from(LOW), clobber_abi("C"));
    }
    descriptors::load_idt();
    read_u32(LOW + at::REACHED)
}

/// The step: 32-bit protected mode, paging off, and back on page tables of our own.
pub fn to_32_bit_and_back(probe: &mut Probe) {
    let reached = go(REACHED_32);
    probe.check(reached == REACHED_32, "paging was off and is on again");
}

/// The step: real mode and back, registers intact.
pub fn to_real_mode_and_back(probe: &mut Probe) {
    say!("  code at {h}, stack below {h}", LOW.into(), STACK_TOP.into());
    let call = Call { eax: 0x1234_5678, ebx: 2, ecx: 3, edx: 4, esi: 5, edi: 0xfedc_ba98, ..Call::new(0) };
    let answer = call.make();
    let came_through = (answer.eax, answer.ebx, answer.ecx, answer.edx, answer.esi, answer.edi)
        == (call.eax, call.ebx, call.ecx, call.edx, call.esi, call.edi);
    let reached = read_u32(LOW + at::REACHED);
    probe.check(reached == REACHED_32 | REACHED_REAL && came_through, "there and back, registers intact");
}

/// A software interrupt in real mode: registers before and after.
#[derive(Clone, Copy)]
pub struct Call {
    pub number: u8,
    pub eax: u32,
    pub ebx: u32,
    pub ecx: u32,
    pub edx: u32,
    pub esi: u32,
    pub edi: u32,
    pub eflags: u32,
}

impl Call {
    /// Interrupt `number` with all registers 0; 0 for none.
    pub const fn new(number: u8) -> Self {
        Self { number, eax: 0, ebx: 0, ecx: 0, edx: 0, esi: 0, edi: 0, eflags: 0 }
    }

    /// Makes it. Segments are 0.
    pub fn make(&self) -> Self {
        let instruction = if self.number == 0 { 0x9090 } else { 0x00cd | u32::from(self.number) << 8 };
        let at = LOW + at::INT;
        write_u32(at, read_u32(at) & 0xffff_0000 | instruction);
        for (i, value) in [self.eax, self.ebx, self.ecx, self.edx, self.esi, self.edi].into_iter().enumerate()
        {
            write_u32(LOW + at::IN + 4 * i as u32, value);
        }
        go(REACHED_REAL);
        let out = |i: u32| read_u32(LOW + at::OUT + 4 * i);
        Self {
            eax: out(0),
            ebx: out(1),
            ecx: out(2),
            edx: out(3),
            esi: out(4),
            edi: out(5),
            eflags: out(6),
            ..*self
        }
    }
}

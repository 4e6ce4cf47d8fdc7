//! Descriptor tables, and what an exception does: it is reported, then the policy is followed.
//!
//! Failures are counted, because whatever handles one may fail in its turn, on the same stack and for ever:
//! the first is reported, the second resets without a word, the third leaves everything to the CPU.
//!
//! Exceptions run on a stack of their own (IST 1), so a wrecked RSP can be reported too. NMIs have another
//! (IST 2) and are ignored: the crashed kernel's watchdogs may still send them.

// UNSAFETY: GDT, IDT and TSS are memory that the CPU reads behind the language's back, and loading them
// takes assembly.
#![expect(unsafe_code)]

use core::arch::{asm, global_asm};
use core::cell::UnsafeCell;
use core::mem::size_of;
use core::ops::Range;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use kdump_panic_kernel::line::Sink;
use kdump_panic_kernel::messages::{self, Exception, REGISTER_LINES};
use kdump_panic_kernel::verify::{Answer, REPORTED_FAILURES, RESET_FAILURES, after_exception, answer};

use crate::console::ActiveConsole;
use crate::entry::{CR0_EM_TS, CR0_MP, CR4_SSE};
use crate::{FALLBACK_CONSOLE, perform, provoke, reset_silently, state};

/// Exceptions the architecture defines or reserves.
const NR_VECTORS: usize = 32;
const VECTOR_NMI: usize = 2;

/// Distance between the stubs of two vectors.
const STUB_SIZE: u64 = 16;

/// Selectors the boot protocol asks for.
const CODE64: u16 = 0x10;
pub const DATA: u16 = 0x18;
const TSS: u16 = 0x20;

/// Flat descriptors, accessed bit set, in the order of the selectors: none, 32-bit code, 64-bit code, data.
const FLAT: [u64; 4] = [0, 0x00cf_9b00_0000_ffff, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff];

const TYPE_TSS_AVAILABLE: u64 = 0x89 << 40;
const TYPE_INTERRUPT_GATE: u64 = 0x8e << 40;

const IST_EXCEPTION: u64 = 1;
const IST_NMI: u64 = 2;

/// 64-bit task state segment, in words of 32 bits because its fields of 64 are misaligned.
///
/// Source: Intel SDM volume 3, figure 8-11.
const TSS_WORDS: usize = 26;
const TSS_WORD_IST1: usize = 9;
const TSS_IOMAP_BASE: u32 = (TSS_WORDS as u32 * 4) << 16;

#[repr(C, align(16))]
struct Tables {
    idt: [[u64; 2]; NR_VECTORS],
    gdt: [u64; 6],
    tss: [u32; TSS_WORDS],
}

struct SharedTables(UnsafeCell<Tables>);

// SAFETY: one CPU runs this program and only `install` touches the tables, once; later only the CPU does.
unsafe impl Sync for SharedTables {}

static TABLES: SharedTables =
    SharedTables(UnsafeCell::new(Tables { idt: [[0; 2]; NR_VECTORS], gdt: [0; 6], tss: [0; TSS_WORDS] }));

/// What LGDT and LIDT take.
#[repr(C, packed)]
struct TablePointer {
    limit: u16,
    base: u64,
}

global_asm!(
    ".pushsection .text.kdump_exception_stubs, \"ax\", @progbits",
    "    .balign 16",
    "kdump_exception_stubs:",
    ".set vector, 0",
    ".rept {nr_vectors}",
    "    .balign {stub_size}",
    "    .if vector == {nmi}",
    "    inc dword ptr [rip + {nr_nmis}]",
    "    iretq",
    "    .else",
    // Vectors with an error code: #DF, #TS, #NP, #SS, #GP, #PF, #AC, #CP, #VC, #SX. The others get a zero.
    "    .if ((0x60227d00 >> vector) & 1) == 0",
    "    push 0",
    "    .endif",
    // PUSH imm8: the assembler would take a symbol for a memory operand.
    "    .byte 0x6a, vector",
    "    jmp kdump_exception",
    "    .endif",
    "    .set vector, vector + 1",
    ".endr",
    // vector, error code, RIP, CS, RFLAGS, RSP, SS lie on the stack, and below them the general registers, in the order of the
    // record from the top. Nothing returns.
    "kdump_exception:",
    "    cld",
    "    push rax",
    "    push rbx",
    "    push rcx",
    "    push rdx",
    "    push rsi",
    "    push rdi",
    "    push rbp",
    "    push r8",
    "    push r9",
    "    push r10",
    "    push r11",
    "    push r12",
    "    push r13",
    "    push r14",
    "    push r15",
    // Counted before anything that could fault again. From the third on nothing of ours is trusted: an
    // exception without an IDT resets the CPU.
    "    inc dword ptr [rip + {nr_failures}]",
    "    cmp dword ptr [rip + {nr_failures}], {reset_failures}",
    "    jbe 2f",
    "    lidt [rip + kdump_no_idt]",
    "    int3",
    "2:",
    // A fault may come after CR4 was given back, or from a capture kernel that set its own.
    "    mov rax, cr0",
    "    and rax, ~{em_ts}",
    "    or rax, {mp}",
    "    mov cr0, rax",
    "    mov rax, cr4",
    "    or rax, {sse}",
    "    mov cr4, rax",
    "    mov rdi, rsp",
    "    mov rsi, cr2",
    "    and rsp, -16",
    "    cmp dword ptr [rip + {nr_failures}], {reported_failures}",
    "    ja 3f",
    "    call {report}",
    "3:",
    "    call {reset_silently}",
    "    ud2",
    ".popsection",
    ".pushsection .rodata.kdump_no_idt, \"a\", @progbits",
    "kdump_no_idt:",
    "    .skip 10",
    ".popsection",
    ".pushsection .bss.kdump_ist, \"aw\", @nobits",
    "    .balign 16",
    "    .skip 8192",
    "kdump_ist_exception:",
    "    .skip 256",
    "kdump_ist_nmi:",
    ".popsection",
    nr_vectors = const NR_VECTORS,
    stub_size = const STUB_SIZE,
    nmi = const VECTOR_NMI,
    nr_nmis = sym NR_NMIS,
    em_ts = const CR0_EM_TS,
    mp = const CR0_MP,
    sse = const CR4_SSE,
    nr_failures = sym NR_FAILURES,
    reported_failures = const REPORTED_FAILURES,
    reset_failures = const RESET_FAILURES,
    report = sym report,
    reset_silently = sym reset_silently,
);

/// What the stubs leave on the stack.
#[repr(C)]
struct Frame {
    /// R15 to R8, RBP, RDI, RSI, RDX, RCX, RBX, RAX.
    registers: [u64; 15],
    /// Vector, error code, RIP, CS, RFLAGS, RSP, SS.
    words: [u64; 7],
}

/// Builds the tables and loads them, with flat segments and the selectors of the boot protocol.
pub fn install(image: Range<u64>) {
    IMAGE_START.store(image.start, Relaxed);
    IMAGE_END.store(image.end, Relaxed);

    let (stubs, ist_exception, ist_nmi): (u64, u64, u64);
    // SAFETY: takes the addresses of three symbols of this image.
    unsafe {
        asm!(
            "lea {}, [rip + kdump_exception_stubs]",
            "lea {}, [rip + kdump_ist_exception]",
            "lea {}, [rip + kdump_ist_nmi]",
            out(reg) stubs,
            out(reg) ist_exception,
            out(reg) ist_nmi,
            options(nomem, nostack, preserves_flags),
        )
    }

    // SAFETY: called once, before anything else looks at the tables; see `SharedTables`.
    let tables = unsafe { &mut *TABLES.0.get() };
    // Constant places: a check of bounds here would bring formatting code along.
    tables.tss[TSS_WORD_IST1] = ist_exception as u32;
    tables.tss[TSS_WORD_IST1 + 1] = (ist_exception >> 32) as u32;
    tables.tss[TSS_WORD_IST1 + 2] = ist_nmi as u32;
    tables.tss[TSS_WORD_IST1 + 3] = (ist_nmi >> 32) as u32;
    tables.tss[TSS_WORDS - 1] = TSS_IOMAP_BASE;
    tables.gdt[..4].copy_from_slice(&FLAT);
    let tss = tables.tss.as_ptr() as u64;
    tables.gdt[4] = tss_descriptor_low(tss, size_of::<[u32; TSS_WORDS]>() as u64 - 1);
    tables.gdt[5] = tss >> 32;
    for (vector, gate) in tables.idt.iter_mut().enumerate() {
        let ist = if vector == VECTOR_NMI { IST_NMI } else { IST_EXCEPTION };
        *gate = interrupt_gate(stubs + STUB_SIZE * vector as u64, ist);
    }

    let gdt = TablePointer { limit: size_of::<[u64; 6]>() as u16 - 1, base: tables.gdt.as_ptr() as u64 };
    let idt =
        TablePointer { limit: size_of::<[[u64; 2]; 32]>() as u16 - 1, base: tables.idt.as_ptr() as u64 };
    // SAFETY: the tables are static and hold what the selectors loaded here name: 0x10 64-bit code, 0x18 data,
    // 0x20 an available TSS. Flat descriptors equal the cached ones in force, so no address changes meaning;
    // the far return goes on at the next instruction.
    unsafe {
        asm!(
            "lgdt [{gdt}]",
            "mov ds, {data:x}",
            "mov es, {data:x}",
            "mov ss, {data:x}",
            "mov fs, {data:x}",
            "mov gs, {data:x}",
            "push {code}",
            "lea {scratch}, [rip + 2f]",
            "push {scratch}",
            "retfq",
            "2:",
            "ltr {tss:x}",
            "lidt [{idt}]",
            gdt = in(reg) &gdt,
            idt = in(reg) &idt,
            data = in(reg) u32::from(DATA),
            tss = in(reg) u32::from(TSS),
            code = const CODE64,
            scratch = out(reg) _,
            options(preserves_flags),
        )
    }
}

fn tss_descriptor_low(base: u64, limit: u64) -> u64 {
    limit | (base & 0xff_ffff) << 16 | TYPE_TSS_AVAILABLE | (base >> 24 & 0xff) << 56
}

fn interrupt_gate(handler: u64, ist: u64) -> [u64; 2] {
    let low = handler & 0xffff
        | u64::from(CODE64) << 16
        | ist << 32
        | TYPE_INTERRUPT_GATE
        | (handler >> 16 & 0xffff) << 48;
    [low, handler >> 32]
}

// Atomic only to be safe statics; there is one CPU.
static IMAGE_START: AtomicU64 = AtomicU64::new(0);
static IMAGE_END: AtomicU64 = AtomicU64::new(0);
/// Exceptions and bugs so far, this one included.
static NR_FAILURES: AtomicU32 = AtomicU32::new(0);
static NR_NMIS: AtomicU32 = AtomicU32::new(0);

/// Forgets the failures so far, for the jump: one that the policy overrode has been dealt with, and one of the
/// capture kernel is another, and to be reported. That cannot go on for ever: after the jump none leads to a jump.
pub fn forget() {
    NR_FAILURES.store(0, Relaxed);
}

/// NMIs that came and were ignored.
pub fn nr_nmis() -> u32 {
    NR_NMIS.load(Relaxed)
}

/// Counts a bug, as the stubs count exceptions, and tells what is left to do about it.
pub fn count_bug() -> Answer {
    answer(NR_FAILURES.fetch_add(1, Relaxed).saturating_add(1))
}

/// Reports the first failure. The stubs see to it that no later one comes here.
extern "C" fn report(frame: &Frame, cr2: u64) -> ! {
    let mut exception: Exception = [0; _];
    let general = frame.registers.iter().rev();
    for (slot, &word) in exception.iter_mut().zip(frame.words.iter().chain([&cr2]).chain(general)) {
        *slot = word;
    }
    state::record().exception(&exception);
    let mut console = ActiveConsole::resume(FALLBACK_CONSOLE);
    let image = IMAGE_START.load(Relaxed)..IMAGE_END.load(Relaxed);
    console.line(&messages::exception(&exception, image));
    provoke::in_report();
    for which in &REGISTER_LINES {
        console.line(&messages::registers(&exception, which));
    }
    perform(after_exception(state::stage(), state::handoff()), &mut console)
}

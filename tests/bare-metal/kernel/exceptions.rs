//! The exceptions: an undefined instruction in an armed kernel is its panic, all else ends the run as failed.

// UNSAFETY: the descriptor table is read by the CPU.
#![expect(unsafe_code)]

use core::arch::{asm, global_asm};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bare_metal_platform::mode::CODE64;
use bare_metal_platform::say;

use crate::case::Control;
use crate::crossing::{self, Paging};
use crate::fail;

const NR_VECTORS: usize = 32;
const VECTOR_UNDEFINED: u64 = 6;
const STUB_SIZE: u64 = 16;
const INTERRUPT_GATE: u64 = 0x8e << 40;

struct Idt(UnsafeCell<[[u64; 2]; NR_VECTORS]>);

// SAFETY: there is one CPU; only `install` writes, the CPU reads.
unsafe impl Sync for Idt {}

static IDT: Idt = Idt(UnsafeCell::new([[0; 2]; NR_VECTORS]));

/// Address of the control page; 0 if there is none yet.
static CONTROL_PAGE: AtomicU64 = AtomicU64::new(0);
/// How it is entered, as [`arm`] encodes it.
static WAY_IN: AtomicU64 = AtomicU64::new(0);

global_asm!(
    ".pushsection .text.exceptions, \"ax\", @progbits",
    "    .balign 16",
    "kernel_stubs:",
    ".set vector, 0",
    ".rept {nr_vectors}",
    "    .balign {stub_size}",
    // Vectors with an error code; the others get a zero.
    "    .if ((0x60227d00 >> vector) & 1) == 0",
    "    push 0",
    "    .endif",
    // PUSH imm8: the assembler would take a symbol for a memory operand.
    "    .byte 0x6a, vector",
    "    jmp kernel_exception",
    "    .set vector, vector + 1",
    ".endr",
    "kernel_exception:",
    "    pop rdi",
    "    pop rsi",
    "    pop rdx",
    "    and rsp, -16",
    "    call {exception}",
    ".popsection",
    nr_vectors = const NR_VECTORS,
    stub_size = const STUB_SIZE,
    exception = sym exception,
);

unsafe extern "C" {
    safe static kernel_stubs: [u8; 0];
}

extern "C" fn exception(vector: u64, error: u64, rip: u64) -> ! {
    let page = CONTROL_PAGE.load(Relaxed);
    if vector != VECTOR_UNDEFINED || page == 0 {
        say!("kernel: exception {vector}, error {error:#x}, at {rip:#x}");
        fail("an exception nobody asked for");
    }
    CONTROL_PAGE.store(0, Relaxed);
    say!("kernel: panic: exception {vector} at {rip:#x}, to the control page at {page:#x}");
    match WAY_IN.load(Relaxed) {
        0 => crossing::enter_64(page),
        1 => crossing::enter_32(page, Paging::Pae),
        2 => crossing::enter_32(page, Paging::Pse),
        _ => crossing::enter_32(page, Paging::Off),
    }
}

/// Loads the table.
pub fn install() {
    let stubs = kernel_stubs.as_ptr() as u64;
    let gates: [[u64; 2]; NR_VECTORS] = core::array::from_fn(|vector| {
        let at = stubs + vector as u64 * STUB_SIZE;
        [at & 0xffff | u64::from(CODE64) << 16 | INTERRUPT_GATE | (at >> 16 & 0xffff) << 48, at >> 32]
    });
    // SAFETY: one CPU, and no exception is wanted while the table is written.
    unsafe { *IDT.0.get() = gates };
    let base = base();
    let pointer: [u16; 5] =
        [size_of_val(&gates) as u16 - 1, base as u16, (base >> 16) as u16, (base >> 32) as u16, 0];
    // SAFETY: the pointer is 10 readable bytes: the limit and the address of a static table of gates.
    unsafe { asm!("lidt [{}]", in(reg) &pointer, options(nostack, preserves_flags)) }
}

/// Address of the table.
pub fn base() -> u64 {
    IDT.0.get() as u64
}

/// Has the next undefined instruction enter the control page.
pub fn arm(control_page: u64, control: Control) {
    let way_in = match control {
        Control::X86_64 => 0,
        Control::I386(Paging::Pae) => 1,
        Control::I386(Paging::Pse) => 2,
        Control::I386(Paging::Off) => 3,
    };
    WAY_IN.store(way_in, Relaxed);
    CONTROL_PAGE.store(control_page, Relaxed);
}

/// The crash.
pub fn undefined_instruction() -> ! {
    // SAFETY: raises #UD, which has a handler that does not return.
    unsafe { asm!("ud2", options(noreturn)) }
}

//! Descriptor tables: those found, our own IDT, and exceptions that are expected.

// UNSAFETY: the IDT is memory that the CPU reads behind the language's back; the rest takes assembly.
#![expect(unsafe_code)]

use core::arch::{asm, global_asm};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::low::CODE64;
use crate::output::{self, Probe, say};
use crate::{cpu, entry};

const NR_VECTORS: usize = 32;
const STUB_SIZE: u64 = 16;
const TYPE_INTERRUPT_GATE: u64 = 0x8e << 40;
/// Entries of a GDT that are printed.
const MAX_SHOWN: u64 = 16;

struct Idt(UnsafeCell<[[u64; 2]; NR_VECTORS]>);

// SAFETY: one CPU runs this program, and only `install` writes the table.
unsafe impl Sync for Idt {}

static IDT: Idt = Idt(UnsafeCell::new([[0; 2]; NR_VECTORS]));

/// Where an expected exception goes on, 0 if none is expected; and the vector that came.
static EXPECTED: AtomicU64 = AtomicU64::new(0);
static CAUGHT: AtomicU64 = AtomicU64::new(u64::MAX);

global_asm!(
    ".pushsection .text.kdump_probe_stubs, \"ax\", @progbits",
    "    .balign 16",
    "kdump_probe_stubs:",
    ".set vector, 0",
    ".rept {nr_vectors}",
    "    .balign {stub_size}",
    // Vectors with an error code; the others get a zero.
    "    .if ((0x60227d00 >> vector) & 1) == 0",
    "    push 0",
    "    .endif",
    "    .byte 0x6a, vector",
    "    jmp kdump_probe_exception",
    "    .set vector, vector + 1",
    ".endr",
    "kdump_probe_exception:",
    "    push rax",
    "    push rcx",
    "    push rdx",
    "    push rsi",
    "    push rdi",
    "    push r8",
    "    push r9",
    "    push r10",
    "    push r11",
    "    push rbp",
    "    mov rbp, rsp",
    "    lea rdi, [rsp + 10 * 8]",
    "    and rsp, -16",
    "    call {caught}",
    "    mov rsp, rbp",
    "    pop rbp",
    "    pop r11",
    "    pop r10",
    "    pop r9",
    "    pop r8",
    "    pop rdi",
    "    pop rsi",
    "    pop rdx",
    "    pop rcx",
    "    pop rax",
    "    add rsp, 16",
    "    iretq",
    ".popsection",
    nr_vectors = const NR_VECTORS,
    stub_size = const STUB_SIZE,
    caught = sym caught,
);

/// What lies on the stack above the saved registers.
#[repr(C)]
struct Frame {
    vector: u64,
    error_code: u64,
    rip: u64,
}

/// An exception: an expected one goes on elsewhere, an NMI where it came, any other is the end.
extern "C" fn caught(frame: &mut Frame) {
    const NMI: u64 = 2;
    if frame.vector == NMI {
        return;
    }
    let expected = EXPECTED.swap(0, Relaxed);
    if expected != 0 {
        CAUGHT.store(frame.vector, Relaxed);
        frame.rip = expected;
        return;
    }
    say!(
        "EXCEPTION vector {d} error {h} rip {h} (image+{h})",
        frame.vector,
        frame.error_code,
        frame.rip,
        frame.rip.wrapping_sub(entry::image())
    );
    output::drain();
    cpu::reset()
}

/// What LGDT, LIDT, SGDT and SIDT take.
#[repr(C, packed)]
#[derive(Clone, Copy, Default)]
pub struct TablePointer {
    pub limit: u16,
    pub base: u64,
}

/// Loads our IDT. Its gates name the code segment of the low GDT, which must be loaded.
pub fn install() {
    let stubs: u64;
    // SAFETY: takes the address of a symbol of this image.
    unsafe {
        asm!("lea {}, [rip + kdump_probe_stubs]", out(reg) stubs, options(nomem, nostack, preserves_flags))
    }
    // SAFETY: called once, before the table is loaded.
    let idt = unsafe { &mut *IDT.0.get() };
    for (vector, gate) in idt.iter_mut().enumerate() {
        let handler = stubs + STUB_SIZE * vector as u64;
        let low =
            handler & 0xffff | u64::from(CODE64) << 16 | TYPE_INTERRUPT_GATE | (handler >> 16 & 0xffff) << 48;
        *gate = [low, handler >> 32];
    }
    load_idt();
}

/// Loads it again, after the real mode had its own.
pub fn load_idt() {
    let pointer = TablePointer { limit: (NR_VECTORS * 16 - 1) as u16, base: IDT.0.get() as u64 };
    // SAFETY: the table is static and filled.
    unsafe { asm!("lidt [{}]", in(reg) &pointer, options(readonly, nostack, preserves_flags)) }
}

/// Runs `int3` and `ud2`, and goes on behind each.
pub fn provoke(probe: &mut Probe) {
    let mut vectors = [u64::MAX; 2];
    for (vector, is_ud2) in vectors.iter_mut().zip([false, true]) {
        // SAFETY: the handler goes on at the label; no register is changed on the way.
        unsafe {
            asm!(
                "lea {at}, [rip + 3f]",
                "mov [{expected}], {at}",
                "test {is_ud2}, {is_ud2}",
                "jnz 2f",
                "int3",
                "2: ud2",
                "3:",
                at = out(reg) _,
                expected = in(reg) EXPECTED.as_ptr(),
                is_ud2 = in(reg) u64::from(is_ud2),
            )
        }
        *vector = CAUGHT.swap(u64::MAX, Relaxed);
    }
    probe.check(vectors == [3, 6], "int3 and ud2 caught and returned from");
}

/// Reads 8 bytes that may not be mapped.
fn read_carefully(address: u64) -> Option<u64> {
    let value: u64;
    // SAFETY: a fault goes on at the label, with the value as it was; reading memory changes nothing.
    unsafe {
        asm!(
            "lea {at}, [rip + 2f]",
            "mov [{expected}], {at}",
            "mov {value}, [{address}]",
            "2:",
            at = out(reg) _,
            expected = in(reg) EXPECTED.as_ptr(),
            address = in(reg) address,
            value = inout(reg) 0u64 => value,
        )
    }
    EXPECTED.store(0, Relaxed);
    (CAUGHT.swap(u64::MAX, Relaxed) == u64::MAX).then_some(value)
}

/// Segment registers and descriptor table registers as they were found.
pub struct Found {
    segments: [u64; 8],
    gdt: TablePointer,
    idt: TablePointer,
}

impl Found {
    /// Reads them.
    pub fn read() -> Self {
        let (mut gdt, mut idt) = (TablePointer::default(), TablePointer::default());
        let mut segments = [0u64; 8];
        let [cs, ds, es, ss, fs, gs, tr, ldtr] = &mut segments;
        // SAFETY: reads registers at CPL 0, the tables' into 10 bytes each.
        unsafe {
            asm!(
                "sgdt [{}]", "sidt [{}]",
                in(reg) &raw mut gdt, in(reg) &raw mut idt, options(nostack, preserves_flags)
            );
        }
        // SAFETY: reads segment registers.
        unsafe {
            asm!(
                "mov {}, cs",
                "mov {}, ds",
                "mov {}, es",
                "mov {}, ss",
                out(reg) * cs,
                out(reg) * ds,
                out(reg) * es,
                out(reg) * ss,
                options(nomem, nostack, preserves_flags)
            );
        }
        // SAFETY: as above.
        unsafe {
            asm!(
                "mov {}, fs",
                "mov {}, gs",
                "str {}",
                "sldt {}",
                out(reg) * fs,
                out(reg) * gs,
                out(reg) * tr,
                out(reg) * ldtr,
                options(nomem, nostack, preserves_flags)
            );
        }
        Self { segments, gdt, idt }
    }

    /// Prints them.
    pub fn print(&self) {
        let [cs, ds, es, ss, fs, gs, tr, ldtr] = self.segments;
        say!("  cs {h} ds {h} es {h} ss {h} fs {h} gs {h} tr {h} ldtr {h}", cs, ds, es, ss, fs, gs, tr, ldtr);
        let (gdt, idt) = (self.gdt, self.idt);
        say!("  gdt base {h} limit {h}", gdt.base, u64::from(gdt.limit));
        say!("  idt base {h} limit {h}", idt.base, u64::from(idt.limit));
    }

    /// Prints the GDT that was in force, where it can still be read.
    pub fn print_entries(&self, probe: &mut Probe) {
        let gdt = self.gdt;
        if gdt.limit < 7 {
            return probe.pass("there is none");
        }
        let nr = (u64::from(gdt.limit) + 1) / 8;
        for i in 0..nr.min(MAX_SHOWN) {
            match read_carefully(gdt.base.wrapping_add(8 * i)) {
                Some(entry) => say!("  entry {h}: {h}", 8 * i, entry),
                None => return probe.pass("not mapped any more"),
            }
        }
        probe.pass("printed");
    }
}

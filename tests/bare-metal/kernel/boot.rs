//! The entry from QEMU, and the one that the payload comes back through.

// UNSAFETY: assembly, and the loader's structures in low memory.
#![expect(unsafe_code)]

use core::arch::global_asm;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

const XEN_ELFNOTE_PHYS32_ENTRY: u32 = 18;
/// `struct hvm_start_info`: magic, and where the command line's address stands.
const START_INFO_MAGIC: u32 = 0x336e_c578;
const START_INFO_CMDLINE: u64 = 0x18;
const MAX_COMMAND_LINE: usize = 256;

/// Address of `struct hvm_start_info`, from EBX at entry.
static START_INFO: AtomicU32 = AtomicU32::new(0);

global_asm!(
    ".pushsection .note.Xen, \"a\", @note",
    "    .balign 4",
    "    .long 4, 8, {phys32_entry}",
    "    .asciz \"Xen\"",
    "    .quad kernel_entry",
    ".popsection",
    ".pushsection .text.entry, \"ax\", @progbits",
    ".global kernel_entry",
    "kernel_entry:",
    // 32-bit protected mode, flat, paging off, EBX: start info.
    ".code32",
    "    cli",
    "    cld",
    "    mov [{start_info}], ebx",
    "    mov edi, offset {run}",
    "    jmp platform_enter_64",
    ".code64",
    ".global kernel_resume",
    "kernel_resume:",
    "    mov rdi, offset {run}",
    "    jmp platform_set_up",
    ".popsection",
    phys32_entry = const XEN_ELFNOTE_PHYS32_ENTRY,
    start_info = sym START_INFO,
    run = sym run,
);

unsafe extern "C" {
    fn kernel_resume();
}

extern "C" fn run() -> ! {
    crate::run()
}

/// Address at which the next case begins.
pub fn resume_address() -> u64 {
    kernel_resume as *const () as u64
}

/// What followed `-append`.
pub fn command_line() -> &'static str {
    let start_info = u64::from(START_INFO.load(Relaxed));
    // SAFETY: the PVH entry has its address in EBX; it is aligned, in low memory, and nothing here writes there.
    let magic = unsafe { (start_info as *const u32).read() };
    assert!(magic == START_INFO_MAGIC, "EBX pointed at {magic:#x}, which is no start info");
    // SAFETY: the structure is what its magic says.
    let address = unsafe { ((start_info + START_INFO_CMDLINE) as *const u64).read() };
    assert!(address != 0, "there is no command line");
    // SAFETY: QEMU puts it into low memory too, and nothing writes there.
    let line = unsafe { &*(address as *const [u8; MAX_COMMAND_LINE]) };
    let end = line.iter().position(|&byte| byte == 0).expect("a zero ends the command line");
    core::str::from_utf8(&line[..end]).expect("the command line is ASCII")
}

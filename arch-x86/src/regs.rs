//! Register sets in the orders the kernel stores them.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// `struct pt_regs`: what entry code pushes.
///
/// On FRED the upper bits of the `cs` and `ss` slots carry event data; use [`PtRegs::is_user`].
///
/// Source: arch/x86/include/asm/ptrace.h, `struct pt_regs`.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Default,
)]
#[repr(C)]
#[doc(alias = "pt_regs")]
#[allow(missing_docs)] // the register names say it
pub struct PtRegs {
    pub r15: U64,
    pub r14: U64,
    pub r13: U64,
    pub r12: U64,
    pub bp: U64,
    pub bx: U64,
    pub r11: U64,
    pub r10: U64,
    pub r9: U64,
    pub r8: U64,
    pub ax: U64,
    pub cx: U64,
    pub dx: U64,
    pub si: U64,
    pub di: U64,
    pub orig_ax: U64,
    pub ip: U64,
    pub cs: U64,
    pub flags: U64,
    pub sp: U64,
    pub ss: U64,
}
const _: () = assert!(size_of::<PtRegs>() == 168);
const _: () = assert!(core::mem::offset_of!(PtRegs, ip) == 128);
const _: () = assert!(core::mem::offset_of!(PtRegs, sp) == 152);

impl PtRegs {
    /// Whether the registers were saved on entry from user mode.
    #[must_use]
    pub fn is_user(&self) -> bool {
        self.cs.get() & 3 != 0
    }
}

/// `struct user_regs_struct`: the `pr_reg` array of an NT_PRSTATUS note, 27 registers.
///
/// Source: arch/x86/include/asm/user_64.h; arch/x86/include/asm/elf.h, `ELF_CORE_COPY_REGS`.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Default,
)]
#[repr(C)]
#[allow(missing_docs)]
pub struct UserRegs {
    pub regs: PtRegs,
    pub fs_base: U64,
    /// In the kernel's notes the *inactive* (user) GS base, not the per-CPU base.
    pub gs_base: U64,
    pub ds: U64,
    pub es: U64,
    pub fs: U64,
    pub gs: U64,
}
const _: () = assert!(size_of::<UserRegs>() == 27 * 8);

/// `struct elf_prstatus`: descriptor of an NT_PRSTATUS note.
///
/// Source: include/linux/elfcore.h, `struct elf_prstatus`; unchanged 5.10 to 7.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[doc(alias = "elf_prstatus")]
#[allow(missing_docs)]
pub struct ElfPrstatus {
    pub si_signo: U32,   // 0
    pub si_code: U32,    // 4
    pub si_errno: U32,   // 8
    pub pr_cursig: U16,  // 12
    pub pad: U16,        // 14
    pub pr_sigpend: U64, // 16
    pub pr_sighold: U64, // 24
    /// Thread id of the CPU's current task; 0 is an idle task.
    pub pr_pid: U32, // 32
    pub pr_ppid: U32,    // 36
    pub pr_pgrp: U32,    // 40
    pub pr_sid: U32,     // 44
    pub pr_times: [[U64; 2]; 4], // 48
    pub pr_reg: UserRegs, // 112
    pub pr_fpvalid: U32, // 328
    pub pad2: U32,       // 332
}
const _: () = assert!(size_of::<ElfPrstatus>() == 336);
const _: () = assert!(core::mem::offset_of!(ElfPrstatus, pr_pid) == 32);
const _: () = assert!(core::mem::offset_of!(ElfPrstatus, pr_reg) == 112);
const _: () = assert!(core::mem::offset_of!(ElfPrstatus, pr_fpvalid) == 328);

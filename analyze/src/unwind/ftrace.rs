//! Copies of ftrace's entry code: generated text that the ORC tables know under another address.
//!
//! Each tracer may have its own copy of `ftrace_caller`, or of `ftrace_regs_caller`, in module space.
//! The tables hold for a copy what they hold for the original.
//!
//! Source: arch/x86/kernel/unwind_orc.c, `orc_ftrace_find`; arch/x86/kernel/ftrace.c,
//! `create_trampoline`; include/linux/ftrace.h, `struct ftrace_ops`.

use std::ops::Range;

use kdump_arch_x86::PAGE_SIZE;

use crate::kernel::{Gap, Kernel};

/// More tracers than are ever registered.
const MAX_OPS: usize = 4096;
/// `FTRACE_OPS_FL_SAVE_REGS`, where BTF does not tell.
const SAVE_REGS: u64 = 1 << 2;

/// A copy and the address of what was copied.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Copy {
    /// Where the copy is.
    pub range: Range<u64>,
    /// Where the original is.
    pub original: u64,
}

/// Reads the list of tracers. It ends early, without an error, where it cannot be read.
///
/// # Errors
/// If the kernel has no function tracer, or its types are unknown.
pub fn read_copies(kernel: &Kernel<'_>) -> Result<Vec<Copy>, Gap> {
    let list = kernel.symbol("ftrace_ops_list")?;
    let end = kernel.symbol("ftrace_list_end")?;
    let (caller, regs_caller) = (kernel.symbol("ftrace_caller")?, kernel.symbol("ftrace_regs_caller")?);
    let offset = |member| kernel.offset("ftrace_ops", member);
    let (next, flags) = (offset("next")?, offset("flags")?);
    let (start, size) = (offset("trampoline")?, offset("trampoline_size")?);
    let save_regs = kernel.btf.as_ref().and_then(|b| b.enumerator("FTRACE_OPS_FL_SAVE_REGS"));
    let save_regs = save_regs.map_or(SAVE_REGS, |f| f as u64);

    let mut copies = Vec::new();
    let mut ops = kernel.mem.read_ptr(list)?;
    for _ in 0..MAX_OPS {
        if ops == end || ops.0 == 0 {
            break;
        }
        let word = |at| kernel.mem.read_u64(ops.wrapping_add(at));
        let (Ok(flags), Ok(start), Ok(size), Ok(following)) =
            (word(flags), word(start), word(size), word(next))
        else {
            break;
        };
        if start != 0 && size <= PAGE_SIZE {
            let original = if flags & save_regs == 0 { caller } else { regs_caller };
            copies.push(Copy { range: start..start.saturating_add(size), original: original.0 });
        }
        ops = following.into();
    }
    Ok(copies)
}

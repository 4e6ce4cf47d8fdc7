//! One step by an ORC entry: from a frame to its caller. Pure: memory comes in as a function.
//!
//! Source: arch/x86/kernel/unwind_orc.c, `unwind_next_frame`.

use kdump_arch_x86::VirtAddr;
use kdump_arch_x86::regs::PtRegs;

use super::frame::Why;
use super::orc::{Entry, Kind, Reg};

/// What is known of the machine while it is in one frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cursor {
    /// Instruction pointer.
    pub ip: u64,
    /// Stack pointer.
    pub sp: u64,
    /// Frame pointer register, whatever it is used for. After a scan it is that of the frame below.
    pub bp: u64,
    /// All registers, if they were saved in this frame.
    pub regs: Option<PtRegs>,
    /// Whether `ip` is exact, not a return address.
    pub signal: bool,
}

impl Cursor {
    /// The state that a full set of saved registers describes.
    #[must_use]
    pub fn from_regs(regs: PtRegs) -> Self {
        Self { ip: regs.ip.get(), sp: regs.sp.get(), bp: regs.bp.get(), regs: Some(regs), signal: true }
    }

    /// The address to look up in tables: inside the call for a return address.
    #[must_use]
    pub const fn lookup_ip(&self) -> u64 {
        if self.signal { self.ip } else { self.ip.wrapping_sub(1) }
    }
}

/// What a rung of the ladder finds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// The caller, or what was interrupted.
    Caller(Cursor),
    /// User mode: there is no caller in the kernel.
    User {
        /// User instruction pointer.
        ip: u64,
        /// User stack pointer.
        sp: u64,
        /// The registers, if all were saved.
        regs: Option<PtRegs>,
    },
    /// There is no caller.
    End,
}

/// Reads a word of a stack; it fails for what is on no stack that may be read in this frame.
pub type ReadWord<'a> = dyn Fn(u64) -> Result<u64, Why> + 'a;

/// The null pointer called: the caller's address is all that is on the stack yet.
pub const NULL_ENTRY: Entry = Entry {
    sp_offset: 8,
    bp_offset: 0,
    sp_reg: Reg::Sp,
    bp_reg: Reg::Undefined,
    kind: Kind::Call,
    signal: false,
};

/// How SP_INDIRECT counts its offset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SpIndirect {
    /// Before 5.12: to the address read from.
    BeforeRead,
    /// From 5.12: to the value read.
    AfterRead,
}

/// Steps to the caller by `entry`.
///
/// # Errors
/// If the entry knows no caller, needs a register that is lost, or memory that `read` refuses.
pub fn orc_step(
    cursor: &Cursor,
    entry: &Entry,
    indirect: SpIndirect,
    read: &ReadWord<'_>,
) -> Result<Found, Why> {
    match entry.kind {
        Kind::EndOfStack => return Ok(Found::End),
        Kind::Undefined | Kind::Unknown(_) => return Err(Why::Undefined(VirtAddr(cursor.lookup_ip()))),
        Kind::Call | Kind::Regs | Kind::RegsPartial => {}
    }
    let prev_sp = prev_sp(cursor, entry, indirect, read)?;
    let mut caller = match entry.kind {
        Kind::Regs => {
            let regs = read_pt_regs(prev_sp, read)?;
            if regs.is_user() {
                return Ok(Found::User { ip: regs.ip.get(), sp: regs.sp.get(), regs: Some(regs) });
            }
            // The frame pointer is set below, by the entry's rule.
            Cursor { bp: cursor.bp, ..Cursor::from_regs(regs) }
        }
        Kind::RegsPartial => {
            let word = |i: u64| read(prev_sp.wrapping_add(i * 8));
            let (ip, cs, sp) = (word(0)?, word(1)?, word(3)?);
            if cs & 3 != 0 {
                return Ok(Found::User { ip, sp, regs: None });
            }
            // The other registers are still those saved before, if any were.
            Cursor { ip, sp, signal: true, ..*cursor }
        }
        _ => {
            let ip = read(prev_sp.wrapping_sub(8))?;
            Cursor { ip, sp: prev_sp, bp: cursor.bp, regs: None, signal: false }
        }
    };
    let offset = i64::from(entry.bp_offset);
    caller.bp = match entry.bp_reg {
        Reg::Undefined => caller.regs.map_or(cursor.bp, |r| r.bp.get()),
        Reg::PrevSp => read(prev_sp.wrapping_add_signed(offset))?,
        Reg::Bp => read(cursor.bp.wrapping_add_signed(offset))?,
        _ => return Err(Why::Undefined(VirtAddr(cursor.lookup_ip()))),
    };
    caller.signal = entry.signal;
    Ok(Found::Caller(caller))
}

/// The caller's stack pointer, or the address of the saved registers.
fn prev_sp(cursor: &Cursor, entry: &Entry, indirect: SpIndirect, read: &ReadWord<'_>) -> Result<u64, Why> {
    let offset = i64::from(entry.sp_offset);
    let saved = |name, get: fn(&PtRegs) -> u64| cursor.regs.as_ref().map(get).ok_or(Why::RegisterLost(name));
    match entry.sp_reg {
        Reg::Sp => Ok(cursor.sp.wrapping_add_signed(offset)),
        Reg::Bp => Ok(cursor.bp.wrapping_add_signed(offset)),
        Reg::SpIndirect => match indirect {
            SpIndirect::BeforeRead => read(cursor.sp.wrapping_add_signed(offset)),
            SpIndirect::AfterRead => Ok(read(cursor.sp)?.wrapping_add_signed(offset)),
        },
        Reg::BpIndirect => read(cursor.bp.wrapping_add_signed(offset)),
        // These are set where the register holds the very address; the offset is not used.
        Reg::Ax => saved("ax", |r| r.ax.get()),
        Reg::Dx => saved("dx", |r| r.dx.get()),
        Reg::Di => saved("di", |r| r.di.get()),
        Reg::R10 => saved("r10", |r| r.r10.get()),
        Reg::R13 => saved("r13", |r| r.r13.get()),
        Reg::Undefined | Reg::PrevSp | Reg::Unknown(_) => Err(Why::Undefined(VirtAddr(cursor.lookup_ip()))),
    }
}

/// Reads a `struct pt_regs` word by word.
///
/// # Errors
/// What `read` gave.
pub fn read_pt_regs(at: u64, read: &ReadWord<'_>) -> Result<PtRegs, Why> {
    let mut regs = PtRegs::default();
    let fields = [
        &mut regs.r15,
        &mut regs.r14,
        &mut regs.r13,
        &mut regs.r12,
        &mut regs.bp,
        &mut regs.bx,
        &mut regs.r11,
        &mut regs.r10,
        &mut regs.r9,
        &mut regs.r8,
        &mut regs.ax,
        &mut regs.cx,
        &mut regs.dx,
        &mut regs.si,
        &mut regs.di,
        &mut regs.orig_ax,
        &mut regs.ip,
        &mut regs.cs,
        &mut regs.flags,
        &mut regs.sp,
        &mut regs.ss,
    ];
    for (i, field) in fields.into_iter().enumerate() {
        field.set(read(at.wrapping_add(i as u64 * 8))?);
    }
    Ok(regs)
}

#[cfg(test)]
mod tests;

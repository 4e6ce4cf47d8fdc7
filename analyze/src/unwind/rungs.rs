//! The rungs of the ladder: three ways from a frame to its caller, one shape.
//!
//! Each gives what it found, unchecked against the rules for stacks (those are [`Walk::admit`]'s),
//! or says why it found nothing.
//!
//! Source: arch/x86/kernel/unwind_orc.c, unwind_frame.c, unwind_guess.c.

use kdump_arch_x86::VirtAddr;
use kdump_vmcore::mem::page_pieces;

use super::frame::{Trust, Why};
use super::stack::Kind;
use super::step::{Cursor, Found, NULL_ENTRY, SpIndirect, orc_step, read_pt_regs};
use super::text::{Place, direct_call_target};
use super::walk::{Ladder, Walk};

/// One rung.
pub type Rung = fn(&Walk<'_>, &Cursor) -> Result<Found, Why>;

/// All of them, the most trusted first.
pub const LADDER: [(Trust, Rung); 3] =
    [(Trust::Orc, by_orc), (Trust::FramePointer, by_frame_pointer), (Trust::Scan, by_scan)];

/// Bytes in which a scan looks for the one address it can be sure of before it takes the first that
/// is possible. Few frames are larger; further out, an earlier call of the same function may have
/// left its trace.
const SURE_WINDOW: u64 = 1024;
/// Bytes of `struct pt_regs`.
const PT_REGS_SIZE: u64 = 168;

/// By the kernel's tables.
fn by_orc(walk: &Walk<'_>, cursor: &Cursor) -> Result<Found, Why> {
    let ladder = walk.ladder;
    let read = |at| walk.read(at);
    let indirect = ladder.tables.as_ref().map_or(SpIndirect::AfterRead, |t| t.indirect);
    if cursor.signal && ladder.text.place(cursor.ip).is_none() {
        // A call to nowhere. The kernel handles a null pointer so; for any other address the word
        // on top of the stack has to look like the return address that it would be.
        let top = walk.read(cursor.sp)?;
        if cursor.ip != 0 && !ladder.text.is_return_address(ladder.mem, top) {
            return Err(Why::NotText(VirtAddr(cursor.ip)));
        }
        return orc_step(cursor, &NULL_ENTRY, indirect, &read);
    }
    if !cursor.signal
        && let Some(name) = ladder.tracers.name(cursor.ip)
    {
        return Err(Why::Trampoline(name));
    }
    let tables = ladder.tables.as_ref().ok_or(Why::NoTable)?;
    let ip = cursor.lookup_ip();
    let entry = tables.find(ladder.mem, &ladder.text, ip).ok_or(Why::NoEntry(VirtAddr(ip)))?;
    Ok(match orc_step(cursor, &entry, tables.indirect, &read)? {
        Found::Caller(c) if !c.signal && c.regs.is_none() => {
            Found::Caller(Cursor { ip: walk.recover(c.ip, c.sp.wrapping_sub(8)), ..c })
        }
        found => found,
    })
}

/// By the frame pointer: kernels built with them, and generated code in all kernels.
fn by_frame_pointer(walk: &Walk<'_>, cursor: &Cursor) -> Result<Found, Why> {
    let ladder = walk.ladder;
    // Where the tables know the code, the register is not a frame pointer.
    if let Some(tables) = &ladder.tables
        && tables.find(ladder.mem, &ladder.text, cursor.lookup_ip()).is_some()
    {
        return Err(Why::NoFramePointer);
    }
    let has_frame_pointers = ladder.tables.is_none();
    let bp = cursor.bp;
    let read = |at| walk.read(at);
    let checked = |slot: u64| {
        let ip = walk.recover(walk.read(slot)?, slot);
        let is_plausible = ladder.tracers.name(ip).is_some() || ladder.text.is_return_address(ladder.mem, ip);
        match is_plausible {
            true => Ok(ip),
            false if ladder.text.place(ip).is_none() => Err(Why::NotText(VirtAddr(ip))),
            false => Err(Why::NotAfterCall(VirtAddr(ip))),
        }
    };
    let caller = |ip, sp, bp| Found::Caller(Cursor { ip, sp, bp, regs: None, signal: false });

    // Interrupted before the frame was set up, or after it was taken down?
    if cursor.signal
        && let Some(pushed) = pushed_in_prologue(walk, cursor.ip)
    {
        let ip = checked(cursor.sp.wrapping_add(pushed))?;
        let bp = if pushed == 0 { bp } else { walk.read(cursor.sp)? };
        return Ok(caller(ip, cursor.sp.wrapping_add(pushed + 8), bp));
    }
    if has_frame_pointers && bp == 0 {
        // Entry code clears the register before the outermost call.
        return Ok(Found::End);
    }
    if has_frame_pointers && bp & 1 == 1 {
        // Entry code marks a pointer to saved registers so; those of a kernel thread are zero.
        let regs = read_pt_regs(bp - 1, &read)?;
        return Ok(match () {
            () if regs.ip.get() == 0 && regs.sp.get() == 0 => Found::End,
            () if regs.is_user() => Found::User { ip: regs.ip.get(), sp: regs.sp.get(), regs: Some(regs) },
            () => Found::Caller(Cursor::from_regs(regs)),
        });
    }
    let ip = checked(bp.wrapping_add(8))?;
    Ok(caller(ip, bp.wrapping_add(16), walk.read(bp)?))
}

/// If `ip` is in a function's first or last instructions, where there is no frame yet or no more:
/// bytes on the stack above the return address, 0 or 8.
fn pushed_in_prologue(walk: &Walk<'_>, ip: u64) -> Option<u64> {
    let mut code = [0; 16];
    let mut have = 0;
    for (offset, at, n) in page_pieces(ip, code.len()) {
        if walk.ladder.mem.read(VirtAddr(at), &mut code[offset..offset + n]).is_err() {
            break;
        }
        have = offset + n;
    }
    let mut code = &code[..have];
    // endbr64; a call to __fentry__, or the 5-byte nop it is patched to.
    for skipped in [&[0xf3, 0x0f, 0x1e, 0xfa][..], &[0x0f, 0x1f, 0x44, 0x00, 0x00]] {
        code = code.strip_prefix(skipped).unwrap_or(code);
    }
    match code {
        [0x55, ..] | [0xc3, ..] => Some(0), // push %rbp; ret
        [0x48, 0x89, 0xe5, ..] => Some(8),  // mov %rsp,%rbp
        _ => None,
    }
}

/// Rounds up to a word; what is above the last one stays there.
fn align_word(sp: u64) -> u64 {
    sp.checked_next_multiple_of(8).unwrap_or(u64::MAX)
}

/// By looking at every word of the rest of the stack for the address after a call.
///
/// The first is taken, unless one soon after follows a call of this very function.
fn by_scan(walk: &Walk<'_>, cursor: &Cursor) -> Result<Found, Why> {
    let ladder = walk.ladder;
    let areas = &walk.areas.0;
    let (mut sp, mut here) = (align_word(cursor.sp), walk.here);
    let (mut first, mut unreadable) = (None, None);
    let window = sp.saturating_add(SURE_WINDOW);
    // At most one hop per stack.
    for _ in 0..areas.len() {
        let area = areas.get(here).ok_or(Why::OffStack(VirtAddr(sp)))?;
        while sp < area.range.end && (first.is_none() || sp < window) {
            let at = sp;
            sp = sp.saturating_add(8);
            match ladder.mem.read_u64(VirtAddr(at)).map(|word| walk.recover(word, at)) {
                Ok(ip) if ladder.is_scannable(ip) => {
                    let found = Found::Caller(Cursor { ip, sp, bp: cursor.bp, regs: None, signal: false });
                    if ladder.calls(ip, cursor.lookup_ip()) == Some(true) {
                        return Ok(found);
                    }
                    first.get_or_insert(found);
                }
                Ok(_) => {}
                Err(e) => {
                    unreadable.get_or_insert(e);
                    sp = VirtAddr(sp).page_up().map_or(u64::MAX, |p| p.0);
                }
            }
        }
        if let Some(found) = first {
            return Ok(found);
        }
        let top = area.range.end;
        match area.kind {
            // The last word of an interrupt stack is where the stack pointer was before.
            Kind::Irq => {
                sp = align_word(walk.read(top.wrapping_sub(8))?);
                here = walk.areas.of_sp(sp).ok_or(Why::OffStack(VirtAddr(sp)))?;
                walk.check_hop(here)?;
            }
            // An exception's begin with the registers of what was interrupted.
            Kind::DoubleFault | Kind::Nmi | Kind::Debug | Kind::MachineCheck | Kind::Vmm => {
                let regs = read_pt_regs(top.wrapping_sub(PT_REGS_SIZE), &|at| walk.read(at))?;
                let (ip, sp) = (regs.ip.get(), regs.sp.get());
                if regs.is_user() {
                    return Ok(Found::User { ip, sp, regs: Some(regs) });
                }
                return match ladder.text.place(ip) {
                    Some(_) => Ok(Found::Caller(Cursor::from_regs(regs))),
                    None => Err(Why::NotText(VirtAddr(ip))),
                };
            }
            Kind::Task | Kind::Entry => break,
        }
    }
    Err(unreadable.map_or(Why::NothingFound, Why::Unreadable))
}

impl Ladder<'_> {
    /// Whether a word on a stack is worth believing. Init text is gone after boot: what lies there
    /// now is no evidence.
    fn is_scannable(&self, ip: u64) -> bool {
        self.text.place(ip.wrapping_sub(1)).is_some_and(|p| p != Place::Init)
            && self.text.is_return_address(self.mem, ip)
    }

    /// Whether the call before return address `ip` goes to the function that holds `callee`; `None`
    /// for an indirect call, or a function without a symbol. A "no" is not the last word: the
    /// function called may have jumped on to another.
    pub fn calls(&self, ip: u64, callee: u64) -> Option<bool> {
        let target = direct_call_target(self.mem, ip)?;
        Some((self.function)(callee)? == target)
    }
}

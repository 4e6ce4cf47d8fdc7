//! Climbing the ladder, frame by frame, under rules that hold whatever finds a frame.

use kdump_arch_x86::VirtAddr;
use kdump_vmcore::KernelMem;

use super::Start;
use super::frame::{Frame, Stack, Stop, Trust, Why};
use super::rungs::LADDER;
use super::stack::{Area, Areas, Kind};
use super::step::{Cursor, Found};
use super::tables::Tables;
use super::text::{Place, Text};
use super::trampoline::Tracers;

/// Most frames in a stack. Real ones have rarely more than 60, but one that overflowed is worth
/// following to its outer end, and a 32 KiB stack has room for so many return addresses.
const MAX_FRAMES: usize = 4096;

/// Selectors of user mode.
///
/// Source: arch/x86/include/asm/segment.h.
const USER32_CS: u64 = 0x23;
const USER_DS: u64 = 0x2b;
const USER_CS: u64 = 0x33;
/// Where on its stack a task's outermost function is: below `struct pt_regs` and some padding.
const TOP_OF_STACK: u64 = 512;

/// What all unwinds of a dump share.
pub struct Ladder<'k> {
    /// Kernel memory.
    pub mem: &'k KernelMem<'k>,
    /// Where code is.
    pub text: Text,
    /// The ORC tables, if there are any.
    pub tables: Option<Tables<'k>>,
    /// Where a task that never ran begins.
    pub fork: Option<u64>,
    /// What replaces return addresses.
    pub tracers: Tracers,
    /// Start of the function that holds an address.
    pub function: Box<dyn Fn(u64) -> Option<u64> + 'k>,
}

impl Ladder<'_> {
    /// Unwinds over the given stacks.
    pub fn unwind(&self, start: Start, areas: &Areas, task: Option<VirtAddr>) -> Stack {
        let mut walk =
            Walk { ladder: self, areas, task, here: usize::MAX, left: 0, is_doubtful: false, nr_guessed: 0 };
        let mut frames = Vec::new();
        let mut cursor = match walk.begin(start) {
            Ok(Found::Caller(cursor)) => cursor,
            Err(why) => {
                return Stack { frames, stop: Stop::NoStart { why }, has_overflowed: false, nr_guessed: 0 };
            }
            other => return Stack { frames, stop: stop_of(other, 0), has_overflowed: false, nr_guessed: 0 },
        };
        let has_overflowed = areas.0.iter().any(|a| a.has_overflowed(cursor.sp));
        let mut trust = Trust::Regs;
        let stop = loop {
            frames.push(Frame {
                ip: VirtAddr(cursor.ip),
                sp: VirtAddr(cursor.sp),
                trust,
                is_return_address: !cursor.signal && self.tracers.name(cursor.ip).is_none(),
                // A cursor also carries registers that an outer frame may have kept.
                regs: cursor.regs.filter(|r| (r.ip.get(), r.sp.get()) == (cursor.ip, cursor.sp)),
            });
            if frames.len() == MAX_FRAMES {
                break Stop::TooManyFrames(MAX_FRAMES);
            }
            match walk.climb(&cursor) {
                Ok((by, Found::Caller(caller))) => (trust, cursor) = (by, caller),
                other => break stop_of(other.map(|(_, found)| found), cursor.ip),
            }
        };
        Stack { frames, stop, has_overflowed, nr_guessed: walk.nr_guessed }
    }
}

/// Why an unwind ends that found no caller.
fn stop_of(found: Result<Found, Why>, ip: u64) -> Stop {
    match found {
        Ok(Found::User { ip, sp, regs }) => Stop::UserMode { ip: VirtAddr(ip), sp: VirtAddr(sp), regs },
        Ok(Found::End | Found::Caller(_)) => Stop::EndOfStack,
        Err(why) => Stop::Lost { ip: VirtAddr(ip), why },
    }
}

/// One unwind in progress.
pub struct Walk<'w> {
    /// What it works with.
    pub ladder: &'w Ladder<'w>,
    /// The stacks it may meet.
    pub areas: &'w Areas,
    /// Whose stack it is, if that is known.
    pub task: Option<VirtAddr>,
    /// The stack that the current frame is on.
    pub here: usize,
    /// Bit per stack that was left: none is entered twice.
    left: u32,
    /// Whether a frame came from a scan, and no other has confirmed it since: then even the tables'
    /// return addresses are checked.
    is_doubtful: bool,
    /// Frames found since then.
    nr_guessed: usize,
}

impl Walk<'_> {
    /// The first frame.
    fn begin(&mut self, start: Start) -> Result<Found, Why> {
        let (sp, found) = match start {
            Start::Regs(regs) if regs.is_user() => {
                let (ip, sp) = (regs.ip.get(), regs.sp.get());
                return Ok(Found::User { ip, sp, regs: Some(regs) });
            }
            Start::Regs(regs) => (regs.sp.get(), Found::Caller(Cursor::from_regs(regs))),
            Start::Sleeping { sp } => {
                // struct inactive_task_frame: r15 r14 r13 r12 bx, then these two.
                if self.areas.0.iter().any(|a| a.kind == Kind::Task && a.range.start == 0) {
                    return Err(Why::Freed);
                }
                self.here = self.areas.of_sp(sp.0).ok_or(Why::OffStack(sp))?;
                let bp = self.read(sp.0.wrapping_add(40))?;
                let ip = self.read(sp.0.wrapping_add(48))?;
                let signal = Some(ip) == self.ladder.fork;
                let sp = sp.0.wrapping_add(56);
                (sp, Found::Caller(Cursor { ip, sp, bp, regs: None, signal }))
            }
        };
        // A stack pointer on no known stack still makes a frame; its caller will not be found.
        self.here = self.areas.of_sp(sp).unwrap_or(usize::MAX);
        Ok(found)
    }

    /// Tries the rungs in order.
    fn climb(&mut self, cursor: &Cursor) -> Result<(Trust, Found), Why> {
        if self.here == usize::MAX {
            return Err(Why::OffStack(VirtAddr(cursor.sp)));
        }
        let mut first = Why::NoTable;
        for (trust, rung) in LADDER {
            match rung(self, cursor).and_then(|found| self.admit(cursor, found)) {
                Ok(found) => {
                    self.is_doubtful |= trust == Trust::Scan;
                    if let (true, Found::Caller(c)) = (self.is_doubtful, found) {
                        let is_sure = self.ladder.calls(c.ip, cursor.lookup_ip()) == Some(true);
                        // The frame pointer is uncertain until the tables have led to a sure frame.
                        self.is_doubtful = !is_sure || trust == Trust::Scan;
                        self.nr_guessed += usize::from(!is_sure);
                    }
                    return Ok((trust, found));
                }
                // On a kernel without tables the next rung's reason is the one worth knowing.
                Err(why) if first == Why::NoTable => first = why,
                Err(_) => {}
            }
        }
        Err(first)
    }

    /// Holds what a rung found to the rules, and moves to the caller's stack.
    fn admit(&mut self, from: &Cursor, found: Found) -> Result<Found, Why> {
        let to = match found {
            Found::Caller(to) => to,
            _ if !self.is_true_end(from, &found) => return Err(Why::FalseEnd),
            _ => return Ok(found),
        };
        if !to.signal {
            let text = &self.ladder.text;
            let place = text.place(to.ip.wrapping_sub(1)).ok_or(Why::NotText(VirtAddr(to.ip)))?;
            let is_trampoline = self.ladder.tracers.name(to.ip).is_some();
            let is_unsure = (self.is_doubtful || place == Place::Generated) && !is_trampoline;
            if is_unsure && !text.is_return_address(self.ladder.mem, to.ip) {
                return Err(Why::NotAfterCall(VirtAddr(to.ip)));
            }
        }
        let is_here = |a: &Area| (a.range.start..=a.range.end).contains(&to.sp);
        if self.areas.0.get(self.here).is_some_and(is_here) {
            if to.sp <= from.sp {
                return Err(Why::Stuck { from: VirtAddr(from.sp), to: VirtAddr(to.sp) });
            }
            return Ok(found);
        }
        let next = self.areas.of_sp(to.sp).ok_or(Why::OffStack(VirtAddr(to.sp)))?;
        self.check_hop(next)?;
        self.left |= 1 << self.here;
        self.here = next;
        Ok(found)
    }

    /// The return address that the word `ip` at `slot` stands for: itself, or what a tracer replaced.
    pub fn recover(&self, ip: u64, slot: u64) -> u64 {
        let ladder = self.ladder;
        let original = || ladder.tracers.find_original(ladder.mem, self.task?, slot);
        match ladder.tracers.name(ip) {
            Some(_) => original().filter(|&o| ladder.text.is_return_address(ladder.mem, o)).unwrap_or(ip),
            None => ip,
        }
    }

    /// Whether an end is one. The outermost function is at the very top of its stack: tables up to 6.2
    /// call an end what later ones call undefined. After a scan, user registers must look the part.
    fn is_true_end(&self, from: &Cursor, found: &Found) -> bool {
        match found {
            Found::User { .. } if !self.is_doubtful => true,
            Found::User { regs: Some(regs), .. } => {
                // FRED keeps event data above the selectors.
                let (cs, ss) = (regs.cs.get() & 0xffff, regs.ss.get() & 0xffff);
                matches!(cs, USER_CS | USER32_CS) && ss == USER_DS && regs.ip.get() < 1 << 63
            }
            Found::User { regs: None, ip, .. } => *ip < 1 << 63,
            _ => {
                let end = self.areas.0.get(self.here).map_or(0, |a| a.range.end);
                end.saturating_sub(from.sp) <= TOP_OF_STACK
            }
        }
    }

    /// Whether stack `next` may be read from, or entered, from here.
    pub fn check_hop(&self, next: usize) -> Result<(), Why> {
        let (Some(from), Some(to)) = (self.areas.0.get(self.here), self.areas.0.get(next)) else {
            return Ok(());
        };
        let is_legal = next == self.here || from.kind.may_leave_to(to.kind) && self.left >> next & 1 == 0;
        if is_legal { Ok(()) } else { Err(Why::IllegalHop { from: from.kind, to: to.kind }) }
    }

    /// Reads a word of this stack or of one that may follow it.
    pub fn read(&self, at: u64) -> Result<u64, Why> {
        let area = self.areas.of_bytes(at, 8).ok_or(Why::OffStack(VirtAddr(at)))?;
        self.check_hop(area)?;
        self.ladder.mem.read_u64(VirtAddr(at)).map_err(Why::Unreadable)
    }
}

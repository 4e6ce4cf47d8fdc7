//! Unwinding: from saved registers to the functions that were active, with how far to believe each.
//!
//! A ladder of three ways: the kernel's ORC tables, frame pointers, a checked scan of the stack. For
//! each frame the best way that gives a caller wins, and the frame says which it was. What any way
//! finds is held to the same rules: the stack pointer moves outwards, from one stack to the next
//! only where the kernel can have switched, and a return address is in text.
//!
//! Functions whose return address a tracer replaced (function graph, kretprobes) appear as the
//! tracer's trampoline; what follows them is found by scan and says so.
//!
//! Key types: [`Unwinder`], [`Start`], [`Stack`]. Names of addresses are not looked up here.

mod frame;
mod orc;
mod rungs;
mod stack;
mod step;
mod tables;
mod text;

use std::cell::RefCell;
use std::ops::Range;

use kdump_arch_x86::VirtAddr;
use kdump_arch_x86::regs::PtRegs;
use kdump_vmcore::KernelMem;

use crate::kernel::{Gap, Kernel};

pub use frame::{Frame, Stack, Stop, Trust, Why};
pub use stack::{Kind as StackKind, thread_size};
pub use tables::ModuleOrc;

use stack::{Area, Areas, Kind};
use step::{Cursor, Found};
use tables::Tables;
use text::{Place, Text};

/// Most frames in a stack. Real ones have rarely more than 60.
const MAX_FRAMES: usize = 256;

/// Where an unwind begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    /// Saved registers: a crash note's, say.
    Regs(PtRegs),
    /// A task that does not run: its saved stack pointer, `thread.sp`.
    Sleeping {
        /// Address of its `struct inactive_task_frame`.
        sp: VirtAddr,
    },
}

/// Unwinds stacks of one dump.
pub struct Unwinder<'k> {
    kernel: &'k Kernel<'k>,
    ladder: Ladder<'k>,
    gaps: RefCell<Vec<Gap>>,
}

/// What all unwinds of a dump share.
struct Ladder<'k> {
    mem: &'k KernelMem<'k>,
    text: Text,
    tables: Option<Tables>,
    /// Where a task that never ran begins.
    fork: Option<u64>,
    /// Addresses that tracers put in place of return addresses.
    trampolines: Vec<(u64, &'static str)>,
    /// Start of the function that holds an address.
    function: Box<dyn Fn(u64) -> Option<u64> + 'k>,
}

impl<'k> Unwinder<'k> {
    /// Reads the ORC tables of the kernel image; a module's are read when first needed. Without
    /// tables the lower rungs are used: [`Unwinder::gaps`] says so if the tables should be there.
    #[must_use]
    pub fn new(kernel: &'k Kernel<'k>, modules: Vec<ModuleOrc>) -> Self {
        let mut gaps = Vec::new();
        let range = |start, end| match (kernel.symbol(start), kernel.symbol(end)) {
            (Ok(start), Ok(end)) => Some(start.0..end.0),
            _ => None,
        };
        let image = range("_stext", "_etext").unwrap_or_else(|| {
            gaps.push(Gap::Symbol("_stext or _etext".into()));
            0..0
        });
        let init = range("_sinittext", "_einittext").unwrap_or(0..0);
        let ranges = modules.iter().map(|m| m.text.clone()).collect();
        let text = Text::new(image, init, ranges, kernel.mem.space().image_size);
        let tables = Tables::from_dump(kernel, modules).unwrap_or_else(|gap| {
            gaps.push(gap);
            None
        });
        let address = |name| kernel.symbol(name).ok().map(|a| a.0);
        let trampolines = [
            "return_to_handler",
            "arch_rethook_trampoline",
            "__kretprobe_trampoline",
            "kretprobe_trampoline",
        ];
        let ladder = Ladder {
            mem: &kernel.mem,
            text,
            tables,
            fork: address("ret_from_fork_asm").or_else(|| address("ret_from_fork")),
            trampolines: trampolines.into_iter().filter_map(|n| Some((address(n)?, n))).collect(),
            function: Box::new(|ip| {
                let (symbol, offset) = kernel.symbols.lookup(VirtAddr(ip))?;
                match symbol.name.strip_suffix(".cold") {
                    Some(hot) => kernel.symbols.address(hot).map(|a| a.0),
                    None => Some(ip.wrapping_sub(offset)),
                }
            }),
        };
        Self { kernel, ladder, gaps: RefCell::new(gaps) }
    }

    /// What could not be had so far and makes unwinding worse.
    #[must_use]
    pub fn gaps(&self) -> Vec<Gap> {
        self.gaps.borrow().clone()
    }

    /// In words, what the first rung works with.
    #[must_use]
    pub fn describe(&self) -> String {
        match &self.ladder.tables {
            Some(t) => format!("ORC {:?}, {} entries", t.format(), t.nr_entries()),
            None => "no ORC tables: frame pointers".into(),
        }
    }

    /// Unwinds one stack. `task_stack` is that of the task; if it is not given, that of the task
    /// running on `cpu`. `cpu` is given for running tasks only: its interrupt and exception stacks
    /// may then be part of the way.
    #[must_use]
    pub fn unwind(&self, start: Start, task_stack: Option<Range<u64>>, cpu: Option<u32>) -> Stack {
        let mut areas = Vec::new();
        let task = task_stack.or_else(|| match stack::read_current_stack(self.kernel, cpu?) {
            Ok(range) => Some(range),
            Err(gap) => {
                self.note(gap);
                None
            }
        });
        areas.extend(task.map(|range| Area { kind: Kind::Task, range }));
        if let Some(cpu) = cpu {
            let mut gaps = Vec::new();
            areas.extend(stack::read_cpu_areas(self.kernel, cpu, &mut gaps));
            gaps.into_iter().for_each(|gap| self.note(gap));
        }
        let mut areas = Areas(areas);
        let sp = match &start {
            Start::Regs(regs) => regs.sp.get(),
            Start::Sleeping { sp } => sp.0,
        };
        if areas.of_sp(sp).is_none() && !areas.0.iter().any(|a| a.kind == Kind::Task) {
            // Task stacks are aligned to their size.
            let size = thread_size(self.kernel);
            let start = sp & !(size - 1);
            areas.0.push(Area { kind: Kind::Task, range: start..start.saturating_add(size) });
        }
        self.ladder.unwind(start, &areas)
    }

    fn note(&self, gap: Gap) {
        let mut gaps = self.gaps.borrow_mut();
        if !gaps.contains(&gap) {
            gaps.push(gap);
        }
    }
}

impl Ladder<'_> {
    /// Unwinds over the given stacks.
    fn unwind(&self, start: Start, areas: &Areas) -> Stack {
        let mut walk = Walk { ladder: self, areas, here: usize::MAX, left: 0, is_doubtful: false };
        let mut frames = Vec::new();
        let mut cursor = match walk.begin(start) {
            Ok(Found::Caller(cursor)) => cursor,
            Err(why) => return Stack { frames, stop: Stop::NoStart { why } },
            other => return Stack { frames, stop: stop_of(other, 0) },
        };
        let mut trust = Trust::Regs;
        loop {
            frames.push(Frame {
                ip: VirtAddr(cursor.ip),
                sp: VirtAddr(cursor.sp),
                trust,
                is_return_address: !cursor.signal,
                // A cursor also carries registers that an outer frame may have kept.
                regs: cursor.regs.filter(|r| (r.ip.get(), r.sp.get()) == (cursor.ip, cursor.sp)),
            });
            if frames.len() == MAX_FRAMES {
                return Stack { frames, stop: Stop::TooManyFrames(MAX_FRAMES) };
            }
            match walk.climb(&cursor) {
                Ok((by, Found::Caller(caller))) => (trust, cursor) = (by, caller),
                other => return Stack { frames, stop: stop_of(other.map(|(_, found)| found), cursor.ip) },
            }
        }
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
struct Walk<'w> {
    ladder: &'w Ladder<'w>,
    areas: &'w Areas,
    /// The stack that the current frame is on.
    here: usize,
    /// Bit per stack that was left: none is entered twice.
    left: u32,
    /// Whether a frame came from a scan, and no other has confirmed it since: then even the tables'
    /// return addresses are checked.
    is_doubtful: bool,
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
        for (trust, rung) in rungs::LADDER {
            match rung(self, cursor).and_then(|found| self.admit(cursor, found)) {
                Ok(found) => {
                    self.is_doubtful |= trust == Trust::Scan;
                    // The tables' answer, from what a scan found, calls just where it should.
                    if let (Trust::Orc, Found::Caller(c)) = (trust, found)
                        && self.ladder.calls(c.ip, cursor.lookup_ip()) == Some(true)
                    {
                        self.is_doubtful = false;
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
        let Found::Caller(to) = found else { return Ok(found) };
        if !to.signal {
            let text = &self.ladder.text;
            let place = text.place(to.ip.wrapping_sub(1)).ok_or(Why::NotText(VirtAddr(to.ip)))?;
            let is_unsure = self.is_doubtful || place == Place::Generated;
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

    /// Whether stack `next` may be read from, or entered, from here.
    fn check_hop(&self, next: usize) -> Result<(), Why> {
        let (Some(from), Some(to)) = (self.areas.0.get(self.here), self.areas.0.get(next)) else {
            return Ok(());
        };
        let is_legal = next == self.here || from.kind.may_leave_to(to.kind) && self.left >> next & 1 == 0;
        if is_legal { Ok(()) } else { Err(Why::IllegalHop { from: from.kind, to: to.kind }) }
    }

    /// Reads a word of this stack or of one that may follow it.
    fn read(&self, at: u64) -> Result<u64, Why> {
        let area = self.areas.of_bytes(at, 8).ok_or(Why::OffStack(VirtAddr(at)))?;
        self.check_hop(area)?;
        self.ladder.mem.read_u64(VirtAddr(at)).map_err(Why::Unreadable)
    }
}

#[cfg(test)]
mod tests;

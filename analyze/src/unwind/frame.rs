//! What an unwind gives: frames, each with how it was found, and why it ended.

use std::fmt;

use kdump_arch_x86::VirtAddr;
use kdump_arch_x86::regs::PtRegs;
use kdump_vmcore::ReadError;

use super::stack::Kind;

/// How a frame was found: how far to believe it. Best first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Trust {
    /// It is where the unwind began: saved registers.
    Regs,
    /// From the frame below, by the kernel's ORC tables.
    Orc,
    /// From the frame below, by its frame pointer; what is found there follows a call.
    FramePointer,
    /// A word on the stack that is the address after a call instruction. It may be left over from
    /// a call that has long returned, and frames between it and the one below may be missing.
    Scan,
}

impl fmt::Display for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Regs => "regs",
            Self::Orc => "orc",
            Self::FramePointer => "frame-pointer",
            Self::Scan => "scan",
        })
    }
}

/// One frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame {
    /// Where it executes, or will once what it called returns.
    pub ip: VirtAddr,
    /// Its stack pointer at that moment.
    pub sp: VirtAddr,
    /// How it was found.
    pub trust: Trust,
    /// Whether `ip` is a return address. Then the call is before it, and a symbol is to be looked
    /// up for [`Frame::lookup_ip`]: a call that never returns may end its function.
    pub is_return_address: bool,
    /// Its registers, if it was interrupted and all of them were saved.
    pub regs: Option<PtRegs>,
}

impl Frame {
    /// The address that lies inside the calling or interrupted instruction.
    #[must_use]
    pub const fn lookup_ip(&self) -> VirtAddr {
        VirtAddr(if self.is_return_address { self.ip.0.wrapping_sub(1) } else { self.ip.0 })
    }
}

/// An unwound stack, innermost frame first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stack {
    /// The frames.
    pub frames: Vec<Frame>,
    /// Why there are no more.
    pub stop: Stop,
    /// Whether the stack pointer had run off the end of the task's stack. The frames are then many,
    /// and mostly the same.
    pub has_overflowed: bool,
    /// How many frames come from a scan, or from one that does, without the call that they return to
    /// going to the function below. The way out of `__crash_kexec`, for which no tables exist, is a
    /// scan but no guess: the call confirms it.
    pub nr_guessed: usize,
}

impl Stack {
    /// Whether nothing in it is a guess: the end is the real end, and every frame follows from the one
    /// below.
    #[must_use]
    pub const fn is_reliable(&self) -> bool {
        self.stop.is_clean() && self.nr_guessed == 0
    }
}

/// Why an unwind ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// The kernel was entered from user mode here.
    UserMode {
        /// User instruction pointer.
        ip: VirtAddr,
        /// User stack pointer.
        sp: VirtAddr,
        /// The user registers, if all of them were saved.
        regs: Option<PtRegs>,
    },
    /// The outermost function of a kernel thread or an idle task.
    EndOfStack,
    /// There is not even a first frame.
    NoStart {
        /// What was wrong.
        why: Why,
    },
    /// No way of unwinding found a caller.
    Lost {
        /// The frame whose caller is unknown.
        ip: VirtAddr,
        /// What was wrong for the best of the ways.
        why: Why,
    },
    /// More frames than any real stack has.
    TooManyFrames(usize),
}

impl Stop {
    /// Whether this is where a stack ought to end.
    #[must_use]
    pub const fn is_clean(&self) -> bool {
        matches!(self, Self::UserMode { .. } | Self::EndOfStack)
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UserMode { ip, .. } => write!(f, "entered from user mode at {ip}"),
            Self::EndOfStack => f.write_str("end of stack"),
            Self::NoStart { why } => write!(f, "nothing to begin with: {why}"),
            Self::Lost { ip, why } => write!(f, "no caller of {ip} found: {why}"),
            Self::TooManyFrames(n) => write!(f, "given up after {n} frames"),
        }
    }
}

/// Why one way of unwinding did not find a frame's caller.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Why {
    /// The kernel has no ORC tables, or their format is unknown.
    #[error("there is no ORC table")]
    NoTable,
    /// The table says nothing about the address: generated code, or no code at all.
    #[error("no ORC entry covers {0}")]
    NoEntry(VirtAddr),
    /// The table says that nothing is known there.
    #[error("the ORC entry for {0} says that its stack is undefined")]
    Undefined(VirtAddr),
    /// A return-address trampoline took the caller's place on the stack.
    #[error("the return address was replaced by {0}")]
    Trampoline(&'static str),
    /// The caller's stack pointer is in a register whose value is lost.
    #[error("it depends on {0}, whose value is not known")]
    RegisterLost(&'static str),
    /// What should be on the stack is not on any stack that can follow this one.
    #[error("{0} is on no stack that can follow this one")]
    OffStack(VirtAddr),
    /// A stack of this kind cannot come after one of that kind, or was left before.
    #[error("the {to} stack cannot follow the {from} stack")]
    IllegalHop {
        /// The stack being left.
        from: Kind,
        /// The stack that would be entered.
        to: Kind,
    },
    /// The stack pointer would stand still or go down.
    #[error("the stack pointer would go from {from} to {to}")]
    Stuck {
        /// This frame's.
        from: VirtAddr,
        /// The caller's.
        to: VirtAddr,
    },
    /// The supposed return address is not kernel or module text.
    #[error("{0} is not kernel text")]
    NotText(VirtAddr),
    /// The supposed return address does not follow a call.
    #[error("{0} does not follow a call")]
    NotAfterCall(VirtAddr),
    /// The frame pointer register is known to hold something else.
    #[error("there is no frame pointer")]
    NoFramePointer,
    /// It looks like the end of a stack, but is not where or as that would be.
    #[error("what looks like the end of the stack cannot be it")]
    FalseEnd,
    /// Nothing on the rest of the stack is the address after a call.
    #[error("no return address on the rest of the stack")]
    NothingFound,
    /// A dead task without one.
    #[error("the task's stack has been freed")]
    Freed,
    /// The stack cannot be read.
    #[error("the stack cannot be read: {0}")]
    Unreadable(ReadError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trust_is_ordered_best_first() {
        assert!(
            Trust::Regs < Trust::Orc && Trust::Orc < Trust::FramePointer && Trust::FramePointer < Trust::Scan
        );
    }

    #[test]
    fn a_return_address_is_looked_up_inside_its_call() {
        let f = |is_return_address| Frame {
            ip: VirtAddr(0x1000),
            sp: VirtAddr(0),
            trust: Trust::Orc,
            is_return_address,
            regs: None,
        };
        assert_eq!(f(true).lookup_ip(), VirtAddr(0xfff));
        assert_eq!(f(false).lookup_ip(), VirtAddr(0x1000));
    }
}

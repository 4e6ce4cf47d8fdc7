//! Kernel text: functions that do nothing but have a frame, their ORC entries, and stacks that went through them.

use std::collections::BTreeMap;

use crate::space::Space;
use crate::{Kernel, OrcEntry, OrcTable};

/// Distance from one function to the next; 16 bytes of it lie before the function, for `__pfx_`.
const STRIDE: u64 = 0x90;
/// Where a function calls the next one: the return address, relative to its start.
const CALL_SITE: u64 = 0x40;

/// How a function arranges its stack frame once its prologue has run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// So many bytes, the return address included; BP untouched.
    Plain(i16),
    /// So many bytes, the caller's BP pushed first and BP then used for something else.
    SavesBp(i16),
    /// A frame pointer, with so many bytes in all.
    FramePointer(i16),
    /// Assembly entry code with `pt_regs` on top of its stack.
    Entry,
    /// The bottom of every kernel thread and idle task.
    EndOfStack,
}

/// Functions that panics, sleeping and idling tasks run through, in address order.
const FUNCTIONS: &[(&str, Frame)] = &[
    ("secondary_startup_64_no_verify", Frame::EndOfStack),
    ("ret_from_fork_asm", Frame::EndOfStack),
    ("ret_from_fork", Frame::SavesBp(0x20)),
    ("do_idle", Frame::SavesBp(0x30)),
    ("cpu_startup_entry", Frame::Plain(0x18)),
    ("start_secondary", Frame::Plain(0x20)),
    ("rest_init", Frame::Plain(0x18)),
    ("start_kernel", Frame::SavesBp(0x48)),
    ("x86_64_start_reservations", Frame::Plain(0x10)),
    ("x86_64_start_kernel", Frame::Plain(0x20)),
    ("default_idle", Frame::Plain(0x8)),
    ("default_idle_call", Frame::Plain(0x18)),
    ("kthread", Frame::SavesBp(0x40)),
    ("kthreadd", Frame::SavesBp(0x48)),
    ("worker_thread", Frame::SavesBp(0x60)),
    ("process_one_work", Frame::SavesBp(0x50)),
    ("__schedule", Frame::FramePointer(0xa0)),
    ("schedule", Frame::Plain(0x18)),
    ("schedule_timeout", Frame::SavesBp(0x70)),
    ("schedule_hrtimeout_range_clock", Frame::SavesBp(0x88)),
    ("io_schedule", Frame::Plain(0x18)),
    ("folio_wait_bit_common", Frame::SavesBp(0xc0)),
    ("filemap_read", Frame::SavesBp(0xf0)),
    ("vfs_read", Frame::SavesBp(0x58)),
    ("ksys_read", Frame::SavesBp(0x38)),
    ("ep_poll", Frame::FramePointer(0xb8)),
    ("do_epoll_wait", Frame::SavesBp(0x40)),
    ("do_exit", Frame::SavesBp(0x68)),
    ("futex_wait_queue", Frame::SavesBp(0x30)),
    ("futex_wait", Frame::SavesBp(0x98)),
    ("do_futex", Frame::Plain(0x38)),
    ("__crash_kexec", Frame::SavesBp(0x118)),
    ("vpanic", Frame::SavesBp(0x90)),
    ("panic", Frame::SavesBp(0x58)),
    ("sysrq_handle_crash", Frame::Plain(0x8)),
    ("__handle_sysrq", Frame::SavesBp(0x38)),
    ("write_sysrq_trigger", Frame::Plain(0x20)),
    ("proc_reg_write", Frame::Plain(0x28)),
    ("vfs_write", Frame::FramePointer(0x88)),
    ("ksys_write", Frame::SavesBp(0x38)),
    ("do_syscall_64", Frame::SavesBp(0x28)),
    ("entry_SYSCALL_64", Frame::Entry),
    ("entry_SYSCALL_64_after_hwframe", Frame::Entry),
    ("ftrace_stale_caller", Frame::Plain(0x18)),
];

/// Returns the functions that a kernel has, with the frames it gives them.
pub(crate) fn functions(kernel: &Kernel) -> Vec<(&'static str, Frame)> {
    let has_asm_fork = kernel.at_least(6, 4);
    let has_vpanic = kernel.at_least(6, 15);
    let of_kernel = |&(name, frame)| match name {
        "ret_from_fork_asm" if !has_asm_fork => None,
        // Until it got a C part, ret_from_fork was the assembly.
        "ret_from_fork" if !has_asm_fork => Some((name, Frame::EndOfStack)),
        "vpanic" if !has_vpanic => None,
        _ => Some((name, frame)),
    };
    FUNCTIONS.iter().filter_map(of_kernel).collect()
}

/// Where functions lie and how their frames look.
#[derive(Clone, Debug, Default)]
pub(crate) struct Text {
    functions: BTreeMap<String, (u64, Frame)>,
}

impl Text {
    /// Places functions from `start` on, with symbols and ORC entries, and returns the address after the last.
    /// `prefix` distinguishes the functions of modules (`virtio_net:`) and keeps them out of the symbol list.
    pub fn place(
        &mut self,
        space: &mut Space,
        orc: &mut OrcTable,
        start: u64,
        functions: &[(&str, Frame)],
        prefix: &str,
    ) -> u64 {
        let has_prefix_symbols = space.kernel.at_least(6, 3);
        let mut place = start;
        for &(name, frame) in functions {
            let address = place + 0x10;
            if prefix.is_empty() {
                if has_prefix_symbols {
                    space.symbol(&format!("__pfx_{name}"), 'T', place);
                }
                space.symbol(name, 'T', address);
            }
            let mut code = [0x90; STRIDE as usize];
            code[..0x10].fill(0xcc);
            // call +0: what precedes a return address is a call, for those who check.
            code[0x10 + CALL_SITE as usize - 5..][..5].copy_from_slice(&[0xe8, 0, 0, 0, 0]);
            space.put(place, &code);
            unwind_entries(orc, address, frame);
            self.functions.insert(format!("{prefix}{name}"), (address, frame));
            place += STRIDE;
        }
        orc.at(place, OrcEntry::UNDEFINED);
        place
    }

    /// Returns the return address into a function at its one call.
    pub fn call_site(&self, name: &str) -> u64 {
        self.find(name).0 + CALL_SITE
    }

    /// Returns the functions with a prefix, without it: name, address, size.
    pub fn with_prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, u64, u64)> {
        let size = STRIDE - 0x10;
        self.functions
            .iter()
            .filter_map(move |(name, place)| Some((name.strip_prefix(prefix)?, place.0, size)))
    }

    fn find(&self, name: &str) -> (u64, Frame) {
        *self.functions.get(name).unwrap_or_else(|| panic!("no function {name} in this kernel"))
    }

    /// Writes the frames of a call chain, innermost function first, below `top`: the address of `pt_regs` where the
    /// outermost function is entry code. Returns the registers with which the innermost function goes on.
    pub fn push_chain(&self, space: &mut Space, top: u64, chain: &[&str]) -> CallState {
        let stale = self.call_site("ftrace_stale_caller");
        let mut state = CallState { ip: 0, sp: top, bp: 0 };
        for (depth, name) in chain.iter().rev().enumerate() {
            let (_, frame) = self.find(name);
            if depth > 0 {
                space.put_u64(state.sp - 8, state.ip);
            }
            let caller_sp = state.sp;
            let bytes = match frame {
                Frame::Plain(bytes) | Frame::SavesBp(bytes) | Frame::FramePointer(bytes) => bytes,
                Frame::Entry | Frame::EndOfStack => 0,
            };
            state.sp = caller_sp - bytes as u64;
            match frame {
                Frame::SavesBp(_) => {
                    space.put_u64(caller_sp - 16, state.bp);
                    state.bp = 0xdead_b000 + depth as u64;
                }
                Frame::FramePointer(_) => {
                    space.put_u64(caller_sp - 16, state.bp);
                    state.bp = caller_sp - 16;
                }
                _ => {}
            }
            if bytes >= 0x28 {
                // A return address left over from an earlier call: a scan of the stack finds it, ORC does not.
                space.put_u64(state.sp + 8, stale);
            }
            state.ip = self.call_site(name);
        }
        state
    }
}

/// The registers that matter for unwinding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CallState {
    pub ip: u64,
    pub sp: u64,
    pub bp: u64,
}

fn unwind_entries(orc: &mut OrcTable, address: u64, frame: Frame) {
    match frame {
        Frame::Plain(bytes) => {
            orc.at(address, OrcEntry::sp(8)).at(address + 4, OrcEntry::sp(bytes));
        }
        Frame::SavesBp(bytes) => {
            orc.at(address, OrcEntry::sp(8));
            orc.at(address + 1, OrcEntry::sp(16).bp_saved(-16));
            orc.at(address + 8, OrcEntry::sp(bytes).bp_saved(-16));
        }
        Frame::FramePointer(_) => {
            orc.at(address, OrcEntry::sp(8));
            orc.at(address + 1, OrcEntry::sp(16).bp_saved(-16));
            orc.at(address + 4, OrcEntry::frame_pointer());
        }
        Frame::Entry => _ = orc.at(address, OrcEntry::regs(0)),
        Frame::EndOfStack => _ = orc.at(address, OrcEntry::END_OF_STACK),
    }
}

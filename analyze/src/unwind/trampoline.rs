//! Return addresses that tracers replaced, and where they keep the originals.
//!
//! The function-graph tracer and kretprobes make a function return to a trampoline of theirs. The
//! original is found by the place on the stack that it was taken from, which both write down beside
//! it; so how they count their entries, which changed in 6.11, need not be known.
//!
//! Source: kernel/trace/fgraph.c, `ftrace_graph_ret_addr`, `struct ftrace_ret_stack`;
//! kernel/trace/rethook.c, `rethook_find_ret_addr`, arch/x86/kernel/rethook.c.

use kdump_arch_x86::VirtAddr;
use kdump_vmcore::KernelMem;

use crate::kernel::Kernel;

/// Bytes of a task's stack of replaced addresses: one page from 6.11, before 50 entries of at most
/// 40 bytes.
const RET_STACK_SIZE: u64 = 4096;
/// More return probes than a task can have active.
const MAX_NODES: usize = 4096;

/// What is known of the tracers of a kernel.
#[derive(Debug, Default)]
pub struct Tracers {
    /// Addresses of the trampolines.
    pub trampolines: Vec<(u64, &'static str)>,
    graph: Option<Graph>,
    rethook: Option<Rethook>,
}

/// Offsets for the function-graph tracer.
#[derive(Debug)]
struct Graph {
    /// Of the pointer in the task.
    ret_stack: u64,
    /// Of an entry's members.
    ret: u64,
    retp: u64,
}

/// Offsets for kretprobes, from 5.18.
#[derive(Debug)]
struct Rethook {
    /// Of the list's head in the task.
    first: u64,
    /// Of a node's members.
    llist: u64,
    frame: u64,
    ret_addr: u64,
}

impl Tracers {
    /// Finds the trampolines by symbol and the members by BTF. What a kernel does not have is not
    /// missed.
    #[must_use]
    pub fn from_dump(kernel: &Kernel<'_>) -> Self {
        let names = [
            "return_to_handler",
            "arch_rethook_trampoline",
            "__kretprobe_trampoline",
            "kretprobe_trampoline",
        ];
        let offset = |of, path| kernel.offset(of, path).ok();
        let graph = || {
            Some(Graph {
                ret_stack: offset("task_struct", "ret_stack")?,
                ret: offset("ftrace_ret_stack", "ret")?,
                retp: offset("ftrace_ret_stack", "retp")?,
            })
        };
        let rethook = || {
            Some(Rethook {
                first: offset("task_struct", "rethooks.first")?,
                llist: offset("rethook_node", "llist")?,
                frame: offset("rethook_node", "frame")?,
                ret_addr: offset("rethook_node", "ret_addr")?,
            })
        };
        Self {
            trampolines: names.into_iter().filter_map(|n| Some((kernel.symbols.address(n)?.0, n))).collect(),
            graph: graph(),
            rethook: rethook(),
        }
    }

    /// The name of the trampoline at `ip`.
    #[must_use]
    pub fn name(&self, ip: u64) -> Option<&'static str> {
        self.trampolines.iter().find(|(at, _)| *at == ip).map(|&(_, name)| name)
    }

    /// The address that was at `slot` on the stack of `task` before a tracer replaced it.
    #[must_use]
    pub fn find_original(&self, mem: &KernelMem<'_>, task: VirtAddr, slot: u64) -> Option<u64> {
        self.find_in_graph(mem, task, slot).or_else(|| self.find_in_rethooks(mem, task, slot))
    }

    fn find_in_graph(&self, mem: &KernelMem<'_>, task: VirtAddr, slot: u64) -> Option<u64> {
        let graph = self.graph.as_ref()?;
        let stack = mem.read_ptr(task.wrapping_add(graph.ret_stack)).ok().filter(|s| s.0 != 0)?;
        // Entries that are no longer in use lie above those that are: the first match counts.
        for at in (0..RET_STACK_SIZE).step_by(8) {
            if mem.read_u64(stack.wrapping_add(at)).ok()? == slot {
                let entry = VirtAddr(stack.0.wrapping_add(at).wrapping_sub(graph.retp));
                return mem.read_u64(entry.wrapping_add(graph.ret)).ok();
            }
        }
        None
    }

    fn find_in_rethooks(&self, mem: &KernelMem<'_>, task: VirtAddr, slot: u64) -> Option<u64> {
        let offsets = self.rethook.as_ref()?;
        let mut link = mem.read_ptr(task.wrapping_add(offsets.first)).ok()?;
        for _ in 0..MAX_NODES {
            if link.0 == 0 {
                return None;
            }
            let node = VirtAddr(link.0.wrapping_sub(offsets.llist));
            if mem.read_u64(node.wrapping_add(offsets.frame)).ok()? == slot {
                let ip = mem.read_u64(node.wrapping_add(offsets.ret_addr)).ok()?;
                // Of several probes on one function only the first has seen the original.
                if self.name(ip).is_none() {
                    return Some(ip);
                }
            }
            link = mem.read_ptr(link).ok()?;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use kdump_arch_x86::PhysAddr;
    use kdump_vmcore::mem::LiteralMem;

    use super::super::TEST_SPACE;
    use super::*;

    const DIRECT: u64 = 0xffff_8880_0000_0000;
    const SLOT: u64 = DIRECT + 0x9_0000;

    fn original(pieces: &[(u64, &[u64])], slot: u64) -> Option<u64> {
        let phys = LiteralMem(
            pieces
                .iter()
                .map(|(at, words)| (PhysAddr(*at), words.iter().flat_map(|w| w.to_le_bytes()).collect()))
                .collect(),
        );
        let tracers = Tracers {
            trampolines: vec![(0xaaaa, "return_to_handler"), (0xbbbb, "arch_rethook_trampoline")],
            graph: Some(Graph { ret_stack: 0, ret: 0, retp: 16 }),
            rethook: Some(Rethook { first: 8, llist: 8, frame: 24, ret_addr: 16 }),
        };
        tracers.find_original(&KernelMem::new(&phys, TEST_SPACE), VirtAddr(DIRECT + 0x1000), slot)
    }

    /// Check that an entry of a call that has returned, above the live ones, is not taken.
    #[test]
    fn the_graph_tracer_keeps_originals_by_their_place_on_the_stack() {
        let mut shadow = vec![0x1111, 7, SLOT, 0x2222, 7, SLOT - 0x40, 0x3333, 7, SLOT];
        shadow.resize(512, 0);
        let pieces: [(u64, &[u64]); 2] = [(0x1000, &[DIRECT + 0x2000, 0]), (0x2000, &shadow)];
        assert_eq!(original(&pieces, SLOT), Some(0x1111));
        assert_eq!(original(&pieces, SLOT - 0x40), Some(0x2222));
        assert_eq!(original(&pieces, SLOT - 8), None);
    }

    /// Check that of two return probes on one function the one with the real address is taken.
    #[test]
    fn return_probes_keep_originals_in_a_list() {
        let pieces: [(u64, &[u64]); 3] = [
            (0x1000, &[0, DIRECT + 0x3008]),
            (0x3000, &[0, DIRECT + 0x4008, 0xbbbb, SLOT]),
            (0x4000, &[0, 0, 0x4444, SLOT]),
        ];
        assert_eq!(original(&pieces, SLOT), Some(0x4444));
        assert_eq!(original(&pieces, SLOT + 8), None);
    }

    #[test]
    fn a_list_that_goes_in_circles_ends() {
        let pieces: [(u64, &[u64]); 2] =
            [(0x1000, &[0, DIRECT + 0x3008]), (0x3000, &[0, DIRECT + 0x3008, 0, 0])];
        assert_eq!(original(&pieces, SLOT), None);
    }
}

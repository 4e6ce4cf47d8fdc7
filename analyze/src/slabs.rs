//! A walk over the slab allocator's lists: every cache, and of each the slabs with free objects.
//!
//! It is here to find out whether a dump can be walked at all: each page of each slab is looked at. A list that the
//! crash left half changed ends the walk of that cache and is no fault of the dump; a page that is not there is.
//!
//! Source: mm/slab_common.c `slab_caches`; mm/slab.h `struct slab`, `struct kmem_cache`, `struct kmem_cache_node`;
//! mm/slub.c `oo_order`.

use std::collections::BTreeMap;

use kdump_arch_x86::{PAGE_SIZE, PhysAddr, VirtAddr};
use kdump_vmcore::{PhysMem as _, ReadError};

use crate::kernel::{Gap, Kernel};

/// Caches; a large machine has some hundreds.
const MOST_CACHES: usize = 1 << 14;
/// Slabs in one list.
const MOST_IN_LIST: usize = 1 << 16;
/// NUMA nodes.
const MOST_NODES: u64 = 1 << 10;
/// Failures that are named.
const NAMED: usize = 16;

/// What the walk found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Walk {
    /// Caches.
    pub caches: u64,
    /// Slabs in their lists.
    pub slabs: u64,
    /// Pages that were looked at.
    pub pages: u64,
    /// Pages that the walk needs and the dump does not have.
    pub missing: u64,
    /// The first of them, in words.
    pub named: Vec<String>,
}

/// Where the fields are.
struct Layout {
    list: u64,
    /// The first node's pointer, and how far the next one's is.
    node: u64,
    node_step: u64,
    order: u64,
    partial: u64,
    slab_list: u64,
    page_size: u64,
    vmemmap: u64,
    nr_nodes: u64,
}

impl Layout {
    fn new(k: &Kernel<'_>) -> Result<Self, Gap> {
        let slab_list = k.offset("slab", "slab_list").or_else(|_| k.offset("page", "slab_list"))?;
        let nodes = k.symbol("nr_node_ids").and_then(|at| Ok(k.mem.read_u32(at)?)).map_or(1, u64::from);
        // An array of pointers; in 7.3 one of structures that have them.
        let (node, node_step) = match k.offset("kmem_cache", "per_node") {
            Ok(at) => {
                let each = "kmem_cache_per_node_ptrs";
                (at + k.offset(each, "node")?, k.size(each)?)
            }
            Err(_) => (k.offset("kmem_cache", "node")?, 8),
        };
        Ok(Self {
            list: k.offset("kmem_cache", "list")?,
            node,
            node_step,
            order: k.offset("kmem_cache", "oo.x")?,
            partial: k.offset("kmem_cache_node", "partial")?,
            slab_list,
            page_size: k.size("page")?,
            vmemmap: k.mem.read_u64(k.symbol("vmemmap_base")?)?,
            nr_nodes: nodes.clamp(1, MOST_NODES),
        })
    }
}

impl Walk {
    /// Walks.
    ///
    /// # Errors
    /// If the kernel does not say where the lists are.
    pub fn new(k: &Kernel<'_>) -> Result<Self, Gap> {
        let layout = Layout::new(k)?;
        let mut walk = Self::default();
        let head = k.symbol("slab_caches")?;
        let caches = walk.list(k, head, layout.list, MOST_CACHES);
        for cache in caches {
            walk.caches += 1;
            let _ = walk.cache(k, &layout, cache);
        }
        Ok(walk)
    }

    fn cache(&mut self, k: &Kernel<'_>, layout: &Layout, cache: VirtAddr) -> Result<(), ReadError> {
        let order = self.need(k.mem.read_u32(cache.wrapping_add(layout.order)))? >> 16;
        // Beyond the buddy allocator's largest block, the number is none.
        let pages = if order <= 10 { 1u64 << order } else { 1 };
        for nr in 0..layout.nr_nodes {
            let at = cache.wrapping_add(layout.node + nr * layout.node_step);
            let node = VirtAddr(self.need(k.mem.read_u64(at))?);
            if node.0 == 0 {
                continue;
            }
            let head = node.wrapping_add(layout.partial);
            for slab in self.list(k, head, layout.slab_list, MOST_IN_LIST) {
                self.slabs += 1;
                self.slab(k, layout, slab, pages);
            }
        }
        Ok(())
    }

    /// Looks at each page of a slab, which struct slab, one of struct page's faces, stands for.
    fn slab(&mut self, k: &Kernel<'_>, layout: &Layout, slab: VirtAddr, pages: u64) {
        let Some(offset) = slab.0.checked_sub(layout.vmemmap) else { return };
        let pfn = offset / layout.page_size.max(1);
        for pfn in pfn..pfn.saturating_add(pages) {
            let mut byte = [0];
            self.pages += 1;
            let _ = self.need(k.dump.read(PhysAddr(pfn.saturating_mul(PAGE_SIZE)), &mut byte));
        }
    }

    /// The structures on a list, whose links are `offset` bytes inside; as far as it can be followed.
    fn list(&mut self, k: &Kernel<'_>, head: VirtAddr, offset: u64, most: usize) -> Vec<VirtAddr> {
        let mut found = Vec::new();
        let mut seen = BTreeMap::new();
        let mut at = head;
        while found.len() < most {
            let Ok(next) = self.need(k.mem.read_u64(at)) else { break };
            let next = VirtAddr(next);
            if next == head || next.0 == 0 || seen.insert(next.0, ()).is_some() {
                break;
            }
            found.push(VirtAddr(next.0.wrapping_sub(offset)));
            at = next;
        }
        found
    }

    /// Notes a failure that is the dump's.
    fn need<T>(&mut self, result: Result<T, ReadError>) -> Result<T, ReadError> {
        if let Err(e) = &result
            && is_of_the_dump(e)
        {
            self.missing += 1;
            if self.named.len() < NAMED {
                self.named.push(e.to_string());
            }
        }
        result
    }
}

/// Whether memory could not be read since the dump does not have it, not since there is none.
const fn is_of_the_dump(e: &ReadError) -> bool {
    matches!(
        e,
        ReadError::Excluded { .. }
            | ReadError::Truncated { .. }
            | ReadError::Corrupt { .. }
            | ReadError::Io { .. }
    )
}

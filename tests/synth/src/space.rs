//! The kernel's address space under construction: where things are placed, named and written.

use crate::kernel::Kernel;
use crate::{Arena, Memory, PAGE_SIZE, PageTables, Symbol, flags};

/// Bytes of the kernel image, one large page.
pub(crate) const IMAGE_SIZE: u64 = 0x20_0000;
/// Bytes of one CPU's area.
pub(crate) const PERCPU_UNIT: u64 = 0x8000;
/// First CPU's `struct cpu_entry_area`; the page before it is the read-only IDT.
pub(crate) const CPU_ENTRY_AREA: u64 = 0xffff_fe00_0000_1000;
/// Where the sections of the image start, relative to `_text`.
pub(crate) const RODATA: u64 = 0x4_0000;
pub(crate) const DATA: u64 = 0x12_0000;
pub(crate) const PERCPU: u64 = 0x1c_0000;
pub(crate) const BSS: u64 = 0x1d_0000;

/// The sections of the image that variables go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Section {
    Rodata,
    Data,
    Bss,
}

/// Memory, page tables, symbols and free room.
#[derive(Clone, Debug)]
pub(crate) struct Space {
    pub kernel: Kernel,
    pub memory: Memory,
    pub tables: PageTables,
    pub symbols: Vec<Symbol>,
    rodata: Arena,
    data: Arena,
    bss: Arena,
    percpu: Arena,
    heap: Arena,
    vmalloc: Arena,
    modules: Arena,
}

impl Space {
    /// Returns a space with the image and the RAM mapped; `heap` is the physical range that allocations come from.
    pub fn new(kernel: Kernel, ram: &[(u64, u64)], heap: (u64, u64)) -> Self {
        let text = kernel.text();
        let section = |from: u64, to: u64| Arena::new(text + from, text + to);
        // The PGD is the first page of .data, as in a real image; twice the size because of page-table isolation.
        let root = kernel.image_phys + DATA;
        let mut heap = Arena::new(heap.0, heap.1);
        let pool = heap.alloc(96 * PAGE_SIZE, PAGE_SIZE);
        let tables = PageTables::new(root, kernel.levels, Arena::new(pool, pool + 96 * PAGE_SIZE));
        let percpu_start = if kernel.is_percpu_in_image { text + PERCPU } else { 0 };
        let mut space = Self {
            memory: Memory::new(),
            tables,
            symbols: Vec::new(),
            rodata: section(RODATA, DATA),
            data: section(DATA + 2 * PAGE_SIZE, PERCPU),
            bss: section(BSS, IMAGE_SIZE),
            percpu: Arena::new(percpu_start, percpu_start + PERCPU_UNIT),
            heap,
            vmalloc: Arena::new(kernel.vmalloc_base, kernel.vmalloc_base + (1 << 30)),
            modules: Arena::new(0xffff_ffff_c000_0000 + 0x1000, 0xffff_ffff_ff00_0000),
            kernel,
        };
        let (image, phys) = (text, space.kernel.image_phys);
        space.tables.map_range(&mut space.memory, image, phys, IMAGE_SIZE, flags::KERNEL_EXEC);
        let base = space.kernel.page_offset_base;
        for &(start, end) in ram {
            space.tables.map_range(&mut space.memory, base + start, start, end - start, flags::KERNEL);
        }
        // Every process shares the upper half of the PGD, so its entries must exist before the first process does.
        for area in [space.kernel.vmalloc_base, space.kernel.vmemmap_base, CPU_ENTRY_AREA] {
            space.tables.entry_address(&mut space.memory, area, crate::PageSize::Size4K);
        }
        let data = space.kernel.data_letter;
        space.symbol("init_top_pgt", data, text + DATA);
        space
    }

    /// Names an address.
    pub fn symbol(&mut self, name: &str, kind: char, address: u64) {
        self.symbols.push(Symbol::new(name, kind, address));
    }

    /// Returns the address of a symbol.
    pub fn address(&self, name: &str) -> u64 {
        let symbol = self.symbols.iter().find(|symbol| symbol.name == name);
        symbol.unwrap_or_else(|| panic!("no symbol {name} in this kernel")).address
    }

    /// Makes room in a section of the image without a name.
    pub fn image(&mut self, section: Section, size: u64, align: u64) -> u64 {
        match section {
            Section::Rodata => self.rodata.alloc(size, align),
            Section::Data => self.data.alloc(size, align),
            Section::Bss => self.bss.alloc(size, align),
        }
    }

    /// Returns the next free address of .rodata.
    pub fn rodata_next(&self) -> u64 {
        self.rodata.next()
    }

    /// Makes a variable with a symbol; a name in capitals' place (`b`, `d`) says that it is static.
    pub fn variable(&mut self, name: &str, section: Section, size: u64) -> u64 {
        let address = self.image(section, size, 32);
        let kind = match section {
            Section::Bss => 'B',
            Section::Rodata | Section::Data => self.kernel.data_letter,
        };
        self.symbol(name, kind, address);
        address
    }

    /// Makes a variable of 8 bytes that holds `value`.
    pub fn variable_u64(&mut self, name: &str, section: Section, value: u64) -> u64 {
        let address = self.variable(name, section, 8);
        self.put_u64(address, value);
        address
    }

    /// Makes a per-CPU variable and returns its symbol's address, to which a CPU's offset is added.
    pub fn percpu_variable(&mut self, name: &str, size: u64, align: u64) -> u64 {
        let address = self.percpu.alloc(size, align);
        let kind = if self.kernel.is_percpu_in_image { 'D' } else { 'A' };
        self.symbol(name, kind, address);
        address
    }

    /// Makes dynamic per-CPU room and returns its base, to which a CPU's offset is added.
    pub fn percpu_alloc(&mut self, size: u64, align: u64) -> u64 {
        self.percpu.alloc(size, align)
    }

    /// Returns the first address of the per-CPU section.
    pub fn percpu_start(&self) -> u64 {
        if self.kernel.is_percpu_in_image { self.kernel.text() + PERCPU } else { 0 }
    }

    /// Allocates in the direct map and returns the virtual address.
    pub fn alloc(&mut self, size: u64, align: u64) -> u64 {
        self.kernel.page_offset_base + self.heap.alloc(size, align)
    }

    /// Allocates whole pages in vmalloc space, an unmapped guard page behind them.
    pub fn vmalloc(&mut self, size: u64, align: u64) -> u64 {
        let size = size.next_multiple_of(PAGE_SIZE);
        let virt = self.vmalloc.alloc(size + PAGE_SIZE, align);
        self.map_fresh(virt, size, flags::KERNEL);
        virt
    }

    /// Allocates whole pages in the area of modules.
    pub fn module_alloc(&mut self, size: u64) -> u64 {
        let size = size.next_multiple_of(PAGE_SIZE);
        let virt = self.modules.alloc(size + PAGE_SIZE, PAGE_SIZE);
        self.map_fresh(virt, size, flags::KERNEL_EXEC);
        virt
    }

    /// Maps fresh pages of the heap at `virt` where nothing is mapped yet.
    pub fn map_fresh(&mut self, virt: u64, size: u64, flags: u64) {
        for page in (virt..virt + size).step_by(PAGE_SIZE as usize) {
            if self.tables.translate(&self.memory, page).is_none() {
                let phys = self.heap.alloc(PAGE_SIZE, PAGE_SIZE);
                self.tables.map(&mut self.memory, page, phys, crate::PageSize::Size4K, flags);
            }
        }
    }

    /// Writes at a virtual address.
    pub fn put(&mut self, virt: u64, bytes: &[u8]) {
        let mut virt = virt;
        let mut rest = bytes;
        while !rest.is_empty() {
            let len = rest.len().min((PAGE_SIZE - virt % PAGE_SIZE) as usize);
            let phys = self.physical(virt);
            self.memory.write(phys, &rest[..len]);
            rest = &rest[len..];
            virt += len as u64;
        }
    }

    /// Writes a u64 at a virtual address.
    pub fn put_u64(&mut self, virt: u64, value: u64) {
        self.put(virt, &value.to_le_bytes());
    }

    /// Writes a u32 at a virtual address.
    pub fn put_u32(&mut self, virt: u64, value: u32) {
        self.put(virt, &value.to_le_bytes());
    }

    /// Writes an integer member of the structure at `base`, in the member's own size.
    pub fn set(&mut self, base: u64, path: &str, value: u64) {
        let size = self.kernel.types.member_size(path);
        assert!(size <= 8, "{path} is not an integer");
        self.put(base + self.kernel.types.offset(path) as u64, &value.to_le_bytes()[..size]);
    }

    /// Writes an integer member that only some kernels have.
    pub fn set_if_known(&mut self, base: u64, path: &str, value: u64) {
        if self.kernel.types.has(path) {
            self.set(base, path, value);
        }
    }

    /// Writes a member of bytes; what it leaves of the member stays zero.
    pub fn set_bytes(&mut self, base: u64, path: &str, bytes: &[u8]) {
        let size = self.kernel.types.member_size(path);
        assert!(bytes.len() <= size, "{path} has room for {size} bytes, not {}", bytes.len());
        self.put(base + self.kernel.types.offset(path) as u64, bytes);
    }

    /// Returns the address of a member.
    pub fn member(&self, base: u64, path: &str) -> u64 {
        base + self.kernel.types.offset(path) as u64
    }

    /// Returns the u64 at a virtual address.
    pub fn read_u64(&self, virt: u64) -> u64 {
        self.memory.read_u64(self.physical(virt))
    }

    /// Returns the physical address behind a virtual one.
    pub fn physical(&self, virt: u64) -> u64 {
        let phys = self.tables.translate(&self.memory, virt);
        phys.unwrap_or_else(|| panic!("nothing is mapped at {virt:#x}"))
    }

    /// Maps a page of user memory into the tree under the PGD at physical address `pgd`.
    pub fn map_user(&mut self, pgd: u64, virt: u64, phys: u64, flags: u64) {
        let pool = self.heap.alloc(4 * PAGE_SIZE, PAGE_SIZE);
        let mut tables = PageTables::new(pgd, self.kernel.levels, Arena::new(pool, pool + 4 * PAGE_SIZE));
        tables.map(&mut self.memory, virt, phys, crate::PageSize::Size4K, flags);
    }

    /// Links list heads into a ring in the given order.
    pub fn link(&mut self, nodes: &[u64]) {
        for (index, &node) in nodes.iter().enumerate() {
            let next = nodes[(index + 1) % nodes.len()];
            self.put_u64(node, next);
            self.put_u64(next + 8, node);
        }
    }
}

//! Puts a whole machine together: from a [`MachineSpec`] to memory, notes and files.

use crate::space::{IMAGE_SIZE, RODATA, Section, Space};
use crate::{ElfCore, KdumpFile, Memory, Notes, OrcEntry, OrcTable, PAGE_SIZE, PageClass, Regs, Symbol};

mod globals;
mod info;
mod memmap;
mod modules;
mod percpu;
mod presets;
mod spec;
mod tables;
mod tasks;
mod text;

pub use modules::Module;
pub use spec::{MachineSpec, ModuleSpec, TaskSpec};
pub use tasks::Task;
pub use text::Frame;

/// What a CPU did when the dump was taken.
#[derive(Clone, Debug)]
pub struct Cpu {
    /// Number.
    pub number: u32,
    /// The task it ran; 0 for an idle thread.
    pub pid: u32,
    /// Its registers, as its note has them.
    pub regs: Regs,
    /// `__per_cpu_offset[number]`.
    pub percpu_offset: u64,
}

/// A machine that was built: its memory, and the truth about it for tests to compare with.
#[derive(Clone, Debug)]
pub struct Machine {
    /// What was asked for.
    pub spec: MachineSpec,
    /// CPUs by number.
    pub cpus: Vec<Cpu>,
    /// Tasks in the order of the specification, without idle threads.
    pub tasks: Vec<Task>,
    /// Idle threads by CPU.
    pub idle_tasks: Vec<Task>,
    /// Modules in the order they were loaded.
    pub modules: Vec<Module>,
    /// All symbols of the image, by ascending address.
    pub symbols: Vec<Symbol>,
    /// The VMCOREINFO text.
    pub vmcoreinfo: Vec<u8>,
    /// What each page of RAM is used for: first frame, number of pages, class.
    pub pages: Vec<(u64, u64, PageClass)>,
    space: Space,
}

impl MachineSpec {
    /// Builds the machine.
    pub fn build(self) -> Machine {
        let mut space = Space::new(self.kernel.clone(), &self.ram, self.heap);
        globals::sections(&mut space);
        let mut orc = OrcTable::new();
        let mut text = text::Text::default();
        let filler: Vec<String> = (0..self.nr_filler_functions)
            .map(|n| format!("synth_filler_{n}_{}", ["open", "read", "write"][n as usize % 3]))
            .collect();
        let mut functions = text::functions(&self.kernel);
        functions.extend(filler.iter().map(|name| (name.as_str(), Frame::Plain(0x20))));
        let end = text.place(&mut space, &mut orc, self.kernel.text() + 0x1000, &functions, "");
        assert!(end <= self.kernel.text() + RODATA, "the text section is full");
        orc.at(self.kernel.text(), OrcEntry::UNDEFINED);

        let percpu = percpu::Percpu::build(&mut space, self.nr_cpus);
        globals::build(&mut space, &self);
        globals::log(&mut space, &self);
        let modules = modules::build(&mut space, &mut text, &self.modules);

        let mut tasks = tasks::Tasks::default();
        let runs = |cpu: u32| self.tasks.iter().find(|task| task.running_on == Some(cpu));
        let idle_tasks: Vec<Task> =
            (0..self.nr_cpus).map(|cpu| tasks.idle(&mut space, &text, cpu, runs(cpu).is_none())).collect();
        for spec in &self.tasks {
            tasks.add(&mut space, &text, spec);
        }
        tasks.link(&mut space, idle_tasks[0].address);
        for task in tasks.all.iter().filter(|task| task.spec.running_on.is_some()) {
            tasks.map_user_text(&mut space, task);
        }
        let mut cpus = Vec::new();
        for number in 0..self.nr_cpus {
            let idle = &idle_tasks[number as usize];
            let current = tasks.all.iter().find(|task| task.spec.running_on == Some(number)).unwrap_or(idle);
            let clock = self.uptime_s * 1_000_000_000;
            percpu.fill(&mut space, number, current.address, current.stack, idle.address, clock);
            let percpu_offset = percpu.offsets[number as usize];
            cpus.push(Cpu { number, pid: current.spec.pid, regs: current.regs, percpu_offset });
        }

        for (name, kind, address) in &self.symbols {
            space.symbol(name, *kind, *address);
        }
        space.variable_u64("crash_notes", Section::Bss, percpu.crash_notes);
        for name in ["vmcoreinfo_data", "vmcoreinfo_size", "vmcoreinfo_note"] {
            space.variable_u64(name, Section::Bss, 0);
        }
        let pages = memmap::build(&mut space, &self);
        memmap::fill(&mut space, &pages);
        tables::orc(&mut space, &orc);
        tables::btf(&mut space);
        let kallsyms = tables::kallsyms(&mut space);
        let vmcoreinfo = info::build(&space, &self, &kallsyms).text().to_vec();
        let machine = Machine {
            spec: self,
            cpus,
            tasks: tasks.all,
            idle_tasks,
            modules,
            symbols: kallsyms.symbols,
            vmcoreinfo,
            pages,
            space,
        };
        machine.with_notes_in_memory()
    }
}

impl Machine {
    /// Debian's 5.10, panicked by sysrq: 4 levels, no KASLR, crashed on CPU 0.
    pub fn linux_5_10() -> Self {
        MachineSpec::linux_5_10().build()
    }

    /// Debian's 6.1, panicked by sysrq: 4 levels, KASLR, crashed on CPU 1.
    pub fn linux_6_1() -> Self {
        MachineSpec::linux_6_1().build()
    }

    /// Debian's 6.12, panicked by sysrq: 4 levels, KASLR, crashed on CPU 1.
    pub fn linux_6_12() -> Self {
        MachineSpec::linux_6_12().build()
    }

    /// Debian's 7.3, panicked by sysrq: 5 levels, KASLR, crashed on CPU 0.
    pub fn linux_7_3() -> Self {
        MachineSpec::linux_7_3().build()
    }

    /// Returns the physical memory.
    pub fn memory(&self) -> &Memory {
        &self.space.memory
    }

    /// Returns the address of a symbol of the image; panics if there is none.
    pub fn symbol(&self, name: &str) -> u64 {
        self.find_symbol(name).unwrap_or_else(|| panic!("no symbol {name} in this kernel"))
    }

    /// Returns the address of a symbol of the image.
    pub fn find_symbol(&self, name: &str) -> Option<u64> {
        self.symbols.iter().find(|symbol| symbol.name == name).map(|symbol| symbol.address)
    }

    /// Returns the task with this thread id.
    pub fn task(&self, pid: u32) -> &Task {
        let task = self.tasks.iter().find(|task| task.spec.pid == pid);
        task.unwrap_or_else(|| panic!("no task {pid} on this machine"))
    }

    /// Translates a kernel virtual address.
    pub fn translate(&self, virt: u64) -> Option<u64> {
        self.space.tables.translate(&self.space.memory, virt)
    }

    /// Overwrites memory at a kernel virtual address: for tests of damaged dumps.
    pub fn write(&mut self, virt: u64, bytes: &[u8]) {
        self.space.put(virt, bytes);
    }

    /// Overwrites an integer member of a structure, `task_struct.tasks.next` for instance.
    pub fn set(&mut self, base: u64, path: &str, value: u64) {
        self.space.set(base, path, value);
    }

    /// Returns the notes: one per CPU that answered, then VMCOREINFO.
    pub fn notes(&self) -> Notes {
        let mut notes = Notes::new();
        for cpu in self.cpus.iter().filter(|cpu| !self.spec.silent_cpus.contains(&cpu.number)) {
            notes.prstatus(cpu.pid, &cpu.regs);
        }
        notes.vmcoreinfo(&self.vmcoreinfo);
        notes
    }

    /// Returns an ELF core as /proc/vmcore would have it: the image, then RAM.
    pub fn elf_core(&self) -> ElfCore<'_> {
        let kernel = &self.spec.kernel;
        let core =
            ElfCore::new(&self.space.memory, self.notes()).load(kernel.text(), kernel.image_phys, IMAGE_SIZE);
        self.spec
            .ram
            .iter()
            .fold(core, |core, &(start, end)| core.load(kernel.page_offset_base + start, start, end - start))
    }

    /// Returns a kdump-compressed file with all of RAM.
    pub fn kdump(&self) -> KdumpFile<'_> {
        let file = KdumpFile::new(&self.space.memory, self.notes(), &globals::utsname(&self.spec))
            .cpus(self.spec.nr_cpus)
            .phys_base(self.spec.kernel.phys_base());
        self.spec.ram.iter().fold(file, |file, &(start, end)| file.ram(start, end - start))
    }

    /// Returns the ELF core that a filter of this level would have written.
    pub fn elf_core_at_level(&self, dump_level: u32) -> ElfCore<'_> {
        self.elf_core().exclude(|pfn| self.is_excluded(pfn, dump_level))
    }

    /// Returns the kdump-compressed file that a filter of this level would have written. Zero-filled pages stay in the
    /// second bitmap and share one page of the file.
    pub fn kdump_at_level(&self, dump_level: u32) -> KdumpFile<'_> {
        self.kdump().exclude(dump_level as i32, |pfn| self.is_excluded(pfn, dump_level & !1))
    }

    /// Returns whether a dump of this level leaves the frame out.
    pub fn is_excluded(&self, pfn: u64, dump_level: u32) -> bool {
        let run = self.pages.iter().find(|(first, pages, _)| (*first..first + pages).contains(&pfn));
        let is_zero = || self.space.memory.page(pfn).is_none_or(|page| page.iter().all(|&byte| byte == 0));
        run.is_some_and(|(_, _, class)| class.is_excluded(dump_level)) || (dump_level & 1 != 0 && is_zero())
    }

    /// Returns whether the frame is part of a slab.
    pub fn is_slab(&self, pfn: u64) -> bool {
        let run = self.pages.iter().find(|(first, pages, _)| (*first..first + pages).contains(&pfn));
        run.is_some_and(|(_, _, class)| matches!(class, PageClass::Slab { .. }))
    }

    /// Writes the notes where the kernel keeps them, so that they can be found without ELF headers too.
    fn with_notes_in_memory(mut self) -> Self {
        let variable = self.symbol("crash_notes");
        let base = self.space.read_u64(variable);
        for cpu in self.cpus.clone() {
            if self.spec.silent_cpus.contains(&cpu.number) {
                continue;
            }
            let mut note = Notes::new();
            note.prstatus(cpu.pid, &cpu.regs);
            self.space.put(base.wrapping_add(cpu.percpu_offset), note.bytes());
        }
        let mut note = Notes::new();
        note.vmcoreinfo(&self.vmcoreinfo);
        let text = self.space.alloc(PAGE_SIZE, PAGE_SIZE);
        self.space.put(text, &self.vmcoreinfo);
        let at = self.space.alloc(2 * PAGE_SIZE, PAGE_SIZE);
        self.space.put(at, note.bytes());
        for (name, value) in [
            ("vmcoreinfo_data", text),
            ("vmcoreinfo_size", self.vmcoreinfo.len() as u64),
            ("vmcoreinfo_note", at),
        ] {
            let variable = self.symbol(name);
            self.space.put_u64(variable, value);
        }
        self
    }
}

#[cfg(test)]
mod tests;

//! What holds for every ready-made machine, read back from the bytes of its ELF core by formulas written again here.

use super::*;

fn machines() -> [Machine; 4] {
    [Machine::linux_5_10(), Machine::linux_6_1(), Machine::linux_6_12(), Machine::linux_7_3()]
}

/// An ELF core and the segments in it.
struct Core {
    bytes: Vec<u8>,
    loads: Vec<(u64, u64, u64, u64)>,
}

impl Core {
    fn new(machine: &Machine) -> Self {
        let bytes = machine.elf_core().bytes();
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        let count = usize::from(bytes[56]);
        let header = |index: usize| 64 + 56 * index;
        let loads =
            (1..count).map(header).map(|at| (word(at + 16), word(at + 24), word(at + 32), word(at + 8)));
        let loads = loads.collect();
        Self { bytes, loads }
    }

    /// Returns bytes at an address that a segment maps: the image and the direct map.
    fn read(&self, virt: u64, len: usize) -> &[u8] {
        let load = self.loads.iter().find(|load| (load.0..load.0 + load.2).contains(&virt));
        let load = load.unwrap_or_else(|| panic!("{virt:#x} is in no segment"));
        let at = (load.3 + virt - load.0) as usize;
        &self.bytes[at..at + len]
    }

    fn u64(&self, virt: u64) -> u64 {
        u64::from_le_bytes(self.read(virt, 8).try_into().unwrap())
    }
}

#[test]
fn a_ready_made_core_is_small() {
    for machine in machines() {
        let len = machine.elf_core().bytes().len();
        assert!(len < 10 << 20, "{len}");
        assert!(machine.vmcoreinfo.ends_with(b"CRASHTIME=1795440010\n"));
        assert!(machine.vmcoreinfo.len() < 4096 - 40);
    }
}

#[test]
fn the_image_formula_and_the_page_tables_agree() {
    for machine in machines() {
        let text = machine.symbol("_text");
        let by_formula = (text - 0xffff_ffff_8000_0000).wrapping_add(machine.spec.kernel.phys_base() as u64);
        assert_eq!(machine.translate(text), Some(by_formula));
        let base = machine.spec.kernel.page_offset_base;
        assert_eq!(machine.translate(base + 0x10_2345), Some(0x10_2345));
        assert_eq!(machine.translate(base), None);
    }
}

#[test]
fn the_task_list_reaches_every_process_and_the_thread_list_every_thread() {
    for machine in machines() {
        let core = Core::new(&machine);
        let types = &machine.spec.kernel.types;
        let offset = |path: &str| types.offset(path) as u64;
        let pid = |task: u64| {
            u32::from_le_bytes(core.read(task + offset("task_struct.pid"), 4).try_into().unwrap())
        };
        let list = |head: u64| {
            std::iter::successors(Some(core.u64(head)), |&node| Some(core.u64(node)))
                .take_while(move |&node| node != head)
        };

        let tasks = machine.symbol("init_task") + offset("task_struct.tasks");
        let leaders: Vec<u64> = list(tasks).map(|node| node - offset("task_struct.tasks")).collect();
        assert_eq!(leaders.iter().map(|&task| pid(task)).collect::<Vec<_>>(), [1, 2, 9, 60, 77, 81, 90]);
        let signal = core.u64(leaders[3] + offset("task_struct.signal"));
        let threads: Vec<u32> = list(signal + offset("signal_struct.thread_head"))
            .map(|node| pid(node - offset("task_struct.thread_node")))
            .collect();
        assert_eq!(threads, [60, 61, 62]);
    }
}

#[test]
fn each_cpu_s_area_says_which_cpu_it_is_and_what_runs_there() {
    for machine in machines() {
        let core = Core::new(&machine);
        for cpu in &machine.cpus {
            let of = |name: &str| machine.symbol(name).wrapping_add(cpu.percpu_offset);
            assert_eq!(core.u64(of("this_cpu_off")), cpu.percpu_offset);
            assert_eq!(
                core.u64(machine.symbol("__per_cpu_offset") + 8 * u64::from(cpu.number)),
                cpu.percpu_offset
            );
            let running =
                machine.find_symbol("pcpu_hot").map_or_else(|| of("current_task"), |_| of("pcpu_hot"));
            let is_panic_cpu = machine.spec.panic_cpu == Some(cpu.number);
            let expected = if is_panic_cpu {
                machine.task(77).address
            } else {
                machine.idle_tasks[cpu.number as usize].address
            };
            assert_eq!(core.u64(running), expected);
            assert_eq!(cpu.pid, if is_panic_cpu { 77 } else { 0 });
        }
    }
}

/// Unwinds the panic task with the ORC tables in the core; only the entry kinds that its chain needs.
fn unwind(machine: &Machine, core: &Core) -> Vec<String> {
    let is_v4 = machine.spec.kernel.at_least(7, 1);
    let (sp_reg, bp_reg, prev_sp) = if is_v4 { (3, 4, 8) } else { (5, 4, 1) };
    let is_v1 = !machine.spec.kernel.at_least(6, 3);
    let ips = machine.symbol("__start_orc_unwind_ip");
    let count = (machine.symbol("__stop_orc_unwind_ip") - ips) / 4;
    let entries = machine.symbol("__start_orc_unwind");
    assert_eq!(machine.symbol("__stop_orc_unwind") - entries, 6 * count);
    let ip_of = |i: u64| {
        let offset = i32::from_le_bytes(core.read(ips + 4 * i, 4).try_into().unwrap());
        (ips + 4 * i).wrapping_add(i64::from(offset) as u64)
    };
    // Stacks are in vmalloc space, so they are read through the page tables.
    let stack = |virt: u64| machine.memory().read_u64(machine.translate(virt).unwrap());
    let regs = machine.task(77).regs;
    let (mut ip, mut sp, mut bp) = (regs.ip, regs.sp, regs.bp);
    let mut names = Vec::new();
    loop {
        let symbol = machine.symbols.iter().rfind(|symbol| symbol.address <= ip).unwrap();
        names.push(symbol.name.clone());
        let index = (0..count).rev().find(|&i| ip_of(i) < ip).unwrap();
        let entry = core.read(entries + 6 * index, 6);
        let half = |at: usize| i64::from(i16::from_le_bytes([entry[at], entry[at + 1]])) as u64;
        let kind = if is_v1 { entry[5] & 3 } else { entry[5] & 7 };
        let caller_sp = match entry[4] & 0xf {
            reg if reg == sp_reg => sp.wrapping_add(half(0)),
            reg if reg == bp_reg => bp.wrapping_add(half(0)),
            reg => panic!("register {reg} in the entry for {}", symbol.name),
        };
        if kind == if is_v1 { 1 } else { 3 } {
            assert_eq!(stack(caller_sp + 136), 0x33);
            return names;
        }
        ip = stack(caller_sp - 8);
        if entry[4] >> 4 == prev_sp {
            bp = stack(caller_sp.wrapping_add(half(2)));
        }
        assert!(caller_sp > sp);
        sp = caller_sp;
    }
}

#[test]
fn orc_unwinds_the_panic_task_up_to_user_space() {
    for machine in machines() {
        let names = unwind(&machine, &Core::new(&machine));
        let expected = &machine.task(77).spec.chain;
        assert_eq!(&names, expected);
        assert_eq!(names[names.len() - 1], "entry_SYSCALL_64_after_hwframe");
        assert!(names.contains(&"sysrq_handle_crash".to_owned()));
    }
}

#[test]
fn a_struct_page_is_where_vmemmap_and_the_sections_say() {
    for machine in machines() {
        let base = machine.spec.kernel.vmemmap_base;
        let core = Core::new(&machine);
        let roots = core.u64(machine.symbol("mem_section"));
        for &(start, _) in &machine.spec.ram {
            let section = start >> 27;
            let root = core.u64(roots + 8 * (section / 256));
            assert_eq!(core.u64(root + 16 * (section % 256)) & !0xfff, base);
            assert!(machine.translate(base + (start >> 12) * 64).is_some());
        }
        // The hugetlb page: 512 struct pages from an aligned frame.
        let (first, pages, _) =
            *machine.pages.iter().find(|run| matches!(run.2, PageClass::Hugetlb { .. })).unwrap();
        assert_eq!((pages, first % 512), (512, 0));
        assert!(machine.is_excluded(first + 17, 8) && !machine.is_excluded(first + 17, 16));
    }
}

#[test]
fn a_kdump_file_of_the_same_machine_is_much_smaller() {
    let machine = Machine::linux_6_12();
    let file = machine.kdump_at_level(31).bytes();
    assert!(file.len() < machine.elf_core().bytes().len() / 4, "{}", file.len());
}

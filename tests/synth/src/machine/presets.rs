//! Four machines, ready-made: little, complete, and panicked by `echo c > /proc/sysrq-trigger`.
//!
//! Each has two CPUs, a task `crasher` (pid 77) that panicked, a process of three threads, a task in disk sleep, a
//! zombie, kernel threads of which one sleeps in a module, three modules, and pages of every class.

use crate::kallsyms::incompressible_name;
use crate::machine::spec::{MachineSpec, ModuleSpec, TaskSpec};
use crate::machine::text::Frame;
use crate::{Kernel, PageClass, Record, Regs};

const MIB: u64 = 1 << 20;

impl MachineSpec {
    /// See [`crate::Machine::linux_5_10`].
    pub fn linux_5_10() -> Self {
        Self::panicked(Kernel::linux_5_10(), 2 * MIB, 1 << 32, 0)
    }

    /// See [`crate::Machine::linux_6_1`].
    pub fn linux_6_1() -> Self {
        Self::panicked(Kernel::linux_6_1(), 2 * MIB, 1 << 32, 1)
    }

    /// See [`crate::Machine::linux_6_12`].
    pub fn linux_6_12() -> Self {
        Self::panicked(Kernel::linux_6_12(), 2 * MIB, 1 << 32, 1)
    }

    /// See [`crate::Machine::linux_7_3`].
    pub fn linux_7_3() -> Self {
        // With 5 levels the array of section roots alone takes 1 MiB.
        let mut spec = Self::panicked(Kernel::linux_7_3(), 5 * MIB / 2, 6 << 30, 0);
        // Rust gave real kernels names that need a length of two bytes.
        let text = spec.kernel.text();
        spec.symbols.push((incompressible_name(450), 't', text + 0x3_f000));
        spec
    }

    /// A panicked machine on any kernel. RAM is three ranges: a small one at 1 MiB and a large one at `large` hold
    /// pages of the classes that dumps leave out, the one between them the image and behind it `heap` bytes to
    /// allocate from.
    pub fn panicked(kernel: Kernel, heap: u64, large: u64, panic_cpu: u32) -> Self {
        let image = kernel.image_phys;
        let heap = (image + 2 * MIB, image + 2 * MIB + heap);
        let ram = vec![(MIB, 3 * MIB / 2), (image, heap.1), (large, large + 5 * MIB / 2)];
        Self {
            nodename: "synth".into(),
            command_line: "BOOT_IMAGE=/vmlinuz root=UUID=6fd1e2a4-synth ro crashkernel=256M quiet".into(),
            nr_cpus: 2,
            panic_cpu: Some(panic_cpu),
            silent_cpus: Vec::new(),
            tasks: tasks(&kernel, panic_cpu),
            modules: modules(),
            log: log(&kernel, panic_cpu),
            log_bits: (7, 13),
            pages: pages(ram[0].0, ram[2].0),
            ram,
            heap,
            tainted_mask: 1 << 12 | 1 << 13,
            uptime_s: 4242,
            crash_time_s: 1_795_440_010,
            nr_filler_functions: 600,
            symbols: Vec::new(),
            kernel,
        }
    }
}

/// The functions from the system call to the panic, innermost first.
fn panic_chain(kernel: &Kernel) -> Vec<&'static str> {
    let inner: &[&str] = if kernel.at_least(6, 15) {
        &["__crash_kexec", "vpanic", "panic"]
    } else {
        &["__crash_kexec", "panic"]
    };
    let outer = [
        "sysrq_handle_crash",
        "__handle_sysrq",
        "write_sysrq_trigger",
        "proc_reg_write",
        "vfs_write",
        "ksys_write",
        "do_syscall_64",
        "entry_SYSCALL_64_after_hwframe",
    ];
    [inner, &outer].concat()
}

fn tasks(kernel: &Kernel, panic_cpu: u32) -> Vec<TaskSpec> {
    let fork: &[&str] =
        if kernel.at_least(6, 4) { &["ret_from_fork", "ret_from_fork_asm"] } else { &["ret_from_fork"] };
    let kthread = |inner: &[&'static str]| [&["__schedule", "schedule"], inner, fork].concat();
    let syscall = |inner: &[&'static str]| {
        [&["__schedule", "schedule"], inner, &["do_syscall_64", "entry_SYSCALL_64_after_hwframe"]].concat()
    };
    let epoll = syscall(&["schedule_hrtimeout_range_clock", "ep_poll", "do_epoll_wait"]);
    let futex = syscall(&["futex_wait_queue", "futex_wait", "do_futex"]);
    let write = |buf: u64| Regs { orig_ax: 1, di: 1, si: buf, dx: 2, ..TaskSpec::user(0, "").user };
    let mut crasher = TaskSpec::user(77, "crasher").running_on(panic_cpu, &panic_chain(kernel));
    crasher.user = write(0x0bca_d580);
    crasher.parent = 60;
    vec![
        TaskSpec::user(1, "systemd").child_of(0).asleep(&epoll),
        TaskSpec::kthread(2, "kthreadd").child_of(0).asleep(&kthread(&["kthreadd"])),
        TaskSpec::kthread(9, "kworker/0:1").state(0x402).asleep(&kthread(&[
            "schedule_timeout",
            "virtio_net:virtnet_send_command",
            "virtio_net:virtnet_rx_mode_work",
            "process_one_work",
            "worker_thread",
            "kthread",
        ])),
        TaskSpec::user(60, "threaded").uid(1000).asleep(&futex),
        TaskSpec::user(61, "threaded-w1").uid(1000).thread_of(60).asleep(&futex),
        TaskSpec::user(62, "threaded-w2").uid(1000).thread_of(60).asleep(&epoll),
        crasher,
        TaskSpec::user(81, "dd").uid(1000).state(2).asleep(&syscall(&[
            "io_schedule",
            "folio_wait_bit_common",
            "filemap_read",
            "vfs_read",
            "ksys_read",
        ])),
        TaskSpec::user(90, "gone").child_of(60).zombie().asleep(&syscall(&["do_exit"])),
    ]
}

fn modules() -> Vec<ModuleSpec> {
    let mut failover = ModuleSpec::new("net_failover", &[("net_failover_create", Frame::SavesBp(0x40))]);
    failover.users = 1;
    let net = [
        ("virtnet_poll", Frame::SavesBp(0x90)),
        ("virtnet_send_command", Frame::SavesBp(0x78)),
        ("virtnet_rx_mode_work", Frame::FramePointer(0x60)),
    ];
    vec![
        failover,
        ModuleSpec::new("virtio_net", &net),
        ModuleSpec::new("crashme", &[("crashme_write", Frame::Plain(0x18))])
            .taints(1 << 12 | 1 << 13)
            .version("1.2"),
    ]
}

/// The lines of the panic, and before them enough others for the text to have gone round its ring.
fn log(kernel: &Kernel, panic_cpu: u32) -> Vec<Record> {
    let release = &kernel.release;
    let mut log = vec![
        Record::new(0, &format!("Linux version {release} (debian-kernel@lists.debian.org)"))
            .level(5)
            .caller(0),
        Record::new(
            0,
            "Command line: BOOT_IMAGE=/vmlinuz root=UUID=6fd1e2a4-synth ro crashkernel=256M quiet",
        )
        .caller(0),
    ];
    for n in 0..150u64 {
        let mut record = Record::new(
            1_000_000_000 + n * 10_000_000,
            &format!("synth: device {n} came up, speed {}", n * 37),
        );
        if n % 10 == 0 {
            record.device = Some(("pci".into(), format!("+pci:0000:00:{n:02x}.0")));
        }
        log.push(record);
    }
    log.push(Record::new(4_100_000_000_000, "two lines\nin one record").level(4));
    log.push(Record::new(4_150_000_000_000, ""));
    let at = 4_242_146_244_000;
    let panic = [
        (0, "sysrq: Trigger a crash".to_owned()),
        (0, "Kernel panic - not syncing: sysrq triggered crash".to_owned()),
        (
            3,
            format!(
                "CPU: {panic_cpu} UID: 0 PID: 77 Comm: crasher Kdump: loaded Tainted: G           OE      {release} {}",
                kernel.build
            ),
        ),
        (
            3,
            "Hardware name: QEMU Standard PC (i440FX + PIIX, 1996), BIOS 1.16.2-debian-1.16.2-1 04/01/2014"
                .to_owned(),
        ),
        (3, "Call Trace:".to_owned()),
        (3, " <TASK>".to_owned()),
        (3, " panic+0x40/0x80".to_owned()),
        (3, " sysrq_handle_crash+0x40/0x80".to_owned()),
        (3, " </TASK>".to_owned()),
    ];
    for (index, (level, text)) in (0u64..).zip(panic) {
        log.push(Record::new(at + index * 100_000, &text).level(level).caller(77));
    }
    log
}

/// Pages of every class that fits: small blocks in the first range, a hugetlb page and a large free block in the third.
fn pages(small: u64, large: u64) -> Vec<(u64, PageClass)> {
    let classes = [
        PageClass::Free { order: 3 },
        PageClass::LargeAnon { order: 3 },
        PageClass::LargeFileCache { order: 3 },
        PageClass::Slab { order: 3 },
        PageClass::Slab { order: 1 },
        PageClass::LargeKmalloc { order: 2 },
        PageClass::Free { order: 0 },
        PageClass::FileCache { is_private: false },
        PageClass::FileCache { is_private: true },
        PageClass::Anon,
        PageClass::Ksm,
        PageClass::SwapCache,
        PageClass::Slab { order: 0 },
        PageClass::PageTable,
        PageClass::HwPoison,
        PageClass::Offline,
    ];
    let mut place = small;
    let mut pages = Vec::new();
    for class in classes {
        // Compound pages and free blocks are aligned to their size.
        place = place.next_multiple_of(class.pages() * crate::PAGE_SIZE);
        pages.push((place, class));
        place += class.pages() * crate::PAGE_SIZE;
    }
    pages.push((large, PageClass::Hugetlb { order: 9 }));
    pages.push((large + 2 * MIB, PageClass::Free { order: 7 }));
    pages
}

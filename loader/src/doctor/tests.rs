//! Checks on facts that are written down: what is wrong is said, with the command that mends it.

use super::*;
use crate::arm;
use crate::console::Chosen;
use crate::iomem::{Iomem, tests::SAMPLE};
use crate::machine::Machine;
use crate::plan::{Item, Need};
use crate::rehearsed::Rehearsed;
use crate::state::{FileId, STATE_VERSION, State};
use crate::sysfs::Lockdown;
use crate::target::{self, Place, Rung, Target};

const RELEASE: &str = "6.12.117+deb13-amd64";
const MIB: u64 = 1 << 20;

fn file(path: &str) -> FileId {
    FileId { path: path.into(), size_bytes: 1, mtime: 1, sha256: String::new() }
}

fn state() -> State {
    State {
        version: STATE_VERSION,
        armed_at: 1,
        boot_id: "b4bb3a2f".into(),
        kernel: file("/boot/vmlinuz"),
        kernel_version: Some(format!("{RELEASE} (debian-kernel@lists.debian.org)")),
        init: None,
        modules: vec![],
        initramfs_bytes: 2 * MIB,
        targets: vec![],
        level: 31,
        format: "kdump".into(),
        compression: "zstd".into(),
        end: "reboot".into(),
        console: "8250 at port 0x3f8".into(),
        parity: String::new(),
        panic_test: None,
        via: "kexec_load".into(),
        arguments: vec![],
        plan: serde_json::Value::Null,
    }
}

fn need(staged: u64, sum: u64) -> Need {
    let items = vec![Item { what: "all", bytes: sum, from: String::new() }];
    Need { items, sum, recommended: sum.next_multiple_of(16 * MIB), staged }
}

/// A machine on which all is well.
fn facts() -> Facts {
    let machine = Machine {
        release: RELEASE.into(),
        iomem: Iomem::parse(SAMPLE.as_bytes()).unwrap(),
        cmdline: "quiet crashkernel=256M".into(),
        crash_size: Some(256 * MIB),
        is_crash_loaded: Some(true),
        lockdown: Some(Lockdown::None),
        has_cap_sys_boot: true,
        has_crash_hotplug: true,
        ..Machine::default()
    };
    let ram: u64 = machine.iomem.ram().iter().map(|range| range.len()).sum();
    let sysctls = [
        ("kernel.panic", 10),
        ("kernel.panic_on_oops", 1),
        ("kernel.softlockup_panic", 1),
        ("kernel.hardlockup_panic", 1),
        ("kernel.watchdog", 1),
        ("kernel.nmi_watchdog", 1),
        ("kernel.hung_task_panic", 0),
        ("vm.panic_on_oom", 0),
    ];
    let target = Target {
        directory: "/var/crash".into(),
        uuid: "a0a1".into(),
        fstype: "ext4".into(),
        path: "/var/crash".into(),
        device: "/dev/vda1".into(),
        options: String::new(),
        sysfs: vec![],
        free_bytes: 20 << 30,
    };
    Facts {
        system: System {
            sysctls: sysctls.into_iter().collect(),
            has_systemd: true,
            is_service_enabled: true,
            newest_kernel: Some(RELEASE.into()),
            hotplug: [Some(true); 2],
            // All but 312 MiB are free.
            memory: Some(Memory { total: ram, free: ram - 312 * MIB, cache: 100 * MIB, user: 60 * MIB }),
            ..System::default()
        },
        outlook: Outlook {
            level: 31,
            is_compressed: true,
            kernel: Ok(("/boot/vmlinuz".into(), RELEASE.into())),
            init: Ok("/usr/lib/kdump-rs/kdump-init".into()),
            targets: Ok(vec![Rung { place: Place::Directory(target), budget_s: None }]),
            modules: Some(Ok(vec!["virtio_blk".into(), "ext4".into()])),
            initramfs: Some(Default::default()),
            need: Some(need(60 * MIB, 110 * MIB)),
        },
        console: Chosen {
            console: kdump_panic_kernel::handoff::Console::None,
            text: "8250 at port 0x3f8".into(),
            warning: None,
        },
        state: Ok(Some(state())),
        changes: vec![],
        written: None,
        rehearsed: Ok(Some(Rehearsed {
            at: crate::state::now(),
            release: RELEASE.into(),
            kernel: "/boot/vmlinuz".into(),
            passed: vec!["sysrq".into()],
            failed: vec![],
            version: "0.1.0".into(),
        })),
        machine,
    }
}

/// What one check says after the facts are edited.
fn check(name: &str, edit: impl FnOnce(&mut Facts)) -> Check {
    let mut facts = facts();
    edit(&mut facts);
    examine(&facts).into_iter().find(|check| check.name == name).unwrap()
}

#[track_caller]
fn expect(name: &str, status: Status, found: &str, remedy: &str, edit: impl FnOnce(&mut Facts)) {
    let check = check(name, edit);
    assert_eq!(check.status, status, "{check:?}");
    assert!(check.found.contains(found), "{check:?}");
    assert!(check.remedy.as_deref().unwrap_or_default().contains(remedy), "{check:?}");
}

#[test]
fn a_machine_on_which_all_is_well_passes_every_check() {
    let checks = examine(&facts());
    for check in &checks {
        assert_eq!((check.status, &check.remedy), (Status::Pass, &None), "{check:?}");
    }
    assert_eq!(worst(&checks), Status::Pass);
    let text = to_text(&checks);
    assert!(text.contains("pass  reservation    256.0 MiB at "), "{text}");
    assert!(
        text.ends_with("26 pass, 0 warn, 0 fail: a panic will be dumped, as far as can be told\n"),
        "{text}"
    );
}

#[test]
fn every_check_that_does_not_pass_names_a_command() {
    let mut facts = facts();
    facts.machine = Machine { iomem: facts.machine.iomem.clone(), ..Machine::default() };
    facts.machine.iomem.0.retain(|r| r.name != "Crash kernel");
    facts.system = System::default();
    facts.state = Ok(None);
    facts.rehearsed = Ok(None);
    let checks = examine(&facts);
    assert_eq!(worst(&checks), Status::Fail);
    for check in checks {
        assert_eq!(check.remedy.is_some(), check.status != Status::Pass, "{check:?}");
    }
}

#[test]
fn each_lack_of_a_reservation_has_its_own_reason() {
    let none = |facts: &mut Facts| facts.machine.iomem.0.retain(|r| r.name != "Crash kernel");
    expect("reservation", Status::Fail, "booted without crashkernel=", "reserve --apply", |f| {
        none(f);
        f.machine.cmdline = "quiet".into();
    });
    expect(
        "reservation",
        Status::Fail,
        "the kernel says: crashkernel reservation failed",
        "--size 112M",
        |f| {
            none(f);
            f.machine.cmdline = "crashkernel=8G".into();
            f.system.crashkernel_log =
                vec!["crashkernel reservation failed - No suitable area found.".into()];
        },
    );
    expect("reservation", Status::Fail, "of RAM", "--size 112M", |f| {
        none(f);
        f.machine.cmdline = "crashkernel=800G".into();
    });
    expect("reservation", Status::Fail, "no longer says why", "--size 112M", |f| {
        none(f);
        f.machine.cmdline = "crashkernel=64M".into();
    });
    expect("reservation", Status::Fail, "no /sys/kernel/kexec_crash_size", "CONFIG_KEXEC", |f| {
        none(f);
        f.machine.crash_size = None;
    });
    expect("root", Status::Fail, "not root", "sudo", |f| f.machine.has_cap_sys_boot = false);
    expect("size", Status::Fail, "nothing is reserved, 112.0 MiB", "reserve", none);
    expect("size", Status::Fail, "does not fit", "reserve", |f| {
        f.outlook.need = Some(need(300 * MIB, 400 * MIB))
    });
    expect("size", Status::Warn, "may run out", "reserve", |f| {
        f.outlook.need = Some(need(60 * MIB, 400 * MIB))
    });
}

#[test]
fn what_forbids_a_load_is_found() {
    expect("load-disabled", Status::Fail, "kexec_load_disabled is 1", "grep", |f| {
        f.machine.is_load_disabled = true
    });
    expect("load-limit", Status::Warn, "is 0", "reboot", |f| f.machine.load_limit = Some(0));
    expect("load-limit", Status::Fail, "no load is left", "reboot", |f| {
        f.machine.load_limit = Some(0);
        f.machine.is_crash_loaded = Some(false);
    });
    expect("lockdown", Status::Warn, "locked down (integrity)", "mokutil", |f| {
        f.machine.lockdown = Some(Lockdown::Integrity);
    });
    expect("guest", Status::Fail, "TDX", "host", |f| f.machine.cpu_flags = vec!["tdx_guest".into()]);
}

#[test]
fn what_a_capture_lacks_is_found_piece_by_piece() {
    let missing = |what| arm::Error::NotFound { what, flag: "--x", tried: vec!["/a".into()] };
    expect("kernel", Status::Fail, "kernel image not found: tried /a", "--kernel", |f| {
        f.outlook.kernel = Err(missing("kernel image"));
    });
    expect("init", Status::Fail, "must be linked statically", "--init", |f| {
        let error =
            crate::initramfs::Error::NotStatic { what: "kdump-init", interpreter: "/lib64/ld.so".into() };
        f.outlook.init = Err(arm::Error::Initramfs(error));
    });
    expect("target", Status::Fail, "zfs", "--target", |f| {
        f.outlook.targets =
            Err(target::Error::Unsupported { path: "/var/crash".into(), fstype: "zfs".into() });
    });
    expect("target", Status::Fail, "No such file", "mkdir -p /var/crash", |f| {
        let source = std::io::Error::from_raw_os_error(2);
        f.outlook.targets = Err(target::Error::NoDirectory { path: "/var/crash".into(), source });
    });
    expect("drivers", Status::Fail, "the disk needs the driver nvme", "--explain", |f| {
        f.outlook.modules = Some(Err(arm::Error::Modules(crate::modules::Error::NoDriver {
            module: "nvme".into(),
            device: "/sys/devices/x".into(),
            dir: "/lib/modules/x".into(),
        })));
    });
    expect("drivers", Status::Warn, "not installed here", "--explain", |f| {
        let warnings = vec!["module qla may ask for firmware that is not installed here: a.bin".into()];
        f.outlook.initramfs = Some(crate::initramfs::Initramfs { warnings, ..Default::default() });
    });
}

#[test]
fn a_target_is_measured_by_the_dump_that_would_be_taken_now() {
    let free = |bytes: u64, level: u8| {
        move |f: &mut Facts| {
            f.outlook.level = level;
            let Place::Directory(target) = &mut f.outlook.targets.as_mut().unwrap()[0].place else { return };
            target.free_bytes = bytes;
        }
    };
    // 312 MiB less 160 at level 31: 152; at level 0 all of RAM, more than 3 GiB.
    expect("space", Status::Pass, "at level 31", "", free(200 * MIB, 31));
    expect("space", Status::Warn, "compresses well", "OLD-DUMP", free(100 * MIB, 31));
    expect("space", Status::Fail, "does not fit", "OLD-DUMP", free(20 * MIB, 31));
    expect("space", Status::Warn, "tried at 31", "--level 31", free(100 * MIB, 0));
}

#[test]
fn what_is_armed_is_held_against_what_is_there() {
    expect("armed", Status::Fail, "no capture kernel", "kdump-rs arm", |f| {
        f.machine.is_crash_loaded = Some(false)
    });
    expect("armed", Status::Warn, "by another program", "kdump-rs arm", |f| f.state = Ok(None));
    expect("armed", Status::Fail, "on purpose (hang)", "kdump-rs arm", |f| {
        f.state = Ok(Some(State { panic_test: Some("hang".into()), ..state() }));
    });
    expect("stale", Status::Warn, "has changed", "kdump-rs arm", |f| {
        f.changes = vec!["/boot/x has changed since".into()]
    });
    expect("upgrade", Status::Warn, "6.12.118+deb13-amd64 is installed", "rehearse", |f| {
        f.system.newest_kernel = Some("6.12.118+deb13-amd64".into());
    });
    expect("hotplug", Status::Warn, "not kept up to date: arm again when memory", "kdump-rs arm", |f| {
        f.system.hotplug = [Some(true), Some(false)];
    });
    for hotplug in [[Some(true), None], [None; 2]] {
        expect("hotplug", Status::Pass, "", "", |f| f.system.hotplug = hotplug);
    }
    expect("service", Status::Warn, "not enabled", "systemctl enable", |f| {
        f.system.is_service_enabled = false
    });
    expect(
        "other-tools",
        Status::Warn,
        "the last one wins",
        "systemctl disable --now kdump-tools.service",
        |f| {
            f.system.other_services = vec!["kdump-tools.service".into()];
        },
    );
    expect("other-tools", Status::Pass, "loads through this program", "", |f| {
        f.system.other_services = vec!["kdump-tools.service".into()];
        f.system.is_service_enabled = false;
        f.system.is_kexec_ours = true;
    });
    expect("console", Status::Warn, "silent: none: the screen", "--console", |f| {
        f.state = Ok(Some(State { console: "none: the screen is not in VGA text mode".into(), ..state() }));
    });
    expect("rehearsed", Status::Warn, "never", "kdump-rs rehearse", |f| f.rehearsed = Ok(None));
    expect("rehearsed", Status::Warn, "with 6.1.0", "kdump-rs rehearse", |f| {
        f.rehearsed.as_mut().unwrap().as_mut().unwrap().release = "6.1.0".into();
    });
    expect("rehearsed", Status::Warn, "failed nmi", "kdump-rs rehearse", |f| {
        f.rehearsed.as_mut().unwrap().as_mut().unwrap().failed = vec!["nmi".into()];
    });
}

#[test]
fn troubles_that_are_no_panic_are_warned_of_with_their_sysctl() {
    let off = |name: &'static str| {
        move |f: &mut Facts| {
            f.system.sysctls.insert(name, 0);
        }
    };
    expect("panic-on-oops", Status::Warn, "is 0", "kernel.panic_on_oops=1", off("kernel.panic_on_oops"));
    expect("panic-timeout", Status::Warn, "hangs for ever", "kernel.panic=10", off("kernel.panic"));
    expect(
        "lockups",
        Status::Warn,
        "kernel.softlockup_panic is 0",
        "softlockup_panic=1 >>",
        off("kernel.softlockup_panic"),
    );
    expect("lockups", Status::Pass, "nmi_watchdog is 0", "", off("kernel.nmi_watchdog"));
    expect("hung-tasks", Status::Pass, "no dump, on: hung tasks, out of memory", "", |_| {});
    expect("notifiers", Status::Warn, "is on", "echo N", |f| f.system.has_post_notifiers = true);
}

#[test]
fn a_watchdog_bites_unless_it_is_of_software_or_patient() {
    let dog = |identity: &str, is_active, timeout| {
        let watchdog = Watchdog { name: "watchdog0".into(), identity: identity.into(), is_active, timeout };
        move |f: &mut Facts| f.system.watchdogs = vec![watchdog]
    };
    expect(
        "watchdog",
        Status::Warn,
        "iTCO_wdt) resets the machine after 10 s",
        "RuntimeWatchdogSec",
        dog("iTCO_wdt", Some(true), Some(10)),
    );
    expect("watchdog", Status::Warn, "if it counts", "RuntimeWatchdogSec", dog("iTCO_wdt", None, None));
    for (identity, is_active, timeout) in [
        ("Software Watchdog", Some(true), Some(30)),
        ("iTCO_wdt", Some(false), Some(30)),
        ("iTCO_wdt", Some(true), Some(30)),
    ] {
        expect("watchdog", Status::Pass, "", "", dog(identity, is_active, timeout));
    }
}

/// Check that the page has a row for each check, in the same order, and no other.
#[test]
fn the_page_of_checks_is_complete() {
    let page = include_str!("../../../docs/doctor.md");
    let rows: Vec<_> = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    assert_eq!(rows, names());
    for row in page.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<_> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        assert!(cells.len() == 4 && cells.iter().all(|cell| !cell.is_empty()), "{row}");
    }
}

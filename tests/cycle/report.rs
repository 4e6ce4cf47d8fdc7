//! What a report of a sysrq crash has to say: causes, not noise. Shape: docs/report-schema.md.

use serde_json::Value;

/// The way into the crash, innermost first. Between them other functions may stand.
const WAY_IN: [&str; 6] = [
    "sysrq_handle_crash",
    "__handle_sysrq",
    "write_sysrq_trigger",
    "vfs_write",
    "ksys_write",
    "entry_SYSCALL_64_after_hwframe",
];

/// The processes that the guest starts, and how many of each.
const PROCESSES: [(&str, usize); 4] =
    [("kdump-sleeper", 3), ("kdump-holder", 1), ("kdump-burner", 1), ("kdump-crasher", 1)];

/// Checks a report of a guest that ran `release` on so many CPUs.
pub fn explains_the_crash(report: &Value, release: &str, cpus: u32) {
    assert_eq!(report["complete"], true, "{}", gaps(report));
    assert_eq!(report["warnings"], Value::Array(vec![]));
    assert_eq!(report["dump"]["incomplete"], false);

    let panic = section(report, "panic");
    assert_eq!(panic["message"], "sysrq triggered crash");
    assert_eq!(panic["task"]["comm"], "kdump-crasher");
    assert!(panic["task"]["pid"].as_u64().unwrap() > 1, "{panic:#}");
    assert!(panic["time"].as_i64().unwrap() > 0, "{panic:#}");

    stack_leads_to_the_crash(section(report, "panic_stack"));
    every_cpu_is_explained(section(report, "cpus"), cpus);
    tasks_are_listed(section(report, "tasks"));

    let system = section(report, "system");
    assert_eq!(system["release"], release);
    assert_eq!(system["hostname"], "kdump-rehearsal");
    assert!(system["cmdline"].as_str().unwrap().contains("rehearse-guest"), "{system:#}");

    let modules = section(report, "modules").as_array().unwrap();
    assert!(modules.iter().any(|m| m["name"] == "virtio_blk"), "{modules:#?}");

    let tail = section(report, "log")["tail"].as_array().unwrap();
    assert!(!tail.is_empty());
}

/// Checks a report of a kernel before 6.0, whose VMCOREINFO names no kallsyms tables.
pub fn has_what_the_log_says(report: &Value) {
    assert_eq!(report["complete"], false);
    assert!(gaps(report).contains("the kernel has no symbol"), "{}", gaps(report));
    let panic = &report["panic"]["data"];
    assert_eq!(panic["message"], "sysrq triggered crash");
    assert!(panic["time"].as_i64().unwrap() > 0, "{panic:#}");
    let tail = section(report, "log")["tail"].as_array().unwrap();
    assert!(!tail.is_empty());
}

fn stack_leads_to_the_crash(stack: &Value) {
    let frames = stack["frames"].as_array().unwrap();
    let mut wanted = WAY_IN.iter().peekable();
    let mut callee = "";
    for frame in frames {
        // The compiler moves what is rarely run out of the way: `__handle_sysrq.cold`.
        let symbol = frame["symbol"].as_str().unwrap_or("").trim_end_matches(".cold");
        if wanted.peek().is_some_and(|w| **w == symbol) {
            wanted.next();
        }
        let trusted: &[&str] = match callee {
            // STACK_FRAME_NON_STANDARD in kernel/kexec_core.c: the kernel has no ORC entry for it.
            "__crash_kexec" => &["orc", "scan"],
            _ => &["regs", "orc"],
        };
        assert!(trusted.contains(&frame["trust"].as_str().unwrap()), "a guessed frame: {frame:#}");
        callee = symbol;
    }
    assert_eq!(wanted.next(), None, "not on the stack, or out of order: {stack:#}");
    assert_eq!(stack["clean"], true, "{stack:#}");
}

fn every_cpu_is_explained(cpus: &Value, number: u32) {
    let cpus = cpus.as_array().unwrap();
    assert_eq!(cpus.len(), number as usize);
    for cpu in cpus {
        assert_eq!((&cpu["online"], &cpu["registers_saved"]), (&true.into(), &true.into()), "{cpu:#}");
        assert_eq!(cpu["stack"]["clean"], true, "{cpu:#}");
        // What the NMI interrupted in user mode has no frames in the kernel.
        let stop = cpu["stack"]["stop"].as_str().unwrap();
        let frames = cpu["stack"]["frames"].as_array().unwrap();
        assert!(!frames.is_empty() || stop.starts_with("entered from user mode"), "{cpu:#}");
    }
    assert_eq!(cpus.iter().filter(|cpu| cpu["panicked"] == true).count(), 1);
}

fn tasks_are_listed(tasks: &Value) {
    let list = tasks["list"].as_array().unwrap();
    assert_eq!(tasks["count"].as_u64(), Some(list.len() as u64));
    for (comm, number) in PROCESSES {
        assert_eq!(list.iter().filter(|t| t["comm"] == comm).count(), number, "{comm}: {list:#?}");
    }
    let pid_1 = list.iter().find(|t| t["pid"] == 1).unwrap();
    assert_eq!(pid_1["comm"], "kdump-rs");
    let crasher = list.iter().find(|t| t["comm"] == "kdump-crasher").unwrap();
    assert_eq!((&crasher["ppid"], &crasher["running"]), (&1.into(), &true.into()));
}

/// A section that has to be there in full.
fn section<'a>(report: &'a Value, name: &str) -> &'a Value {
    let section = &report[name];
    assert_eq!(section["status"], "present", "{name}: {:#}", section["reasons"]);
    &section["data"]
}

fn gaps(report: &Value) -> String {
    let sections = report.as_object().unwrap();
    sections.iter().map(|(name, s)| format!("{name}: {} {}\n", s["status"], s["reasons"])).collect()
}

//! Answers against what the fixture says is true.

use kdump_synth::{Compression, Machine, MachineSpec, TaskSpec};
use serde_json::Value;

use super::{analyze, json, write};

/// Functions of a stack, innermost first.
fn functions(stack: &Value) -> Vec<String> {
    let frames = stack["frames"].as_array().unwrap();
    frames.iter().map(|f| f["symbol"].as_str().unwrap_or("?").to_string()).collect()
}

fn hex(v: u64) -> String {
    format!("{v:#018x}")
}

#[test]
fn the_panic_is_told_from_every_format() {
    for (name, machine) in [("6.12", Machine::linux_6_12()), ("7.3", Machine::linux_7_3())] {
        let zstd = machine.kdump_at_level(31).compression(Compression::Zstd).bytes();
        let zlib = machine.kdump_at_level(31).compression(Compression::Zlib).bytes();
        let files = [
            machine.elf_core().bytes(),
            machine.elf_core_at_level(31).bytes(),
            machine.kdump().bytes(),
            zstd,
            zlib,
        ];
        let mut pages = Vec::new();
        for bytes in files {
            let (_dir, path) = write(&bytes);
            let out = analyze(&path, &["--json"]);
            let r = json(&out);
            assert_eq!(out.status.code(), Some(0), "{name}: {r}");
            assert_eq!(r["warnings"], serde_json::json!([]));
            let panic = &r["panic"]["data"];
            assert_eq!(panic["message"], "sysrq triggered crash");
            assert_eq!(panic["task"]["pid"], 77);
            assert_eq!(panic["task"]["comm"], "crasher");
            assert_eq!(panic["task"]["addr"], hex(machine.task(77).address));
            assert_eq!(panic["cpu"], machine.spec.panic_cpu.unwrap());
            let stack = &r["panic_stack"]["data"];
            assert_eq!(stack["clean"], true);
            let chain = functions(stack);
            let wanted = &machine.task(77).spec.chain;
            let found: Vec<_> = chain.iter().filter(|f| wanted.contains(f)).collect();
            assert_eq!(found, wanted.iter().collect::<Vec<_>>(), "{name}: {chain:?}");
            let mut r = r;
            r["dump"] = Value::Null; // all but the format is the same
            pages.push(r);
        }
        assert!(pages.windows(2).all(|w| w[0] == w[1]), "the formats disagree");
    }
}

#[test]
fn every_task_is_listed_with_its_state() {
    let mut spec = MachineSpec::linux_6_12();
    spec.tasks.push(TaskSpec::user(412, "stuck").uid(33).state(2).asleep(&["__schedule", "schedule"]));
    spec.tasks.push(TaskSpec::user(413, "thread").thread_of(412));
    let machine = spec.build();
    let (_dir, path) = write(&machine.elf_core().bytes());
    let r = json(&analyze(&path, &["ps", "--json"]));
    let list = r["data"]["list"].as_array().unwrap();
    assert_eq!(list.len(), machine.tasks.len() + machine.idle_tasks.len());
    for task in &machine.tasks {
        let ours = list.iter().find(|t| t["pid"] == task.spec.pid).expect("listed");
        assert_eq!(ours["comm"].as_str(), Some(task.spec.comm.as_str()));
        assert_eq!(ours["tgid"], task.spec.tgid);
        assert_eq!(ours["uid"], task.spec.uid);
    }
    let stuck = list.iter().find(|t| t["pid"] == 412).unwrap();
    assert_eq!(stuck["state"], "D");
    assert!(r["data"]["blocked"]["412"]["frames"].as_array().is_some_and(|f| !f.is_empty()));
}

/// Check that a task list that runs in a circle costs a gap, not the answer.
#[test]
fn a_circular_task_list_is_a_gap() {
    let mut machine = Machine::linux_6_12();
    let victim = machine.tasks[1].address;
    let node = victim + machine.spec.kernel.types.offset("task_struct.tasks") as u64;
    machine.set(victim, "task_struct.tasks.next", node);
    let (_dir, path) = write(&machine.elf_core().bytes());
    let out = analyze(&path, &["--json"]);
    assert_eq!(out.status.code(), Some(1));
    let r = json(&out);
    assert_eq!(r["tasks"]["status"], "partial");
    assert_eq!(r["panic"]["data"]["message"], "sysrq triggered crash");
}

/// Check that a CPU without a note does not shift the others' registers.
#[test]
fn a_silent_cpu_is_named_and_shifts_nobody() {
    let mut spec = MachineSpec::linux_6_12();
    let panicking = spec.panic_cpu.unwrap();
    let silent = 1 - panicking;
    spec.silent_cpus.push(silent);
    let machine = spec.build();
    let (_dir, path) = write(&machine.elf_core().bytes());
    let r = json(&analyze(&path, &["--json"]));
    let cpus = r["cpus"]["data"].as_array().unwrap();
    let of = |n: u32| cpus.iter().find(|c| c["cpu"] == n).unwrap();
    assert_eq!(of(silent)["registers_saved"], false);
    assert_eq!(of(panicking)["registers_saved"], true);
    assert_eq!(of(panicking)["task"]["comm"], "crasher");
    assert!(functions(&r["panic_stack"]["data"]).contains(&"sysrq_handle_crash".to_string()));
}

/// On 5.10 VMCOREINFO does not name the kallsyms tables: the log is read, the rest is said to be missing.
#[test]
fn without_symbols_the_log_is_still_told() {
    let machine = Machine::linux_5_10();
    let (_dir, path) = write(&machine.elf_core().bytes());
    let out = analyze(&path, &["--json"]);
    assert_eq!(out.status.code(), Some(1));
    let r = json(&out);
    assert_eq!(r["panic"]["data"]["message"], "sysrq triggered crash");
    assert_eq!(r["complete"], false);
    assert!(r["warnings"].as_array().is_some_and(|w| !w.is_empty()));
    assert_eq!(analyze(&path, &["log"]).status.code(), Some(0));
}

/// Check that a frame in a module is named by the module's own symbols.
#[test]
fn a_module_on_the_stack_is_named() {
    let mut spec = MachineSpec::linux_6_12();
    let chain =
        ["__schedule", "schedule", "crashme:crashme_write", "vfs_write", "entry_SYSCALL_64_after_hwframe"];
    spec.tasks.push(TaskSpec::user(500, "stuck").state(2).asleep(&chain));
    let (_dir, path) = write(&spec.build().elf_core().bytes());
    let out = analyze(&path, &["bt", "500", "--json"]);
    assert_eq!(out.status.code(), Some(0));
    let stacks = json(&out);
    let frames = stacks[0]["stack"]["frames"].as_array().unwrap();
    let module = frames.iter().find(|f| f["module"] == "crashme").expect("a frame in the module");
    assert_eq!((&module["symbol"], &module["trust"]), (&"crashme_write".into(), &"orc".into()));
}

/// Check that tasks blocked in one place are told together.
#[test]
fn tasks_blocked_in_one_place_share_a_stack() {
    let mut spec = MachineSpec::linux_6_12();
    let chain = ["__schedule", "schedule", "vfs_write", "entry_SYSCALL_64_after_hwframe"];
    for pid in 600..604 {
        spec.tasks.push(TaskSpec::user(pid, "writer").state(2).asleep(&chain));
    }
    let (_dir, path) = write(&spec.build().elf_core().bytes());
    let page = String::from_utf8(analyze(&path, &[]).stdout).unwrap();
    assert!(page.contains("blocked: writer (600), writer (601), writer (602), writer (603)\n"), "{page}");
    assert!(page.lines().count() < 80, "the page grows with the tasks: {page}");
    assert!(page.lines().all(|l| l.chars().count() <= 100), "{page}");
}

/// With a capture kernel loaded, an oops enters it before it says "Kernel panic".
#[test]
fn an_oops_is_the_message() {
    let mut spec = MachineSpec::linux_6_12();
    let panic = spec.log.iter().position(|r| r.text.starts_with("Kernel panic")).unwrap();
    spec.log.truncate(panic);
    let mut record = spec.log.last().unwrap().clone();
    for text in [
        "BUG: kernel NULL pointer dereference, address: 0000000000000010",
        "PGD 0 P4D 0",
        "Oops: Oops: 0002 [#1] PREEMPT SMP NOPTI",
        "RIP: 0010:crashme_write+0x10/0x40 [crashme]",
    ] {
        record.text = text.into();
        spec.log.push(record.clone());
    }
    let (_dir, path) = write(&spec.build().elf_core().bytes());
    let out = analyze(&path, &["--json"]);
    assert_eq!(out.status.code(), Some(0));
    let panic = &json(&out)["panic"]["data"];
    assert_eq!(panic["kind"], "oops");
    assert_eq!(panic["message"], "BUG: kernel NULL pointer dereference, address: 0000000000000010");
    let page = String::from_utf8(analyze(&path, &[]).stdout).unwrap();
    assert!(page.starts_with("KERNEL OOPS: BUG: kernel NULL pointer dereference"), "{page}");
    assert!(page.contains("crashme_write+0x10/0x40 [crashme]"), "{page}");
}

/// Check that a machine that was dumped alive is told without a panic, as a gap.
#[test]
fn a_machine_dumped_alive_has_no_panic() {
    let mut spec = MachineSpec::linux_6_12();
    spec.panic_cpu = None;
    spec.log.retain(|r| !r.text.starts_with("Kernel panic") && !r.text.starts_with("sysrq"));
    let machine = spec.build();
    let (_dir, path) = write(&machine.elf_core().bytes());
    let out = analyze(&path, &["--json"]);
    assert_eq!(out.status.code(), Some(1));
    let r = json(&out);
    assert_eq!((&r["panic"]["status"], &r["panic_stack"]["status"]), (&"partial".into(), &"absent".into()));
    assert_eq!(r["tasks"]["status"], "present");
}

/// Check that the log's bytes are given as they are, and that they cannot command a terminal.
#[test]
fn the_log_is_exact_to_the_byte() {
    let mut spec = MachineSpec::linux_6_12();
    spec.log.last_mut().unwrap().text = "name #MARK# of a volume".into();
    let mut bytes = spec.build().elf_core().bytes();
    while let Some(at) = bytes.windows(6).position(|w| w == b"#MARK#") {
        bytes[at..at + 6].copy_from_slice(b"\xff\xfe\x1b[2J");
    }
    let (_dir, path) = write(&bytes);
    let has = |bytes: &[u8], part: &[u8]| bytes.windows(part.len()).any(|w| w == part);
    assert!(has(&analyze(&path, &["log"]).stdout, b"] name \xff\xfe\x1b[2J of a volume\n"));
    assert!(!has(&analyze(&path, &[]).stdout, b"\x1b"));
}

/// Check that the schema's document names every field that a report has.
#[test]
fn the_schema_document_names_every_field() {
    fn keys(v: &Value, out: &mut std::collections::BTreeSet<String>) {
        match v {
            Value::Object(map) => {
                for (key, value) in map {
                    // Keys that are data: states and thread ids.
                    if !matches!(key.as_str(), "by_state" | "blocked") {
                        keys(value, out);
                    }
                    out.insert(key.clone());
                }
            }
            Value::Array(list) => list.iter().for_each(|v| keys(v, out)),
            _ => {}
        }
    }
    let (_dir, path) = write(&Machine::linux_6_12().elf_core().bytes());
    let mut found = std::collections::BTreeSet::new();
    keys(&json(&analyze(&path, &["--json"])), &mut found);
    let document = include_str!("../../docs/report-schema.md");
    for key in found {
        assert!(
            document.contains(&format!("`{key}`")) || document.contains(&format!("\"{key}\"")),
            "`{key}`"
        );
    }
}

//! The cause and the function to blame, where they are not the panicking task's own.

use kdump_synth::MachineSpec;
use serde_json::Value;

use super::{analyze, json, write};

/// The report on a machine whose log ends in these two lines.
fn report(mut spec: MachineSpec, before: &str, message: &str) -> Value {
    for (ours, text) in [
        ("sysrq: Trigger a crash", before.to_owned()),
        ("Kernel panic - not syncing: ", format!("Kernel panic - not syncing: {message}")),
    ] {
        spec.log.iter_mut().find(|record| record.text.starts_with(ours)).unwrap().text = text;
    }
    let (_dir, path) = write(&spec.build().elf_core().bytes());
    json(&analyze(&path, &["--json"]))
}

#[test]
fn a_hung_task_is_blamed_and_not_who_found_it() {
    let line = "INFO: task dd:81 blocked for more than 120 seconds.";
    let r = report(MachineSpec::linux_6_12(), line, "hung_task: blocked tasks");
    let panic = &r["panic"]["data"];
    assert_eq!((&panic["cause"]["kind"], &panic["cause"]["evidence"]), (&"hung-task".into(), &line.into()));
    assert_eq!((&panic["cause"]["task"]["pid"], &panic["task"]["pid"]), (&81.into(), &77.into()));
    assert_eq!(panic["cause"]["function"]["symbol"], "filemap_read");
    // Whoever was reported and has gone on since is not to blame.
    let line = "INFO: task crasher:77 blocked for more than 120 seconds.";
    let r = report(MachineSpec::linux_6_12(), line, "hung_task: blocked tasks");
    let cause = &r["panic"]["data"]["cause"];
    assert_eq!((&cause["kind"], &cause["task"]), (&"hung-task".into(), &Value::Null));
    assert_eq!(cause["function"], Value::Null);
}

#[test]
fn another_cpu_that_locked_up_is_blamed() {
    let spec = MachineSpec::linux_6_12();
    let locked = 1 - spec.panic_cpu.unwrap();
    let line = format!("watchdog: Watchdog detected hard LOCKUP on cpu {locked}");
    let r = report(spec, &line, "Hard LOCKUP");
    let cause = &r["panic"]["data"]["cause"];
    assert_eq!(cause["kind"], "hard-lockup");
    let cpus = r["cpus"]["data"].as_array().unwrap();
    let cpu = cpus.iter().find(|cpu| cpu["cpu"] == locked).unwrap();
    assert_eq!(cause["function"], cpu["stack"]["frames"][0]);
    assert_eq!(cause["task"], cpu["task"]);
}

#[test]
fn a_panic_for_a_reason_of_its_own_is_blamed_on_who_called_it() {
    let r = report(MachineSpec::linux_7_3(), "fine", "the driver gave up");
    let cause = &r["panic"]["data"]["cause"];
    assert_eq!((&cause["kind"], &cause["evidence"]), (&"panic".into(), &"the driver gave up".into()));
    assert_eq!(cause["function"]["symbol"], "sysrq_handle_crash");
    assert_eq!(cause["in_interrupt"], false);
}

//! One crash in a test, and what its reports have to say.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use kdump_rehearse::phase::Silent;
use kdump_rehearse::{Crash, Error, Outcome, Plan, Scene, trigger};
use serde_json::Value;

use crate::common::{KDUMP_RS, Turn, cache, programs};

/// Crashes a kernel, and looks at the report that the capture kernel made, and at the one made here.
pub fn named(kernel: &str, crash: Crash, cpu: Option<u32>) {
    let turn = Turn::wait();
    let name = format!("{kernel}, {crash} on CPU {cpu:?}");
    let outcome = rehearse(&turn, kernel, crash, cpu);
    let report = std::fs::read(outcome.dump_dir.join("report.json")).unwrap();
    names(&serde_json::from_slice(&report).unwrap(), crash, cpu, &name);
    let here = std::process::Command::new(KDUMP_RS)
        .arg("analyze")
        .arg(outcome.dump_dir.join("vmcore"))
        .arg("--json")
        .output()
        .unwrap();
    assert_eq!(here.status.code(), Some(0), "{name}: {}", String::from_utf8_lossy(&here.stderr));
    names(&serde_json::from_slice(&here.stdout).unwrap(), crash, cpu, &name);
}

/// The report says what was done: cause, function, task, CPU, and no section is missing anything.
fn names(report: &Value, crash: Crash, cpu: Option<u32>, name: &str) {
    let panic = &report["panic"]["data"];
    let cause = &panic["cause"];
    let function = cause["function"]["symbol"].as_str();
    let seen = format!("{name}: {:#}\n{:#}", panic, report["panic_stack"]);
    assert!(crash.is_named_by(cause["kind"].as_str(), function), "{seen}");
    // An interrupt strikes whom it will, an NMI from outside whatever runs.
    if crash.function().is_some() {
        assert_eq!(cause["in_interrupt"], crash == Crash::PanicInIrq, "{seen}");
    }
    if !matches!(crash, Crash::PanicInIrq | Crash::NmiButton) {
        assert_eq!(cause["task"]["comm"], crash.comm(), "{seen}");
    }
    let module = crash.needs_module().then_some("kdump_trigger");
    assert_eq!(cause["function"]["module"].as_str(), module, "{seen}");
    assert!(!cause["evidence"].as_str().unwrap().is_empty(), "{seen}");
    if crash == Crash::NmiButton {
        let frames = report["panic_stack"].to_string();
        assert!(["\"exc_nmi\"", "\"unknown_nmi_error\""].iter().all(|name| frames.contains(name)), "{seen}");
    }
    if let Some(cpu) = cpu {
        assert_eq!(panic["cpu"], cpu, "{seen}");
    }
    assert_eq!(report["complete"], true, "{name}: {}", gaps(report));
}

fn rehearse(turn: &Turn, kernel: &str, crash: Crash, cpu: Option<u32>) -> Outcome {
    let directory = cache().join("kernels").join(kernel);
    for (file, script) in [("vmlinuz", "fetch-kernel.sh"), (trigger::FILE, "build-guest-module.sh")] {
        let path = directory.join(file);
        assert!(path.exists(), "{} is missing: run scripts/{script} {kernel}", path.display());
    }
    let plan = Plan {
        crash,
        trigger: Some(directory.join(trigger::FILE)),
        scene: Scene { panic_cpu: cpu, ..Scene::default() },
        ..Plan::new(directory.join("vmlinuz"), programs(), turn.directory(&format!("causes-{kernel}")))
    };
    plan.run(&mut Silent).unwrap_or_else(|error| match &error {
        Error::Phase { tail, .. } => panic!("{kernel}, {crash}: {error}\n{}", tail.join("\n")),
        _ => panic!("{kernel}, {crash}: {error}"),
    })
}

fn gaps(report: &Value) -> String {
    let sections = report.as_object().unwrap();
    sections.iter().map(|(name, s)| format!("{name}: {} {}\n", s["status"], s["reasons"])).collect()
}

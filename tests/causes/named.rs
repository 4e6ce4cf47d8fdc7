//! One crash in a test, and what its reports have to say.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use kdump_rehearse::phase::Silent;
use kdump_rehearse::{Crash, Error, Outcome, Plan, Programs, Scene, trigger};
use serde_json::Value;

/// Guests take two CPUs each: one after the other is as fast as all at once, and steadier.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Crashes a kernel, and looks at the report that the capture kernel made, and at the one made here.
pub fn named(kernel: &str, crash: Crash, cpu: Option<u32>) {
    let _lock = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let name = format!("{kernel}, {crash} on CPU {cpu:?}");
    let outcome = rehearse(kernel, crash, cpu);
    let report = std::fs::read(outcome.dump_dir.join("report.json")).unwrap();
    names(&serde_json::from_slice(&report).unwrap(), crash, cpu, &name);
    let here = std::process::Command::new(env!("CARGO_BIN_EXE_kdump-rs"))
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
    assert_eq!(cause["in_interrupt"], crash == Crash::PanicInIrq, "{seen}");
    // An interrupt strikes whom it will.
    if crash != Crash::PanicInIrq {
        assert_eq!(cause["task"]["comm"], crash.comm(), "{seen}");
    }
    let module = crash.needs_module().then_some("kdump_trigger");
    assert_eq!(cause["function"]["module"].as_str(), module, "{seen}");
    assert!(!cause["evidence"].as_str().unwrap().is_empty(), "{seen}");
    if let Some(cpu) = cpu {
        assert_eq!(panic["cpu"], cpu, "{seen}");
    }
    assert_eq!(report["complete"], true, "{name}: {}", gaps(report));
}

fn rehearse(kernel: &str, crash: Crash, cpu: Option<u32>) -> Outcome {
    let directory = cache().join("kernels").join(kernel);
    for (file, script) in [("vmlinuz", "fetch-kernel.sh"), (trigger::FILE, "build-guest-module.sh")] {
        let path = directory.join(file);
        assert!(path.exists(), "{} is missing: run scripts/{script} {kernel}", path.display());
    }
    let programs = Programs {
        kdump_rs: env!("CARGO_BIN_EXE_kdump-rs").into(),
        kdump_init: env!("CARGO_BIN_EXE_kdump-init").into(),
    };
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("causes-{kernel}"));
    let plan = Plan {
        crash,
        trigger: Some(directory.join(trigger::FILE)),
        scene: Scene { panic_cpu: cpu, ..Scene::default() },
        ..Plan::new(directory.join("vmlinuz"), programs, out)
    };
    plan.run(&mut Silent).unwrap_or_else(|error| match &error {
        Error::Phase { tail, .. } => panic!("{kernel}, {crash}: {error}\n{}", tail.join("\n")),
        _ => panic!("{kernel}, {crash}: {error}"),
    })
}

/// Where the scripts put kernels.
fn cache() -> PathBuf {
    let base = match std::env::var_os("XDG_CACHE_HOME") {
        Some(dir) if !dir.is_empty() => PathBuf::from(dir),
        _ => PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache"),
    };
    base.join("kdump-rs")
}

fn gaps(report: &Value) -> String {
    let sections = report.as_object().unwrap();
    sections.iter().map(|(name, s)| format!("{name}: {} {}\n", s["status"], s["reasons"])).collect()
}

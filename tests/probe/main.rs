//! The probe in a guest, entered by an ordinary kexec and after a panic: every step it announces must end well.
//!
//! Needs QEMU and the kernels; `make test` runs these tests, a plain `cargo test` lists them as ignored. The golden
//! log is rewritten with `KDUMP_RS_BLESS=1`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../common/mod.rs"]
mod common;

use kdump_rehearse::phase::{Phase, Silent};
use kdump_rehearse::{Error, Plan, Scene};

use common::Turn;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/probe.log");
const PREFIX: &str = "kdump-rs probe: ";

/// Runs a guest whose last program is the probe, and gives what that said.
fn probe(kernel: &str, cpu: Option<&str>, arm: &[&str], scene: Scene) -> Vec<String> {
    let turn = Turn::wait();
    let out = turn.directory("probe");
    let plan = Plan {
        cpu: cpu.map(str::to_owned),
        arm: arm.iter().map(|&a| a.to_owned()).collect(),
        scene: Scene { qemu: ["-device", "VGA"].map(str::to_owned).to_vec(), ..scene },
        ..Plan::new(common::kernel(kernel), common::programs(), out.clone())
    };
    let end = plan.run(&mut Silent);
    let serial = common::serial_of(&out);
    // The probe resets the machine, and no dump is made: to a rehearsal that is an error.
    let Err(Error::Phase { phase: Phase::Panic | Phase::PanicKernel, why, .. }) = end else {
        panic!("{end:?}: {serial}")
    };
    assert_eq!(why, "the guest reset", "{serial}");
    let said: Vec<String> =
        serial.lines().filter_map(|l| l.strip_prefix(PREFIX)).map(str::to_owned).collect();
    assert!(!said.is_empty(), "{serial}");
    said
}

/// Check that every step announced has ended well, and the last line says so.
fn all_steps_passed(said: &[String]) {
    let announced: Vec<_> = said.iter().filter(|line| step(line).is_some_and(|(_, ok)| !ok)).collect();
    assert!(announced.len() > 8, "{said:#?}");
    for line in &announced {
        let (number, _) = step(line).unwrap();
        assert!(said.iter().any(|l| step(l) == Some((number, true))), "step {number} did not end: {said:#?}");
    }
    assert_eq!(said.last().unwrap(), &format!("all {} steps passed", announced.len()), "{said:#?}");
}

/// The number of a step, and whether the line confirms it.
fn step(line: &str) -> Option<(u32, bool)> {
    let (number, rest) = line.strip_prefix("step ")?.split_once(' ')?;
    Some((number.parse().ok()?, rest.starts_with("ok: ")))
}

/// Hexadecimal numbers vary from run to run and machine to machine; the memory map's do not, on this one.
fn without_addresses(line: &str) -> String {
    let words = line.split(' ').map(|word| if word.starts_with("0x") { "0x…" } else { word });
    words.collect::<Vec<_>>().join(" ")
}

fn golden(said: &[String]) -> String {
    said.iter()
        .filter(|line| !line.starts_with("  entry "))
        .map(|line| if line.contains(" type ") { line.clone() } else { without_addresses(line) })
        .map(|line| line + "\n")
        .collect()
}

#[test]
#[ignore = "boots a kernel in QEMU; `make test` runs it"]
fn the_probe_passes_all_its_steps_after_a_kexec() {
    let said = probe("6.12", None, &[], Scene { kexec: vec!["--probe".to_owned()], ..Scene::default() });
    all_steps_passed(&said);
    let text = golden(&said);
    if std::env::var_os("KDUMP_RS_BLESS").is_some() {
        std::fs::write(GOLDEN, &text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(GOLDEN).unwrap());
}

#[test]
#[ignore = "boots a kernel in QEMU; `make test` runs it"]
fn the_probe_passes_all_its_steps_after_a_panic_on_the_second_cpu() {
    let scene = Scene { panic_cpu: Some(1), ..Scene::default() };
    all_steps_passed(&probe("7.3", Some("qemu64"), &["--probe"], scene));
}

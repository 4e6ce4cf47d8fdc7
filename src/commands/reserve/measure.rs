//! `reserve --measure`: the smallest size by trial, in QEMU, with the kernel and the configuration of this machine.

use std::io::{self, Write as _};
use std::path::Path;

use anyhow::Context as _;
use kdump_loader::plan::size_text;
use kdump_rehearse::measure::smallest_crashkernel;
use kdump_rehearse::{Plan, Programs, Progress};
use serde_json::json;

use super::Args;
use crate::commands::{arm, rehearse::here};
use crate::exit::Exit;

const MIB: u64 = 1 << 20;
/// Less holds no kernel.
const LOW: u64 = 32 * MIB;
/// What distributions reserve on large machines.
const HIGH: u64 = 512 * MIB;
const STEP: u64 = 4 * MIB;

/// Runs it.
pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    let config = arm::read_config(args.config.as_deref())?;
    let kernel = here::kernel(args.kernel.as_deref().or(config.kernel.as_deref()))?;
    let image = std::fs::read(&kernel).with_context(|| format!("cannot read {}", kernel.display()))?;
    let release = Plan::release_of(&kernel, &image)?;
    here::warn_of_target(&args.target, &config);
    let plan = Plan {
        modules: config.modules.clone(),
        memory: args.memory,
        arm: here::arm_arguments(&here::Asked::default(), &config),
        ..Plan::new(
            kernel.clone(),
            Programs::beside_this_one()?,
            Path::new("kdump-rehearsal").join("measure"),
        )
    };
    let found = smallest_crashkernel(&plan, LOW, HIGH, STEP, &mut Notes::default())?;
    let text = if args.json {
        let tries: Vec<_> = found
            .tries
            .iter()
            .map(|t| json!({ "bytes": t.bytes, "failure": t.failure, "took_s": t.took.as_secs_f64() }))
            .collect();
        let report = json!({
            "kernel": kernel, "release": release, "guest_memory_bytes": args.memory, "step_bytes": STEP,
            "smallest_bytes": found.bytes, "tries": tries,
        });
        serde_json::to_string_pretty(&report)? + "\n"
    } else {
        format!(
            "{found}\n\nLinux {release} in a guest with {} of memory, in steps of {}. This machine may need more, with other\n\
             drivers and more memory; `kdump-rs reserve` computes with a margin.\n",
            size_text(args.memory),
            size_text(STEP),
        )
    };
    io::stdout().write_all(text.as_bytes())?;
    Ok(Exit::Complete)
}

/// What came of each size, on stderr; what every guest says of itself, once.
#[derive(Default)]
struct Notes {
    said: Vec<String>,
}

impl Progress for Notes {
    fn note(&mut self, text: &str) {
        if !self.said.iter().any(|said| said == text) {
            eprintln!("{text}");
            self.said.push(text.to_owned());
        }
    }
}

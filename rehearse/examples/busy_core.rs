//! A raw core of a guest whose memory is in use, for measuring: page cache, tmpfs and anonymous memory hold what files
//! of this machine hold.
//!
//!     busy_core PROGRAMS KERNEL MEMORY FILES OUT
//!
//! PROGRAMS holds kdump-rs and kdump-init; MEMORY is the guest's, as in 8G; FILES is a directory with half as many bytes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kdump_rehearse::{Load, Plan, Programs, Progress, Scene, size};

/// An unfiltered dump of 8 GiB in an emulated guest takes some minutes.
const LIMIT: Duration = Duration::from_secs(1800);

/// Prints what is found out on the way.
struct Notes;

impl Progress for Notes {
    fn note(&mut self, text: &str) {
        eprintln!("{text}");
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [programs, kernel, memory, files, out] = args.as_slice() else {
        return Err("usage: busy_core PROGRAMS KERNEL MEMORY FILES OUT".into());
    };
    let programs = Path::new(programs);
    let programs = Programs { kdump_rs: programs.join("kdump-rs"), kdump_init: programs.join("kdump-init") };
    let memory = size::parse(memory)?;
    let plan = Plan {
        memory,
        timeout: LIMIT,
        arm: ["--level", "0", "--format", "elf"].map(str::to_owned).to_vec(),
        // An eighth stays for the kernel, the capture kernel and what is free.
        scene: Scene {
            load: Some(Load { files: PathBuf::from(files), bytes: memory / 4 * 3 }),
            ..Scene::default()
        },
        ..Plan::new(PathBuf::from(kernel), programs, PathBuf::from(out))
    };
    let outcome = plan.run(&mut Notes)?;
    println!("{}", outcome.dump_dir.join("vmcore").display());
    Ok(())
}

//! How long arming takes: `kdump-rs arm` beside `kexec -p` of kexec-tools, in the same guest, with the same kernel.
//!
//!     arm_time PROGRAMS KERNEL KEXEC_ROOT OUT [RUNS]
//!
//! PROGRAMS holds kdump-rs and kdump-init, KEXEC_ROOT an unpacked kexec-tools package with its libraries. Timed in the
//! guest: the whole process, from its start to its end. Ours finds the target's drivers and builds its initramfs in that
//! time; kexec-tools' initrd, as large as ours would be if it were packed, is ready made. Runs are interleaved, medians printed.

use std::path::PathBuf;

use kdump_rehearse::scene::files_below;
use kdump_rehearse::{Error, Plan, Programs, Progress, Scene};

/// About what ours would have, packed; it is loaded unpacked.
const INITRD: usize = 2 << 20;
/// The guest says so after arming, and need not live longer.
const ARMED: &str = "kdump-rs-rehearse: phase arm";

/// Reads what the guest says about the process that arms.
struct Clock {
    process: &'static str,
    milliseconds: Option<f64>,
}

impl Progress for Clock {
    fn line(&mut self, line: &str) {
        let Some((_, text)) = line.split_once("kdump-rs-rehearse: ") else { return };
        let Some((process, time)) = text.split_once(" took ") else { return };
        if process == self.process {
            self.milliseconds = time.trim_end_matches(" ms").parse().ok();
        }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [programs, kernel, kexec_root, out, rest @ ..] = args.as_slice() else {
        return Err("usage: arm_time PROGRAMS KERNEL KEXEC_ROOT OUT [RUNS]".into());
    };
    let runs: usize = rest.first().map_or(Ok(3), |runs| runs.to_string_lossy().parse())?;
    std::fs::create_dir_all(out)?;
    let release = Plan::release_of(kernel, &std::fs::read(kernel)?)?;
    let initrd = out.join("initrd");
    std::fs::write(&initrd, vec![0x5a; INITRD])?;

    let mut figures = [Vec::new(), Vec::new()];
    for run in 0..runs {
        for (who, figures) in figures.iter_mut().enumerate() {
            let mut scene = Scene { stop_at: Some(ARMED.to_owned()), ..Scene::default() };
            if who == 1 {
                scene.files.push(("boot/initrd".to_owned(), initrd.clone()));
                scene.files.extend(files_below(kexec_root)?);
                scene.loader = [
                    "/sbin/kexec",
                    "-p",
                    &format!("/boot/vmlinuz-{release}"),
                    "--initrd=/boot/initrd",
                    "--append=console=ttyS0,115200 nr_cpus=1 irqpoll reset_devices",
                ]
                .map(str::to_owned)
                .to_vec();
            }
            let tools =
                Programs { kdump_rs: programs.join("kdump-rs"), kdump_init: programs.join("kdump-init") };
            let plan = Plan { scene, ..Plan::new(kernel.clone(), tools, out.join("guest")) };
            let mut clock = Clock { process: ["kdump-rs arm", "kexec -p"][who], milliseconds: None };
            match plan.run(&mut clock) {
                Ok(_) | Err(Error::Phase { .. }) => {}
                Err(error) => return Err(error.into()),
            }
            let took = clock.milliseconds.ok_or("the guest did not arm: see guest/serial.log")?;
            eprintln!("run {run}: {} {took:.1} ms", clock.process);
            figures.push(took);
        }
    }
    let [ours, theirs] = figures.map(median);
    println!("| work | program | wall | wall / ours |\n|---|---|---|---|");
    println!("| arming {release} | kdump-rs arm, its initramfs included | {ours:.0} ms | 1.00 |");
    println!("| | kexec -p, initrd ready made | {theirs:.0} ms | {:.2} |", theirs / ours);
    Ok(())
}

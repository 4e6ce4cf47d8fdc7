//! How long the way from the crashed kernel into the capture kernel takes: ours beside kexec-tools' purgatory, in the
//! same guest, with the same kernel and an initramfs that makes 32 MiB of both together.
//!
//!     panic_path_time PROGRAMS KERNEL KEXEC_ROOT OUT [RUNS]
//!
//! PROGRAMS holds kdump-rs and kdump-init, KEXEC_ROOT an unpacked kexec-tools package with its libraries. Timed from
//! outside by the serial console: from the first line that either program prints to the capture kernel's first line. From the
//! jump on both run the same kernel, and only ours says when it jumps: the time of that stretch, measured in our runs, is
//! taken off both. Runs are interleaved, medians printed.

use std::path::PathBuf;
use std::time::Instant;

use kdump_rehearse::scene::files_below;
use kdump_rehearse::{Error, Plan, Programs, Progress, Scene};

const TOTAL: u64 = 32 << 20;
const JUMP: &str = "panic-kernel: entering capture kernel";
const LAST: &str = "Linux version ";
const EARLY: &str = "earlyprintk=serial,ttyS0,115200 console=ttyS0,115200";

/// Notes when the first line, the jump and the last line came.
struct Stopwatch {
    first: &'static str,
    begun: Option<Instant>,
    to_jump: Option<f64>,
    to_kernel: Option<f64>,
}

impl Progress for Stopwatch {
    fn line(&mut self, line: &str) {
        let Some(begun) = self.begun else {
            if line.contains(self.first) {
                self.begun = Some(Instant::now());
            }
            return;
        };
        let seconds = begun.elapsed().as_secs_f64();
        if line.contains(JUMP) {
            self.to_jump = Some(seconds);
        } else if line.contains(LAST) {
            self.to_kernel.get_or_insert(seconds);
        }
    }
}

/// Bytes that do not compress.
fn noise(len: u64) -> Vec<u8> {
    let mut x = 0x9e37_79b9_7f4a_7c15u64;
    let mut words = Vec::with_capacity(len as usize);
    while (words.len() as u64) < len {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        words.extend_from_slice(&x.to_le_bytes());
    }
    words
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [programs, kernel, kexec_root, out, rest @ ..] = args.as_slice() else {
        return Err("usage: panic_path_time PROGRAMS KERNEL KEXEC_ROOT OUT [RUNS]".into());
    };
    let runs: usize = rest.first().map_or(Ok(3), |runs| runs.to_string_lossy().parse())?;
    std::fs::create_dir_all(out)?;
    let image = std::fs::read(kernel)?;
    let padding = TOTAL.saturating_sub(image.len() as u64);
    let init = std::fs::read(programs.join("kdump-init"))?;
    let padded = out.join("kdump-init");
    // The rest of our initramfs is about two MiB less than this, compressed; both are rounded to the same size.
    std::fs::write(&padded, [init, noise(padding - (2 << 20))].concat())?;
    let initrd = out.join("initrd");
    std::fs::write(&initrd, noise(padding))?;

    let (mut figures, mut jumps) = ([Vec::new(), Vec::new()], Vec::new());
    for run in 0..runs {
        for (who, figures) in figures.iter_mut().enumerate() {
            let mut scene = Scene::default();
            let mut arm = Vec::new();
            let first = if who == 0 {
                scene.files.push(("boot/kdump-init".to_owned(), padded.clone()));
                arm.extend(["--init=/boot/kdump-init".to_owned(), format!("--append={EARLY}")]);
                "kdump-rs panic-kernel: entered"
            } else {
                scene.files.push(("boot/initrd".to_owned(), initrd.clone()));
                scene.files.extend(files_below(kexec_root)?);
                let release = Plan::release_of(kernel, &image)?;
                scene.loader = [
                    "/sbin/kexec",
                    "-p",
                    &format!("/boot/vmlinuz-{release}"),
                    "--initrd=/boot/initrd",
                    &format!("--append={EARLY}"),
                    "--console-serial",
                    "--serial=ttyS0",
                    "--serial-baud=115200",
                ]
                .map(str::to_owned)
                .to_vec();
                "in purgatory"
            };
            let kdump = |name: &str| programs.join(name);
            let tools = Programs { kdump_rs: kdump("kdump-rs"), kdump_init: kdump("kdump-init") };
            let plan = Plan {
                arm,
                scene,
                crashkernel: "256M".to_owned(),
                ..Plan::new(kernel.clone(), tools, out.join("guest"))
            };
            let mut watch = Stopwatch { first, begun: None, to_jump: None, to_kernel: None };
            // The padded initramfs is none that a kernel could boot from: the capture fails, after what is timed.
            match plan.run(&mut watch) {
                Ok(_) | Err(Error::Phase { .. }) => {}
                Err(error) => return Err(error.into()),
            }
            let seconds = watch.to_kernel.ok_or("the console has not both lines: see guest/serial.log")?;
            eprintln!("run {run}: {} {seconds:.3} s", ["kdump-rs", "kexec-tools"][who]);
            figures.push(seconds);
            jumps.extend(watch.to_jump);
        }
    }
    let [ours, theirs] = figures.map(median);
    let to_jump = median(jumps);
    let purgatory = theirs - (ours - to_jump);
    println!("| work | program | wall | wall / ours |\n|---|---|---|---|");
    println!("| entry to jump, {} MiB verified | kdump-rs | {to_jump:.3} s | 1.00 |", TOTAL >> 20);
    println!("| | kexec-tools purgatory | {purgatory:.3} s | {:.2} |", purgatory / to_jump);
    println!("| entry to the kernel's first line | kdump-rs | {ours:.3} s | 1.00 |");
    println!("| | kexec-tools purgatory | {theirs:.3} s | {:.2} |", theirs / ours);
    Ok(())
}

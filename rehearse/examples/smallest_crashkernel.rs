//! The smallest crashkernel= that captures a kernel in a 1 GiB guest: ours, and beside it the one that Debian's
//! kdump-tools needs with its own initramfs, kexec-tools and makedumpfile, both by the same bisection.
//!
//!     smallest_crashkernel PROGRAMS KERNEL OUT [IMAGE [STEP [LOW [HIGH]]]]
//!
//! PROGRAMS holds kdump-rs and kdump-init, IMAGE is the disk of scripts/debian-guest.sh kdump-tools (`-` in the place of
//! either leaves that one out); sizes are as in 64M. Ours has captured when dump, manifest and report are there,
//! kdump-tools when it says that it has saved the dump.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use std::{fs, thread};

use kdump_rehearse::measure::{Smallest, bisect, smallest_crashkernel};
use kdump_rehearse::qemu::{Emulator, Machine};
use kdump_rehearse::{Plan, Programs, Progress, accel, size};

/// Where the one partition of the image begins.
const PARTITION: u64 = 1 << 20;
const UUID: &str = "6b64756d-702d-7265-6465-6269616e2121";
const MEMORY: u64 = 1 << 30;
/// A Debian guest that says nothing for so long hangs. It is silent longest where kdump-tools builds its initramfs:
/// more than five minutes under emulation on a busy machine.
const SILENCE: Duration = Duration::from_secs(900);

/// Prints what is found out on the way.
struct Notes;

impl Progress for Notes {
    fn note(&mut self, text: &str) {
        eprintln!("{text}");
    }
}

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [programs, kernel, out, rest @ ..] = args.as_slice() else {
        return Err("usage: smallest_crashkernel PROGRAMS KERNEL OUT [IMAGE [STEP [LOW [HIGH]]]]".into());
    };
    let (programs, kernel, out) = (Path::new(programs), PathBuf::from(kernel), PathBuf::from(out));
    let given = |at: usize, default: u64| rest.get(at).map_or(Ok(default), |text| size::parse(text));
    let (step, low, high) = (given(1, 4 << 20)?, given(2, 48 << 20)?, given(3, 256 << 20)?);

    println!("| captured with | kernel | smallest crashkernel= | lives |\n|---|---|---|---|");
    if programs != Path::new("-") {
        let tools = Programs { kdump_rs: programs.join("kdump-rs"), kdump_init: programs.join("kdump-init") };
        let plan = Plan { memory: MEMORY, ..Plan::new(kernel.clone(), tools, out.join("ours")) };
        let release = Plan::release_of(&kernel, &fs::read(&kernel)?)?;
        row("kdump-rs", &release, &smallest_crashkernel(&plan, low, high, step, &mut Notes)?);
    }
    if let Some(image) = rest.first().filter(|image| *image != "-") {
        let guest = Debian::prepare(Path::new(image), &out.join("kdump-tools"))?;
        let theirs = bisect(low, high, step, &mut |bytes| {
            let failure = guest.live(bytes).unwrap_or_else(|error| Some(error.to_string()));
            eprintln!(
                "kdump-tools, crashkernel={}M: {}",
                bytes >> 20,
                failure.as_deref().unwrap_or("enough")
            );
            Ok(failure)
        })?;
        row("Debian's kdump-tools", &guest.release, &theirs);
    }
    Ok(())
}

fn row(who: &str, release: &str, found: &Smallest) {
    eprintln!("{who}: {found}");
    println!("| {who} | {release} | {} MiB | {} |", found.bytes >> 20, found.tries.len());
}

/// Debian's guest, with kdump-tools' initramfs built.
struct Debian {
    dir: PathBuf,
    kernel: PathBuf,
    initramfs: PathBuf,
    release: String,
}

impl Debian {
    /// Takes kernel and initramfs out of the image, and lets the guest live once so that kdump-tools builds its own.
    fn prepare(image: &Path, dir: &Path) -> Result<Self, Failure> {
        fs::create_dir_all(dir)?;
        let inside = |name: &str| dir.join(name);
        let partition = format!("{}?offset={PARTITION}", image.display());
        let listing = run(Command::new("debugfs").args(["-R", "ls -p /boot", &partition]))?;
        let release = listing
            .split('/')
            .find_map(|name| name.strip_prefix("vmlinuz-"))
            .ok_or("the image has no kernel in /boot")?
            .to_owned();
        for (from, to) in [("vmlinuz", "vmlinuz"), ("initrd.img", "initrd")] {
            let request = format!("dump /boot/{from}-{release} {}", inside(to).display());
            run(Command::new("debugfs").args(["-R", &request, &partition]))?;
        }
        let guest =
            Self { dir: dir.to_owned(), kernel: inside("vmlinuz"), initramfs: inside("initrd"), release };
        let disk = guest.disk("prepared.img", image)?;
        let orders = "systemctl is-active kdump-tools && sync && systemctl --no-block poweroff";
        let console = guest.boot(&disk, 256 << 20, orders)?;
        if console.contains("Kernel panic") || !console.contains("Power down") {
            return Err(
                format!("kdump-tools does not arm: {}", guest.dir.join("serial.log").display()).into()
            );
        }
        Ok(guest)
    }

    /// Crashes it. Gives why there is no dump, if there is none.
    fn live(&self, bytes: u64) -> Result<Option<String>, Failure> {
        let disk = self.disk("disk.img", &self.dir.join("prepared.img"))?;
        let orders = "systemctl is-active kdump-tools && sync && echo c > /proc/sysrq-trigger";
        let console = self.boot(&disk, bytes, orders)?;
        if console.contains("saved vmcore in") {
            return Ok(None);
        }
        let signs = ["Kernel panic - not syncing: sysrq", "Out of memory", "kdump-tools"];
        let last = signs.into_iter().filter(|sign| console.contains(sign)).collect::<Vec<_>>().join(", ");
        Ok(Some(format!("no dump (the console has: {last})")))
    }

    fn disk(&self, name: &str, from: &Path) -> Result<PathBuf, Failure> {
        let disk = self.dir.join(name);
        run(Command::new("cp").arg("--sparse=always").args([from, &disk]))?;
        Ok(disk)
    }

    /// One life, and what it said.
    fn boot(&self, disk: &Path, crashkernel: u64, orders: &str) -> Result<String, Failure> {
        let (room, archive) = (self.dir.join("orders"), self.dir.join("orders.tar"));
        fs::create_dir_all(&room)?;
        fs::write(room.join("orders"), orders)?;
        run(Command::new("tar").args(["-b", "128", "-c", "-f"]).arg(&archive).arg("-C").arg(&room).arg("."))?;
        let serial = self.dir.join("serial.log");
        let _ = fs::remove_file(&serial);
        let more = ["-drive", &format!("if=virtio,format=raw,readonly=on,file={}", archive.display())];
        let more = more.into_iter().chain(["-serial", "null"]).map(str::to_owned).collect::<Vec<_>>();
        let machine = Machine {
            accel: accel::choose(&self.dir).accel,
            cpu: None,
            cpus: Plan::CPUS,
            memory: MEMORY,
            kernel: &self.kernel,
            initramfs: &self.initramfs,
            cmdline: &format!(
                "root=UUID={UUID} ro console=ttyS0,115200 crashkernel={}K panic=1 no_timer_check",
                crashkernel >> 10
            ),
            disk,
            serial: &serial,
            held: None,
            more: &more,
        };
        let mut emulator = Emulator::start(&machine.arguments(), &self.dir.join("qemu.log"))?;
        let (mut said, mut heard) = (0, Instant::now());
        while emulator.try_wait()?.is_none() && heard.elapsed() < SILENCE {
            thread::sleep(Duration::from_millis(100));
            let now = fs::metadata(&serial).map_or(0, |file| file.len());
            if now != said {
                (said, heard) = (now, Instant::now());
            }
        }
        Ok(String::from_utf8_lossy(&fs::read(&serial)?).into_owned())
    }
}

fn run(command: &mut Command) -> Result<String, Failure> {
    let path = std::env::var("PATH").unwrap_or_default();
    let out = command.env("PATH", format!("{path}:/usr/sbin:/sbin")).output()?;
    if !out.status.success() {
        return Err(format!("{command:?}: {}", String::from_utf8_lossy(&out.stderr)).into());
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

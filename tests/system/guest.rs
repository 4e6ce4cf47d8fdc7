//! A Debian guest that boots by itself from its disk, as a machine does, and does what a script says at each boot.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use kdump_rehearse::accel::{self, Accel};
use kdump_rehearse::qemu::Emulator;

/// Guests take two CPUs each: one after the other is as fast as all at once, and steadier.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// All boots of one test, software emulation on a busy machine included.
const LIMIT: Duration = Duration::from_secs(3000);

/// What a guest said.
pub struct Said {
    /// The orders' own output, over all boots.
    pub orders: String,
    /// The first serial line: firmware, kernels, panic path, capture kernel.
    pub console: String,
}

impl Said {
    /// Check that the orders said a line.
    pub fn has(&self, line: &str) {
        assert!(self.orders.lines().any(|l| l == line), "{line:?} is missing from:\n{}", self.orders);
    }

    /// What the orders said between two lines.
    pub fn between(&self, from: &str, to: &str) -> &str {
        let (_, after) = self
            .orders
            .split_once(&format!("{from}\n"))
            .unwrap_or_else(|| panic!("{from:?}: {}", self.orders));
        let (text, _) =
            after.split_once(&format!("{to}\n")).unwrap_or_else(|| panic!("{to:?}: {}", self.orders));
        text
    }
}

/// Boots the guest `kind` of scripts/debian-guest.sh with these files beside its orders, until it powers off.
pub fn run(name: &str, kind: &str, orders: &str, files: &[(&str, &Path)]) -> Said {
    let image = image(kind);
    let _lock = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("system-{name}"));
    let _ = fs::remove_dir_all(&out);
    fs::create_dir_all(&out).unwrap();
    let disk = out.join("disk.img");
    succeeds(Command::new("cp").arg("--sparse=always").args([&image, &disk]));
    let archive = archive(&out, orders, files);
    let [console, said] = ["console.log", "orders.log"].map(|file| out.join(file));

    let arguments = arguments(&out, [&disk, &archive], [&console, &said]);
    let mut emulator = Emulator::start(&arguments.map(Into::into), &out.join("qemu.log")).unwrap();
    let read = |path: &PathBuf| {
        let text = fs::read(path).unwrap_or_default();
        String::from_utf8_lossy(&text).replace('\r', "")
    };
    let start = Instant::now();
    while emulator.try_wait().unwrap().is_none() {
        assert!(start.elapsed() < LIMIT, "after {LIMIT:?}:\n{}\n{}", read(&console), read(&said));
        thread::sleep(Duration::from_millis(200));
    }
    fs::remove_file(&disk).unwrap();
    Said { orders: read(&said), console: read(&console) }
}

fn arguments(out: &Path, disks: [&Path; 2], serials: [&Path; 2]) -> [String; 22] {
    let (accelerator, cpu) = match accel::choose(out).accel {
        Accel::Kvm => ("kvm", "host"),
        // Without cmpxchg16b: see `kdump_rehearse::qemu`.
        Accel::Tcg => ("tcg,thread=multi", "max,-cx16"),
    };
    let [disk, archive] = disks.map(|path| path.display().to_string());
    let [console, said] = serials.map(|path| format!("file:{}", path.display()));
    [
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-machine",
        "pc",
        "-accel",
        accelerator,
        "-cpu",
        cpu,
        "-smp",
        "2",
        "-m",
        "1G",
        "-drive",
        &format!("if=virtio,format=raw,cache=unsafe,file={disk}"),
        "-drive",
        &format!("if=virtio,format=raw,readonly=on,file={archive}"),
        "-serial",
        &console,
        "-serial",
        &said,
    ]
    .map(str::to_owned)
}

/// The guest's disk, built where it is not there yet.
fn image(kind: &str) -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/debian-guest.sh");
    let out = Command::new(script).arg(kind).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap().trim().into()
}

/// The second disk: a tar archive of the orders and what they need.
fn archive(out: &Path, orders: &str, files: &[(&str, &Path)]) -> PathBuf {
    let dir = out.join("orders");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("steps"), orders).unwrap();
    // Programs that see a terminal paint bars and colours on it.
    fs::write(dir.join("orders"), "sh /run/orders/steps 2>&1 | cat\n").unwrap();
    for (name, from) in files {
        fs::copy(from, dir.join(name)).unwrap();
    }
    let archive = out.join("orders.tar");
    // Blocks of 64 KiB: a disk has whole sectors.
    succeeds(Command::new("tar").args(["-b", "128", "-c", "-f"]).arg(&archive).arg("-C").arg(&dir).arg("."));
    archive
}

fn succeeds(command: &mut Command) {
    let out = command.output().unwrap();
    assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
}

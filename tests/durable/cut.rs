//! Power cuts: a guest is stopped where its capture begins, and goes on from there as often as wanted, each time killed at
//! another moment.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{io, thread};

use kdump_rehearse::qemu::{Machine, PROGRAM};
use kdump_rehearse::{Held, Plan, Progress, Scene, accel};

use crate::common;
use crate::disks;

/// The guest's memory: enough for Debian's cloud kernel and its capture kernel.
const MEMORY: u64 = 768 << 20;
const LIMIT: Duration = Duration::from_secs(240);
const POLL: Duration = Duration::from_millis(20);

/// A guest that is about to write its dump.
pub struct Stopped {
    dir: PathBuf,
    plan: Plan,
}

/// Stops the guest at the first word of kdump-init, and puts away its state.
struct Stopper<'a> {
    dir: &'a Path,
    is_stopped: bool,
}

impl Progress for Stopper<'_> {
    fn line(&mut self, line: &str) {
        if self.is_stopped || !line.contains("kdump-init: ") || !line.contains(" begins") {
            return;
        }
        self.is_stopped = true;
        let monitor = self.dir.join("stopper");
        let guest = Held::new(Path::new(""), &monitor, &[]);
        guest.monitor("stop").unwrap();
        guest.monitor("migrate_set_parameter max-bandwidth 100G").unwrap();
        guest.monitor(&format!("migrate -d \"exec:cat > {}\"", self.dir.join("state").display())).unwrap();
        loop {
            let status = guest.monitor("info migrate").unwrap();
            assert!(!status.contains("failed"), "{status}");
            if status.contains("status: completed") {
                break;
            }
            thread::sleep(POLL * 10);
        }
        disks::copy(&self.dir.join("disk.img"), &self.dir.join("stopped.img"));
        // It ends while it answers.
        let _ = guest.monitor("quit");
    }
}

impl Stopped {
    /// Boots, arms and crashes a guest, and stops it where its capture begins.
    pub fn new(name: &str) -> Self {
        let dir = common::scratch(name);
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        let monitor = format!("unix:{},server=on,wait=off", dir.join("stopper").display());
        let plan = Plan {
            memory: MEMORY,
            keep: true,
            scene: Scene { qemu: vec!["-monitor".to_owned(), monitor], ..Scene::default() },
            ..Plan::new(common::kernel("6.12"), common::programs(), dir.clone())
        };
        let mut stopper = Stopper { dir: &dir, is_stopped: false };
        let end = plan.run(&mut stopper);
        assert!(stopper.is_stopped, "{end:?}\n{}", common::serial_of(&dir));
        Self { dir, plan }
    }

    /// Lets it go on to its end, or kills it when it has run for `cut`. Gives how long it ran, and its disk.
    pub fn go_on(&self, name: &str, cut: Option<Duration>) -> (Duration, PathBuf) {
        let at = |suffix: &str| self.dir.join(format!("{name}.{suffix}"));
        let (disk, serial) = (at("img"), at("log"));
        disks::copy(&self.dir.join("stopped.img"), &disk);
        let monitor = at("monitor");
        for old in [&serial, &monitor] {
            let _ = fs::remove_file(old);
        }
        let incoming = [
            "-incoming".to_owned(),
            format!("exec:cat {}", self.dir.join("state").display()),
            "-monitor".to_owned(),
            format!("unix:{},server=on,wait=off", monitor.display()),
        ];
        let cmdline = self.plan.cmdline();
        let machine = Machine {
            accel: accel::choose(&self.dir).accel,
            cpu: None,
            cpus: self.plan.cpus,
            memory: self.plan.memory,
            kernel: &self.plan.kernel,
            initramfs: &self.dir.join("initramfs.cpio"),
            cmdline: &cmdline,
            disk: &disk,
            serial: &serial,
            held: None,
            more: &incoming,
        };
        let mut child = Killed(
            Command::new(PROGRAM)
                .args(machine.arguments())
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(fs::File::create(at("qemu")).unwrap())
                .spawn()
                .unwrap(),
        );
        // Its state came with it: it was stopped, and is until it is told.
        let guest = Held::new(Path::new(""), &monitor, &[]);
        let begin = Instant::now();
        while !guest
            .monitor("info status")
            .is_ok_and(|status| status.contains("paused") && !status.contains("inmigrate"))
        {
            assert!(begin.elapsed() < LIMIT, "{}", fs::read_to_string(at("qemu")).unwrap());
            thread::sleep(POLL);
        }
        guest.monitor("cont").unwrap();
        let begin = Instant::now();
        loop {
            let ended = child.0.try_wait().unwrap();
            let ran = begin.elapsed();
            assert!(ran < LIMIT, "{}", fs::read_to_string(&serial).unwrap_or_default());
            if let Some(status) = ended {
                assert!(status.success(), "{status}: {}", fs::read_to_string(at("qemu")).unwrap());
                return (ran, disk);
            }
            if cut.is_some_and(|cut| ran >= cut) {
                child.kill().unwrap();
                return (ran, disk);
            }
            thread::sleep(POLL);
        }
    }
}

/// An emulator that does not outlive the test.
struct Killed(Child);

impl Killed {
    fn kill(&mut self) -> io::Result<()> {
        self.0.kill()?;
        self.0.wait().map(drop)
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

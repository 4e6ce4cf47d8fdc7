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

    /// Lets it go on to its end, or kills it when it has run for `cut` from the first line on. Gives how long it ran, and
    /// its disk.
    pub fn go_on(&self, name: &str, cut: Option<Duration>) -> (Duration, PathBuf) {
        let at = |suffix: &str| self.dir.join(format!("{name}.{suffix}"));
        let (disk, serial) = (at("img"), at("log"));
        disks::copy(&self.dir.join("stopped.img"), &disk);
        let _ = fs::remove_file(&serial);
        let incoming = ["-incoming".to_owned(), format!("exec:cat {}", self.dir.join("state").display())];
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
        let started = Instant::now();
        let mut begun = None;
        loop {
            let ended = child.0.try_wait().unwrap();
            assert!(started.elapsed() < LIMIT, "{}", fs::read_to_string(&serial).unwrap_or_default());
            if begun.is_none() && fs::metadata(&serial).is_ok_and(|m| m.len() > 0) {
                begun = Some(Instant::now());
            }
            let ran = begun.map(|begun: Instant| begun.elapsed());
            if let Some(status) = ended {
                assert!(status.success(), "{status}: {}", fs::read_to_string(at("qemu")).unwrap());
                return (ran.unwrap_or_default(), disk);
            }
            if let (Some(ran), Some(cut)) = (ran, cut)
                && ran >= cut
            {
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

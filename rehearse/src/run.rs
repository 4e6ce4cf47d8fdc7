//! Running a plan: the one place that writes files, starts QEMU and waits.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use crate::accel::Accel;
use crate::guest::Orders;
use crate::initramfs::Contents;
use crate::phase::{BUTTON_WANTED, GUEST_PREFIX, Phase, Progress, Sign, read_line};
use crate::plan::{Outcome, Plan};
use crate::qemu::{Emulator, Machine, Tail};
use crate::scene::{self, Added, Held, Staged};
use crate::{Crash, Error, accel, disk, qemu};

/// How often the serial console is looked at.
const POLL: Duration = Duration::from_millis(20);

/// A guest that says nothing for so long hangs: the longest silent stretch, writing a dump under
/// emulation, is a tenth of it.
const SILENCE: Duration = Duration::from_secs(120);

/// Under KVM a kernel that boots says something many times a second.
const KVM_BOOT_SILENCE: Duration = Duration::from_secs(10);

/// After a message that means failure, time for the lines that follow it.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Lives that a guest gets when the emulator, not the guest, is at fault.
const EMULATOR_TRIES: usize = 3;

/// Lines of the console that an error carries.
const TAIL: usize = 40;

impl Plan {
    fn make_disk(&self, path: &Path) -> Result<(), Error> {
        let Some(load) = &self.scene.load else { return disk::create(path, self.disk_bytes(), None) };
        disk::create(path, self.disk_bytes() + disk::room_for(&load.files)?, Some(&load.files))
    }

    /// Boots, arms, crashes, captures, and takes the dump out.
    ///
    /// # Errors
    /// [`Error`]; for a guest that did not get through, [`Error::Phase`].
    pub fn run(&self, progress: &mut dyn Progress) -> Result<Outcome, Error> {
        let kernel = self.read_kernel()?;
        let release = Self::release_of(&self.kernel, &kernel)?;
        let modules = self.find_modules(&release)?;
        if self.crash.needs_module() && self.trigger.is_none() {
            return Err(Error::NoTrigger { crash: self.crash });
        }
        let files = Files::prepare(&self.out)?;

        let orders = Orders {
            crash: self.crash,
            arm: self.arm.clone(),
            panic_cpu: self.scene.panic_cpu,
            pattern_bytes: self.scene.pattern_bytes,
            load_bytes: self.scene.load.as_ref().map_or(0, |load| load.bytes),
            is_held: self.scene.is_held,
            kexec: self.scene.kexec.clone(),
            reboots: self.scene.reboots,
            failing_arm: self.scene.failing_arm.clone(),
            loader: self.scene.loader.clone(),
            second_loader: self.scene.second_loader.clone(),
            is_efi: self.scene.is_efi,
            toggled_cpu: self.scene.toggled_cpu,
            asked: self.scene.asked.clone(),
            added: self.scene.added,
            modules: self.scene.modules.clone(),
            address: self.scene.address,
            mounts: self.scene.mounts.clone(),
        };
        let contents = Contents {
            kdump_rs: &self.programs.kdump_rs,
            kdump_init: &self.programs.kdump_init,
            kernel: &kernel,
            release: &release,
            modules: &modules,
            trigger: self.trigger.as_deref(),
            files: &self.scene.files,
            orders: &orders,
        };
        let initramfs = contents.build()?;
        fs::write(&files.initramfs, &initramfs).map_err(Error::file("write", &files.initramfs))?;
        self.make_disk(&files.disk)?;
        if self.scene.is_held {
            files.make_door()?;
        }

        let cmdline = self.cmdline();
        let mut more = self.scene.qemu.clone();
        if self.scene.reboots > 0 {
            let path = qemu::doubled_commas(&files.initramfs);
            more.push("-drive".to_owned());
            more.push(format!("if=virtio,format=raw,readonly=on,file={}", path.to_string_lossy()));
        }
        if self.scene.added != Added::default() || self.crash == Crash::NmiButton {
            let path = qemu::doubled_commas(&files.monitor);
            more.push("-monitor".to_owned());
            more.push(format!("unix:{},server=on,wait=off", path.to_string_lossy()));
        }
        let machine = |accel| Machine {
            accel,
            cpu: self.cpu.as_deref(),
            cpus: self.cpus,
            memory: self.memory,
            kernel: &self.kernel,
            initramfs: &files.initramfs,
            cmdline: &cmdline,
            disk: &files.disk,
            serial: &files.serial,
            held: self.scene.is_held.then_some((files.memory.as_path(), files.door.as_path())),
            more: &more,
        };
        let choice = accel::choose(&self.out);
        progress.note(&format!("Linux {release}, {}", choice.why));
        let mut first = self.attempt(&machine(choice.accel), &files, progress);
        for _ in 1..EMULATOR_TRIES {
            match &first {
                Err(error) if choice.accel == Accel::Tcg && files.shows_emulator_fault(error) => {
                    progress.note("the emulator failed (an int3 of its own in the booting guest): once more");
                    self.make_disk(&files.disk)?;
                    first = self.attempt(&machine(choice.accel), &files, progress);
                }
                _ => break,
            }
        }
        let (dumps, phases) = match first {
            // Some KVMs run a boot sector and stop at the first instruction they cannot emulate.
            Err(Error::Phase { phase: Phase::Boot, why, .. }) if choice.accel == Accel::Kvm => {
                progress.note(&format!("no boot under KVM ({why}); trying software emulation"));
                self.attempt(&machine(Accel::Tcg), &files, progress)
            }
            other => other,
        }?;
        if !self.keep {
            files.remove_large();
        }
        let dump_dir = dumps.into_iter().next_back().ok_or(Error::NoDump)?;
        Ok(Outcome { release, dump_dir, serial_log: files.serial, phases })
    }

    /// One life of the guest, and its dump directories.
    fn attempt(
        &self,
        machine: &Machine<'_>,
        files: &Files,
        progress: &mut dyn Progress,
    ) -> Result<(Vec<PathBuf>, Phases), Error> {
        files.remove_serial()?;
        let emulator = Emulator::start(&machine.arguments(), &files.qemu_log)?;
        let mut watch = Watch::new(machine.accel, progress);
        watch.stop_at = self.scene.stop_at.clone();
        watch.until_reset(emulator, files, self.timeout)?;
        watch.begin(Phase::Collect);
        let dumps = disk::extract(&files.disk, &files.dump).map_err(|e| match e {
            // The console says why, better than the disk does.
            Error::Unclean(_) | Error::NoDump => watch.error(e.to_string()),
            other => other,
        })?;
        watch.finish();
        Ok((dumps, watch.phases))
    }
}

type Phases = Vec<(Phase, Duration)>;

/// The files of a rehearsal, all in one directory.
struct Files {
    serial: PathBuf,
    qemu_log: PathBuf,
    initramfs: PathBuf,
    disk: PathBuf,
    dump: PathBuf,
    /// The guest's RAM, and the pipes through which it is let go.
    memory: PathBuf,
    door: PathBuf,
    /// The emulator's monitor, where something is asked of it.
    monitor: PathBuf,
}

/// Whether the first oops on a console is a breakpoint's.
fn has_stray_int3(console: &str) -> bool {
    console.lines().any(|line| line.contains("int3: 0000 [#1]"))
}

impl Files {
    /// Whether a guest died of a breakpoint instruction before anything was asked of it.
    ///
    /// Folklore: with one thread per CPU, QEMU 7.2's TCG now and then lets one CPU run into the int3 that another
    /// has put over an instruction for a moment, to patch it, when that one has taken it away already
    /// (arch/x86/kernel/alternative.c, `text_poke_bp_batch`). The kernel then finds no patching under way and oopses.
    /// Seen with 6.12 on a loaded host, in the first two seconds, about once in a hundred boots.
    fn shows_emulator_fault(&self, error: &Error) -> bool {
        let is_early = matches!(error, Error::Phase { phase: Phase::Boot | Phase::Prepare, .. });
        is_early && fs::read(&self.serial).is_ok_and(|log| has_stray_int3(&String::from_utf8_lossy(&log)))
    }

    /// Makes the directory and removes what an earlier rehearsal left there, and nothing else.
    fn prepare(out: &Path) -> Result<Self, Error> {
        fs::create_dir_all(out).map_err(Error::file("create", out))?;
        let files = Self {
            serial: out.join("serial.log"),
            qemu_log: out.join("qemu.log"),
            initramfs: out.join("initramfs.cpio"),
            disk: out.join("disk.img"),
            dump: out.join("dump"),
            memory: out.join("memory"),
            door: out.join("door"),
            monitor: out.join("monitor"),
        };
        let large = [&files.initramfs, &files.disk, &files.memory];
        let small = [&files.serial, &files.qemu_log, &files.monitor, &files.pipe("in"), &files.pipe("out")];
        for path in small.into_iter().chain(large) {
            if path.exists() {
                fs::remove_file(path).map_err(Error::file("remove", path))?;
            }
        }
        if files.dump.exists() {
            fs::remove_dir_all(&files.dump).map_err(Error::file("remove", &files.dump))?;
        }
        Ok(files)
    }

    fn pipe(&self, end: &str) -> PathBuf {
        self.door.with_extension(end)
    }

    fn make_door(&self) -> Result<(), Error> {
        for path in [self.pipe("in"), self.pipe("out")] {
            rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR)
                .map_err(|e| Error::file("create", &path)(e.into()))?;
        }
        Ok(())
    }

    /// Each guest's console begins with an empty file.
    fn remove_serial(&self) -> Result<(), Error> {
        match fs::remove_file(&self.serial) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::file("remove", &self.serial)(e)),
            _ => Ok(()),
        }
    }

    /// Of no use but for looking into a failure.
    fn remove_large(&self) {
        let _ = fs::remove_file(&self.disk);
        let _ = fs::remove_file(&self.initramfs);
        let _ = fs::remove_file(&self.memory);
    }
}

/// Follows the guest through its phases.
struct Watch<'a> {
    accel: Accel,
    progress: &'a mut dyn Progress,
    start: Instant,
    phase: Phase,
    phase_start: Instant,
    phases: Phases,
    tail: VecDeque<String>,
    failure: Option<(String, Instant)>,
    stop_at: Option<String>,
    staged: Vec<Staged>,
}

impl<'a> Watch<'a> {
    fn new(accel: Accel, progress: &'a mut dyn Progress) -> Self {
        progress.started(Phase::Boot);
        let now = Instant::now();
        Self {
            accel,
            progress,
            start: now,
            phase: Phase::Boot,
            phase_start: now,
            phases: Vec::new(),
            tail: VecDeque::new(),
            failure: None,
            stop_at: None,
            staged: Vec::new(),
        }
    }

    fn until_reset(&mut self, mut emulator: Emulator, files: &Files, limit: Duration) -> Result<(), Error> {
        let mut serial = Tail::new();
        let mut heard = Instant::now();
        loop {
            // Asked before reading, so that nothing written before the end is missed.
            let ended = emulator.try_wait().map_err(Error::file("wait for QEMU, see", &files.qemu_log))?;
            let lines = serial
                .read_lines(&files.serial, ended.is_some())
                .map_err(Error::file("read", &files.serial))?;
            if !lines.is_empty() {
                heard = Instant::now();
            }
            for line in lines {
                self.stage(&line, files)?;
                self.line(line);
            }
            if let Some((why, since)) = &self.failure
                && (ended.is_some() || since.elapsed() > LAST_WORDS)
            {
                let why = why.clone();
                return Err(self.error(why));
            }
            if let Some(status) = ended {
                if self.phase == Phase::Capture && status.success() {
                    return Ok(());
                }
                let said = fs::read_to_string(&files.qemu_log).unwrap_or_default();
                let said = if said.trim().is_empty() { String::new() } else { format!(": {}", said.trim()) };
                let why = if status.success() {
                    format!("the guest reset{said}")
                } else {
                    format!("QEMU ended ({status}){said}")
                };
                return Err(self.error(why));
            }
            if self.start.elapsed() > limit {
                return Err(self.error(format!("the limit of {} s is over", limit.as_secs())));
            }
            let patience = match (self.accel, self.phase) {
                (Accel::Kvm, Phase::Boot) => KVM_BOOT_SILENCE,
                _ => SILENCE,
            };
            if heard.elapsed() > patience {
                return Err(self.error(format!("nothing on the console for {} s", patience.as_secs())));
            }
            thread::sleep(POLL);
        }
    }

    /// Collects what a held guest says about itself, and lets it go when the host is done with it; pushes the NMI button.
    fn stage(&mut self, line: &str, files: &Files) -> Result<(), Error> {
        let Some((_, text)) = line.split_once(GUEST_PREFIX) else { return Ok(()) };
        self.staged.extend(scene::read_staged(text));
        if text == "holding" {
            self.progress.held(&Held::new(&files.memory, &files.monitor, &self.staged));
            let pipe = files.pipe("in");
            scene::release(&pipe).map_err(Error::file("write", &pipe))?;
        }
        if text == BUTTON_WANTED {
            scene::tell_monitor(&files.monitor, "nmi").map_err(Error::file("tell nmi to", &files.monitor))?;
        }
        Ok(())
    }

    fn line(&mut self, line: String) {
        if self.failure.is_none()
            && let Some(text) = self.stop_at.as_ref().filter(|text| line.contains(*text))
        {
            self.failure =
                Some((format!("the console says {text:?}, where it was to be stopped"), Instant::now()));
        }
        match read_line(self.phase, &line) {
            Sign::Began(phase) => self.begin(phase),
            Sign::Failed(why) if self.failure.is_none() => self.failure = Some((why, Instant::now())),
            Sign::Failed(_) | Sign::None => {}
        }
        self.progress.line(&line);
        if self.tail.len() == TAIL {
            self.tail.pop_front();
        }
        self.tail.push_back(line);
    }

    fn begin(&mut self, phase: Phase) {
        self.finish();
        self.phase = phase;
        self.phase_start = Instant::now();
        self.progress.started(phase);
    }

    fn finish(&mut self) {
        let took = self.phase_start.elapsed();
        self.phases.push((self.phase, took));
        self.progress.ended(self.phase, took);
    }

    fn error(&mut self, why: String) -> Error {
        Error::Phase {
            phase: self.phase,
            after: self.start.elapsed(),
            why,
            tail: self.tail.drain(..).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_stray_breakpoint_is_the_emulators_fault() {
        assert!(has_stray_int3("[    1.029054] Oops: int3: 0000 [#1] PREEMPT SMP NOPTI\r\n"));
        assert!(has_stray_int3("[    0.9] int3: 0000 [#1] PREEMPT SMP NOPTI\n"));
        assert!(!has_stray_int3("[    1.0] Oops: general protection fault: 0000 [#1] PREEMPT SMP NOPTI\n"));
        assert!(!has_stray_int3("[    1.0] Oops: int3: 0000 [#2] PREEMPT SMP NOPTI\n"));
    }
}

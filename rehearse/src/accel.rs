//! Whether KVM works here, found out by using it.
//!
//! A /dev/kvm that exists proves nothing: it may belong to another group, stand in a container
//! whose host forbids it, or be nested in a way that never runs a guest. So a boot sector of ours
//! is started under KVM; it leaves through the isa-debug-exit device with a number only it knows.
//! Even that does not prove that a kernel boots: [`crate::Plan::run`] falls back once more.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::qemu::{Emulator, doubled_commas};

/// How the guest's CPUs are provided.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Accel {
    /// By the host's CPU.
    Kvm,
    /// By QEMU's translator: works everywhere, ten times slower.
    Tcg,
}

/// A choice and its reason, for people.
#[derive(Clone, Debug)]
pub struct Choice {
    /// What to use.
    pub accel: Accel,
    /// Why.
    pub why: String,
}

/// How long the boot sector may take; under a KVM that works it takes well under one second.
const LIMIT: Duration = Duration::from_secs(5);

/// What the boot sector writes; isa-debug-exit makes `2n + 1` of it.
const TOKEN: u8 = 0x2a;
const EXIT_CODE: i32 = TOKEN as i32 * 2 + 1;

/// `mov al, TOKEN; out 0xf4, al; hlt; jmp $-1`, and the signature of a boot sector.
fn boot_sector() -> [u8; 512] {
    let mut sector = [0; 512];
    sector[..7].copy_from_slice(&[0xb0, TOKEN, 0xe6, 0xf4, 0xf4, 0xeb, 0xfd]);
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    sector
}

/// Tries KVM; `scratch` is a directory to write the boot sector into.
#[must_use]
pub fn choose(scratch: &Path) -> Choice {
    match try_kvm(scratch) {
        Ok(()) => Choice { accel: Accel::Kvm, why: "KVM works here".to_owned() },
        Err(why) => Choice { accel: Accel::Tcg, why: format!("software emulation: {why}") },
    }
}

fn try_kvm(scratch: &Path) -> Result<(), String> {
    let device = Path::new("/dev/kvm");
    if !device.exists() {
        return Err("there is no /dev/kvm".to_owned());
    }
    fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(device)
        .map_err(|e| format!("/dev/kvm does not open: {e}"))?;
    let image = scratch.join("kvm-probe.img");
    let log = scratch.join("kvm-probe.log");
    fs::write(&image, boot_sector()).map_err(|e| format!("cannot write {}: {e}", image.display()))?;
    let result = boot(&image, &log);
    let _ = fs::remove_file(&image);
    let _ = fs::remove_file(&log);
    result
}

fn boot(image: &Path, log: &Path) -> Result<(), String> {
    let mut arguments: Vec<OsString> =
        ["-nodefaults", "-no-user-config", "-display", "none", "-machine", "pc", "-no-reboot"]
            .into_iter()
            .chain(["-accel", "kvm", "-cpu", "host", "-m", "16M", "-boot", "a"])
            .chain(["-device", "isa-debug-exit,iobase=0xf4,iosize=0x01", "-drive"])
            .map(OsString::from)
            .collect();
    let mut drive = OsString::from("if=floppy,format=raw,file=");
    drive.push(doubled_commas(image));
    arguments.push(drive);
    let mut emulator = Emulator::start(&arguments, log).map_err(|e| e.to_string())?;
    let begin = Instant::now();
    while begin.elapsed() < LIMIT {
        match emulator.try_wait() {
            Ok(Some(status)) if status.code() == Some(EXIT_CODE) => return Ok(()),
            Ok(Some(status)) => {
                let said = fs::read_to_string(log).unwrap_or_default();
                let said = said.lines().next().unwrap_or("no reason given").to_owned();
                return Err(format!("QEMU refuses KVM ({status}): {said}"));
            }
            Ok(None) => thread::sleep(Duration::from_millis(20)),
            Err(e) => return Err(format!("cannot wait for QEMU: {e}")),
        }
    }
    Err(format!("/dev/kvm opens, but no guest ran under it within {} s", LIMIT.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probe_is_a_boot_sector_that_loops_on_hlt() {
        let sector = boot_sector();
        assert_eq!(sector[510..], [0x55, 0xaa]);
        // jmp short, relative to the next instruction at 7: to the hlt at 4.
        assert_eq!((sector[4], sector[5], 7 + i64::from(sector[6] as i8)), (0xf4, 0xeb, 4));
    }
}

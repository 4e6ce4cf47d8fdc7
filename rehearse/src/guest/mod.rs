//! PID 1 of the production guest: makes a small machine that has something to lose, arms it with
//! `kdump-rs arm` as an administrator would, and crashes it.
//!
//! Its progress goes through the kernel log to the console, so the dump's log ends with it.
//! Whatever fails is said there and resets the guest; the host reads it in [`crate::phase`].
//! Everything here refuses to run anywhere but in such a guest.

mod added;
mod busy;
mod crash;
mod disk;
mod network;
mod orders;

use std::ffi::CStr;
use std::fmt::Display;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use kdump_loader::modules::Tree;
use kdump_loader::state::State;
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};
use rustix::system::{RebootCommand, init_module, reboot, sethostname, uname};

use crate::initramfs::{GUEST_MODULES, KDUMP_RS, modules_of};
use crate::phase::GUEST_PREFIX;
use crate::scene::ANSWERED;
use crate::{Added, Crash};

pub use busy::Role;
pub use orders::Orders;

/// Why the guest stops before its crash; text, since all that reads it is a console.
type Failure = String;

/// What a rehearsal's guest has on its kernel command line, and no other machine.
const MARK: &str = " -- rehearse-guest";

/// How many times the guest was booted by kexec.
const BOOT: &str = "rehearse.boot=";

/// The guest's own initramfs, as a disk.
const INITRAMFS_DISK: &str = "/dev/vdb";

/// Where the host says go.
const DOOR: &str = "/dev/ttyS1";

/// How long a crashed kernel may take to be gone.
const CRASH_LIMIT: Duration = Duration::from_secs(100);

/// Lets the serial port drain before a reset.
const DRAIN: Duration = Duration::from_millis(200);

/// Not in a guest of ours.
#[derive(Debug, thiserror::Error)]
#[error("this runs only inside the guest that `kdump-rs rehearse` boots")]
pub struct NotAGuest;

/// Runs as PID 1, and does not return; in any other process it is refused.
///
/// # Errors
/// [`NotAGuest`].
pub fn run() -> Result<(), NotAGuest> {
    if std::process::id() != 1 || !Path::new(Orders::PATH).exists() {
        return Err(NotAGuest);
    }
    if let Err(why) = live() {
        say(&format!("failed: {why}"));
    }
    thread::sleep(DRAIN);
    loop {
        // Fails only without CAP_SYS_BOOT; PID 1 must not return in any case.
        let _ = reboot(RebootCommand::Restart);
        thread::sleep(Duration::from_secs(1));
    }
}

/// Runs as one of the processes that PID 1 starts.
///
/// # Errors
/// [`NotAGuest`].
pub fn run_as(role: Role) -> Result<(), NotAGuest> {
    let cmdline = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    if !cmdline.contains(MARK) || !Path::new(Orders::PATH).exists() {
        return Err(NotAGuest);
    }
    if let Err(why) = busy::be(role) {
        say(&format!("{}: {why}", role.comm()));
    }
    Ok(())
}

fn live() -> Result<(), Failure> {
    mount_virtual()?;
    let orders = Orders::read()?;
    reboot_by_kexec(orders.reboots)?;
    say("up");
    if orders.is_efi {
        call_efi()?;
    }
    phase("prepare", || {
        sethostname(b"kdump-rehearsal").map_err(because("cannot set the host name"))?;
        load_modules()?;
        crash::prepare(orders.crash)?;
        disk::mount_by_uuid()?;
        let more: Vec<_> = orders.modules.iter().map(String::as_str).collect();
        load_module_and_needs(&more)?;
        if let Some(address) = orders.address {
            network::set_up(address)?;
        }
        for mount in &orders.mounts {
            load_module_and_needs(&modules_of(mount))?;
            disk::mount_one(mount)?;
        }
        busy::populate(&orders)?;
        if orders.added == Added::default() {
            start_pattern(&orders)?;
        }
        Ok(())
    })?;
    phase("arm", || {
        if let [program, args @ ..] = orders.loader.as_slice() {
            return run_program(program, args);
        }
        kdump_rs("arm", &orders.arm)?;
        if !orders.failing_arm.is_empty() && kdump_rs("arm", &orders.failing_arm).is_ok() {
            return Err("the arm that was to fail did not".to_owned());
        }
        kdump_rs("status", &[])
    })?;
    orders.asked.iter().try_for_each(|line| ask(line))?;
    if let Some(cpu) = orders.toggled_cpu {
        toggle(cpu)?;
    }
    busy::start(Role::Burner)?;
    let before = added::Before::look(orders.added)?;
    if orders.is_held {
        hold()?;
        if let [program, args @ ..] = orders.second_loader.as_slice() {
            run_program(program, args)?;
            hold()?;
        }
    }
    if orders.added != Added::default() {
        added::put_to_use(orders.added, &before)?;
        if orders.added.is_armed_again {
            kdump_rs("arm", &orders.arm)?;
        }
        start_pattern(&orders)?;
    }
    if !orders.kexec.is_empty() {
        let load: Vec<String> = std::iter::once("load".to_owned()).chain(orders.kexec).collect();
        kdump_rs("kexec", &load)?;
        say("entering the image");
        kdump_rs("kexec", &["exec", "--force"].map(str::to_owned))?;
    }
    crash::configure(orders.crash, orders.panic_cpu)?;
    say(&format!("crash {}", orders.crash));
    if orders.crash == Crash::KilledInit {
        if let Some(cpu) = orders.panic_cpu {
            crash::move_to(cpu, None)?;
        }
        return crash::crash(orders.crash);
    }
    busy::start(Role::Crasher)?;
    thread::sleep(CRASH_LIMIT);
    Err(format!("the kernel runs on, {} s after the crash was asked for", CRASH_LIMIT.as_secs()))
}

/// Boots the same system anew, until it has been booted so `times` times: how often that was is on its command line.
fn reboot_by_kexec(times: u32) -> Result<(), Failure> {
    let cmdline = fs::read_to_string("/proc/cmdline").map_err(because("/proc/cmdline"))?;
    let done = cmdline.split_whitespace().find_map(|word| word.strip_prefix(BOOT)?.parse::<u32>().ok());
    let done = done.unwrap_or(0);
    if times == 0 {
        return Ok(());
    }
    say(&format!("booted by kexec {done} of {times} times"));
    if done >= times {
        return Ok(());
    }
    load_modules()?;
    let words: Vec<_> = cmdline.trim().split(' ').filter(|word| !word.starts_with(BOOT)).collect();
    let words = words.join(" ").replace(MARK, &format!(" {BOOT}{}{MARK}", done + 1));
    let kernel = format!("/boot/vmlinuz-{}", uname().release().to_string_lossy());
    let (initrd, append) = (format!("--initrd={INITRAMFS_DISK}"), format!("--append={words}"));
    kdump_rs("kexec", &["load".to_owned(), kernel, initrd, append])?;
    kdump_rs("kexec", &["exec".to_owned()])
}

/// Runs a command whose output is wanted, whatever it ends with.
fn ask(line: &str) -> Result<(), Failure> {
    say(&format!("asked: {line}"));
    let status = Command::new(KDUMP_RS).args(line.split_whitespace()).status();
    let status = status.map_err(because(&format!("cannot run {KDUMP_RS}")))?;
    thread::sleep(DRAIN);
    say(&format!("{ANSWERED}{}", status.code().unwrap_or(-1)));
    Ok(())
}

/// Starts the process that holds the patterns, if there are to be any.
fn start_pattern(orders: &Orders) -> Result<(), Failure> {
    if orders.pattern_bytes > 0 { busy::start(Role::Pattern) } else { Ok(()) }
}

/// Takes a CPU offline and back.
fn toggle(cpu: u32) -> Result<(), Failure> {
    let switch = format!("/sys/devices/system/cpu/cpu{cpu}/online");
    for state in ["0", "1"] {
        fs::write(&switch, state).map_err(because(&format!("cannot write {state} to {switch}")))?;
        say(&format!("cpu {cpu} online: {state}"));
    }
    Ok(())
}

/// Tells the host what was staged where, as far as our state knows, and waits for its word on the second serial port.
fn hold() -> Result<(), Failure> {
    let state = State::read(Path::new("/")).map_err(because("cannot read the state of arm"))?;
    let state = state.ok_or("arm left no state")?;
    for segment in state.plan["segments"].as_array().into_iter().flatten() {
        if let (Some(tag), Some(start)) = (segment["tag"].as_str(), segment["start"].as_str()) {
            say(&format!("staged {tag} {start} {}", segment["content_bytes"]));
        }
    }
    let door = fs::File::open(DOOR).map_err(because(&format!("cannot open {DOOR}")))?;
    say("holding");
    let mut word = String::new();
    BufReader::new(door).read_line(&mut word).map_err(because(DOOR))?;
    say(&format!("let go: {}", word.trim()));
    Ok(())
}

/// Says how long a phase took, when it has succeeded.
fn phase<T>(name: &str, work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    let start = Instant::now();
    let done = work()?;
    say(&format!("phase {name} {} ms", start.elapsed().as_millis()));
    Ok(done)
}

fn mount_virtual() -> Result<(), Failure> {
    let none = MountFlags::NOSUID | MountFlags::NOEXEC;
    for (kind, target, flags) in [
        ("devtmpfs", "/dev", MountFlags::NOSUID),
        ("proc", "/proc", none | MountFlags::NODEV),
        ("sysfs", "/sys", none | MountFlags::NODEV),
        ("tmpfs", "/run", MountFlags::NOSUID | MountFlags::NODEV),
        ("tmpfs", "/tmp", MountFlags::NOSUID | MountFlags::NODEV),
    ] {
        mount(kind, target, kind, flags, None::<&CStr>)
            .map_err(because(&format!("cannot mount {kind} on {target}")))?;
    }
    // Tells about lockdown, where the kernel has it.
    let _ = mount("securityfs", "/sys/kernel/security", "securityfs", none, None::<&CStr>);
    Ok(())
}

/// Counts firmware's variables, which only its runtime services can tell.
fn call_efi() -> Result<(), Failure> {
    const VARIABLES: &str = "/sys/firmware/efi/efivars";
    load_module_and_needs(&["efivarfs"])?;
    mount("efivarfs", VARIABLES, "efivarfs", MountFlags::NOEXEC, None::<&CStr>)
        .map_err(because(&format!("cannot mount efivarfs on {VARIABLES}")))?;
    let count = fs::read_dir(VARIABLES).map_err(because(VARIABLES))?.flatten().count();
    say(&format!("efi has {count} variables"));
    Ok(())
}

fn load_modules() -> Result<(), Failure> {
    load_module_and_needs(&GUEST_MODULES)
}

fn load_module_and_needs(names: &[&str]) -> Result<(), Failure> {
    let release = uname().release().to_string_lossy().into_owned();
    let tree = Tree::open(&Path::new("/lib/modules").join(release)).map_err(|e| e.to_string())?;
    for path in tree.closure(names).map_err(|e| e.to_string())? {
        let module = tree.read_decompressed(&path).map_err(|e| e.to_string())?;
        match init_module(&module, c"") {
            // A soft dependency may not fit the CPU: crc32c-intel without SSE 4.2 says ENODEV.
            Ok(()) | Err(Errno::EXIST | Errno::NODEV) => {}
            Err(e) => return Err(format!("cannot load {path}: {e}")),
        }
    }
    Ok(())
}

fn kdump_rs(verb: &str, args: &[String]) -> Result<(), Failure> {
    let args: Vec<String> = std::iter::once(verb.to_owned()).chain(args.iter().cloned()).collect();
    run_program(KDUMP_RS, &args)
}

fn run_program(program: &str, args: &[String]) -> Result<(), Failure> {
    let start = Instant::now();
    let status =
        Command::new(program).args(args).status().map_err(because(&format!("cannot run {program}")))?;
    let took = start.elapsed();
    let name = Path::new(program).file_name().unwrap_or_default().to_string_lossy();
    let verb = args.first().map_or("", String::as_str);
    say(&format!("{name} {verb} took {:.1} ms", took.as_secs_f64() * 1000.0));
    if status.success() { Ok(()) } else { Err(format!("{name} {verb} ended with {status}")) }
}

/// Puts a line into the kernel log, from where it reaches the console in one piece.
fn say(text: &str) {
    // Notice; the console shows it. There is nobody to tell when this fails.
    let line = format!("<5>{GUEST_PREFIX}{text}\n");
    if let Ok(mut kmsg) = fs::OpenOptions::new().write(true).open("/dev/kmsg") {
        let _ = kmsg.write_all(line.as_bytes());
    } else {
        eprint!("{}", line.trim_start_matches("<5>"));
    }
}

fn because<E: Display>(what: &str) -> impl FnOnce(E) -> Failure {
    move |e| format!("{what}: {e}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_this_runs_on_another_machine() {
        assert!(run().is_err());
        assert!(run_as(Role::Crasher).is_err());
    }
}

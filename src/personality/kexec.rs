//! `kexec`, with kexec-tools' options: loading, unloading and entering images for an ordinary kexec, and the capture
//! kernels of those who bring their own initramfs (`kexec -p`).
//!
//! Source: kexec(8) of kexec-tools 2.0.32.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, bail, ensure};
use kdump_loader::arm::{self, Call, EntryState, Policy, Settings, TestHook, Via, decide};
use kdump_loader::initramfs::RetentionConfig;
use kdump_loader::machine::{self, Machine};
use kdump_loader::plan::DEFAULT_RUN;
use kdump_loader::state::State;
use kdump_loader::{cmdline, console, syscall};

use super::getopt::{self, Given, Known};
use crate::commands::kexec::load::{Job, Parts};
use crate::commands::kexec::{SYSTEM, exec};

const fn flag(long: &'static str, short: char) -> Known {
    Known { long, short, takes: false }
}

const fn with_value(long: &'static str, short: char) -> Known {
    Known { long, short, takes: true }
}

const KNOWN: [Known; 47] = [
    flag("help", 'h'),
    flag("version", 'v'),
    flag("load", 'l'),
    flag("load-panic", 'p'),
    flag("unload", 'u'),
    flag("exec", 'e'),
    flag("force", 'f'),
    flag("status", 'S'),
    flag("debug", 'd'),
    flag("kexec-file-syscall", 's'),
    flag("kexec-syscall", 'c'),
    flag("kexec-syscall-auto", 'a'),
    flag("no-ifdown", 'x'),
    flag("no-sync", 'y'),
    with_value("command-line", '\0'),
    with_value("append", '\0'),
    flag("reuse-cmdline", '\0'),
    with_value("initrd", '\0'),
    with_value("ramdisk", '\0'),
    with_value("module", '\0'),
    flag("reuseinitrd", '\0'),
    flag("entry-32bit", '\0'),
    flag("real-mode", '\0'),
    with_value("type", 't'),
    flag("args-elf", '\0'),
    flag("args-linux", '\0'),
    flag("args-none", '\0'),
    with_value("entry", '\0'),
    with_value("mem-min", '\0'),
    with_value("mem-max", '\0'),
    flag("load-preserve-context", '\0'),
    flag("load-jump-back-helper", '\0'),
    // What follows is accepted and has no effect: the console is found, the rest is done or not needed here.
    flag("elf32-core-headers", '\0'),
    flag("elf64-core-headers", '\0'),
    flag("pass-memmap-cmdline", '\0'),
    flag("console-serial", '\0'),
    flag("console-vga", '\0'),
    with_value("serial", '\0'),
    with_value("serial-baud", '\0'),
    flag("reset-vga", '\0'),
    with_value("reuse-video-type", '\0'),
    flag("noefi", '\0'),
    flag("no-checks", '\0'),
    flag("hotplug", '\0'),
    flag("no-vga", '\0'),
    flag("noio", '\0'),
    with_value("dtb", '\0'),
];

/// Asked for what this program does not do.
const REFUSED: [(&str, &str); 4] = [
    ("load-preserve-context", "returning to this kernel (KEXEC_PRESERVE_CONTEXT) is not supported"),
    ("load-jump-back-helper", "returning to this kernel (KEXEC_PRESERVE_CONTEXT) is not supported"),
    ("real-mode", "entering a kernel in real mode is not supported"),
    ("dtb", "there are no device trees on x86-64"),
];

const HELP: &str = "\
usage: kexec [options] kernel-image

kdump-rs under the name of kexec-tools' program; it takes that one's options. See also: kdump-rs --help

 -l, --load                 load the image for an ordinary kexec
 -p, --load-panic           load it for the time after a panic
 -u, --unload               unload (with -p: the capture kernel)
 -e, --exec                 enter the loaded image, now
 -f, --force                load and enter, without shutting down
 -S, --status               exit with 1 if an image is loaded (a capture kernel; with -l: of an ordinary kexec), else 0
 -s, --kexec-file-syscall   use kexec_file_load
 -c, --kexec-syscall        use kexec_load (default)
 -a, --kexec-syscall-auto   use kexec_file_load where the kernel is locked down, else kexec_load
     --append=TEXT          command line; also --command-line=TEXT
     --reuse-cmdline        the running kernel's command line, before what is appended
     --initrd=FILE          initramfs; also --ramdisk=FILE
     --reuseinitrd          the running kernel's initramfs
     --module=\"FILE WORDS\"  module of a Multiboot image
     --entry-32bit          enter the kernel by the 32-bit boot protocol
 -y, --no-sync              with -e and -f: no sync before
 -d, --debug                print where everything goes
 -h, --help  -v, --version
";

/// Runs with the arguments that follow the name; exits with 0, 1 for what failed, 255 for a wrong command line.
pub fn main(args: &[OsString]) -> ExitCode {
    let asked = match getopt::parse(&KNOWN, args).and_then(Asked::new) {
        Ok(asked) => asked,
        Err(message) => {
            eprintln!("kexec: {message}\n\n{HELP}");
            return ExitCode::from(255);
        }
    };
    match run(&asked) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("kexec: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What the command line asks for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Asked {
    action: Action,
    is_panic: bool,
    is_load: bool,
    is_synced: bool,
    is_debug: bool,
    is_32_bit: bool,
    is_reused: bool,
    words: Option<String>,
    initrd: Option<PathBuf>,
    is_initrd_reused: bool,
    via: Via,
    image: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Action {
    Help,
    Version,
    /// Load, shut down, enter.
    #[default]
    Reboot,
    Load,
    Unload,
    Exec,
    /// Load and enter.
    Force,
    Status,
}

impl Asked {
    fn new(given: Vec<Given>) -> Result<Self, String> {
        let mut asked = Self { is_synced: true, via: Via::Only(Call::KexecLoad), ..Self::default() };
        let text = |value: OsString| value.into_string().map_err(|v| format!("{} is no UTF-8", v.display()));
        for one in given {
            let (name, value) = match one {
                Given::Operand(image) if asked.image.is_none() => {
                    asked.image = Some(image.into());
                    continue;
                }
                Given::Operand(more) => return Err(format!("more than one image: {}", more.display())),
                Given::Option(name, value) => (name, value),
            };
            if let Some((_, why)) = REFUSED.iter().find(|(refused, _)| *refused == name) {
                return Err(format!("--{name}: {why}"));
            }
            match name {
                "help" => asked.action = Action::Help,
                "version" => asked.action = Action::Version,
                "load" => {
                    asked.is_load = true;
                    asked.set(Action::Load);
                }
                "load-panic" => {
                    asked.is_panic = true;
                    asked.set(Action::Load);
                }
                "unload" => asked.set(Action::Unload),
                "exec" => asked.set(Action::Exec),
                "force" => asked.set(Action::Force),
                "status" => asked.set(Action::Status),
                "debug" => asked.is_debug = true,
                "no-sync" => asked.is_synced = false,
                "kexec-file-syscall" => asked.via = Via::Only(Call::KexecFileLoad),
                "kexec-syscall" => asked.via = Via::Only(Call::KexecLoad),
                "kexec-syscall-auto" => asked.via = Via::Auto,
                "append" | "command-line" => asked.words = Some(text(value)?),
                "reuse-cmdline" => asked.is_reused = true,
                "initrd" | "ramdisk" => asked.initrd = Some(value.into()),
                "module" => {
                    let words = text(value)?;
                    asked.initrd = words.split_whitespace().next().map(PathBuf::from);
                }
                "reuseinitrd" => asked.is_initrd_reused = true,
                "entry-32bit" => asked.is_32_bit = true,
                "entry" | "mem-min" | "mem-max" => {
                    return Err(format!("--{name}: addresses are chosen by the plan, and cannot be given"));
                }
                _ => {}
            }
        }
        Ok(asked)
    }

    /// Of several actions the strongest counts: status, help, unload, force, exec, load.
    fn set(&mut self, action: Action) {
        let rank = |action| match action {
            Action::Reboot => 0,
            Action::Load => 1,
            Action::Exec => 2,
            Action::Force => 3,
            Action::Unload => 4,
            Action::Status => 5,
            Action::Help | Action::Version => 6,
        };
        if rank(action) > rank(self.action) {
            self.action = action;
        }
    }
}

fn run(asked: &Asked) -> anyhow::Result<ExitCode> {
    let root = Path::new(SYSTEM);
    match asked.action {
        Action::Help => print!("{HELP}"),
        Action::Version => println!("kexec-tools 2.0.32 options, kdump-rs {}", env!("CARGO_PKG_VERSION")),
        Action::Status => {
            let is_loaded =
                if asked.is_load { machine::is_kexec_loaded(root) } else { machine::is_crash_loaded(root) };
            return Ok(ExitCode::from(u8::from(is_loaded == Some(true))));
        }
        Action::Unload => {
            syscall::unload(&Machine::read(root)?, asked.is_panic)?;
            if asked.is_panic {
                State::remove(root)?;
            }
        }
        Action::Exec => enter(asked)?,
        Action::Load if asked.is_panic => load_panic(asked)?,
        Action::Load => load(asked)?,
        Action::Force => {
            load(asked)?;
            enter(asked)?;
        }
        Action::Reboot => {
            load(asked)?;
            let status =
                Command::new("shutdown").args(["-r", "now"]).status().context("cannot run shutdown")?;
            ensure!(status.success(), "shutdown -r now ended with {status}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn enter(asked: &Asked) -> anyhow::Result<()> {
    if machine::is_kexec_loaded(Path::new(SYSTEM)) == Some(false) {
        bail!("nothing has been loaded");
    }
    exec::enter(asked.is_synced, false)
}

/// Image, initramfs and command line, as far as they are named: a UKI has its own.
fn parts(asked: &Asked, machine: &Machine) -> anyhow::Result<(PathBuf, Option<PathBuf>, Option<String>)> {
    let image = asked.image.clone().context("no kernel image was named")?;
    let dropped: &[&str] = if asked.is_panic { &["crashkernel"] } else { &[] };
    let mut words = Vec::new();
    if asked.is_reused {
        words.push(cmdline::reuse(&machine.cmdline, dropped));
    }
    words.extend(asked.words.clone());
    let initrd = match asked.is_initrd_reused {
        true => Some(PathBuf::from(format!("/boot/initrd.img-{}", machine.release))),
        false => asked.initrd.clone(),
    };
    Ok((image, initrd, (!words.is_empty()).then(|| words.join(" "))))
}

fn load(asked: &Asked) -> anyhow::Result<()> {
    let machine = Machine::read(Path::new(SYSTEM))?;
    let (kernel, initrd, cmdline) = parts(asked, &machine)?;
    let registers = EntryState::default();
    let job = Job { kernel, initrd, cmdline, is_32_bit: asked.is_32_bit, registers, via: asked.via };
    let parts = Parts::read(&job)?;
    let is_by_file = decide(job.via, &machine).call == Call::KexecFileLoad;
    let plan = if is_by_file { None } else { Some(parts.plan(&job, &machine)?) };
    if let Some(plan) = plan.as_ref().filter(|_| asked.is_debug) {
        println!("{plan}");
    }
    parts.load(&job, plan.as_ref(), &machine)
}

/// A capture kernel with somebody else's initramfs, behind our panic path.
fn load_panic(asked: &Asked) -> anyhow::Result<()> {
    let root = Path::new(SYSTEM);
    let machine = Machine::read(root)?;
    let (kernel, initrd, cmdline) = parts(asked, &machine)?;
    let cmdline = cmdline.unwrap_or_default();
    let prepared = arm::prepare(settings(asked, kernel, arm::Given { initrd, cmdline }), root, true)?;
    let plan = prepared.planned()?;
    if asked.is_debug {
        println!("{plan}");
    }
    for warning in plan.warnings().iter().chain(&prepared.console.warning) {
        eprintln!("kexec: warning: {warning}");
    }
    prepared.load(&plan, root)?;
    if let Err(error) = prepared.state(&plan).write(root) {
        eprintln!("kexec: loaded, but {} cannot be written: {error}", kdump_loader::state::STATE_PATH);
    }
    Ok(())
}

fn settings(asked: &Asked, kernel: PathBuf, given: arm::Given) -> Settings {
    Settings {
        kernel: Some(kernel),
        modules: None,
        init: None,
        targets: vec![],
        client: crate::commands::server::look,
        encrypt_to: vec![],
        encrypt_reports: false,
        total_budget: None,
        retention: RetentionConfig::default(),
        shell: None,
        level: 0,
        format: String::new(),
        compression: String::new(),
        end: String::new(),
        append: String::new(),
        console: console::Choice::default(),
        on_corruption: Policy::Reset,
        parity_run: DEFAULT_RUN,
        test_hook: TestHook::default(),
        payload_at: None,
        is_32_bit: asked.is_32_bit,
        is_probe: false,
        registers: EntryState::default(),
        given: Some(given),
        via: asked.via,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(line: &str) -> Result<Asked, String> {
        let args: Vec<OsString> = line.split('|').map(OsString::from).collect();
        getopt::parse(&KNOWN, &args).and_then(Asked::new)
    }

    /// As Debian's kdump-config calls it.
    #[test]
    fn the_line_of_kdump_config_is_understood() {
        let load = asked("-p|--command-line=root=UUID=1 ro nr_cpus=1|--initrd=/var/lib/kdump/initrd|/var/lib/kdump/vmlinuz").unwrap();
        assert_eq!((load.action, load.is_panic, load.via), (Action::Load, true, Via::Only(Call::KexecLoad)));
        assert_eq!(load.words.as_deref(), Some("root=UUID=1 ro nr_cpus=1"));
        assert_eq!(load.initrd, Some("/var/lib/kdump/initrd".into()));
        assert_eq!(load.image, Some("/var/lib/kdump/vmlinuz".into()));
        let unload = asked("-s|-p|-u").unwrap();
        assert_eq!(
            (unload.action, unload.is_panic, unload.via),
            (Action::Unload, true, Via::Only(Call::KexecFileLoad))
        );
    }

    /// As systemctl and Debian's init script call it, and by hand.
    #[test]
    fn ordinary_lines_are_understood() {
        let load = asked("-l|/boot/vmlinuz|--initrd=/boot/initrd|--append=quiet").unwrap();
        assert_eq!((load.action, load.is_panic), (Action::Load, false));
        let exec = asked("-e").unwrap();
        assert_eq!((exec.action, exec.is_synced), (Action::Exec, true));
        assert!(!asked("-y|-e").unwrap().is_synced);
        assert_eq!(asked("-f|k").unwrap().action, Action::Force);
        assert_eq!(asked("k").unwrap().action, Action::Reboot);
        assert_eq!(
            asked("-l|-S").unwrap(),
            Asked { action: Action::Status, is_load: true, ..asked("-S").unwrap() }
        );
        assert_eq!(asked("-l|-e|k").unwrap().action, Action::Exec);
        assert_eq!(asked("-a|-l|k").unwrap().via, Via::Auto);
        assert_eq!(asked("--reuse-cmdline|--app=x|-l|k").unwrap().words.as_deref(), Some("x"));
        assert_eq!(asked("-l|--module=/initrd words|k").unwrap().initrd, Some("/initrd".into()));
    }

    #[test]
    fn what_is_not_done_is_refused() {
        assert!(asked("--load-preserve-context|k").unwrap_err().contains("not supported"));
        assert!(asked("--mem-min=0x100000|k").unwrap_err().contains("chosen by the plan"));
        assert!(asked("k|k2").unwrap_err().contains("more than one image"));
        assert!(asked("--frobnicate").unwrap_err().contains("unrecognized option"));
    }
}

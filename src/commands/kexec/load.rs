//! `kexec load`: an image for an ordinary kexec.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use kdump_loader::arm::{self, Call, EntryState, Via, decide};
use kdump_loader::image::{self, Found, Image, Purpose};
use kdump_loader::machine::{self, Machine};
use kdump_loader::normal::{self, Linux, NormalPlan, Program};
use kdump_loader::plan::size_text;
use kdump_loader::{cmdline, preflight, syscall};

use super::SYSTEM;
use crate::commands::arm::{Syscall, parse_register, set_register};
use crate::exit::Exit;

/// Arguments.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// bzImage, vmlinux, static ELF executable, Multiboot image, compressed or not, or a unified kernel image (UKI)
    /// [default: the running kernel's, with its initramfs and command line]
    #[arg(value_name = "KERNEL")]
    kernel: Option<PathBuf>,
    /// Its initramfs, or the module of a Multiboot image [default: of a UKI its own]
    #[arg(long, visible_alias = "ramdisk", value_name = "PATH")]
    initrd: Option<PathBuf>,
    /// Words for its command line, behind those of --reuse-cmdline [default: of a UKI its own]
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    append: Option<String>,
    /// Take over the running kernel's command line
    #[arg(long)]
    reuse_cmdline: bool,
    /// Boot protocol that a kernel is entered by: 64 or 32 bits [default: 64 where it can]
    #[arg(long, value_name = "BITS", value_parser = ["64", "32"])]
    entry: Option<String>,
    /// Register that a plain ELF executable is entered with: rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_register)]
    register: Vec<(String, u64)>,
    /// System call to load by: load, file, or auto, which takes file only where the kernel is locked down
    #[arg(long, value_enum, value_name = "CALL", default_value = "auto")]
    syscall: Syscall,
    /// Print where everything goes
    #[arg(short, long)]
    debug: bool,
    /// Plan, print and load nothing
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What is to be loaded.
#[derive(Debug)]
pub struct Job {
    /// The image.
    pub kernel: PathBuf,
    /// Its initramfs.
    pub initrd: Option<PathBuf>,
    /// Its command line; `None` where nothing was said of it.
    pub cmdline: Option<String>,
    /// Enter it by the 32-bit protocol.
    pub is_32_bit: bool,
    /// Registers of a plain executable.
    pub registers: EntryState,
    /// By which call.
    pub via: Via,
}

/// Runs it.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    let machine = Machine::read(Path::new(SYSTEM))?;
    let job = job(args, &machine)?;
    let parts = Parts::read(&job)?;
    let decided = decide(job.via, &machine);
    let is_by_file = decided.call == Call::KexecFileLoad;
    let plan = if is_by_file { None } else { Some(parts.plan(&job, &machine)?) };
    let is_shown = (args.debug || args.dry_run) && !args.json;
    if let Some(plan) = plan.as_ref().filter(|_| is_shown) {
        writeln!(io::stdout(), "{plan}")?;
    }
    if !args.dry_run {
        parts.load(&job, plan.as_ref(), &machine)?;
    }
    if args.json {
        let plan = plan.as_ref().map(NormalPlan::to_json);
        let report = serde_json::json!({
            "is_loaded": !args.dry_run, "syscall": decided.call.name(), "kernel": job.kernel,
            "initrd": job.initrd, "initrd_bytes": parts.initrd.len(), "cmdline": parts.cmdline,
            "system": parts.system, "wrappings": parts.found.wrappings.iter().map(ToString::to_string).collect::<Vec<_>>(), "plan": plan,
        });
        writeln!(io::stdout(), "{}", serde_json::to_string_pretty(&report)?)?;
    } else if args.dry_run {
        writeln!(io::stdout(), "nothing was loaded (--dry-run)")?;
    } else {
        let initrd = match &job.initrd {
            None if parts.initrd.is_empty() => "no initramfs".to_owned(),
            None => format!("its own initramfs ({})", size_text(parts.initrd.len() as u64)),
            Some(path) => format!("{} ({})", path.display(), size_text(parts.initrd.len() as u64)),
        };
        let system = parts.system.as_ref().map_or(String::new(), |system| format!("  system   {system}\n"));
        writeln!(
            io::stdout(),
            "loaded {} with {initrd} by {}\n{system}  cmdline  {}\nenter it with: kdump-rs kexec exec",
            image::origin(&job.kernel, &parts.found.wrappings),
            decided.call.name(),
            parts.cmdline
        )?;
    }
    Ok(Exit::Complete)
}

fn job(args: &Args, machine: &Machine) -> anyhow::Result<Job> {
    let is_running = args.kernel.is_none();
    let kernel = match &args.kernel {
        Some(path) => path.clone(),
        None => existing("the running kernel's image", &arm::kernel_places(&machine.release))?,
    };
    let initrd = match &args.initrd {
        None if is_running => {
            let release = &machine.release;
            let places = [format!("/boot/initrd.img-{release}"), format!("/boot/initramfs-{release}.img")];
            Some(existing("its initramfs", &places.map(PathBuf::from))?)
        }
        other => other.clone(),
    };
    let reused = (args.reuse_cmdline || is_running).then(|| cmdline::reuse(&machine.cmdline, &[]));
    let words: Vec<_> = reused.into_iter().chain(args.append.clone()).collect();
    let mut registers = EntryState::default();
    for (name, value) in &args.register {
        set_register(&mut registers, name, *value).map_err(anyhow::Error::msg)?;
    }
    let via = args.syscall.into();
    let is_32_bit = args.entry.as_deref() == Some("32");
    Ok(Job {
        kernel,
        initrd,
        cmdline: (!words.is_empty()).then(|| words.join(" ")),
        is_32_bit,
        registers,
        via,
    })
}

fn existing(what: &str, places: &[PathBuf]) -> anyhow::Result<PathBuf> {
    let tried = || places.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ");
    let found = places.iter().find(|path| path.exists());
    found.cloned().with_context(|| format!("{what} is not there: tried {}; name it", tried()))
}

/// The files, read.
pub struct Parts {
    found: Found,
    initrd: Vec<u8>,
    cmdline: String,
    /// What a UKI says of itself.
    system: Option<String>,
}

impl Parts {
    /// Reads them. What the job does not say, a UKI says.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn read(job: &Job) -> anyhow::Result<Self> {
        let mut found = arm::read_image(&job.kernel, Purpose::Normal)?;
        let bundle = found.bundle.take().unwrap_or_default();
        let initrd = match &job.initrd {
            Some(path) => {
                fs::read(path).with_context(|| format!("initramfs {} cannot be read", path.display()))?
            }
            None => bundle.initramfs,
        };
        let cmdline = job.cmdline.clone().or(bundle.cmdline).unwrap_or_default();
        let named: Vec<_> = bundle.system.into_iter().chain(bundle.uname).collect();
        let system = (!named.is_empty()).then(|| named.join(", "));
        Ok(Self { found, initrd, cmdline, system })
    }

    /// Plans a load by kexec_load(2).
    ///
    /// # Errors
    /// Those of the plan, and of a kernel that this CPU mode cannot enter.
    pub fn plan<'p>(&'p self, job: &'p Job, machine: &Machine) -> anyhow::Result<NormalPlan<'p>> {
        let (initrd, cmdline) = (self.initrd.as_slice(), self.cmdline.as_str());
        let image: Box<dyn normal::Image<'p> + 'p> = match &self.found.image {
            Image::Linux(image) => {
                // The 32-bit entry is reached with paging off, so any paging mode will do.
                let is_too_deep = machine.has_5_level_paging() && image.check_5_level_paging().is_err();
                Box::new(Linux { image, initrd, cmdline, is_32_bit: job.is_32_bit || is_too_deep })
            }
            Image::Program(image) => {
                Box::new(Program { image, module: initrd, cmdline, registers: job.registers })
            }
        };
        Ok(normal::plan(machine, image.as_ref())?)
    }

    /// Loads them, by a plan or, without one, by kexec_file_load(2).
    ///
    /// # Errors
    /// The kernel's refusal, decoded.
    pub fn load(&self, job: &Job, plan: Option<&NormalPlan<'_>>, machine: &Machine) -> anyhow::Result<()> {
        match plan {
            Some(plan) => {
                preflight::check_permission(machine, false)?;
                syscall::load_normal(plan, machine)?;
            }
            None => {
                let Image::Linux(image) = &self.found.image else { bail!("{}", no_bzimage(job)) };
                let bytes = image.file().with_context(|| no_bzimage(job))?;
                let kernel = match self.found.wrappings.as_slice() {
                    [] => fs::File::open(&job.kernel)?,
                    _ => syscall::memory_file(bytes)?,
                };
                syscall::load_files(&kernel, &self.initrd, &self.cmdline, 0, machine)?;
            }
        }
        ensure!(
            machine::is_kexec_loaded(Path::new(SYSTEM)) != Some(false),
            "the system call succeeded, but /sys/kernel/kexec_loaded reads 0"
        );
        Ok(())
    }
}

fn no_bzimage(job: &Job) -> String {
    format!("kexec_file_load takes bzImages only, and {} is none", job.kernel.display())
}

//! Arming, from settings to a loaded capture kernel: [`prepare`] reads, [`Prepared::plan`] plans,
//! [`Prepared::load`] performs and checks that it took effect.

pub mod draft;
mod error;
mod settings;
mod via;
mod way;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;

use kdump_arch_x86::PhysAddr;
pub use kdump_arch_x86::control_page::EntryState;
pub use kdump_panic_kernel::handoff::{Policy, TestHook};
use kdump_panic_kernel::sha256;

use crate::bzimage::BzImage;
use crate::cmdline;
use crate::console::{self, Chosen};
use crate::cpio::Archive;
use crate::image::{self, Bundle, Found, Image, Purpose, Wrapping};
use crate::initramfs::{self, CaptureConfig, DumpConfig, EndConfig, Initramfs};
use crate::machine::{self, Machine};
use crate::modules::{Tree, firmware};
use crate::panic_image::PanicImage;
use crate::plan::{self, Linux, LoadPlan, Request};
use crate::preflight;
use crate::probe::Probe;
use crate::program;
use crate::state::{self, FileId, STATE_VERSION, State};
use crate::syscall;
use crate::target::Rung;
use crate::tsc;
use crate::vmlinux;

pub use error::Error;
pub use settings::{Given, Settings};
pub use via::{Call, Decided, FilePlan, Planned, Via, decide};

/// Larger files are no kernel and no init.
const MAX_FILE_BYTES: u64 = 512 << 20;

/// Everything that a plan is made from, read.
#[derive(Debug)]
pub struct Prepared {
    /// The running system.
    pub machine: Machine,
    /// The capture kernel.
    pub image: BzImage,
    /// What runs in its place, if that is no Linux kernel.
    pub program: Option<program::Program>,
    /// Its file.
    pub kernel_file: FileId,
    /// What it was in there: outermost first, empty if the file is the image.
    pub wrappings: Vec<Wrapping>,
    /// kdump-init's file, or that of the initramfs in its place.
    pub init_file: Option<FileId>,
    /// Where dumps go, in this order, as far as that is for us to say.
    pub targets: Vec<Rung>,
    /// The initramfs.
    pub initramfs: Initramfs,
    /// Where the panic path prints.
    pub console: Chosen,
    /// Which system call will load it, and why.
    pub via: Decided,
    initramfs_sha256: [u8; 32],
    settings: Settings,
    panic_image: PanicImage,
    tsc_khz: u64,
}

/// Reads the machine and all files, and builds the initramfs. `for_load`: whether permissions are
/// checked too.
///
/// # Errors
/// [`Error`].
pub fn prepare(settings: Settings, root: &Path, for_load: bool) -> Result<Prepared, Error> {
    let (machine, kernel) = thread::scope(|scope| {
        let kernel = scope.spawn(|| read_kernel(&settings, &machine::release(root)));
        (Machine::read(root), join(kernel))
    });
    let machine = machine?;
    // No reservation comes before all else; with the image at hand, the size it needs can be told.
    let recommended = kernel.as_ref().ok().map(|kernel| {
        let initramfs = 8 << 20;
        plan::recommended_bytes(&kernel.image, initramfs, 2 * initramfs, &machine)
    });
    preflight::check_panic_path(&machine)?;
    preflight::check_reservation(&machine, recommended)?;
    let via = decide(settings.via, &machine);
    if for_load {
        match via.call {
            Call::KexecLoad => preflight::check_permission(&machine, true)?,
            Call::KexecFileLoad => preflight::check_file_permission(&machine)?,
        }
    }
    let Kernel { image, program, path: kernel, wrappings, bundle } = kernel?;
    let settings = with_bundled(settings, bundle.as_ref());
    if via.call == Call::KexecFileLoad {
        via::check(&settings, image.file().is_none())?;
    }
    if machine.has_5_level_paging() {
        image.check_5_level_paging().map_err(|source| Error::Image { path: kernel.clone(), source })?;
    }
    let (kernel_file, tsc_khz, capture) = thread::scope(|scope| {
        // Most of this is sleep.
        let tsc_khz = scope.spawn(|| tsc::tsc_khz(&machine));
        // Digests are most of the work; the kernel's is computed meanwhile.
        let digest = scope.spawn(|| file_id("kernel image", &kernel, image.kernel_sha256()));
        let capture = match &settings.given {
            Some(given) => read_given(given, bundle),
            None => {
                build_capture(&settings, &machine, &image, root).map(|(targets, initramfs, file)| Capture {
                    targets,
                    initramfs_sha256: sha256::digest(&initramfs.packed),
                    initramfs,
                    file: Some(file),
                })
            }
        };
        (join(digest), tsc_khz.join().unwrap_or_default(), capture)
    });
    let Capture { targets, initramfs, initramfs_sha256, file: init_file } = capture?;
    let console = console::resolve(settings.console, &machine, root);
    Ok(Prepared {
        kernel_file: kernel_file?,
        wrappings,
        via,
        init_file,
        panic_image: PanicImage::embedded()?,
        tsc_khz,
        machine,
        image,
        program,
        targets,
        initramfs,
        initramfs_sha256,
        console,
        settings,
    })
}

/// What a thread gives; its bugs are ours.
fn join<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The kernel, or another program and what stands in for a kernel then.
#[derive(Debug)]
pub struct Kernel {
    /// The kernel.
    pub image: BzImage,
    /// What runs in its place, if that is no Linux kernel.
    pub program: Option<program::Program>,
    /// Its file.
    pub path: PathBuf,
    /// What it was in.
    pub wrappings: Vec<Wrapping>,
    /// What came with it.
    pub bundle: Option<Bundle>,
}

fn read_kernel(settings: &Settings, release: &str) -> Result<Kernel, Error> {
    let path = find("kernel image", "--kernel", settings.kernel.as_deref(), &kernel_places(release))?;
    let Found { image, wrappings, bundle } = read_image(&path, Purpose::Crash)?;
    let (image, program) = match image {
        Image::Linux(image) => (image, None),
        Image::Program(program) => (vmlinux::stand_in(&program), Some(program)),
    };
    Ok(Kernel { image, program, path, wrappings, bundle })
}

/// Reads a file and recognises it.
///
/// # Errors
/// [`Error::File`], [`Error::Kernel`].
pub fn read_image(path: &Path, purpose: Purpose) -> Result<Found, Error> {
    let bytes = read_file("kernel image", path)?;
    image::recognise(bytes, purpose).map_err(|source| Error::Kernel { path: path.to_owned(), source })
}

/// What runs in the capture kernel.
struct Capture {
    targets: Vec<Rung>,
    initramfs: Initramfs,
    initramfs_sha256: [u8; 32],
    file: Option<FileId>,
}

/// With the command line of a UKI where somebody else's capture comes with none.
fn with_bundled(mut settings: Settings, bundle: Option<&Bundle>) -> Settings {
    if let Some(given) = settings.given.as_mut().filter(|given| given.cmdline.is_empty())
        && let Some(cmdline) = bundle.and_then(|bundle| bundle.cmdline.clone())
    {
        given.cmdline = cmdline;
    }
    settings
}

/// Somebody else's initramfs as it is: the one named, else that of the UKI.
fn read_given(given: &Given, bundle: Option<Bundle>) -> Result<Capture, Error> {
    const WHAT: &str = "initramfs";
    let bundled = bundle.map(|bundle| bundle.initramfs).filter(|bytes| !bytes.is_empty());
    let (packed, path) = match (&given.initrd, bundled) {
        (Some(path), _) => (read_file(WHAT, path)?, Some(path)),
        (None, Some(bytes)) => (bytes, None),
        (None, None) => (Archive::new().finish(), None),
    };
    let initramfs_sha256 = sha256::digest(&packed);
    let file = path.map(|path| file_id(WHAT, path, initramfs_sha256)).transpose()?;
    // How large it becomes is not looked at; compressed ones are seldom smaller than a quarter of it.
    let unpacked_len = 4 * packed.len() as u64;
    let initramfs = Initramfs { packed, unpacked_len, ..Initramfs::default() };
    Ok(Capture { targets: vec![], initramfs, initramfs_sha256, file })
}

/// What runs in the capture kernel, and where it writes to.
fn build_capture(
    settings: &Settings,
    machine: &Machine,
    image: &BzImage,
    root: &Path,
) -> Result<(Vec<Rung>, Initramfs, FileId), Error> {
    let init = find("kdump-init", "--init", settings.init.as_deref(), &init_places())?;
    let init_bytes = read_file("kdump-init", &init)?;
    let shell = read_shell(settings)?;
    let (tree, firmware) = open_modules(settings, machine, image)?;
    let targets = Rung::resolve_all(&settings.targets, settings.client)?;
    let way = way::find(&tree, &targets, root)?;
    let config = CaptureConfig {
        modules: Vec::new(),
        boot_id: machine.boot_id.clone().unwrap_or_default(),
        total_budget: settings.total_budget.map_or(0, |budget| budget.as_secs()),
        targets: targets.iter().map(Rung::config).collect(),
        dump: DumpConfig {
            level: settings.level,
            format: settings.format.clone(),
            compression: settings.compression.clone(),
            encrypt_to: settings.encrypt_to.clone(),
            encrypt_reports: settings.encrypt_reports,
        },
        retention: settings.retention,
        end: EndConfig { action: settings.end.clone() },
        network: way.network,
    };
    let (now, later) = (way.modules, way.later);
    let mut initramfs =
        initramfs::build(&init_bytes, shell.as_deref(), &tree, now, later, &firmware, config)?;
    initramfs.warnings.extend(way.warnings);
    let init_file = file_id("kdump-init", &init, state::file_sha256(&init_bytes))?;
    Ok((targets, initramfs, init_file))
}

/// The shell, where the capture is to end in one: it must be named, as there is nothing else in the initramfs.
fn read_shell(settings: &Settings) -> Result<Option<Vec<u8>>, Error> {
    match (settings.end.as_str(), &settings.shell) {
        ("shell", None) => Err(Error::NoShell),
        ("shell", Some(path)) => read_file("shell", path).map(Some),
        _ => Ok(None),
    }
}

/// The capture kernel's modules, and where their firmware is.
fn open_modules(
    settings: &Settings,
    machine: &Machine,
    image: &BzImage,
) -> Result<(Tree, Vec<PathBuf>), Error> {
    let dir = settings.modules.clone();
    let dir = dir.unwrap_or_else(|| format!("/lib/modules/{}", machine.release).into());
    let tree = Tree::open(&dir)?;
    check_release(image, &dir)?;
    let release = dir.file_name().and_then(|name| name.to_str()).unwrap_or(&machine.release);
    Ok((tree, firmware::directories(Path::new("/"), release)))
}

fn file_id(what: &'static str, path: &Path, sha256: [u8; 32]) -> Result<FileId, Error> {
    FileId::new(path, sha256).map_err(|source| Error::File { what, path: path.to_owned(), source })
}

impl Prepared {
    /// The words for the command line.
    fn words(&self) -> &str {
        self.settings.given.as_ref().map_or(&self.settings.append, |given| &given.cmdline)
    }

    /// Plans the load by the call that was decided on.
    ///
    /// # Errors
    /// [`plan::Error`].
    pub fn planned(&self) -> Result<Planned<'_>, plan::Error> {
        Ok(match self.via.call {
            Call::KexecLoad => Planned::Segments(Box::new(self.plan()?)),
            Call::KexecFileLoad => Planned::Files(self.file_plan()?),
        })
    }

    /// Plans the load by kexec_file_load(2): the kernel decides on addresses, and on all but initramfs and words.
    ///
    /// # Errors
    /// [`plan::Error::Cmdline`].
    pub fn file_plan(&self) -> Result<FilePlan<'_>, plan::Error> {
        let max = self.image.cmdline_size().saturating_sub(via::PREPENDED_MAX);
        let cmdline = cmdline::build(
            &self.machine.cmdline,
            &cmdline::Additions {
                boot_apic_id: self.machine.boot_apic_id,
                append: self.words(),
                is_all: self.settings.given.is_some(),
                ..cmdline::Additions::default()
            },
            max,
        )?;
        let unwrapped = self.image.file().filter(|_| !self.wrappings.is_empty());
        Ok(FilePlan { kernel: &self.kernel_file.path, unwrapped, initramfs: &self.initramfs.packed, cmdline })
    }

    /// Plans the load.
    ///
    /// # Errors
    /// [`plan::Error`].
    pub fn plan(&self) -> Result<LoadPlan<'_>, plan::Error> {
        let payload = Linux {
            image: &self.image,
            initramfs: &self.initramfs.packed,
            initramfs_sha256: Some(self.initramfs_sha256),
            unpacked_len: self.initramfs.unpacked_len,
            append: self.words(),
            is_all_appended: self.settings.given.is_some(),
            at: self.settings.payload_at.map(PhysAddr),
            is_32_bit: self.settings.is_32_bit,
        };
        let program = self.program.as_ref().map(|image| plan::Program {
            image,
            module: &self.initramfs.packed,
            append: self.words(),
            registers: self.settings.registers,
        });
        let probe = Probe::new(self.console.console, Policy::Reset).map_err(plan::Error::PanicImage)?;
        plan::plan(&Request {
            machine: &self.machine,
            payload: match &program {
                _ if self.settings.is_probe => &probe,
                Some(program) => program,
                None => &payload,
            },
            panic_image: &self.panic_image,
            console: self.console.console,
            policy: self.settings.on_corruption,
            parity_run: self.settings.parity_run,
            tsc_khz: self.tsc_khz,
            test_hook: self.settings.test_hook,
        })
    }

    /// What `status` will read.
    #[must_use]
    pub fn state(&self, plan: &Planned<'_>) -> State {
        let own = match plan {
            Planned::Segments(plan) => Some(plan),
            Planned::Files(_) => None,
        };
        State {
            version: STATE_VERSION,
            armed_at: state::now(),
            boot_id: self.machine.boot_id.clone().unwrap_or_default(),
            kernel: self.kernel_file.clone(),
            kernel_version: self.image.version().map(str::to_owned),
            init: self.init_file.clone(),
            modules: self.initramfs.modules.clone(),
            initramfs_bytes: self.initramfs.packed.len() as u64,
            targets: self.targets.clone(),
            level: self.settings.level,
            format: self.settings.format.clone(),
            compression: self.settings.compression.clone(),
            end: self.settings.end.clone(),
            console: self.console.text.clone(),
            parity: own.map(|plan| plan.protection.to_string()).unwrap_or_default(),
            panic_test: own.and_then(|plan| plan::test_hook_name(plan.handoff.test_hook)).map(str::to_owned),
            via: self.via.call.name().to_owned(),
            arguments: Vec::new(),
            plan: plan.to_json(),
        }
    }

    /// Loads the plan and checks that the kernel has it.
    ///
    /// # Errors
    /// [`Error::Load`], [`Error::NotLoaded`].
    pub fn load(&self, plan: &Planned<'_>, root: &Path) -> Result<(), Error> {
        let loaded = match plan {
            Planned::Segments(plan) => syscall::load(plan, &self.machine),
            Planned::Files(plan) => plan.load(&self.machine),
        };
        if let Err(source) = loaded {
            let is_disarmed = machine::is_crash_loaded(root) != Some(true);
            if is_disarmed {
                // It speaks of an image that is gone; that it cannot be removed changes nothing.
                let _ = State::remove(root);
            }
            return Err(Error::Load { is_disarmed, source });
        }
        if machine::is_crash_loaded(root) == Some(true) { Ok(()) } else { Err(Error::NotLoaded) }
    }
}

/// Where distributions put the running kernel's image: most; Fedora and Debian from Linux 7.3 on.
#[must_use]
pub fn kernel_places(release: &str) -> Vec<PathBuf> {
    vec![format!("/boot/vmlinuz-{release}").into(), format!("/usr/lib/modules/{release}/vmlinuz").into()]
}

fn init_places() -> Vec<PathBuf> {
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join("kdump-init")));
    beside.into_iter().chain([PathBuf::from("/usr/lib/kdump-rs/kdump-init")]).collect()
}

fn find(
    what: &'static str,
    flag: &'static str,
    given: Option<&Path>,
    places: &[PathBuf],
) -> Result<PathBuf, Error> {
    given.or_else(|| places.iter().map(PathBuf::as_path).find(|p| p.exists())).map(Path::to_owned).ok_or_else(
        || Error::NotFound { what, flag, tried: places.iter().map(|p| p.display().to_string()).collect() },
    )
}

pub(crate) fn read_file(what: &'static str, path: &Path) -> Result<Vec<u8>, Error> {
    let failed = |source| Error::File { what, path: path.to_owned(), source };
    let metadata = fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() || metadata.len() > MAX_FILE_BYTES {
        let text = format!("not a regular file of at most {MAX_FILE_BYTES} bytes");
        return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, text)));
    }
    fs::read(path).map_err(failed)
}

/// Modules of another release would be refused by the capture kernel, after the panic.
fn check_release(image: &BzImage, dir: &Path) -> Result<(), Error> {
    let name = fs::canonicalize(dir).ok().and_then(|d| Some(d.file_name()?.to_str()?.to_owned()));
    let kernel = image.version().and_then(|v| v.split_whitespace().next());
    match (name, kernel) {
        // A directory that is not called after a release says nothing.
        (Some(modules), Some(kernel)) if modules != kernel && looks_like_release(&modules) => {
            Err(Error::OtherModules { dir: dir.to_owned(), modules, kernel: kernel.to_owned() })
        }
        _ => Ok(()),
    }
}

fn looks_like_release(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_digit()) && name.contains('.')
}

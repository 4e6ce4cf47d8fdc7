//! What is to be rehearsed, and what came of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kdump_loader::bzimage::BzImage;

use crate::{Crash, Error, Phase, Scene};

/// The static programs that go into the guest.
#[derive(Clone, Debug)]
pub struct Programs {
    /// `kdump-rs`.
    pub kdump_rs: PathBuf,
    /// `kdump-init`.
    pub kdump_init: PathBuf,
}

impl Programs {
    /// Those beside the running program.
    ///
    /// # Errors
    /// [`Error::File`] when the running program's path is not known.
    pub fn beside_this_one() -> Result<Self, Error> {
        let kdump_rs =
            std::env::current_exe().map_err(Error::file("find", Path::new("the running program")))?;
        let kdump_init = kdump_rs.with_file_name("kdump-init");
        Ok(Self { kdump_rs, kdump_init })
    }
}

/// A rehearsal.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The bzImage that is booted, armed and crashed.
    pub kernel: PathBuf,
    /// Its module directory; looked for when not given.
    pub modules: Option<PathBuf>,
    /// Our programs.
    pub programs: Programs,
    /// Value of `crashkernel=`.
    pub crashkernel: String,
    /// The guest's RAM in bytes.
    pub memory: u64,
    /// The guest's CPUs.
    pub cpus: u32,
    /// QEMU's `-cpu`, when not the default.
    pub cpu: Option<String>,
    /// How it is brought down.
    pub crash: Crash,
    /// The [module](crate::trigger) for crashes that need it.
    pub trigger: Option<PathBuf>,
    /// Arguments of `kdump-rs arm` in the guest.
    pub arm: Vec<String>,
    /// Where the logs and the dump go; made if needed. What an earlier rehearsal left is replaced.
    pub out: PathBuf,
    /// Leave the disk and the initramfs there too.
    pub keep: bool,
    /// Limit for the guest's whole life.
    pub timeout: Duration,
    /// What is unusual.
    pub scene: Scene,
}

impl Plan {
    /// RAM of the guest when nobody says otherwise.
    pub const MEMORY: u64 = 1 << 30;
    /// `crashkernel=` when nobody says otherwise.
    pub const CRASHKERNEL: &'static str = "192M";
    /// CPUs when nobody says otherwise: the panicking one and one that is shot down.
    pub const CPUS: u32 = 2;
    /// Limit for the guest's life when nobody says otherwise; an emulated cycle takes a tenth of it.
    pub const TIMEOUT: Duration = Duration::from_secs(300);

    /// A rehearsal of the usual kind.
    #[must_use]
    pub fn new(kernel: PathBuf, programs: Programs, out: PathBuf) -> Self {
        Self {
            kernel,
            modules: None,
            programs,
            crashkernel: Self::CRASHKERNEL.to_owned(),
            memory: Self::MEMORY,
            cpus: Self::CPUS,
            cpu: None,
            crash: Crash::default(),
            trigger: None,
            arm: Vec::new(),
            out,
            keep: false,
            timeout: Self::TIMEOUT,
            scene: Scene::default(),
        }
    }

    /// The release of a bzImage: what `uname -r` says when it runs.
    ///
    /// # Errors
    /// [`Error::NotAKernel`], [`Error::NoRelease`].
    pub fn release_of(kernel: &Path, image: &[u8]) -> Result<String, Error> {
        let path = || kernel.to_owned();
        let image = BzImage::parse(image).map_err(|source| Error::NotAKernel { path: path(), source })?;
        let version = image.version().and_then(|v| v.split_whitespace().next());
        version.map(str::to_owned).ok_or_else(|| Error::NoRelease { path: path() })
    }

    /// The production kernel's command line.
    ///
    /// Folklore: on a busy host an emulated guest may not get the ten ticks within which a kernel wants to see its timer
    /// work ("IO-APIC + timer doesn't work!", arch/x86/kernel/apic/io_apic.c); it forgoes them under the hypervisors
    /// that it knows, and here as `no_timer_check` says. The capture kernel takes that over.
    #[must_use]
    pub fn cmdline(&self) -> String {
        // printk.devkmsg=on: the kernel limits the rate of lines that programs add to its log.
        // panic=1: when nothing is armed, the guest must end all the same.
        format!(
            "console=ttyS0,115200 crashkernel={} printk.devkmsg=on panic=1 no_timer_check {}{}rdinit={} -- rehearse-guest",
            self.crashkernel,
            self.scene.cmdline,
            if self.scene.cmdline.is_empty() { "" } else { " " },
            crate::initramfs::KDUMP_RS
        )
    }

    /// The module directory: the one given, or `modules` beside the kernel, or the kernel's own
    /// directory, or /lib/modules/RELEASE.
    ///
    /// # Errors
    /// [`Error::NoModules`].
    pub fn find_modules(&self, release: &str) -> Result<PathBuf, Error> {
        if let Some(given) = &self.modules {
            return Ok(given.clone());
        }
        let beside = self.kernel.parent().unwrap_or(Path::new(""));
        [beside.join("modules"), beside.to_owned(), Path::new("/lib/modules").join(release)]
            .into_iter()
            .find(|dir| dir.join("modules.dep").exists())
            .ok_or_else(|| Error::NoModules { release: release.to_owned() })
    }

    /// The disk's size: room for an unfiltered dump, and as much again as the file system wants.
    #[must_use]
    pub fn disk_bytes(&self) -> u64 {
        self.memory.saturating_mul(5) / 4 + (256 << 20)
    }

    pub(crate) fn read_kernel(&self) -> Result<Vec<u8>, Error> {
        fs::read(&self.kernel).map_err(Error::file("read", &self.kernel))
    }
}

/// What a rehearsal that got to its end left behind.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The kernel's release.
    pub release: String,
    /// The dump directory, taken out of the guest's disk.
    pub dump_dir: PathBuf,
    /// The guest's serial console, from its first message to the reset after the dump.
    pub serial_log: PathBuf,
    /// The phases seen, and how long each took.
    pub phases: Vec<(Phase, Duration)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(kernel: &Path) -> Plan {
        let programs = Programs { kdump_rs: "/x/kdump-rs".into(), kdump_init: "/x/kdump-init".into() };
        Plan { crashkernel: "160M".to_owned(), ..Plan::new(kernel.to_owned(), programs, "out".into()) }
    }

    #[test]
    fn the_command_line_reserves_memory_and_ends_in_arguments_of_pid_1() {
        let cmdline = plan(Path::new("vmlinuz")).cmdline();
        assert!(cmdline.contains(" crashkernel=160M "), "{cmdline}");
        assert!(cmdline.ends_with(" rdinit=/usr/sbin/kdump-rs -- rehearse-guest"), "{cmdline}");
    }

    #[test]
    fn modules_are_found_beside_the_kernel() {
        let dir = tempfile::tempdir().unwrap();
        let plan = plan(&dir.path().join("vmlinuz"));
        assert!(matches!(plan.find_modules("0.0-none"), Err(Error::NoModules { .. })));
        fs::write(dir.path().join("modules.dep"), "").unwrap();
        assert_eq!(plan.find_modules("0.0-none").unwrap(), dir.path());
        fs::create_dir(dir.path().join("modules")).unwrap();
        fs::write(dir.path().join("modules/modules.dep"), "").unwrap();
        assert_eq!(plan.find_modules("0.0-none").unwrap(), dir.path().join("modules"));
    }

    #[test]
    fn what_is_no_kernel_is_named_in_the_error() {
        let error = Plan::release_of(Path::new("/k/zeros"), &[0; 4096]).unwrap_err();
        assert!(error.to_string().starts_with("/k/zeros is no kernel image"), "{error}");
    }
}

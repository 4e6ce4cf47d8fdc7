//! The facts of the running system that a load plan needs: the only module that reads /proc and /sys.
//!
//! What is missing is `None`, and whoever needs it says so; the root directory is a parameter, so
//! that tests read a directory of files. Parsing is in [`crate::iomem`], [`crate::sysfs`] and
//! [`crate::kernel_map`].

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use kdump_arch_x86::bootparam::{BootParams, E820Type};
use kdump_arch_x86::{PhysAddr, PhysRange};
use procfs::FromRead as _;
use zerocopy::FromBytes as _;

use crate::efi::Efi;
use crate::iomem::Iomem;
use crate::kernel_map::{KCORE_HEAD_BYTES, KernelMap};
use crate::sysfs::{self, Lockdown};

/// CPUs that are believed: the largest NR_CPUS of any distribution.
const MAX_CPUS: u32 = 8192;

/// CAP_SYS_BOOT, include/uapi/linux/capability.h.
const CAP_SYS_BOOT: u32 = 22;

/// What kind of encrypted guest this is, arch/x86/include/asm/msr-index.h.
const MSR_AMD64_SEV: u64 = 0xc001_0131;
/// Its bits for encrypted register state and for nested paging that the host cannot change.
const SEV_STATUS_ES: u64 = 1 << 1;
const SEV_STATUS_SNP: u64 = 1 << 2;

/// What the running system says of itself.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// `uname -r`.
    pub release: String,
    /// This boot's id, as /proc/sys/kernel/random/boot_id has it.
    pub boot_id: Option<String>,
    /// The running kernel's command line.
    pub cmdline: String,
    /// Physical memory.
    pub iomem: Iomem,
    /// Firmware's own memory map, RAM excepted.
    pub firmware_map: Vec<(PhysRange, E820Type)>,
    /// RAM as firmware described it at boot, sorted; empty where the kernel does not tell.
    pub firmware_ram: Vec<PhysRange>,
    /// `crashkernel=...,cma` memory, sorted.
    pub cma_ranges: Vec<PhysRange>,
    /// Bytes of RAM that the kernel manages.
    pub total_ram: Option<u64>,
    /// Note buffers of all possible CPUs, by CPU number.
    pub crash_notes: Vec<(u32, PhysRange)>,
    /// The VMCOREINFO note.
    pub vmcoreinfo: Option<PhysRange>,
    /// Bytes reserved by `crashkernel=`; `None` where the kernel has no crash kexec.
    pub crash_size: Option<u64>,
    /// Whether a capture kernel is loaded.
    pub is_crash_loaded: Option<bool>,
    /// Bytes that the kernel wants for an elfcorehdr it updates on hotplug (6.6 and later).
    pub elfcorehdr_size: Option<u64>,
    /// Whether the kernel can update a loaded elfcorehdr itself: the files are there, whatever they
    /// say (from 6.10 on they read 1 only once such an image is loaded).
    pub has_crash_hotplug: bool,
    /// boot_params of the running kernel.
    pub boot_params: Option<Box<BootParams>>,
    /// ACPI root pointer.
    pub rsdp: Option<PhysAddr>,
    /// EFI, where an ordinary kexec can pass it on.
    pub efi: Option<Efi>,
    /// Virtual addresses of text and direct map.
    pub kernel_map: KernelMap,
    /// APIC ID of the boot CPU.
    pub boot_apic_id: Option<u32>,
    /// Flags of CPU 0, as /proc/cpuinfo has them.
    pub cpu_flags: Vec<String>,
    /// MSR SEV_STATUS, where it can be read.
    pub sev_status: Option<u64>,
    /// Lockdown level; `None` where securityfs is not mounted.
    pub lockdown: Option<Lockdown>,
    /// The sysctl kernel.kexec_load_disabled.
    pub is_load_disabled: bool,
    /// The sysctl kernel.kexec_load_limit_panic: loads left, -1 for no limit (6.3 and later).
    pub load_limit: Option<i64>,
    /// The sysctl kernel.kexec_load_limit_reboot, likewise for an ordinary kexec.
    pub load_limit_reboot: Option<i64>,
    /// Whether this process has CAP_SYS_BOOT.
    pub has_cap_sys_boot: bool,
}

/// A file that must be readable is not.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("{path} cannot be read", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is not what it should be.
    #[error(transparent)]
    Iomem(#[from] crate::iomem::Error),
}

impl Machine {
    /// Reads the system whose `/proc` and `/sys` are under `root` (`/` for this one).
    ///
    /// # Errors
    /// [`Error`], for /proc/iomem alone; nothing else is indispensable for every question.
    pub fn read(root: &Path) -> Result<Self, Error> {
        let at = |path: &str| root.join(path);
        let text = |path: &str| fs::read_to_string(at(path)).ok();
        let number = |path: &str| sysfs::parse_decimal(&text(path)?);

        let limit = |path: &str| text(path).and_then(|t| t.trim().parse().ok());
        let (firmware_map, firmware_ram) = read_firmware_map(&at("sys/firmware/memmap"));

        let cpuinfo = text("proc/cpuinfo").unwrap_or_default();
        let iomem_path = at("proc/iomem");
        let iomem = fs::read(&iomem_path).map_err(|source| Error::Read { path: iomem_path, source })?;
        let iomem = Iomem::parse(&iomem)?;
        let boot_params = fs::read(at("sys/kernel/boot_params/data"))
            .ok()
            .and_then(|bytes| BootParams::read_from_bytes(&bytes).ok())
            .map(Box::new);
        let cmdline = text("proc/cmdline").unwrap_or_default().trim().to_owned();
        // In the order in which the kernel looks (drivers/acpi/osl.c, `acpi_os_get_root_pointer`).
        let rsdp = sysfs::parse_rsdp_word(&cmdline)
            .or_else(|| Some(boot_params.as_ref()?.acpi_rsdp_addr.get()).filter(|&a| a != 0).map(PhysAddr));
        let efi = |name: &str| text(&format!("sys/firmware/efi/{name}"));

        Ok(Self {
            release: release(root),
            boot_id: boot_id(root),
            cmdline,
            firmware_map,
            firmware_ram,
            cma_ranges: text("sys/kernel/kexec_crash_cma_ranges")
                .or_else(|| text("sys/kernel/kexec/crash_cma_ranges"))
                .map(|t| sysfs::parse_cma_ranges(&t))
                .unwrap_or_default(),
            total_ram: procfs::Meminfo::from_file(at("proc/meminfo")).ok().map(|m| m.mem_total),
            crash_notes: read_crash_notes(&at("sys/devices/system/cpu")),
            vmcoreinfo: text("sys/kernel/vmcoreinfo").and_then(|t| sysfs::parse_vmcoreinfo(&t)),
            crash_size: number("sys/kernel/kexec_crash_size"),
            is_crash_loaded: number("sys/kernel/kexec_crash_loaded").map(|n| n != 0),
            elfcorehdr_size: number("sys/kernel/crash_elfcorehdr_size"),
            has_crash_hotplug: number("sys/devices/system/cpu/crash_hotplug").is_some()
                || number("sys/devices/system/memory/crash_hotplug").is_some(),
            rsdp: rsdp.or_else(|| sysfs::parse_efi_systab(&efi("systab")?)),
            efi: boot_params.as_ref().and_then(|params| Efi::read(params, efi)),
            boot_params,
            kernel_map: read_kernel_map(root, iomem.kernel_code().map(PhysRange::start)),
            boot_apic_id: sysfs::parse_boot_apic_id(&cpuinfo),
            cpu_flags: sysfs::parse_cpu_flags(&cpuinfo),
            sev_status: read_msr(&at("dev/cpu/0/msr"), MSR_AMD64_SEV),
            lockdown: text("sys/kernel/security/lockdown").and_then(|t| sysfs::parse_lockdown(&t)),
            is_load_disabled: number("proc/sys/kernel/kexec_load_disabled") == Some(1),
            load_limit: limit("proc/sys/kernel/kexec_load_limit_panic"),
            load_limit_reboot: limit("proc/sys/kernel/kexec_load_limit_reboot"),
            has_cap_sys_boot: text("proc/self/status").is_some_and(|t| has_capability(&t, CAP_SYS_BOOT)),
            iomem,
        })
    }
}

impl Machine {
    /// Whether CPU 0 has a flag of /proc/cpuinfo.
    #[must_use]
    pub fn has_cpu_flag(&self, flag: &str) -> bool {
        self.cpu_flags.iter().any(|f| f == flag)
    }

    /// Whether the running kernel uses 5-level page tables: it clears the flag where it does not.
    ///
    /// Source: arch/x86/kernel/cpu/common.c (`early_identify_cpu`).
    #[must_use]
    pub fn has_5_level_paging(&self) -> bool {
        self.has_cpu_flag("la57")
    }

    /// What this machine is called if it is a guest where CPUID and port I/O raise #VC or #VE.
    ///
    /// A host that can run SEV guests has their flags too, hence `hypervisor`; the MSR, where it can be
    /// read, knows for certain. Source: arch/x86/kernel/cpu/amd.c (`early_detect_mem_encrypt`).
    #[must_use]
    pub fn encrypted_guest(&self) -> Option<&'static str> {
        if self.has_cpu_flag("tdx_guest") {
            return Some("TDX");
        }
        if !self.has_cpu_flag("hypervisor") {
            return None;
        }
        let is_guest =
            |flag, bit| self.sev_status.map_or(self.has_cpu_flag(flag), |status| status & bit != 0);
        if is_guest("sev_snp", SEV_STATUS_SNP) {
            Some("SEV-SNP")
        } else {
            is_guest("sev_es", SEV_STATUS_ES).then_some("SEV-ES")
        }
    }
}

fn read_msr(device: &Path, msr: u64) -> Option<u64> {
    let mut value = [0; 8];
    File::open(device).and_then(|file| file.read_exact_at(&mut value, msr)).ok()?;
    Some(u64::from_le_bytes(value))
}

/// Reads the running kernel's release; empty where that cannot be told.
#[must_use]
pub fn release(root: &Path) -> String {
    let text = fs::read_to_string(root.join("proc/sys/kernel/osrelease")).unwrap_or_default();
    text.trim().to_owned()
}

/// Re-reads this boot's id.
#[must_use]
pub fn boot_id(root: &Path) -> Option<String> {
    let text = fs::read_to_string(root.join("proc/sys/kernel/random/boot_id")).ok()?;
    Some(text.trim().to_owned())
}

/// Re-reads whether a capture kernel is loaded.
#[must_use]
pub fn is_crash_loaded(root: &Path) -> Option<bool> {
    read_flag(root, "sys/kernel/kexec_crash_loaded")
}

/// Whether an image is loaded for an ordinary kexec.
#[must_use]
pub fn is_kexec_loaded(root: &Path) -> Option<bool> {
    read_flag(root, "sys/kernel/kexec_loaded")
}

/// Whether the kernel keeps a loaded elfcorehdr up to date when CPUs and when memory come and go; `None` where it
/// has no such file, which is as good as no.
///
/// Source: Documentation/ABI/testing/sysfs-devices-memory (`crash_hotplug`).
#[must_use]
pub fn crash_hotplug(root: &Path) -> [Option<bool>; 2] {
    ["cpu", "memory"].map(|kind| read_flag(root, &format!("sys/devices/system/{kind}/crash_hotplug")))
}

fn read_flag(root: &Path, path: &str) -> Option<bool> {
    let text = fs::read_to_string(root.join(path)).ok()?;
    Some(sysfs::parse_decimal(&text)? != 0)
}

/// Possible CPUs have directories, present or not; all that have a note buffer count, so that one
/// that comes online later is in the dump too.
fn read_crash_notes(cpus: &Path) -> Vec<(u32, PhysRange)> {
    let Ok(entries) = fs::read_dir(cpus) else { return Vec::new() };
    let mut notes: Vec<_> = entries
        .flatten()
        .filter_map(|entry| {
            let cpu: u32 = entry.file_name().to_str()?.strip_prefix("cpu")?.parse().ok()?;
            let text = |name: &str| fs::read_to_string(entry.path().join(name)).ok();
            let range = sysfs::parse_crash_notes(&text("crash_notes")?, &text("crash_notes_size")?)?;
            (cpu < MAX_CPUS).then_some((cpu, range))
        })
        .collect();
    notes.sort_unstable_by_key(|&(cpu, _)| cpu);
    notes
}

/// What is not RAM, and what is.
fn read_firmware_map(dir: &Path) -> (Vec<(PhysRange, E820Type)>, Vec<PhysRange>) {
    let Ok(entries) = fs::read_dir(dir) else { return (Vec::new(), Vec::new()) };
    let mut map: Vec<_> = entries
        .flatten()
        .filter_map(|entry| {
            let text = |name: &str| fs::read_to_string(entry.path().join(name)).ok();
            sysfs::parse_memmap_entry(&text("start")?, &text("end")?, &text("type")?)
        })
        .collect();
    map.sort_unstable();
    let (ram, other): (Vec<_>, Vec<_>) = map.into_iter().partition(|(_, kind)| *kind == E820Type::RAM);
    (other, ram.into_iter().map(|(range, _)| range).collect())
}

fn read_kernel_map(root: &Path, kernel_code: Option<PhysAddr>) -> KernelMap {
    let mut head = Vec::new();
    let kcore = File::open(root.join("proc/kcore"));
    let is_read = kcore.and_then(|f| f.take(KCORE_HEAD_BYTES as u64).read_to_end(&mut head)).is_ok();
    let mut map = match KernelMap::parse_kcore(&head, kernel_code) {
        Ok(map) if is_read => map,
        _ => KernelMap::default(),
    };
    // Only then: it is 10 MB of text.
    if map.text.is_none()
        && let Ok(text) = fs::read_to_string(root.join("proc/kallsyms"))
    {
        map.add_kallsyms(&text, kernel_code);
    }
    map
}

fn has_capability(status: &str, capability: u32) -> bool {
    let effective = status.lines().find_map(|l| l.strip_prefix("CapEff:"));
    effective.and_then(sysfs::parse_hex).is_some_and(|mask| mask >> capability & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iomem::tests::SAMPLE;

    /// Check that a directory of files is read as a machine, and that missing files are missing facts.
    #[test]
    fn a_directory_of_files_is_a_machine() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("proc/iomem", SAMPLE);
        write("proc/cmdline", "console=ttyS0 crashkernel=256M\n");
        write("proc/self/status", "Name:\tx\nCapEff:\t000001ffffffffff\n");
        write("proc/cpuinfo", "processor\t: 0\nflags\t\t: fpu la57 sev_es\n");
        write("sys/kernel/kexec_crash_size", "268435456\n");
        write("sys/kernel/vmcoreinfo", "0x000000000487a000 1024\n");
        write("sys/devices/system/cpu/cpu1/crash_notes", "1f72d5c0\n");
        write("sys/devices/system/cpu/cpu1/crash_notes_size", "368\n");
        write("sys/devices/system/cpu/cpu0/crash_notes", "1f62d5c0\n");
        write("sys/devices/system/cpu/cpu0/crash_notes_size", "368\n");
        write("sys/devices/system/cpu/crash_hotplug", "1\n");

        let machine = Machine::read(dir.path()).unwrap();
        assert_eq!(machine.crash_size, Some(256 << 20));
        assert_eq!(machine.crash_notes.iter().map(|n| n.0).collect::<Vec<_>>(), [0, 1]);
        assert!(machine.has_crash_hotplug && machine.has_cap_sys_boot);
        assert_eq!(machine.is_crash_loaded, None);
        assert!(machine.has_5_level_paging() && machine.encrypted_guest().is_none());
        assert_eq!(machine.kernel_map, KernelMap::default());
    }

    /// Check the order, and that the word of the command line counts first, as for the kernel.
    #[test]
    fn the_root_of_acpi_is_looked_for_in_three_places() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, bytes: &[u8]| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        };
        let rsdp = || Machine::read(dir.path()).unwrap().rsdp.map(|at| at.0);
        write("proc/iomem", SAMPLE.as_bytes());
        assert_eq!(rsdp(), None);
        write("sys/firmware/efi/systab", b"ACPI20=0x7f9fe014\nACPI=0x7f9fe000\n");
        assert_eq!(rsdp(), Some(0x7f9f_e014));
        let mut params = [0; 4096];
        params[0x70..0x74].copy_from_slice(&[0x14, 0xe0, 0xb7, 0x7f]);
        write("sys/kernel/boot_params/data", &params);
        assert_eq!(rsdp(), Some(0x7fb7_e014));
        write("proc/cmdline", b"quiet acpi_rsdp=0x7fffe014\n");
        assert_eq!(rsdp(), Some(0x7fff_e014));
    }

    #[test]
    fn a_machine_without_iomem_is_an_error_with_the_path() {
        let error = Machine::read(Path::new("/nonexistent")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/proc/iomem"), "{error}");
    }

    #[test]
    fn an_encrypted_guest_is_told_from_a_host_that_can_run_one() {
        let guest = |flags: &str, sev_status| {
            let cpu_flags = flags.split(' ').map(str::to_owned).collect();
            Machine { cpu_flags, sev_status, ..Machine::default() }.encrypted_guest()
        };
        assert_eq!(guest("sme sev sev_es sev_snp", None), None);
        assert_eq!(guest("hypervisor sev", None), None);
        assert_eq!(guest("hypervisor sev sev_es", None), Some("SEV-ES"));
        assert_eq!(guest("hypervisor sev sev_es sev_snp", None), Some("SEV-SNP"));
        assert_eq!(guest("hypervisor sev sev_es sev_snp", Some(0b011)), Some("SEV-ES"));
        assert_eq!(guest("hypervisor sev sev_es sev_snp", Some(0)), None);
        assert_eq!(guest("hypervisor tdx_guest", None), Some("TDX"));
    }

    #[test]
    fn capabilities_are_bits() {
        assert!(has_capability("CapEff:\t0000000000400000\n", CAP_SYS_BOOT));
        assert!(!has_capability("CapEff:\t0000000000000000\n", CAP_SYS_BOOT));
    }
}

//! Facts of the running system that only `doctor` asks for: sysctls, watchdogs, services, installed kernels.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::space::Memory;
use crate::machine;

/// What is read of /proc/sys.
const SYSCTLS: [&str; 13] = [
    "kernel.panic",
    "kernel.panic_on_oops",
    "kernel.softlockup_panic",
    "kernel.hardlockup_panic",
    "kernel.hung_task_panic",
    "kernel.hung_task_timeout_secs",
    "kernel.watchdog",
    "kernel.watchdog_thresh",
    "kernel.nmi_watchdog",
    "kernel.unknown_nmi_panic",
    "kernel.panic_on_io_nmi",
    "vm.panic_on_oom",
    "kernel.panic_on_warn",
];

/// Services of others that load a capture kernel: Debian, Fedora, SUSE.
const OTHER_SERVICES: [&str; 4] =
    ["kdump-tools.service", "kdump.service", "kdump-early.service", "kexec-load.service"];

const OUR_SERVICE: &str = "kdump-rs.service";

/// Records of the kernel log that are looked through, and bytes of one.
const MAX_RECORDS: usize = 20_000;
const RECORD_BYTES: usize = 8192;

/// What was read.
#[derive(Clone, Debug, Default)]
pub struct System {
    /// By name; what the kernel does not have is missing.
    pub sysctls: BTreeMap<&'static str, i64>,
    /// crash_kexec_post_notifiers.
    pub has_post_notifiers: bool,
    /// Watchdog devices.
    pub watchdogs: Vec<Watchdog>,
    /// Whether systemd runs this system.
    pub has_systemd: bool,
    /// Whether our service is enabled.
    pub is_service_enabled: bool,
    /// Services of other tools that are enabled.
    pub other_services: Vec<String>,
    /// Whether kexec(8) is this program.
    pub is_kexec_ours: bool,
    /// The newest kernel in /boot.
    pub newest_kernel: Option<String>,
    /// What the kernel said of `crashkernel=` at boot, as far as its log goes back.
    pub crashkernel_log: Vec<String>,
    /// Whether the kernel keeps a loaded elfcorehdr up to date, for CPUs and for memory.
    pub hotplug: [Option<bool>; 2],
    /// What RAM is used for.
    pub memory: Option<Memory>,
}

/// A watchdog device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watchdog {
    /// `watchdog0`.
    pub name: String,
    /// What its driver calls it.
    pub identity: String,
    /// Whether it counts; `None` where the kernel does not tell.
    pub is_active: Option<bool>,
    /// Seconds until it resets the machine.
    pub timeout: Option<u64>,
}

impl System {
    /// Reads the system under `root`.
    #[must_use]
    pub fn read(root: &Path) -> Self {
        let text = |path: &str| fs::read_to_string(root.join(path)).ok();
        let sysctls = SYSCTLS.iter().filter_map(|&name| {
            let path = format!("proc/sys/{}", name.replacen('.', "/", 1));
            Some((name, text(&path)?.trim().parse().ok()?))
        });
        let notifiers = text("sys/module/kernel/parameters/crash_kexec_post_notifiers");
        Self {
            sysctls: sysctls.collect(),
            has_post_notifiers: notifiers.is_some_and(|value| matches!(value.trim(), "Y" | "1")),
            watchdogs: read_watchdogs(&root.join("sys/class/watchdog")),
            has_systemd: root.join("run/systemd/system").is_dir(),
            is_service_enabled: is_enabled(root, OUR_SERVICE),
            other_services: OTHER_SERVICES
                .into_iter()
                .filter(|service| is_enabled(root, service))
                .map(str::to_owned)
                .collect(),
            is_kexec_ours: ["usr/sbin/kexec", "sbin/kexec"]
                .iter()
                .any(|path| fs::canonicalize(root.join(path)).is_ok_and(|path| path.ends_with("kdump-rs"))),
            newest_kernel: newest_kernel(&root.join("boot")),
            crashkernel_log: read_log(&root.join("dev/kmsg")),
            hotplug: machine::crash_hotplug(root),
            memory: Memory::read(&root.join("proc/meminfo")),
        }
    }

    /// A sysctl's value.
    #[must_use]
    pub fn sysctl(&self, name: &str) -> Option<i64> {
        self.sysctls.get(name).copied()
    }
}

fn read_watchdogs(dir: &Path) -> Vec<Watchdog> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries
        .filter_map(|entry| {
            let text = |name: &str| fs::read_to_string(entry.path().join(name)).ok();
            Some(Watchdog {
                name: entry.file_name().into_string().ok()?,
                identity: text("identity").unwrap_or_default().trim().to_owned(),
                is_active: text("state").map(|state| state.trim() == "active"),
                timeout: text("timeout").and_then(|timeout| timeout.trim().parse().ok()),
            })
        })
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

/// Whether a target wants the service: a link in its directory.
fn is_enabled(root: &Path, service: &str) -> bool {
    ["etc/systemd/system", "usr/lib/systemd/system"].iter().any(|dir| {
        let wants = fs::read_dir(root.join(dir)).into_iter().flatten().flatten().map(|entry| entry.path());
        wants
            .filter(|path| path.extension().is_some_and(|e| e == "wants" || e == "requires"))
            .any(|path| fs::symlink_metadata(path.join(service)).is_ok())
    })
}

fn newest_kernel(boot: &Path) -> Option<String> {
    let entries = fs::read_dir(boot).ok()?.flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let releases = names.filter_map(|name| Some(name.strip_prefix("vmlinuz-")?.to_owned()));
    // `vmlinuz-0-rescue-…` and what a package manager keeps are none to boot by default.
    let is_kernel = |release: &String| !release.starts_with("0-rescue") && !release.ends_with(".old");
    releases.filter(is_kernel).max_by(|a, b| compare(a, b))
}

/// Compares releases as people do: numbers as numbers.
pub(super) fn compare(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (parts(a).into_iter(), parts(b).into_iter());
    loop {
        return match (a.next(), b.next()) {
            (None, None) => Ordering::Equal,
            // `6.1-rc1` comes before `6.1`, `6.1-2` after it.
            (Some(part), None) => {
                if part.1.starts_with("-rc") {
                    Ordering::Less
                } else {
                    Ordering::Greater
                }
            }
            (None, Some(part)) => {
                if part.1.starts_with("-rc") {
                    Ordering::Greater
                } else {
                    Ordering::Less
                }
            }
            (Some(a), Some(b)) if a == b => continue,
            (Some((a, x)), Some((b, y))) => a.cmp(&b).then_with(|| x.cmp(y)),
        };
    }
}

/// Each number, and the text before it.
fn parts(release: &str) -> Vec<(u64, &str)> {
    let mut found = Vec::new();
    let mut rest = release;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let end = rest[digits..].find(|c: char| !c.is_ascii_digit()).map_or(rest.len(), |end| digits + end);
        found.push((rest[digits..end].parse().unwrap_or(0), &rest[..digits]));
        rest = &rest[end..];
    }
    found
}

/// Lines of the kernel log that name crashkernel; a record is one read of the device.
///
/// Source: Documentation/ABI/testing/dev-kmsg.
fn read_log(path: &Path) -> Vec<String> {
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let Ok(mut log) = OpenOptions::new().read(true).custom_flags(nonblocking).open(path) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    let mut record = vec![0; RECORD_BYTES];
    for _ in 0..MAX_RECORDS {
        match log.read(&mut record) {
            Ok(0) => break,
            Ok(len) => {
                let text = String::from_utf8_lossy(&record[..len]);
                for line in text.lines() {
                    let line = line.split_once(';').map_or(line, |(_, text)| text);
                    let is_about =
                        line.to_ascii_lowercase().contains("crashkernel") || line.contains("crash kernel");
                    if is_about && !line.contains("ommand line") {
                        found.push(line.to_owned());
                    }
                }
            }
            // EPIPE: that record was overwritten; the next read gets the one after.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
            Err(_) => break,
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_directory_of_files_is_a_system() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("proc/sys/kernel/panic_on_oops", "1\n");
        write("proc/sys/vm/panic_on_oom", "0\n");
        write("sys/module/kernel/parameters/crash_kexec_post_notifiers", "Y\n");
        write("sys/class/watchdog/watchdog0/identity", "iTCO_wdt\n");
        write("sys/class/watchdog/watchdog0/state", "active\n");
        write("sys/class/watchdog/watchdog0/timeout", "30\n");
        write("sys/devices/system/cpu/crash_hotplug", "1\n");
        for release in ["6.1.0-9-amd64", "6.1.0-10-amd64", "0-rescue-1234"] {
            write(&format!("boot/vmlinuz-{release}"), "");
        }
        write(
            "dev/kmsg",
            "6,1,0,-;Command line: crashkernel=8G\n6,2,0,-;crashkernel reservation failed - No suitable area found.\n",
        );
        let wants = root.path().join("etc/systemd/system/multi-user.target.wants");
        fs::create_dir_all(&wants).unwrap();
        symlink("/lib/systemd/system/kdump-tools.service", wants.join("kdump-tools.service")).unwrap();
        fs::create_dir_all(root.path().join("usr/sbin")).unwrap();
        write("usr/sbin/kdump-rs", "");
        symlink("kdump-rs", root.path().join("usr/sbin/kexec")).unwrap();

        let system = System::read(root.path());
        assert_eq!(system.sysctl("kernel.panic_on_oops"), Some(1));
        assert_eq!(system.sysctl("vm.panic_on_oom"), Some(0));
        assert_eq!(system.sysctl("kernel.panic"), None);
        assert!(system.has_post_notifiers && system.is_kexec_ours && !system.is_service_enabled);
        let watchdog = Watchdog {
            name: "watchdog0".into(),
            identity: "iTCO_wdt".into(),
            is_active: Some(true),
            timeout: Some(30),
        };
        assert_eq!(system.watchdogs, [watchdog]);
        assert_eq!(system.hotplug, [Some(true), None]);
        assert_eq!(system.newest_kernel.as_deref(), Some("6.1.0-10-amd64"));
        assert_eq!(system.other_services, ["kdump-tools.service"]);
        assert_eq!(system.crashkernel_log, ["crashkernel reservation failed - No suitable area found."]);
    }

    #[test]
    fn releases_compare_by_their_numbers() {
        let sorted = [
            "5.10.0-30-amd64",
            "6.1.0-9-amd64",
            "6.1.0-10-amd64",
            "6.12.107+deb13-amd64",
            "6.12.117+deb13-amd64",
            "7.3.4",
        ];
        for pair in sorted.windows(2) {
            assert_eq!(compare(pair[0], pair[1]), Ordering::Less, "{pair:?}");
            assert_eq!(compare(pair[1], pair[0]), Ordering::Greater, "{pair:?}");
        }
        assert_eq!(compare("7.3-rc1", "7.3"), Ordering::Less);
        assert_eq!(compare("7.3.4", "7.3.4"), Ordering::Equal);
    }
}

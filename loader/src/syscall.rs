//! Performing a plan: kexec_load(2), kexec_file_load(2), and what its errors mean.
//!
//! Everything checkable has been checked by [`crate::preflight`] and [`crate::plan`]: the kernel
//! frees the old crash image before it validates the new one, so a refused load leaves none.
//!
//! Source: kernel/kexec.c (`do_kexec_load`, `kexec_load_check`), include/uapi/linux/kexec.h.

// UNSAFETY: the two system calls have no wrapper; they are given pointers to segments' bytes and to a text.
#![expect(unsafe_code)]

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use kdump_arch_x86::{PhysAddr, PhysRange};
use rustix::fs::{MemfdFlags, memfd_create};

use crate::machine::Machine;
use crate::normal::NormalPlan;
use crate::plan::{KEXEC_ON_CRASH, LoadPlan};
use crate::sysfs::Lockdown;

/// How long a busy kexec is waited for; another loader's hashing can take seconds.
const BUSY_LIMIT: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Flags of kexec_file_load(2).
const KEXEC_FILE_UNLOAD: u64 = 1;
const KEXEC_FILE_ON_CRASH: u64 = 2;
const KEXEC_FILE_NO_INITRAMFS: u64 = 4;

/// The kernel's refusal, with the remedy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// EPERM without CAP_SYS_BOOT.
    #[error("the kernel refused (EPERM): this needs root, with CAP_SYS_BOOT")]
    NotRoot,
    /// EPERM by lockdown.
    #[error(
        "the kernel refused (EPERM): it is locked down ({level}), usually by Secure Boot, and kexec_load then \
         takes no image; turn Secure Boot off or boot with lockdown=none"
    )]
    LockedDown {
        /// The level, as far as known.
        level: &'static str,
    },
    /// EPERM by sysctl.
    #[error("the kernel refused (EPERM): kernel.kexec_load_disabled is 1, and only a reboot clears it")]
    Disabled,
    /// EPERM by the counter of loads.
    #[error("the kernel refused (EPERM): {sysctl} is used up, and only a reboot raises it")]
    LimitReached {
        /// Which counter.
        sysctl: &'static str,
    },
    /// EPERM, cause unknown.
    #[error(
        "the kernel refused (EPERM) though root may: a security module (SELinux, IMA, a container's seccomp) \
         forbids kexec_load"
    )]
    Forbidden,
    /// EBUSY to the end.
    #[error("another kexec operation was under way for {} s (EBUSY, {tries} tries): try again when it is done", .waited.as_secs())]
    Busy {
        /// Calls made.
        tries: u32,
        /// Time spent.
        waited: Duration,
    },
    /// EADDRNOTAVAIL.
    #[error(
        "a segment lies outside the memory the kernel allows (EADDRNOTAVAIL): was the crashkernel memory \
         shrunk meanwhile? compare arm --dry-run with \"Crash kernel\" in /proc/iomem"
    )]
    AddressNotAvailable,
    /// EINVAL.
    #[error(
        "the kernel found the segments or flags {flags:#x} invalid (EINVAL): please report it with arm --dry-run --json"
    )]
    Invalid {
        /// Flags given.
        flags: u64,
    },
    /// ENOMEM.
    #[error(
        "the kernel found no room for its control pages (ENOMEM): raise crashkernel= and reboot, or free memory"
    )]
    NoMemory,
    /// The kernel found no signature that it trusts.
    #[error(
        "the kernel refused the image for its signature (errno {code}): a locked-down kernel takes only images signed by a          key it has; use the distribution's signed vmlinuz, or enroll the key that yours is signed with (mokutil)"
    )]
    Signature {
        /// EPERM, EKEYREJECTED, ENOKEY, ENODATA, EBADMSG or ENOPKG.
        code: i32,
    },
    /// ENOEXEC of kexec_file_load(2).
    #[error(
        "the kernel did not recognise the image (ENOEXEC): kexec_file_load takes only bzImages with a 64-bit entry"
    )]
    NotBzImage,
    /// EADDRNOTAVAIL of kexec_file_load(2).
    #[error("the kernel found no room for the image (EADDRNOTAVAIL): raise crashkernel= and reboot")]
    NoRoom,
    /// ENOSYS.
    #[error(
        "the kernel has no such system call (ENOSYS): it was built without CONFIG_KEXEC or CONFIG_KEXEC_FILE"
    )]
    NoSyscall,
    /// Any other.
    #[error("kexec_load failed")]
    Other(#[source] io::Error),
}

/// How a load went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Calls it took; more than one when another kexec operation was under way.
    pub tries: u32,
}

/// `struct kexec_segment`.
#[repr(C)]
#[derive(Clone, Copy)]
struct KexecSegment {
    buf: *const u8,
    bufsz: usize,
    mem: u64,
    memsz: usize,
}

impl KexecSegment {
    fn new(at: PhysRange, bytes: &[u8]) -> Self {
        Self { buf: bytes.as_ptr(), bufsz: bytes.len(), mem: at.start().0, memsz: at.len() as usize }
    }
}

/// Loads the plan, replacing what is loaded.
///
/// # Errors
/// [`Error`]. The previous image is gone even then, unless the cause is EPERM, EBUSY or ENOSYS.
pub fn load(plan: &LoadPlan<'_>, machine: &Machine) -> Result<Loaded, Error> {
    let joined = plan.kexec_segments().map_err(|error| Error::Other(io::Error::other(error)))?;
    let segments: Vec<_> = joined.iter().map(|s| KexecSegment::new(s.range, &s.bytes)).collect();
    let tries =
        retry_busy(BUSY_LIMIT, std::thread::sleep, || kexec_load(plan.entry.0, &segments, plan.flags))
            .map_err(|failure| decode(failure, plan.flags, machine))?;
    Ok(Loaded { tries })
}

/// Drops the capture kernel, or the image of an ordinary kexec; no error if none is loaded. Where kexec_load(2) is
/// forbidden, by the other call.
///
/// # Errors
/// [`Error`].
pub fn unload(machine: &Machine, is_crash: bool) -> Result<(), Error> {
    let flags = if is_crash { KEXEC_ON_CRASH } else { 0 };
    match retry_busy(BUSY_LIMIT, std::thread::sleep, || kexec_load(0, &[], flags)) {
        Ok(_) => return Ok(()),
        Err(failure) => match decode(failure, flags, machine) {
            Error::LockedDown { .. } => {}
            error => return Err(error),
        },
    }
    let file_flags = KEXEC_FILE_UNLOAD | if is_crash { KEXEC_FILE_ON_CRASH } else { 0 };
    retry_busy(BUSY_LIMIT, std::thread::sleep, || kexec_file_load([-1, -1], c"", file_flags))
        .map_err(|failure| decode_file(failure, is_crash, machine))?;
    Ok(())
}

/// Loads an image by kexec_file_load(2), replacing what is loaded. `flags` is 0 or KEXEC_ON_CRASH (which
/// KEXEC_FILE_ON_CRASH is called here).
///
/// # Errors
/// [`Error`]. The image before is gone even then, where the kernel came to free it.
pub fn load_files(
    kernel: &File,
    initramfs: &[u8],
    cmdline: &str,
    flags: u64,
    machine: &Machine,
) -> Result<Loaded, Error> {
    let is_crash = flags & KEXEC_ON_CRASH != 0;
    let initrd = memory_file(initramfs)?;
    let text = CString::new(cmdline).map_err(|error| Error::Other(io::Error::other(error)))?;
    let mut file_flags = if is_crash { KEXEC_FILE_ON_CRASH } else { 0 };
    if initramfs.is_empty() {
        file_flags |= KEXEC_FILE_NO_INITRAMFS;
    }
    let fds = [kernel.as_raw_fd(), initrd.as_raw_fd()];
    let call = || kexec_file_load(fds, &text, file_flags);
    let tries = retry_busy(BUSY_LIMIT, std::thread::sleep, call)
        .map_err(|failure| decode_file(failure, is_crash, machine))?;
    Ok(Loaded { tries })
}

/// A file that is nowhere but in memory, for what was unpacked or built there.
///
/// # Errors
/// [`Error::Other`].
pub fn memory_file(bytes: &[u8]) -> Result<File, Error> {
    let file = memfd_create("kdump-rs", MemfdFlags::CLOEXEC).map(File::from);
    let mut file = file.map_err(|errno| Error::Other(errno.into()))?;
    file.write_all(bytes).map_err(Error::Other)?;
    Ok(file)
}

/// `fds` are the kernel and the initramfs.
fn kexec_file_load(fds: [i32; 2], cmdline: &CStr, flags: u64) -> io::Result<()> {
    let len = cmdline.to_bytes_with_nul().len();
    // SAFETY: descriptors that are not open are an error, and the kernel reads `len` bytes at the text's address, its
    // NUL included. It writes only to memory outside this process.
    let result =
        unsafe { libc::syscall(libc::SYS_kexec_file_load, fds[0], fds[1], len, cmdline.as_ptr(), flags) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn decode_file(failure: Failure, is_crash: bool, machine: &Machine) -> Error {
    match failure.error.raw_os_error() {
        Some(code @ (libc::EKEYREJECTED | libc::ENOKEY | libc::ENODATA | libc::EBADMSG | libc::ENOPKG)) => {
            Error::Signature { code }
        }
        Some(libc::EPERM) => match decode_permission(machine, is_crash) {
            Error::LockedDown { .. } => Error::Signature { code: libc::EPERM },
            other => other,
        },
        Some(libc::ENOEXEC) => Error::NotBzImage,
        Some(libc::EADDRNOTAVAIL) => Error::NoRoom,
        _ => decode(failure, if is_crash { KEXEC_ON_CRASH } else { 0 }, machine),
    }
}

/// Loads one segment for an ordinary kexec, replacing what is loaded. Its bytes fill `at`.
///
/// # Errors
/// [`Error`].
pub fn load_one(entry: PhysAddr, at: PhysRange, bytes: &[u8], machine: &Machine) -> Result<Loaded, Error> {
    load_segments(entry, &[KexecSegment::new(at, bytes)], machine)
}

/// Loads an image for an ordinary kexec, replacing what is loaded.
///
/// # Errors
/// [`Error`]. The image before is gone even then, unless the cause is EPERM, EBUSY or ENOSYS.
pub fn load_normal(plan: &NormalPlan<'_>, machine: &Machine) -> Result<Loaded, Error> {
    let segments: Vec<_> = plan.segments.iter().map(|s| KexecSegment::new(s.range, &s.bytes)).collect();
    load_segments(plan.entry, &segments, machine)
}

fn load_segments(entry: PhysAddr, segments: &[KexecSegment], machine: &Machine) -> Result<Loaded, Error> {
    let tries = retry_busy(BUSY_LIMIT, std::thread::sleep, || kexec_load(entry.0, segments, 0))
        .map_err(|failure| decode(failure, 0, machine))?;
    Ok(Loaded { tries })
}

fn kexec_load(entry: u64, segments: &[KexecSegment], flags: u64) -> io::Result<()> {
    // SAFETY: the kernel reads `segments.len()` structures of this layout and, for each, `bufsz`
    // bytes at `buf`; both are borrowed for the call. It writes only to memory outside this
    // process, the crashkernel region, which no Rust object occupies.
    let result =
        unsafe { libc::syscall(libc::SYS_kexec_load, entry, segments.len(), segments.as_ptr(), flags) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

struct Failure {
    error: io::Error,
    tries: u32,
    waited: Duration,
}

/// Calls until it is not EBUSY or the time is over; gives the number of calls. The kernel only
/// tries its lock, so waiting is ours to do.
fn retry_busy(
    limit: Duration,
    sleep: impl Fn(Duration),
    mut call: impl FnMut() -> io::Result<()>,
) -> Result<u32, Failure> {
    let start = Instant::now();
    let mut pause = FIRST_PAUSE;
    let mut paused = Duration::ZERO;
    for tries in 1.. {
        match call() {
            Ok(()) => return Ok(tries),
            Err(error) => {
                let waited = start.elapsed().max(paused);
                if error.raw_os_error() != Some(libc::EBUSY) || waited >= limit {
                    return Err(Failure { error, tries, waited });
                }
            }
        }
        sleep(pause);
        paused += pause;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    unreachable!("the loop ends by its limit")
}

fn decode(failure: Failure, flags: u64, machine: &Machine) -> Error {
    match failure.error.raw_os_error() {
        Some(libc::EPERM) => decode_permission(machine, flags & KEXEC_ON_CRASH != 0),
        Some(libc::EBUSY) => Error::Busy { tries: failure.tries, waited: failure.waited },
        Some(libc::EADDRNOTAVAIL) => Error::AddressNotAvailable,
        Some(libc::EINVAL) => Error::Invalid { flags },
        Some(libc::ENOMEM) => Error::NoMemory,
        Some(libc::ENOSYS) => Error::NoSyscall,
        _ => Error::Other(failure.error),
    }
}

/// Which of the kernel's reasons for EPERM holds, in the order in which it asks.
pub(crate) fn decode_permission(machine: &Machine, is_for_crash: bool) -> Error {
    let (sysctl, limit) = match is_for_crash {
        true => ("kernel.kexec_load_limit_panic", machine.load_limit),
        false => ("kernel.kexec_load_limit_reboot", machine.load_limit_reboot),
    };
    if !machine.has_cap_sys_boot {
        Error::NotRoot
    } else if machine.is_load_disabled {
        Error::Disabled
    } else if limit == Some(0) {
        Error::LimitReached { sysctl }
    } else {
        match machine.lockdown {
            Some(Lockdown::Integrity) => Error::LockedDown { level: "integrity" },
            Some(Lockdown::Confidentiality) => Error::LockedDown { level: "confidentiality" },
            // boot_params says Secure Boot is on (3): Debian's kernels then lock down.
            None if machine.boot_params.as_ref().is_some_and(|b| b.secure_boot == 3) => {
                Error::LockedDown { level: "level unknown, securityfs is not mounted" }
            }
            _ => Error::Forbidden,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    fn os(code: i32) -> io::Result<()> {
        Err(io::Error::from_raw_os_error(code))
    }

    #[test]
    fn a_busy_kexec_is_tried_again_with_growing_pauses() {
        let pauses = RefCell::new(Vec::new());
        let mut calls = 0;
        let tries = retry_busy(
            BUSY_LIMIT,
            |p| pauses.borrow_mut().push(p.as_millis()),
            || {
                calls += 1;
                if calls < 5 { os(libc::EBUSY) } else { Ok(()) }
            },
        );
        assert_eq!(tries.ok(), Some(5));
        assert_eq!(*pauses.borrow(), [5, 10, 20, 40]);
    }

    #[test]
    fn a_kexec_that_stays_busy_ends_within_the_limit() {
        let failure = retry_busy(BUSY_LIMIT, |_| {}, || os(libc::EBUSY)).err().unwrap();
        assert!(failure.tries < 40);
        let error = decode(failure, 1, &Machine::default());
        assert!(matches!(error, Error::Busy { .. }), "{error}");
    }

    #[test]
    fn eperm_has_its_cause_decoded() {
        let with = |edit: fn(&mut Machine)| {
            let mut machine = Machine { has_cap_sys_boot: true, ..Machine::default() };
            edit(&mut machine);
            decode_permission(&machine, true)
        };
        assert!(matches!(with(|m| m.has_cap_sys_boot = false), Error::NotRoot));
        assert!(matches!(with(|m| m.is_load_disabled = true), Error::Disabled));
        assert!(matches!(with(|m| m.load_limit = Some(0)), Error::LimitReached { .. }));
        let machine = Machine { has_cap_sys_boot: true, load_limit_reboot: Some(0), ..Machine::default() };
        let reboot = decode_permission(&machine, false).to_string();
        assert!(reboot.contains("kexec_load_limit_reboot"), "{reboot}");
        assert!(matches!(with(|m| m.lockdown = Some(Lockdown::Integrity)), Error::LockedDown { .. }));
        assert!(matches!(with(|_| {}), Error::Forbidden));
    }
}

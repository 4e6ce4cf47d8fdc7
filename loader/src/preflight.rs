//! What would make a load fail whatever the plan: checked first, each with its remedy.

use crate::machine::Machine;
use crate::syscall;

const MIB: u64 = 1 << 20;

/// What stands in the way.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// /proc/iomem shows zeros.
    #[error(
        "not root: /proc/iomem hides addresses from this user, so nothing can be planned; run it as root"
    )]
    NotRoot,
    /// `crashkernel=` is missing.
    #[error(
        "no memory is reserved for a capture kernel: add crashkernel={megabytes}M to the kernel command line \
         (GRUB_CMDLINE_LINUX in /etc/default/grub, then update-grub) and reboot"
    )]
    NoReservation {
        /// A size that would do.
        megabytes: u64,
    },
    /// `crashkernel=` is there, the memory is not.
    #[error(
        "the command line says crashkernel={asked}, but no memory was reserved: the kernel found no free range of \
         that size (dmesg says why), or kexec_crash_size was written to; ask for less, or crashkernel={asked},high"
    )]
    ReservationFailed {
        /// The parameter's value.
        asked: String,
    },
    /// CONFIG_KEXEC is off.
    #[error(
        "no memory is reserved for a capture kernel, and this kernel ({release}) could not use any: it has no \
         /sys/kernel/kexec_crash_size, so it was built without crash kexec (CONFIG_KEXEC, CONFIG_CRASH_DUMP). Boot a \
         kernel that has it, with crashkernel={megabytes}M on its command line"
    )]
    NoKexec {
        /// The running kernel.
        release: String,
        /// A size that would do.
        megabytes: u64,
    },
    /// The panic path cannot run here.
    #[error(
        "this is a {kind} guest: after a panic, CPUID and port I/O raise exceptions that only the crashed kernel \
         could handle, so the capture kernel would not be reached; such guests cannot be armed, so far"
    )]
    EncryptedGuest {
        /// SEV-ES and the like.
        kind: &'static str,
    },
    /// kexec_load(2) would be refused.
    #[error(transparent)]
    Refused(#[from] syscall::Error),
}

/// A size that does for most machines, where the image is not known.
const USUAL_BYTES: u64 = 256 * MIB;

/// Checks that there is memory to load into, and that it can be seen. `recommended` is the size
/// that the chosen kernel needs, if it is known.
///
/// # Errors
/// [`Error`].
pub fn check_reservation(machine: &Machine, recommended: Option<u64>) -> Result<(), Error> {
    if machine.iomem.is_hidden() {
        return Err(Error::NotRoot);
    }
    if !machine.iomem.crash_kernel().is_empty() {
        return Ok(());
    }
    let megabytes = recommended.unwrap_or(USUAL_BYTES).div_ceil(MIB);
    if machine.crash_size.is_none() {
        return Err(Error::NoKexec { release: machine.release.clone(), megabytes });
    }
    let asked = machine.cmdline.split_whitespace().filter_map(|w| w.strip_prefix("crashkernel=")).next_back();
    Err(match asked {
        Some(asked) => Error::ReservationFailed { asked: asked.to_owned() },
        None => Error::NoReservation { megabytes },
    })
}

/// Checks that the panic path can run on this machine.
///
/// # Errors
/// [`Error::EncryptedGuest`].
pub fn check_panic_path(machine: &Machine) -> Result<(), Error> {
    machine.encrypted_guest().map_or(Ok(()), |kind| Err(Error::EncryptedGuest { kind }))
}

/// Predicts EPERM of a load for a panic or for an ordinary kexec: capability, sysctls, lockdown.
///
/// # Errors
/// [`Error::Refused`], decoded as if the kernel had said it.
pub fn check_permission(machine: &Machine, is_for_crash: bool) -> Result<(), Error> {
    match syscall::decode_permission(machine, is_for_crash) {
        // No reason is known: let the kernel decide.
        syscall::Error::Forbidden => Ok(()),
        reason => Err(reason.into()),
    }
}

/// The same for kexec_file_load(2), which lockdown alone does not forbid: it checks signatures.
///
/// # Errors
/// [`Error::Refused`].
pub fn check_file_permission(machine: &Machine) -> Result<(), Error> {
    match syscall::decode_permission(machine, true) {
        syscall::Error::Forbidden | syscall::Error::LockedDown { .. } => Ok(()),
        reason => Err(reason.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iomem::{Iomem, tests::SAMPLE};

    fn machine(iomem: &str) -> Machine {
        Machine { iomem: Iomem::parse(iomem.as_bytes()).unwrap(), crash_size: Some(0), ..Machine::default() }
    }

    #[test]
    fn a_reservation_passes() {
        assert!(check_reservation(&machine(SAMPLE), None).is_ok());
    }

    #[test]
    fn an_encrypted_guest_is_refused_by_its_name() {
        let mut machine = machine(SAMPLE);
        assert!(check_panic_path(&machine).is_ok());
        machine.cpu_flags = vec!["tdx_guest".into()];
        assert!(check_panic_path(&machine).unwrap_err().to_string().contains("TDX guest"));
    }

    #[test]
    fn each_lack_of_memory_has_its_own_message() {
        let without = SAMPLE.lines().filter(|l| !l.contains("Crash")).collect::<Vec<_>>().join("\n");
        let error = |m: &Machine| check_reservation(m, Some(150 * MIB)).unwrap_err();
        let mut machine = machine(&without);
        assert!(matches!(error(&machine), Error::NoReservation { megabytes: 150 }));
        machine.cmdline = "quiet crashkernel=8G".into();
        assert!(matches!(error(&machine), Error::ReservationFailed { asked } if asked == "8G"));
        machine.crash_size = None;
        assert!(matches!(error(&machine), Error::NoKexec { .. }));
        machine.iomem = Iomem::parse(b"00000000-00000000 : System RAM\n").unwrap();
        assert!(matches!(error(&machine), Error::NotRoot));
    }
}

//! The crashed kernel's `utsname`, for the dump's header.

use kdump_arch_x86::VirtAddr;
use kdump_vmcore::Dump;
use kdump_vmcore::kdump::defs::Utsname;
use zerocopy::{FromBytes as _, FromZeros as _};

/// Before 5.11 a reference count came first, and VMCOREINFO does not say where the name is.
const NAME_OFFSET_5_10: u64 = 4;

/// Reads `init_uts_ns.name`. Where that is not to be had, the release from VMCOREINFO and the machine,
/// without which crash(8) takes the dump for another architecture's.
pub(crate) fn read(dump: &Dump) -> Utsname {
    from_memory(dump).unwrap_or_else(|| {
        let mut uts = match dump.kdump() {
            Some(kdump) => kdump.info().utsname,
            None => Utsname::new_zeroed(),
        };
        put(&mut uts.machine, "x86_64");
        if let Some(release) = dump.vmcoreinfo().and_then(|i| i.osrelease()) {
            put(&mut uts.release, release);
        }
        uts
    })
}

fn from_memory(dump: &Dump) -> Option<Utsname> {
    let info = dump.vmcoreinfo()?;
    let at = VirtAddr(info.symbol("init_uts_ns")?)
        .checked_add(info.offset("uts_namespace.name").unwrap_or(NAME_OFFSET_5_10))?;
    let mem = dump.kernel().ok()?;
    let mut raw = [0; size_of::<Utsname>()];
    mem.read(at, &mut raw).ok()?;
    let uts = Utsname::read_from_bytes(&raw).ok()?;
    (uts.machine.starts_with(b"x86_64") && uts.sysname.starts_with(b"Linux")).then_some(uts)
}

fn put(field: &mut [u8; 65], text: &str) {
    *field = [0; 65];
    for (to, from) in field[..64].iter_mut().zip(text.bytes()) {
        *to = from;
    }
}

//! Why no plan can be made.

use kdump_arch_x86::control_page;
use kdump_arch_x86::paging::identity;
use kdump_arch_x86::{PhysAddr, PhysRange};
use kdump_panic_kernel::handoff::HandoffError;
use kdump_panic_kernel::kimage;

use super::layout::MIB;
use crate::{boot_params, cmdline, elfcorehdr, panic_image};

/// Why no plan can be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `crashkernel=` is missing.
    #[error("no memory is reserved for a capture kernel; this one needs crashkernel={}M or more on the kernel command line", .need.div_ceil(MIB))]
    NoReservation {
        /// Bytes that would do.
        need: u64,
    },
    /// The reservation is too small.
    #[error(
        "the capture kernel needs {} MiB of crashkernel memory to be loaded ({largest} bytes for {tag}, {rest} \
         bytes for all else and control pages) and more to run, {region} has {} MiB: reboot with \
         crashkernel={}M", .need.div_ceil(MIB), .have / MIB, .recommended.div_ceil(MIB)
    )]
    TooSmall {
        /// Bytes that would do for loading.
        need: u64,
        /// Bytes there are.
        have: u64,
        /// What takes most of `need`.
        tag: &'static str,
        /// Of `need`: that.
        largest: u64,
        /// Of `need`: all else.
        rest: u64,
        /// Bytes to live in.
        recommended: u64,
        /// The region.
        region: PhysRange,
    },
    /// A piece with an address of its own lies elsewhere, or on another one.
    #[error(
        "{tag} must lie at {range}, which is not free crashkernel memory: {region} is all there is, and nothing \
         else may lie there"
    )]
    NotFree {
        /// The piece.
        tag: &'static str,
        /// Where it must lie.
        range: PhysRange,
        /// The region.
        region: PhysRange,
    },
    /// kexec_load(2) refuses more than half of the RAM that the kernel manages.
    #[error("the segments take {need} bytes, the kernel allows no more than half of its RAM, {have} bytes")]
    MoreThanHalf {
        /// Bytes of all segments.
        need: u64,
        /// Bytes allowed.
        have: u64,
    },
    /// The initramfs is empty.
    #[error("the initramfs is empty")]
    NoInitramfs,
    /// The command line is too long.
    #[error(transparent)]
    Cmdline(#[from] cmdline::TooLong),
    /// elfcorehdr cannot be built.
    #[error(transparent)]
    Elfcorehdr(#[from] elfcorehdr::Error),
    /// boot_params cannot be built.
    #[error(transparent)]
    BootParams(#[from] boot_params::TooManyEntries),
    /// The page tables of the panic path cannot be built.
    #[error("no page tables can be built for the panic path")]
    PageTables(#[from] identity::Error),
    /// The control page cannot be built.
    #[error("no control page can be built for the payload")]
    ControlPage(#[from] control_page::Error),
    /// A payload in 32-bit mode, and crashkernel memory that this mode cannot reach.
    #[error(
        "a payload that is entered in 32-bit mode needs crashkernel memory below 4 GiB, the control page would \
         lie at {at}: reboot with crashkernel=SIZE@ADDRESS or without ,high"
    )]
    ControlPageTooHigh {
        /// Where the control page would lie.
        at: PhysAddr,
    },
    /// kexec_load(2) takes no more than 16.
    #[error("the plan has {count} segments, the kernel takes {max}, and no two of them can be joined")]
    TooManySegments {
        /// Segments that are left.
        count: usize,
        /// Segments allowed.
        max: usize,
    },
    /// Memory outside the reservation that a payload cannot have.
    #[error("the payload cannot be put at {range}: {why}")]
    CannotDisplace {
        /// The memory.
        range: PhysRange,
        /// Why not.
        why: &'static str,
    },
    /// A kernel in 32-bit mode, and memory that this mode cannot reach.
    #[error(
        "a kernel that is entered in 32-bit mode needs all its memory below 4 GiB, this would end at {end}: leave \
         out --entry 32, or reboot with a crashkernel= below 4 GiB"
    )]
    BeyondReach {
        /// Where the memory ends.
        end: PhysAddr,
    },
    /// A vmlinux has one entry.
    #[error("a vmlinux has no 32-bit entry: leave out --entry 32, or name a bzImage")]
    NoEntry32,
    /// More to tell a program than room for it.
    #[error("the program's information takes {need} bytes, room is for {have}: shorten --append")]
    InfoTooLong {
        /// Bytes.
        need: u64,
        /// Bytes there are.
        have: u64,
    },
    /// The pages cannot be moved.
    #[error("no page list can be made for the payload")]
    Kimage(#[from] kimage::PlanError),
    /// The panic-path program cannot be placed.
    #[error("the panic-path program cannot be placed")]
    PanicImage(#[source] panic_image::Error),
    /// The handoff page refuses a value.
    #[error("the handoff page cannot be written")]
    Handoff(#[source] HandoffError),
}

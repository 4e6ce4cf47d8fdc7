//! `kdump-loader` turns this machine and a kernel image into a [`plan::LoadPlan`], and the plan into the system call.
//!
//! May use `kdump-panic-kernel`, `kdump-vmcore` (ELF definitions) and `kdump-arch-x86`. Parsers
//! take bytes; [`machine`] alone reads the running system; [`plan`] is pure; [`syscall`] performs.

pub mod boot_params;
pub mod bzimage;
pub mod cmdline;
pub mod cpio;
pub mod elfcorehdr;
pub mod iomem;
pub mod kernel_map;
pub mod machine;
pub mod modules;
pub mod sysfs;

//! `kdump-loader` turns this machine and a kernel image into a [`plan::LoadPlan`], and the plan into the system call.
//!
//! May use `kdump-panic-kernel`, `kdump-vmcore` (ELF definitions) and `kdump-arch-x86`. Parsers
//! take bytes; [`machine`] reads the running system and [`target`] its disks; [`plan`] is pure;
//! [`syscall`] performs; [`arm`] is all of it in order.

pub mod arm;
pub mod boot_params;
pub mod bzimage;
pub mod cmdline;
pub mod config;
pub mod console;
pub mod cpio;
pub mod doctor;
pub mod efi;
pub mod elfcorehdr;
pub mod image;
pub mod initramfs;
pub mod iomem;
pub mod kernel_map;
pub mod machine;
pub mod modules;
pub mod network;
pub mod normal;
pub mod panic_image;
pub mod partition;
pub mod plan;
pub mod preflight;
pub mod probe;
pub mod program;
pub mod quantity;
pub mod rehearsed;
pub mod reserve;
pub mod setup_data;
pub mod state;
pub mod superblock;
pub mod syscall;
pub mod sysfs;
pub mod target;
pub mod tsc;
pub mod vmlinux;
pub mod watchdog;

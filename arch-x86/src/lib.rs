//! `kdump-arch-x86` turns x86-64 bytes into the CPU's and the boot protocol's types.
//!
//! Definitions and pure arithmetic only: nothing here reads memory, executes a privileged
//! instruction or allocates, so the same code serves the loader, the panic path, the capture
//! filter and the analyzer. Depends on none of our crates.
#![no_std]
#![deny(unsafe_code)]

pub mod addr;
pub mod bootparam;
pub mod control_page;
pub mod paging;
pub mod range;
pub mod regs;

pub use addr::{PAGE_SHIFT, PAGE_SIZE, Pfn, PhysAddr, VirtAddr};
pub use range::PhysRange;

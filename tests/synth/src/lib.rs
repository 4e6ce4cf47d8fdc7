//! Turns a few lines that say what a machine looked like into the bytes of its vmcore.
//!
//! This crate imports none of our other crates: it writes every format from the documents, with its own
//! constants, so that a mistake in a reader is not mirrored by the same mistake in its fixtures.
//!
//! ```
//! let machine = kdump_synth::Machine::linux_6_12();
//! let vmcore = machine.elf_core().bytes();
//! assert_eq!(&vmcore[..4], b"\x7fELF");
//! assert_eq!(machine.task(77).spec.comm, "crasher");
//! ```
//!
//! From the bottom up: [`Memory`] and [`PageTables`] hold bytes; [`Vmcoreinfo`], [`Notes`], [`Kallsyms`], [`Btf`],
//! [`OrcTable`], [`PrintkRing`] and [`PageEncoding`] each write one format; [`MachineSpec`] says what there was, and
//! [`Machine`] puts all of it where a kernel has it; [`ElfCore`] and [`KdumpFile`] make files. It is not a library for
//! production: misuse panics with a sentence.

mod btf;
mod elf_core;
mod kallsyms;
mod kdump;
mod kernel;
mod machine;
mod memory;
mod notes;
mod orc;
mod pages;
mod paging;
mod printk;
mod space;
mod token_table;
mod types;
mod vmcoreinfo;

pub use btf::{Btf, IntEncoding, TypeId, VOID};
pub use elf_core::{ElfCore, Load};
pub use kallsyms::{Kallsyms, KallsymsFormat, OffsetEncoding, Symbol, incompressible_name};
pub use kdump::{Compression, KdumpFile, flatten};
pub use kernel::{CurrentTask, Kernel};
pub use machine::{Cpu, Frame, Machine, MachineSpec, Module, ModuleSpec, Task, TaskSpec};
pub use memory::{Arena, Memory, PAGE_SIZE};
pub use notes::{Notes, Regs};
pub use orc::{OrcEntry, OrcFormat, OrcReg, OrcTable, OrcType};
pub use pages::{
    HeadLink, HugetlbMark, OrderPlace, PageClass, PageEncoding, PageFlags, STRUCT_PAGE, TypeWord,
};
pub use paging::{PageSize, PageTables, flags};
pub use printk::{DescState, PrintkRing, Record};
pub use types::{PercpuVariable, Types};
pub use vmcoreinfo::Vmcoreinfo;

/// The README's examples, as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

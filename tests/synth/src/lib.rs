//! Turns a few lines that say what a machine looked like into the bytes of its vmcore.
//!
//! This crate imports none of our other crates: it writes every format from the documents, with its own
//! constants, so that a mistake in a reader is not mirrored by the same mistake in its fixtures.
//!
//! From the bottom up: [`Memory`] and [`PageTables`] hold bytes; [`Vmcoreinfo`] and [`Notes`] each write one
//! format; [`ElfCore`] makes a file of it. It is not a library for production: misuse panics with a sentence.

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
